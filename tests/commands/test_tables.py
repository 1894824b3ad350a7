"""Tables: aligned, one line a row whatever the cells hold, coloured only where that is wanted."""

from __future__ import annotations

import click
import pytest

from registrator.commands.tables import plain, table

ROWS = [
    ("letters of any script stay", "köln 東京", "köln 東京"),
    ("a line break is written out", "a\nb", r"a\nb"),
    ("a terminal's escape sequence is written out", "\x1b[31mred", r"\x1b[31mred"),
    ("a one-byte control sequence introducer too", "\x9b31m", r"\x9b31m"),
    ("a mark that reverses what follows too", "a\u202eb", r"a\u202eb"),
    ("a carriage return, which would overwrite the line, too", "ok\rno", r"ok\rno"),
    ("half of a pair that is no character too", "\ud800", r"\ud800"),
]


@pytest.mark.parametrize(("given", "shown"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_what_a_cell_may_do_to_a_terminal(given: str, shown: str) -> None:
    assert plain(given) == shown
    text = click.unstyle(table(("HEAD",), [(given,)]))
    assert text.splitlines() == ["HEAD", shown]


def test_columns_are_as_wide_as_their_widest_cell_and_lines_have_no_blanks_at_their_end() -> None:
    text = click.unstyle(table(("A", "B"), [("long cell", "x"), ("y", "")]))
    assert text.splitlines() == ["A          B", "long cell  x", "y"]


def test_statuses_are_coloured_and_other_words_are_not() -> None:
    lines = table(("STATUS", "NAME"), [("critical", "critical-path")]).splitlines()
    assert lines[1] == click.style("critical", fg="red") + "  critical-path"


def test_a_table_without_rows_is_its_heading() -> None:
    assert click.unstyle(table(("A", "B"), [])) == "A  B"
