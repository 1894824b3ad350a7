"""Columns of text for people: as wide as they need to be, coloured only where that is wanted."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from registrator.printable import printable

COLOURS = {"passing": "green", "warning": "yellow", "critical": "red", "answered": "green", "left out": "red"}


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under a heading; whatever a cell holds stays on its line."""
    cells = [[printable(cell) for cell in row] for row in (heading, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heading))]
    lines = []
    for number, row in enumerate(cells):
        last = max((column for column, cell in enumerate(row) if cell), default=0)
        padded = [cell.ljust(widths[column]) for column, cell in enumerate(row[:last])] + [row[last]]
        shown = [click.style(cell, bold=True) if not number else _coloured(cell) for cell in padded]
        lines.append("  ".join(shown))
    return "\n".join(lines)


def wants_colour() -> bool:
    """Whether standard output is a terminal whose user has not set NO_COLOR (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _coloured(cell: str) -> str:
    colour = COLOURS.get(cell.strip())
    return click.style(cell, fg=colour) if colour else cell
