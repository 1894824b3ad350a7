"""`doctor`: looks at what an agent needs, part by part, and says of each what is wrong and what to do.

Every examination is a function of its own that returns findings; none of them
changes anything, and none can stop the others.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from registrator.commands.client import TIMEOUT, AgentClient
from registrator.commands.show import agent_option, ask_dns, json_option
from registrator.commands.tables import wants_colour
from registrator.model import Failure
from registrator.settings import ConsulAddress, Listen, SettingError, parse_consul

GOOD, WARNING, BAD = "good", "warning", "bad"
SIGNS = {GOOD: ("ok", "green"), WARNING: ("warning", "yellow"), BAD: ("wrong", "red")}
CLOCK_TOLERANCE = 5.0  # seconds between this machine's clock and Consul's
LINK_LOCAL = "169.254.53.53"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: how it is, in words, and the remedy where it is not good."""

    level: str
    about: str
    what: str
    remedy: str = ""


@click.command()
@click.option("--docker", metavar="URL", default="", envvar="REGISTRATOR_DOCKER", help="The engine.")
@click.option(
    "--consul",
    metavar="URL",
    default="",
    envvar="REGISTRATOR_CONSUL",
    help="The Consul agent, where there is one.",
)
@click.option(
    "--dns", metavar="ADDR:PORT", default="127.0.0.1:8053", show_default=True, help="The agent's DNS."
)
@click.option("--domain", metavar="ZONE", default="consul", show_default=True, help="The agent's zone.")
@agent_option
@json_option
def doctor(docker: str, consul: str, dns: str, domain: str, agent: str, as_json: bool) -> None:  # noqa: FBT001
    """Find out why names do not resolve: engine, agent, DNS, Consul, this machine.

    Exit 1 when something is wrong. Example: registrator doctor --consul http://127.0.0.1:8500
    """
    address = parse_consul(consul, os.environ) if consul else None
    findings = asyncio.run(_engine_and_consul(docker, address))
    findings += [*_agent(agent), *_dns(dns, domain), *_machine()]
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            sign, colour = SIGNS[finding.level]
            line = f"{click.style(sign, fg=colour)}: {finding.about}: {finding.what}"
            click.echo(f"{line}; {finding.remedy}" if finding.remedy else line, color=wants_colour())
    wrong = sum(finding.level == BAD for finding in findings)
    if wrong:
        raise Failure(f"{wrong} of {len(findings)} things are wrong")


async def _engine_and_consul(docker: str, address: ConsulAddress | None) -> list[Finding]:
    """The engine, then Consul, which is compared with it."""
    from registrator.engine import DockerEngine  # noqa: PLC0415 - heavy
    from registrator.stats import Stats  # noqa: PLC0415

    findings: list[Finding] = []
    name = ""
    try:
        async with DockerEngine(docker, stats=Stats()) as engine:
            facts = await engine.info()
            listed = await engine.containers()
        name = facts.name
        findings.append(Finding(GOOD, "engine", f"{facts.name} answers, {len(listed)} containers are up"))
        role = "manager" if facts.manager else "worker"
        swarm = (
            f"{role} {facts.swarm_node_id} at {facts.swarm_address}" if facts.swarm_node_id else "not in one"
        )
        findings.append(Finding(GOOD, "swarm", swarm))
    except Failure as failure:
        findings.append(_from_failure("engine", failure))
    if address is None:
        findings.append(Finding(GOOD, "consul", "none asked for: the embedded catalog needs none"))
        return findings
    return findings + await _consul(address, name)


async def _consul(address: ConsulAddress, engine_name: str) -> list[Finding]:
    from registrator.catalog.consul import ConsulCatalog  # noqa: PLC0415 - heavy
    from registrator.stats import Stats  # noqa: PLC0415

    async with ConsulCatalog(address, Stats()) as catalog:
        try:
            node = await catalog.node()
            await catalog.owned("")
        except Failure as failure:
            return [_from_failure("consul", failure)]
    found = _clock(address)
    found += [
        Finding(GOOD, "consul", f"agent {node.name} ({node.address}, {node.datacenter}) at {address} answers")
    ]
    if engine_name and node.name != engine_name:
        remedy = "give the agent of this very node, or its services follow the wrong node's health"
        found.append(
            Finding(WARNING, "consul", f"its agent is {node.name}, the engine is {engine_name}", remedy)
        )
    return found


def _clock(address: ConsulAddress) -> list[Finding]:
    """Consul's clock, where it speaks plain HTTP."""
    if address.socket or not address.base.startswith("http://"):
        return []
    try:
        with urllib.request.urlopen(f"{address.base}/v1/status/leader", timeout=TIMEOUT) as reply:  # noqa: S310 - http only
            return [clock_finding(reply.headers["Date"], time.time())]
    except (OSError, TypeError, ValueError):
        return []  # whether Consul answers is examined by itself


def _agent(url: str) -> list[Finding]:
    found = []
    with AgentClient(url) as client:
        for path, about in (("/livez", "agent"), ("/readyz", "agent's first reconcile")):
            try:
                client.read(path)
            except Failure as failure:
                found.append(_from_failure(about, failure))
                if path == "/livez":
                    return found
            else:
                found.append(Finding(GOOD, about, "over" if path == "/readyz" else f"answers at {url}"))
    return found


def _dns(server: str, domain: str) -> list[Finding]:
    host, _, port = server.rpartition(":")
    try:
        answer = ask_dns(domain, "SOA", domain, Listen(host.strip("[]"), int(port)))
    except (Failure, SettingError, ValueError) as error:
        return [Finding(BAD, "dns", str(error), "see the agent's --dns, and `ss -ulnp` for who has the port")]
    return [Finding(GOOD, "dns", f"{server} answers for {domain} ({len(answer)} record)")]


def _machine(configuration: Path = Path("/etc/docker/daemon.json")) -> list[Finding]:
    """What the engine's configuration and the kernel say."""
    try:
        settings = json.loads(configuration.read_text(encoding="utf-8"))
    except FileNotFoundError:
        settings = {}
    except (OSError, ValueError) as error:
        return [
            Finding(WARNING, "daemon.json", f"{configuration} cannot be read ({error})", "mend it"),
            *_ipvs(),
        ]
    return [*_resolver(settings), *_live_restore(settings), *_ipvs()]


def _resolver(settings: Mapping[str, Any]) -> list[Finding]:
    """Whether the engine hands the link-local address to containers that name no resolver."""
    if LINK_LOCAL in settings.get("dns", ()):
        return [Finding(GOOD, "resolver", f"every container asks {LINK_LOCAL} (daemon.json)")]
    return [Finding(GOOD, "resolver", f"daemon.json names no agent: containers need `dns: [{LINK_LOCAL}]`")]


def _live_restore(settings: Mapping[str, Any]) -> list[Finding]:
    """Live restore keeps an engine from joining a Swarm."""
    if not settings.get("live-restore"):
        return []
    remedy = "take it out of daemon.json before `docker swarm init` or `join`"
    return [Finding(WARNING, "live-restore", "it is on, and does not go together with Swarm", remedy)]


def _ipvs(table: Path = Path("/proc/net/ip_vs")) -> list[Finding]:
    """Swarm's virtual IPs and its ingress mesh are made of IPVS."""
    if table.exists():
        return [Finding(GOOD, "ipvs", "the kernel has it: Swarm's virtual IPs and mesh work")]
    what = "not loaded: Swarm's virtual IPs and ingress mesh carry no traffic"
    return [
        Finding(WARNING, "ipvs", what, "`modprobe ip_vs`, or use endpoint_mode: dnsrr and host-mode ports")
    ]


def _from_failure(about: str, failure: Failure) -> Finding:
    """A failure's own line already says what to do."""
    what, _, remedy = str(failure).partition("; ")
    return Finding(BAD, about, what, remedy)


def clock_finding(theirs: str, ours: float) -> Finding:
    """Compare an HTTP Date header (RFC 9110, 6.6.1) with this machine's time (unix seconds)."""
    off = email.utils.parsedate_to_datetime(theirs).timestamp() - ours
    if abs(off) <= CLOCK_TOLERANCE:
        return Finding(GOOD, "clock", "agrees with Consul's")
    return Finding(WARNING, "clock", f"Consul's is {off:+.0f} s from this machine's", "let NTP set both")
