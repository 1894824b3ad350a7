"""`registrator maintenance`: takes services of one Consul agent, or its whole node, out of lookups, and back.

It is Consul's own maintenance mode, a critical check that says why
(https://developer.hashicorp.com/consul/commands/maint): seen in its UI, kept
over restarts of agents, and left alone by whatever an agent registers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import click

from registrator.model import Failure
from registrator.printable import printable
from registrator.settings import ConsulAddress, SettingError, parse_consul

NODE = "node"
NODE_CHECK = "_node_maintenance"

JSON = Mapping[str, Any]


@click.command()
@click.argument("target")
@click.option("--reason", metavar="TEXT", default="", help="Why, for those who see it in Consul.")
@click.option("--off", is_flag=True, help="End it.")
@click.option(
    "--consul",
    metavar="URL",
    default="",
    envvar="REGISTRATOR_CONSUL",
    show_envvar=True,
    help="The Consul agent with which TARGET is registered: http://, https:// or unix://, "
    "or env for CONSUL_HTTP_ADDR.",
)
@click.option(
    "--consul-token-file",
    metavar="FILE",
    default="",
    envvar="REGISTRATOR_CONSUL_TOKEN_FILE",
    show_envvar=True,
    help="A file with the ACL token.",
)
def maintenance(target: str, reason: str, off: bool, consul: str, consul_token_file: str) -> None:  # noqa: FBT001
    """Take TARGET out of lookups for a while: no instance is stopped or deregistered.

    TARGET is an instance's id, a service's name (all of its instances on this
    Consul agent), or the node: its name in Consul, or the word node.

    Example: registrator maintenance web --reason "new disk" --consul http://127.0.0.1:8500
    """
    if off and reason:
        raise SettingError("--off takes no --reason; drop one of them")
    if not consul:
        raise SettingError("maintenance is Consul's; give --consul URL, as in --consul http://127.0.0.1:8500")
    try:
        address = parse_consul(consul, os.environ, consul_token_file)
    except SettingError as error:
        raise SettingError(f"--consul: {error}") from None
    for line in asyncio.run(maintain(address, target, enable=not off, reason=reason)):
        click.echo(printable(line))


async def maintain(address: ConsulAddress, target: str, *, enable: bool, reason: str) -> list[str]:
    """Begin or end the maintenance of what `target` names; a line for each thing done. Raises Failure.

    What is in maintenance already stays so with the reason that it has.
    """
    from registrator.catalog.consul.client import ConsulClient  # noqa: PLC0415 - after the options were checked

    client = ConsulClient(address)
    async with client.http.session():
        services, node = await client.services(), (await client.own_node()).name
        chosen = named(services, target)
        if chosen:
            for service_id in chosen:
                await client.maintain_service(service_id, enable=enable, reason=reason)
        elif target.lower() in (NODE, node.lower()):
            await client.maintain_node(enable=enable, reason=reason)
        else:
            raise Failure(
                f"the Consul agent at {address} has no service or instance {target!r}, and its node is "
                f"{node!r}; ask the agent of the node where it runs"
            )
        checks = await client.checks()
    if not chosen:
        return [_line(f"node {node}", checks.get(NODE_CHECK))]
    return [
        _line(f"{services[key]['Service']} ({key})", checks.get(f"_service_maintenance:{key}"))
        for key in chosen
    ]


def named(services: Mapping[str, JSON], target: str) -> list[str]:
    """The ids of the services that `target` names: one by its id, or all of a name, whatever its case."""
    if target in services:
        return [target]
    return sorted(key for key, service in services.items() if service["Service"].lower() == target.lower())


def _line(subject: str, check: JSON | None) -> str:
    """How a subject stands after it was asked for."""
    if check is None:
        return f"{subject}: in service"
    return f"{subject}: in maintenance ({' '.join(check.get('Notes', '').split())})"
