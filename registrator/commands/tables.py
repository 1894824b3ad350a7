"""Columns of text for people: as wide as they need to be, coloured only where that is wanted."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

COLOURS = {"passing": "green", "warning": "yellow", "critical": "red", "answered": "green", "left out": "red"}


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under a heading; whatever a cell holds stays on its line."""
    cells = [[_plain(cell) for cell in row] for row in (heading, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heading))]
    lines = []
    for number, row in enumerate(cells):
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        shown = [click.style(cell, bold=True) if not number else _coloured(cell) for cell in padded]
        lines.append("  ".join(shown).rstrip())
    return "\n".join(lines)


def wants_colour() -> bool:
    """Whether standard output is a terminal whose user has not set NO_COLOR (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _plain(cell: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in cell)


def _coloured(cell: str) -> str:
    colour = COLOURS.get(cell.strip())
    return click.style(cell, fg=colour) if colour else cell
