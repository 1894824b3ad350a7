"""`lookup`, `services`, `explain` and `watch`: what an agent says, for people and for scripts."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from registrator.commands.client import AgentClient, NotThere, path_of
from registrator.commands.tables import table, wants_colour
from registrator.model import CRITICAL, PASSING, SEVERITY, Failure
from registrator.settings import Listen, SettingError, join_host_port, parse_listen

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_AGENT = "http://127.0.0.1:8580"
DNS_TIMEOUT = 5.0
CLEAR = "\x1b[H\x1b[2J"


def agent_option(command: Command) -> Command:
    """The option that names the agent to ask."""
    return click.option(
        "--agent",
        metavar="URL",
        default=DEFAULT_AGENT,
        envvar="REGISTRATOR_AGENT",
        show_envvar=True,
        show_default=True,
        help="The agent to ask.",
    )(command)


def json_option(command: Command) -> Command:
    """The option that makes the output a JSON document."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


@click.command()
@click.argument("name", metavar="NAME[:TYPE]")
@click.option(
    "--from", "asker", metavar="CONTAINER", default="", help="Answer as for this container (or IP)."
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

    Examples: registrator lookup redis --from web_1; registrator lookup redis:SRV
    """
    plain, _, kind = name.partition(":")
    if kind:
        if asker:
            raise SettingError("--from goes with a plain NAME: DNS answers by the address that asks")
        records = ask_dns(plain, kind, domain, _listen(dns))
        click.echo(json.dumps(records) if as_json else "\n".join(records), color=False)
        return
    document = _explained(agent, plain, asker)
    answered = [i for i in document["instances"] if i["answered"]]
    if as_json:
        click.echo(json.dumps(answered, indent=2))
    else:
        rows = [
            (join_host_port(a["address"], a["port"]), a["network"] or "-", i["node"], i["status"])
            for i in answered
            for a in i["addresses"]
        ]
        click.echo(table(("ADDRESS", "NETWORK", "NODE", "STATUS"), rows), color=wants_colour())
    if not answered:
        raise Failure(f"no instance of {plain} is answered; registrator explain {plain} tells why")


@click.command()
@click.argument("name")
@click.option(
    "--from", "asker", metavar="CONTAINER", default="", help="Explain it for this container (or IP)."
)
@agent_option
@json_option
def explain(name: str, asker: str, agent: str, as_json: bool) -> None:  # noqa: FBT001
    """Why a name resolves as it does: for each instance, why it is answered or not.

    Example: registrator explain redis --from web_1
    """
    document = _explained(agent, name, asker)
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    rows = [
        ("answered" if i["answered"] else "left out", i["id"], i["node"], i["why"])
        for i in document["instances"]
    ]
    click.echo(f"{document['service']}, asked by {document['asker']['what']}:")
    click.echo(table(("", "INSTANCE", "NODE", "WHY"), rows), color=wants_colour())


@click.command()
@agent_option
@json_option
def services(agent: str, as_json: bool) -> None:  # noqa: FBT001
    """All services, with how many of their instances are passing.

    Example: registrator services --json
    """
    with AgentClient(agent) as client:
        known = overview(client)
    click.echo(json.dumps(known, indent=2) if as_json else overview_table(known), color=wants_colour())


@click.command()
@click.option(
    "--every",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    default=1.0,
    show_default=True,
    help="How often to look.",
)
@agent_option
def watch(every: float, agent: str) -> None:
    """The table of services, live; where there is no terminal, a JSON line for each change.

    Example: registrator watch
    """
    live = sys.stdout.isatty()
    with AgentClient(agent) as client:
        last: list[dict[str, Any]] | None = None
        while True:
            known = overview(client)
            if known != last:
                click.echo(
                    f"{CLEAR}{overview_table(known)}" if live else json.dumps(known), color=wants_colour()
                )
                last = known
            time.sleep(every)


def overview(client: AgentClient) -> list[dict[str, Any]]:
    """Every service by name: its tags, and its instances' ids by status."""
    found = []
    for name, tags in sorted(client.get("/v1/catalog/services").items()):
        by_status: dict[str, list[str]] = {status: [] for status in SEVERITY}
        try:
            entries = client.get(path_of("/v1/health/service", name))
        except NotThere:
            continue  # it has gone meanwhile
        for entry in entries:
            status = max(
                (c["Status"] for c in entry["Checks"]), key=lambda s: SEVERITY.get(s, 2), default=PASSING
            )
            by_status[status if status in SEVERITY else CRITICAL].append(entry["Service"]["ID"])
        found.append({"name": name, "tags": sorted(tags), **by_status})
    return found


def overview_table(known: Sequence[dict[str, Any]]) -> str:
    """The overview for people."""
    rows = [(s["name"], *(str(len(s[status])) for status in SEVERITY), ", ".join(s["tags"])) for s in known]
    return table(("SERVICE", *(status.upper() for status in SEVERITY), "TAGS"), rows)


def ask_dns(name: str, kind: str, domain: str, server: Listen) -> list[str]:
    """The answer section to a DNS question, a record a line. Raises Failure when there is none."""
    import dnslib  # noqa: PLC0415 - only this command needs it

    asked = name if name.rstrip(".").endswith(f".{domain}") else f"{name}.service.{domain}"
    try:
        query = dnslib.DNSRecord.question(asked, kind.upper())
        packet = query.send(server.host, server.port, timeout=DNS_TIMEOUT, ipv6=":" in server.host)
        reply = dnslib.DNSRecord.parse(packet)
    except (dnslib.DNSError, UnicodeError) as error:
        raise SettingError(f"{name}:{kind} cannot be asked ({error}); write for instance redis:SRV") from None
    except OSError as error:
        raise Failure(
            f"no DNS answer from {server} ({error}); is the agent there? --dns names another"
        ) from None
    if not reply.rr:
        rcode = dnslib.RCODE.get(reply.header.rcode)
        raise Failure(f"{asked} {kind.upper()}: {rcode}, no records")
    return [str(record) for record in reply.rr]


def _explained(agent: str, name: str, asker: str) -> Any:  # noqa: ANN401 - the agent's JSON
    with AgentClient(agent) as client:
        return client.get(path_of("/explain", name), **({"from": asker} if asker else {}))


def _listen(text: str) -> Listen:
    try:
        return parse_listen(text)
    except SettingError as error:
        raise SettingError(f"--dns: {error}") from None
