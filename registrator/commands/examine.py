"""What `doctor` finds out by asking: the engine, Consul, the agent, a container's own resolver.

Every examination gives findings whatever happens, and none stops the others.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from registrator.commands.client import TIMEOUT, AgentClient
from registrator.commands.dns import NoRecords, ask_dns
from registrator.commands.finding import BAD, GOOD, WARNING, Finding, from_failure
from registrator.commands.machine import is_taken
from registrator.commands.rights import needed, rights_finding
from registrator.model import Engine, Failure
from registrator.settings import ConsulAddress, Listen, SettingError, parse_ip
from registrator.shapes import as_integer, as_mapping

CLOCK_TOLERANCE = 5.0  # seconds between this machine's clock and Consul's
PATIENCE = 2.0  # seconds for a DNS answer
AUTHORIZE = "/v1/internal/acl/authorize"  # what Consul's own UI asks: may this token do that?


async def engine(url: str) -> tuple[list[Finding], Engine | None]:
    """The engine, and who it is."""
    from registrator.engine import DockerEngine  # noqa: PLC0415 - heavy
    from registrator.stats import Stats  # noqa: PLC0415

    try:
        async with DockerEngine(url, stats=Stats()) as docker:
            facts = await docker.info()
            listed = await docker.containers()
    except Failure as failure:
        return [from_failure("engine", failure)], None
    role = "manager" if facts.manager else "worker"
    swarm = f"{role} {facts.swarm_node_id} at {facts.swarm_address}" if facts.swarm_node_id else "not in one"
    return [
        Finding(GOOD, "engine", f"{facts.name} answers, {len(listed)} containers are up"),
        Finding(GOOD, "swarm", swarm),
    ], facts


# Consul ---------------------------------------------------------------------


async def consul(address: ConsulAddress, facts: Engine | None) -> list[Finding]:
    """Whether Consul answers, which agent that is, what the token may do, and its clock."""
    from registrator.catalog.consul.client import ConsulClient  # noqa: PLC0415 - heavy

    client = ConsulClient(address)
    async with client.http.session():
        try:
            node = await client.own_node()
            await client.nodes(0, 0)
        except Failure as failure:
            return [from_failure("consul", failure)]
        where = f"agent {node.name} ({node.address}, {node.datacenter}) at {address} answers"
        found = [Finding(GOOD, "consul", where)]
        if facts and node.name != facts.name:
            what = f"its agent is {node.name}, the engine is {facts.name}"
            remedy = (
                "give the Consul agent of this very node (or the same name to both): "
                "services follow the health of the node that they are registered with"
            )
            found.append(Finding(WARNING, "consul", what, remedy))
        found.append(await _rights(client, facts))
    return [*found, *_clock(address)]


async def _rights(client: Any, facts: Engine | None) -> Finding:  # noqa: ANN401 - imported late
    """Whether the token may do all that the agent of this engine has to."""
    try:
        reply = await client.http.post(None, AUTHORIZE, data=json.dumps(needed(facts)))
        return rights_finding(json.loads(reply.text))
    except (LookupError, TypeError, ValueError, RecursionError):
        return _untold()
    except Failure as failure:
        if "ACL support disabled" in str(failure):
            return Finding(GOOD, "rights", "Consul's ACLs are off: everything is allowed")
        return _untold()


def _untold() -> Finding:
    unknown = "Consul does not tell what the token may do"
    return Finding(WARNING, "rights", unknown, "compare its policy with the one in the README")


def _clock(address: ConsulAddress) -> list[Finding]:
    """Consul's clock, where it speaks plain HTTP."""
    if address.socket or not address.base.startswith("http://"):
        return []
    try:
        with urllib.request.urlopen(f"{address.base}/v1/status/leader", timeout=TIMEOUT) as reply:  # noqa: S310 - http only
            return [clock_finding(reply.headers["Date"], time.time())]
    except (OSError, http.client.HTTPException, TypeError, ValueError, LookupError, ArithmeticError):
        return []  # whether Consul answers is examined by itself


def clock_finding(theirs: str, ours: float) -> Finding:
    """Compare an HTTP Date header (RFC 9110, 6.6.1) with this machine's time (unix seconds)."""
    off = email.utils.parsedate_to_datetime(theirs).timestamp() - ours
    if abs(off) <= CLOCK_TOLERANCE:
        return Finding(GOOD, "clock", "agrees with Consul's")
    return Finding(WARNING, "clock", f"Consul's is {off:+.0f} s from this machine's", "let NTP set both")


# The agent ------------------------------------------------------------------


def agent(url: str) -> list[Finding]:
    """Whether an agent answers at `url`, and whether its first reconcile is over."""
    with AgentClient(url) as client:
        try:
            if client.read("/livez") != b"ok\n":
                return [_stranger(url)]
        except Failure as failure:
            return [_stranger(url) if _http_port_is_taken(url) else from_failure("agent", failure)]
        found = [Finding(GOOD, "agent", f"answers at {url}")]
        try:
            client.read("/readyz")
        except Failure as failure:
            remedy = "its log's last warning says why"
            return [*found, Finding(BAD, "agent's first reconcile", str(failure), remedy)]
    return [*found, Finding(GOOD, "agent's first reconcile", "over")]


def _stranger(url: str) -> Finding:
    what = f"something that is no agent has the port of {url}"
    return Finding(BAD, "agent", what, "`ss -tlnp` says what; end it, or give the agent another --http")


def _http_port_is_taken(url: str) -> bool:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host = parse_ip(parts.hostname or "")
    except (SettingError, ValueError):  # a name: nobody knows whose
        return False
    return is_taken(Listen(host, parts.port or 80), "tcp")


def dns(server: Listen, domain: str) -> Finding:
    """Whether the agent's DNS answers for its zone at `server`."""
    try:
        ask_dns(domain, "SOA", domain, server, PATIENCE)
    except NoRecords as failure:
        what = f"what answers at {server} is no agent with the zone {domain} ({failure.rcode})"
        remedy = "`ss -ulnp` says who has the port; end it, or give the agent another --dns (or --domain)"
        return Finding(BAD, "dns", what, remedy)
    except Failure as failure:
        if is_taken(server, "udp"):
            what = f"something has the port of {server} and gives no answer"
            remedy = "`ss -ulnp` says what; end it, or give the agent another --dns"
            return Finding(BAD, "dns", what, remedy)
        return from_failure("dns", failure)
    return Finding(GOOD, "dns", f"{server} answers for {domain}")


# A container ----------------------------------------------------------------


async def container(url: str, name: str, domain: str, address: str) -> Finding:
    """Whether the resolver of a container finds the zone, asked in its own network namespace."""
    from registrator.engine.client import Client  # noqa: PLC0415 - heavy
    from registrator.engine.endpoint import resolve  # noqa: PLC0415

    about = f"container {name}"
    try:
        async with Client(resolve(url)) as client:
            document = await client.json(f"/containers/{quote(name, safe='')}/json")
    except Failure as failure:
        return from_failure(about, failure)
    process = Path(f"/proc/{as_integer(as_mapping(as_mapping(document).get('State')).get('Pid')) or 0}")
    try:
        text = (process / "root/etc/resolv.conf").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        remedy = (
            "start it if it is down; else run this as root on its node, and in a container with --pid host"
        )
        return Finding(WARNING, about, f"its resolver cannot be looked at ({error.strerror})", remedy)
    return _ask_inside(about, process, first_server(text), domain, address)


def first_server(resolv_conf: str) -> str:
    """The first name server of a resolv.conf(5); "" without any."""
    for line in resolv_conf.splitlines():
        keyword, _, value = line.strip().partition(" ")
        if keyword == "nameserver":
            return value.strip()
    return ""


def _ask_inside(about: str, process: Path, server: str, domain: str, address: str) -> Finding:
    """Ask `server` for the zone from within a process' network namespace, by a process of our own."""
    remedy = (
        f"start it with `dns: [{address}]` (docker run --dns {address}), on a network that is not internal"
    )
    try:
        listen = Listen(parse_ip(server), 53)
    except SettingError:
        return Finding(BAD, about, f"its resolver {server!r} is no IP address", remedy)
    command = ["nsenter", f"--net={process}/ns/net", sys.executable, "-m", "registrator", "lookup"]
    command += [f"{domain}:SOA", "--dns", str(listen), "--domain", domain]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=4 * TIMEOUT, check=False)  # noqa: S603 - no shell, and a name of its own for each argument
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(
            WARNING, about, f"it could not be asked from inside ({error})", "install util-linux's nsenter"
        )
    if asked.returncode:
        said = asked.stderr.strip().removeprefix("registrator: ").partition("; ")[0]
        return Finding(BAD, about, f"its resolver {server} does not find {domain}: {said}", remedy)
    return Finding(GOOD, about, f"its resolver {server} finds {domain}")
