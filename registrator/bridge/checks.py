"""SERVICE_CHECK_* -> checks: what an instance's keys say of how it is to be probed.

Every kind that is asked for becomes a check of its own; several may stand on
one instance. The fields that they share (interval, timeout, thresholds ...)
are read once.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from registrator.bridge.bounds import beyond
from registrator.bridge.labels import read_flag, short
from registrator.duration import parse_duration
from registrator.limits import CHECK_HEADERS, CHECK_INTERVAL, CHECK_PATH, CHECK_TEXT, CHECK_TIMEOUT, Limit
from registrator.model import CRITICAL, PASSING, WARNING, Check, Instance, Problem
from registrator.policy import Policy
from registrator.settings import join_host_port

DEFAULT_INTERVAL = 10.0
DEFAULT_TIMEOUT = 10.0  # what both catalogs use where a check has none
LEAST_INTERVAL = 1.0  # Consul raises shorter intervals to this one
LEAST_TIMEOUT = 0.01
LEAST_TTL = 1.0
LEAST_DEREGISTER_AFTER = 60.0  # Consul's own least
MAX_THRESHOLD = 1000

# Values that ask for a check without saying more, as in SERVICE_CHECK_TCP=true.
PLAIN = frozenset(("1", "t", "true", "y", "yes", "on", "any"))
METHOD = re.compile(r"(?!CONNECT$)[A-Z]{1,20}")
FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
# Header fields that say where a request ends or what becomes of its connection: the catalog's own.
FRAMING = frozenset(
    (
        *("accept-encoding", "connection", "content-length", "expect", "http2-settings", "keep-alive"),
        *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    )
)
IN_URL = "%/?#[]@!$&'()*+,;=:~"  # what a path and query may hold as it is, next to letters and digits
LEGACY_HELPER = "check-cmd"  # the script that SERVICE_CHECK_CMD has always been handed to


Header = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class _Request:
    """What the checks of one instance are made from."""

    at: Mapping[str, str]
    instance: Instance
    container: str
    shared: Check  # the fields that all checks share
    problems: list[Problem]
    refuses: bool  # nothing is probed: it would not be the container itself

    @property
    def target(self) -> str:
        return join_host_port(self.instance.address, self.instance.port)

    def text(self, key: str) -> str:
        """A key's value; one that is too long is refused and counts as absent."""
        text = self.at.get(f"check_{key}", "")
        if len(text) > CHECK_TEXT.value:
            self._too_long(key, CHECK_TEXT)
            return ""
        return text.strip()

    def line(self, key: str) -> str:
        """The value of a key that becomes part of a target, where it is one line; any other is refused."""
        text = self.text(key)
        if not text.isprintable():
            self.refuse(key, f"{short(text)!r} has control characters, left out", "write it on one line")
            return ""
        if len(quote(text, safe=IN_URL)) > CHECK_PATH.value:
            self._too_long(key, CHECK_PATH)
            return ""
        return text

    def probes(self, key: str) -> bool:
        """Whether a check of this key can and may be made: there is a port, and it may be asked."""
        if self.refuses:
            what = f"{self.target} is not the container itself, the check is left out (--own-checks-only)"
            self.refuse(key, what, "drop the check, or the address that a label sets")
        elif not self.instance.port:
            self.refuse(key, "no port is known to probe, the check is left out", "set SERVICE_PORT")
        return bool(self.instance.port) and not self.refuses

    def _too_long(self, key: str, limit: Limit) -> None:
        self.refuse(key, f"longer than {limit.value} characters, left out", "shorten it", limit.name)

    def refuse(self, key: str, what: str, remedy: str, limit: str = "") -> None:
        self.problems.append(Problem(f"SERVICE_CHECK_{key.upper()}", what, remedy, limit))


def parse_checks(
    at: Mapping[str, str], instance: Instance, container: str, policy: Policy, *, own: bool = True
) -> tuple[tuple[Check, ...], list[Problem]]:
    """The checks that the keys of one port ask for; they probe the instance's registered address.

    `own`: that address is the container's own (see `addresses.is_own`).
    """
    if not any(key.startswith("check_") for key in at):
        return (), []
    problems: list[Problem] = []
    interval = _interval(at, problems)
    shared = Check(
        id=instance.id,
        name="",
        kind="",
        interval=interval,
        timeout=_timeout(at, interval, problems),
        status=_initial_status(at, problems),
        tls_skip_verify=read_flag(at, "check_tls_skip_verify", problems),
        success_before_passing=_threshold(at, "check_success_before_passing", problems),
        failures_before_critical=_threshold(at, "check_failures_before_critical", problems),
        deregister_after=_deregister_after(at, policy, problems),
        foreign=not own,
        redirects=not policy.own_checks_only,
    )
    refuses = policy.own_checks_only and not own
    request = _Request(at, instance, container, shared, problems, refuses)
    checks = [*_http(request), *_networked(request), *_scripts(request, policy), *_ttl(request)]
    return tuple(checks), problems


def _http(request: _Request) -> list[Check]:
    """CHECK_HTTP and CHECK_HTTPS, each with its own method; header and body are shared."""
    made = []
    for scheme in ("http", "https"):
        path = request.line(scheme)
        if not path or not request.probes(scheme):
            continue
        # What follows the slash cannot be taken for another host, whatever it is.
        at = quote(path if path.startswith("/") else f"/{path}", safe=IN_URL)
        made.append(
            replace(
                request.shared,
                id=f"{request.instance.id}:{scheme}",
                name=f"{scheme.upper()} {short(path)}",
                kind="http",
                target=f"{scheme}://{request.target}{at}",
                method=_method(request, scheme),
                header=_header(request),
                body=request.at.get("check_body", "") if request.text("body") else "",
            )
        )
    return made


def _method(request: _Request, scheme: str) -> str:
    """The HTTP method in capitals; "" where none is given, which means GET."""
    key = f"{scheme}_method" if request.text(f"{scheme}_method") else "method"
    method = request.text(key).upper()
    if not method or METHOD.fullmatch(method):
        return method
    request.refuse(key, f"{short(method)!r} is not an HTTP method, GET is used", "write for instance HEAD")
    return ""


def _networked(request: _Request) -> list[Check]:
    """CHECK_TCP and CHECK_GRPC; the latter may name the gRPC service to ask after."""
    made = []
    if request.text("tcp") and request.probes("tcp"):
        identity: dict[str, Any] = {
            "id": f"{request.instance.id}:tcp",
            "name": f"TCP {request.target}",
            "kind": "tcp",
        }
        made.append(replace(request.shared, target=request.target, **identity))
    service = request.line("grpc")
    if service and request.probes("grpc"):
        service = "" if service.lower() in PLAIN else service.strip("/")
        target = f"{request.target}/{service}" if service else request.target
        identity = {"id": f"{request.instance.id}:grpc", "name": f"gRPC {target}", "kind": "grpc"}
        use_tls = read_flag(request.at, "check_grpc_use_tls", request.problems)
        made.append(replace(request.shared, target=target, grpc_use_tls=use_tls, **identity))
    return made


def _scripts(request: _Request, policy: Policy) -> list[Check]:
    """CHECK_SCRIPT, CHECK_CMD (the legacy helper) and CHECK_DOCKER, where the operator allows them."""
    made = []
    for key in ("script", "cmd", "docker"):
        command = request.text(key)
        if not command:
            continue
        if not policy.allow_script_checks:
            remedy = "start the agent with --allow-script-checks, or use an HTTP or TCP check"
            request.refuse(key, "a check that runs a command is not allowed here, left out", remedy)
            continue
        arguments = _arguments(request, key, command)
        if arguments:
            made.append(
                replace(
                    request.shared,
                    # ":docker" is the id of the agent's own check.
                    id=f"{request.instance.id}:{'exec' if key == 'docker' else key}",
                    name=f"{'in the container' if key == 'docker' else 'script'}: {short(command)}",
                    kind="docker" if key == "docker" else "script",
                    target=request.container if key == "docker" else "",
                    shell=(request.text("shell") or "/bin/sh") if key == "docker" else "",
                    args=arguments,
                )
            )
    return made


def _arguments(request: _Request, key: str, command: str) -> tuple[str, ...]:
    """The command line to run; what cannot be split as a shell does is refused."""
    if key == "cmd":
        return (LEGACY_HELPER, request.container[:12], str(request.instance.port), command)
    if key == "docker":
        return (request.text("shell") or "/bin/sh", "-c", command)
    command = command.replace("$SERVICE_IP", request.instance.address)
    command = command.replace("$SERVICE_PORT", str(request.instance.port))
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        request.refuse(key, f"{short(command)!r} cannot be split ({error}), left out", "mend its quotes")
        return ()


def _ttl(request: _Request) -> list[Check]:
    """CHECK_TTL: the app itself heartbeats, under the check id that Consul gives a service's only check."""
    if not request.text("ttl"):
        return []
    ttl = _duration(request.at, "check_ttl", 0.0, request.problems)
    if not ttl:
        return []
    check = replace(
        request.shared, id=f"service:{request.instance.id}", name="TTL, refreshed by the app", kind="ttl"
    )
    # It has no target: nothing is asked, and what the app says is its own.
    unasked = replace(check, interval=DEFAULT_INTERVAL, timeout=0.0, foreign=False, redirects=True)
    return [replace(unasked, ttl=max(LEAST_TTL, ttl))]


def _header(request: _Request) -> Header:
    """CHECK_HEADER: JSON, {"Name": "value"} or {"Name": ["value", ...]}."""
    text = request.text("header")
    if not text:
        return ()
    header, fault = _parsed_header(text)
    if fault:
        remedy = 'write JSON such as {"X-Token": ["abc"]}'
        request.refuse("header", f"{short(text)!r} {fault}, left out", remedy)
        return ()
    if sum(len(values) for _, values in header) > CHECK_HEADERS.value:
        request.problems.append(beyond(CHECK_HEADERS, "SERVICE_CHECK_HEADER", "give fewer"))
        return ()
    return header


@lru_cache(8)  # the same for all checks of a container
def _parsed_header(text: str) -> tuple[Header, str]:
    """A header and why it is not sent as it is; "" where it is."""
    try:
        document = json.loads(text)
        pairs = {name: [value] if isinstance(value, str) else value for name, value in document.items()}
        header = tuple((name, tuple(values)) for name, values in sorted(pairs.items()))
    except (ValueError, AttributeError, TypeError, RecursionError):
        return (), "is not a header"
    return header, _header_fault(header)


def _header_fault(header: tuple[tuple[Any, tuple[Any, ...]], ...]) -> str:
    """Why a header is not sent as it is; "" where it is."""
    values = [text for name, values in header for text in (name, *values)]
    if not all(isinstance(value, str) and value.isprintable() for value in values):
        return "is not a header"
    names = [name.lower() for name, _ in header]
    if not all(FIELD_NAME.fullmatch(name) for name in names):
        return "has a name that no header field can have"
    if framing := FRAMING.intersection(names):
        return f"sets {min(framing)}, which is not for a label to set"
    if len(set(names)) < len(names) or any(n.lower() == "host" and len(v) > 1 for n, v in header):
        return "sets a header field twice"
    return ""


def _duration(at: Mapping[str, str], key: str, default: float, problems: list[Problem]) -> float:
    text = at.get(key, "").strip()
    if not text:
        return default
    seconds = parse_duration(text)
    if seconds is not None:
        return seconds
    used = f"{default:g}s is used" if default else "left out"
    what = f"{short(text)!r} is no duration, {used}"
    problems.append(Problem(f"SERVICE_{key.upper()}", what, "write for instance 10s or 1m30s"))
    return default


def _interval(at: Mapping[str, str], problems: list[Problem]) -> float:
    seconds = _duration(at, "check_interval", DEFAULT_INTERVAL, problems)
    if seconds > CHECK_INTERVAL.value:
        what = f"{seconds:g}s is too long, {CHECK_INTERVAL.value}s is used"
        remedy = f"give {CHECK_INTERVAL.value}s at most"
        problems.append(Problem("SERVICE_CHECK_INTERVAL", what, remedy, CHECK_INTERVAL.name))
    return min(max(LEAST_INTERVAL, seconds), CHECK_INTERVAL.value)


def _timeout(at: Mapping[str, str], interval: float, problems: list[Problem]) -> float:
    """The timeout, at most the interval; 0 where the catalog's default is short enough."""
    most = min(interval, CHECK_TIMEOUT.value)
    seconds = _duration(at, "check_timeout", 0.0, problems)
    if seconds > most:
        what = f"{seconds:g}s is too long, {most:g}s is used"
        remedy = f"give the interval at most, and never more than {CHECK_TIMEOUT.value}s"
        problems.append(Problem("SERVICE_CHECK_TIMEOUT", what, remedy, CHECK_TIMEOUT.name))
    if not seconds:
        return 0.0 if most >= DEFAULT_TIMEOUT else most
    return min(max(LEAST_TIMEOUT, seconds), most)


def _deregister_after(at: Mapping[str, str], policy: Policy, problems: list[Problem]) -> float:
    seconds = _duration(at, "check_deregister_after", policy.deregister_after, problems)
    return max(seconds, LEAST_DEREGISTER_AFTER) if seconds else 0.0


def _threshold(at: Mapping[str, str], key: str, problems: list[Problem]) -> int:
    text = at.get(key, "").strip()
    if not text:
        return 0
    if text.isascii() and text.isdigit() and len(text) <= 4 and int(text) <= MAX_THRESHOLD:
        return int(text)
    what = f"{short(text)!r} is no count, left out"
    problems.append(Problem(f"SERVICE_{key.upper()}", what, f"give a number from 0 to {MAX_THRESHOLD}"))
    return 0


def _initial_status(at: Mapping[str, str], problems: list[Problem]) -> str:
    status = at.get("check_initial_status", "").strip().lower()
    if not status or status in (PASSING, WARNING, CRITICAL):
        return status or CRITICAL
    what = f"{short(status)!r} is no status, critical is used"
    problems.append(Problem("SERVICE_CHECK_INITIAL_STATUS", what, "write passing, warning or critical"))
    return CRITICAL
