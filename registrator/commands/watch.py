"""`watch`: the table of services, kept true on a terminal; a JSON line for each change anywhere else."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import Any

import click

from registrator.commands.client import AgentClient
from registrator.commands.options import agent_option
from registrator.commands.overview import overview, overview_table
from registrator.commands.tables import wants_colour
from registrator.model import Failure
from registrator.printable import printable

# Drawn over what is there, line by line: clearing the screen first would flicker.
HOME, END_OF_LINE, END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
CUT_LINES, WRAP_LINES = "\x1b[?7l", "\x1b[?7h"
SHARE = 4  # the pause is this many times what the agent took to tell it all: it has other work


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

    On a terminal it stays while the agent is away, and says so. Ctrl-C ends it.

    \b
    Example: registrator watch
    """  # noqa: D301 - click's own mark for lines that are not to be wrapped
    live = sys.stdout.isatty()
    try:
        if live:
            sys.stdout.write(CUT_LINES)
        follow(agent, every, live=live)
    finally:
        if live:
            sys.stdout.write(WRAP_LINES)


def follow(agent: str, every: float, *, live: bool) -> None:
    """Tell what the agent knows, again and again. Raises Failure when it cannot be asked."""
    known: list[dict[str, Any]] | None = None
    with AgentClient(agent) as client:
        while True:
            begin, before, trouble = time.monotonic(), known, ""
            try:
                known = overview(client)
            except Failure as failure:
                if known is None or not live:
                    raise
                trouble = str(failure)
            if live:
                click.echo(screen(known or [], trouble), nl=False, color=True)
            elif known != before:
                click.echo(json.dumps(known))
                sys.stdout.flush()
            time.sleep(max(every, SHARE * (time.monotonic() - begin)))


def screen(known: list[dict[str, Any]], trouble: str = "") -> str:
    """What is drawn: the time or what is wrong, then as much of the table as has room."""
    room = shutil.get_terminal_size()
    head = printable(trouble) if trouble else f"{time.strftime('%H:%M:%S')}  {len(known)} services"
    table = overview_table(known)
    lines = [head, "", *(table if wants_colour() else click.unstyle(table)).splitlines()]
    if len(lines) > room.lines - 1:
        hidden = len(lines) - room.lines + 2
        lines = [*lines[: room.lines - 2], f"... and {hidden} more: registrator services"]
    return HOME + "".join(f"{line}{END_OF_LINE}\n" for line in lines) + END_OF_SCREEN
