"""`lookup`, `explain` and `services`: what an agent says, for people and for scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from registrator.commands.client import AgentClient, path_of
from registrator.commands.dns import ask_dns
from registrator.commands.options import agent_option, complete_containers, complete_services, json_option
from registrator.commands.overview import overview, overview_table
from registrator.commands.tables import table, wants_colour
from registrator.model import Failure
from registrator.printable import printable
from registrator.settings import Listen, SettingError, join_host_port, parse_domain, parse_listen


@click.command()
@click.argument("name", metavar="NAME[:TYPE]", shell_complete=complete_services)
@click.option(
    "--from",
    "asker",
    metavar="CONTAINER",
    default="",
    shell_complete=complete_containers,
    help="Answer as for this container (or IP).",
)
@click.option(
    "--dns",
    metavar="ADDR:PORT",
    default="127.0.0.1:8053",
    show_default=True,
    help="Where NAME:TYPE is asked.",
)
@click.option(
    "--domain", metavar="ZONE", default="consul", show_default=True, help="The agent's zone, for NAME:TYPE."
)
@agent_option
@json_option
def lookup(name: str, asker: str, dns: str, domain: str, agent: str, as_json: bool) -> None:  # noqa: FBT001
    """What a name is answered with; with :TYPE, what DNS says.

    Exit 1 when there is no answer.

    \b
    Example: registrator lookup redis --from web_1
    Example: registrator lookup redis:SRV
    """  # noqa: D301 - click's own mark for lines that are not to be wrapped
    name, _, kind = name.partition(":")
    if kind:
        if asker:
            raise SettingError("--from goes with a plain NAME: DNS answers by the address that asks")
        records = ask_dns(name, kind, _zone(domain), _listen(dns))
        click.echo(json.dumps(records) if as_json else "\n".join(map(printable, records)), color=False)
        return
    with _explained(agent, name, asker) as document:
        answered = [instance for instance in document["instances"] if instance["answered"]]
        rows = [
            (join_host_port(a["address"], a["port"]), a["network"] or "-", i["node"], i["status"])
            for i in answered
            for a in i["addresses"]
        ]
    if as_json:
        click.echo(json.dumps(answered, indent=2))
    elif answered:
        click.echo(table(("ADDRESS", "NETWORK", "NODE", "STATUS"), rows), color=wants_colour())
    if not answered:
        raise Failure(f"no instance of {name} is answered; `registrator explain {name}` tells why")


@click.command()
@click.argument("name", shell_complete=complete_services)
@click.option(
    "--from",
    "asker",
    metavar="CONTAINER",
    default="",
    shell_complete=complete_containers,
    help="Explain it for this container (or IP).",
)
@agent_option
@json_option
def explain(name: str, asker: str, agent: str, as_json: bool) -> None:  # noqa: FBT001
    """Why a name resolves as it does: for each instance, why it is answered or not.

    \b
    Example: registrator explain redis --from web_1
    """  # noqa: D301 - click's own mark for lines that are not to be wrapped
    with _explained(agent, name, asker) as document:
        rows = [
            ("answered" if i["answered"] else "left out", i["id"], i["node"], i["why"])
            for i in document["instances"]
        ]
        heading = f"{document['service']}, asked by {document['asker']['what']}:"
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(printable(heading))
    click.echo(table(("", "INSTANCE", "NODE", "WHY"), rows), color=wants_colour())


@click.command()
@agent_option
@json_option
def services(agent: str, as_json: bool) -> None:  # noqa: FBT001
    """All services, with how many of their instances are passing.

    \b
    Example: registrator services
    Example: registrator services --json
    """  # noqa: D301 - click's own mark for lines that are not to be wrapped
    with AgentClient(agent) as client:
        known = overview(client)
        shown = json.dumps(known, indent=2) if as_json else overview_table(known)
    click.echo(shown, color=wants_colour())


@contextmanager
def _explained(agent: str, name: str, asker: str) -> Iterator[Any]:
    """The agent's own JSON; what the block cannot make sense of becomes a Failure."""
    with AgentClient(agent) as client:
        yield client.get(path_of("/explain", name), **({"from": asker} if asker else {}))


def _listen(text: str) -> Listen:
    try:
        return parse_listen(text)
    except SettingError as error:
        raise SettingError(f"--dns: {error}") from None


def _zone(text: str) -> str:
    try:
        return parse_domain(text)
    except SettingError as error:
        raise SettingError(f"--domain: {error}") from None
