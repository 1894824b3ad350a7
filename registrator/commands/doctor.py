"""`doctor`: looks at all that an agent needs, and says of each what is wrong and what to do.

It takes the agent's own options and variables, so that in the agent's
container it looks at what that agent was told.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import asdict

import click

from registrator.commands import examine
from registrator.commands.finding import BAD, GOOD, WARNING, Finding
from registrator.commands.machine import LINK_LOCAL, link_local, machine
from registrator.commands.options import agent_option, json_option
from registrator.commands.swarm import swarm
from registrator.commands.tables import wants_colour
from registrator.model import Failure
from registrator.printable import printable
from registrator.settings import (
    ConsulAddress,
    Listen,
    SettingError,
    parse_consul,
    parse_domain,
    parse_ip,
    parse_listens,
)

DNS_PORT = 53
SIGNS = {GOOD: ("ok", "green"), WARNING: ("warning", "yellow"), BAD: ("wrong", "red")}


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
    "--consul-token-file",
    metavar="FILE",
    default="",
    envvar="REGISTRATOR_CONSUL_TOKEN_FILE",
    help="A file with the ACL token.",
)
@click.option(
    "--dns",
    metavar="ADDR:PORT",
    multiple=True,
    default=("127.0.0.1:8053",),
    envvar="REGISTRATOR_DNS",
    show_default=True,
    help="The agent's DNS; repeatable; off.",
)
@click.option(
    "--dns-link-local",
    metavar="ADDR",
    default="",
    envvar="REGISTRATOR_DNS_LINK_LOCAL",
    help="The agent's address for containers.",
)
@click.option(
    "--domain",
    metavar="ZONE",
    default="consul",
    envvar="REGISTRATOR_DOMAIN",
    show_default=True,
    help="Its zone.",
)
@click.option(
    "--from",
    "asker",
    metavar="CONTAINER",
    default="",
    help="Also ask with this container's own resolver, from inside its network; needs root.",
)
@agent_option
@json_option
def doctor(
    docker: str,
    consul: str,
    consul_token_file: str,
    dns: tuple[str, ...],
    dns_link_local: str,
    domain: str,
    asker: str,
    agent: str,
    as_json: bool,  # noqa: FBT001 - click hands it over so
) -> None:
    """Find out why names do not resolve: engine, Consul, agent, DNS, this machine.

    Nothing is changed. Exit 1 when something is wrong.

    \b
    Example: registrator doctor --consul http://127.0.0.1:8500 --from web_1
    """  # noqa: D301 - click's own mark for lines that are not to be wrapped
    try:
        zone, listens = parse_domain(domain), list(parse_listens(dns))
        address = parse_consul(consul, os.environ, consul_token_file) if consul else None
        own = parse_ip(dns_link_local) if dns_link_local else ""
    except SettingError as error:
        raise SettingError(f"an option of doctor: {error}") from None
    findings = asyncio.run(_remote(docker, address))
    findings += examine.agent(agent)
    if own:
        findings.append(link_local(own))
        listens.append(Listen(own, DNS_PORT))
    findings += [examine.dns(listen, zone) for listen in listens]
    findings += machine(own or LINK_LOCAL)
    if asker:
        findings.append(asyncio.run(examine.container(docker, asker, zone, own or LINK_LOCAL)))
    _tell(findings, as_json=as_json)
    wrong = sum(finding.level == BAD for finding in findings)
    if wrong:
        raise Failure(f"{wrong} of {len(findings)} things {'is' if wrong == 1 else 'are'} wrong")


async def _remote(docker: str, address: ConsulAddress | None) -> list[Finding]:
    """The engine, then Consul, which is compared with it."""
    findings, facts = await examine.engine(docker)
    if facts is not None:
        findings += await swarm(docker, facts)
    if address is None:
        return [*findings, Finding(GOOD, "consul", "none asked for: the embedded catalog needs none")]
    return [*findings, *await examine.consul(address, facts)]


def _tell(findings: list[Finding], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
        return
    for finding in findings:
        sign, colour = SIGNS[finding.level]
        text = f"{finding.about}: {finding.what}{'; ' if finding.remedy else ''}{finding.remedy}"
        click.echo(f"{click.style(sign, fg=colour)}: {printable(text)}", color=wants_colour())
