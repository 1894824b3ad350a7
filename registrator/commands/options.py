"""Options that several commands have, and what a shell completes for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from registrator.commands.client import AgentClient
from registrator.model import Failure
from registrator.settings import SettingError

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_AGENT = "http://127.0.0.1:8580"
PATIENCE = 1.0  # seconds that somebody who presses the tabulator has


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


def complete_services(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """The names that the agent knows and that go on from what was `begun`."""
    return _complete(context, begun, lambda client: client.get("/v1/catalog/services"))


def complete_containers(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """The containers of the agent's node whose names go on from what was `begun`."""
    return _complete(context, begun, lambda client: client.get("/askers")["containers"])


def _complete(context: click.Context, begun: str, ask: Callable[[AgentClient], Any]) -> list[str]:
    """Names that a shell may insert as they are; none where no agent answers."""
    url = context.params.get("agent") or context.lookup_default("agent") or DEFAULT_AGENT
    try:
        with AgentClient(url, PATIENCE) as client:
            names = [str(name) for name in ask(client)]
    except (Failure, SettingError):
        return []
    return sorted(name for name in names if name.startswith(begun) and _is_harmless(name))


def _is_harmless(name: str) -> bool:
    return name.isascii() and all(character.isalnum() or character in "._-" for character in name)
