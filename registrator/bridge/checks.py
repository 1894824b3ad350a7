"""SERVICE_CHECK_* -> checks: what an instance's keys say of how it is to be probed.

Every kind that is asked for becomes a check of its own; several may stand on
one instance. The fields that they share (interval, timeout, thresholds ...)
are read once.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from registrator.bridge.bounds import beyond
from registrator.bridge.labels import read_flag, short
from registrator.duration import parse_duration
from registrator.limits import CHECK_HEADERS
from registrator.model import CRITICAL, PASSING, WARNING, Check, Instance, Problem
from registrator.policy import Policy
from registrator.settings import join_host_port

DEFAULT_INTERVAL = 10.0
LEAST_INTERVAL = 1.0  # Consul raises shorter intervals to this one
LEAST_DEREGISTER_AFTER = 60.0  # Consul's own least
MAX_THRESHOLD = 1000

# Values that ask for a check without saying more, as in SERVICE_CHECK_TCP=true.
PLAIN = frozenset(("1", "t", "true", "y", "yes", "on", "any"))
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

    @property
    def target(self) -> str:
        return join_host_port(self.instance.address, self.instance.port)

    def text(self, key: str) -> str:
        return self.at.get(f"check_{key}", "").strip()

    def refuse(self, key: str, what: str, remedy: str) -> None:
        self.problems.append(Problem(f"SERVICE_CHECK_{key.upper()}", what, remedy))


def parse_checks(
    at: Mapping[str, str], instance: Instance, container: str, policy: Policy
) -> tuple[tuple[Check, ...], list[Problem]]:
    """The checks that the keys of one port ask for; they probe the instance's registered address."""
    if not any(key.startswith("check_") for key in at):
        return (), []
    problems: list[Problem] = []
    shared = Check(
        id=instance.id,
        name="",
        kind="",
        interval=max(LEAST_INTERVAL, _duration(at, "check_interval", DEFAULT_INTERVAL, problems)),
        timeout=_duration(at, "check_timeout", 0.0, problems),
        status=_initial_status(at, problems),
        tls_skip_verify=read_flag(at, "check_tls_skip_verify", problems),
        success_before_passing=_threshold(at, "check_success_before_passing", problems),
        failures_before_critical=_threshold(at, "check_failures_before_critical", problems),
        deregister_after=_deregister_after(at, policy, problems),
    )
    request = _Request(at, instance, container, shared, problems)
    checks = [*_http(request), *_networked(request), *_scripts(request, policy), *_ttl(request)]
    return tuple(checks), problems


def _http(request: _Request) -> list[Check]:
    """CHECK_HTTP and CHECK_HTTPS, each with its own method; header and body are shared."""
    made = []
    for scheme in ("http", "https"):
        path = request.text(scheme)
        if not path or not _has_port(request, scheme):
            continue
        made.append(
            replace(
                request.shared,
                id=f"{request.instance.id}:{scheme}",
                name=f"{scheme.upper()} {path}",
                kind="http",
                target=f"{scheme}://{request.target}{path if path.startswith('/') else '/' + path}",
                method=(request.text(f"{scheme}_method") or request.text("method")).upper(),
                header=_header(request),
                body=request.at.get("check_body", ""),
            )
        )
    return made


def _networked(request: _Request) -> list[Check]:
    """CHECK_TCP and CHECK_GRPC; the latter may name the gRPC service to ask after."""
    made = []
    if request.text("tcp") and _has_port(request, "tcp"):
        identity: dict[str, Any] = {
            "id": f"{request.instance.id}:tcp",
            "name": f"TCP {request.target}",
            "kind": "tcp",
        }
        made.append(replace(request.shared, target=request.target, **identity))
    service = request.text("grpc")
    if service and _has_port(request, "grpc"):
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
    return [replace(check, ttl=ttl, interval=DEFAULT_INTERVAL, timeout=0.0)]


def _has_port(request: _Request, key: str) -> bool:
    if not request.instance.port:
        request.refuse(key, "no port is known to probe, the check is left out", "set SERVICE_PORT")
    return bool(request.instance.port)


def _header(request: _Request) -> Header:
    """CHECK_HEADER: JSON, {"Name": "value"} or {"Name": ["value", ...]}."""
    text = request.text("header")
    if not text:
        return ()
    header = _parsed_header(text)
    if header is None:
        request.refuse(
            "header", f"{short(text)!r} is no header, left out", 'write JSON such as {"X-Token": ["abc"]}'
        )
    elif sum(len(values) for _, values in header) > CHECK_HEADERS.value:
        request.problems.append(beyond(CHECK_HEADERS, "SERVICE_CHECK_HEADER", "give fewer"))
        return ()
    return header or ()


@lru_cache(8)  # the same for all checks of a container
def _parsed_header(text: str) -> Header | None:
    try:
        document = json.loads(text)
        pairs = {name: [value] if isinstance(value, str) else value for name, value in document.items()}
        header = tuple((name, tuple(values)) for name, values in sorted(pairs.items()))
    except (ValueError, AttributeError, TypeError, RecursionError):
        return None
    values = (text for name, values in header for text in (name, *values))
    if all(isinstance(value, str) and value.isprintable() for value in values) and all(
        name for name, _ in header
    ):
        return header
    return None


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
