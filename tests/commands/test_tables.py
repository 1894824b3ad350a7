"""Tables: aligned, one line a row whatever the cells hold, coloured only where that is wanted."""

from __future__ import annotations

import click

from registrator.commands.tables import table


def test_a_cell_cannot_leave_its_line_or_command_the_terminal() -> None:
    text = click.unstyle(table(("HEAD",), [("a\nb\x9b31m",)]))
    assert text.splitlines() == ["HEAD", r"a\nb\x9b31m"]


def test_columns_are_as_wide_as_their_widest_cell_and_lines_have_no_blanks_at_their_end() -> None:
    text = click.unstyle(table(("A", "B"), [("long cell", "x"), ("y", "")]))
    assert text.splitlines() == ["A          B", "long cell  x", "y"]


def test_statuses_are_coloured_and_other_words_are_not() -> None:
    lines = table(("STATUS", "NAME"), [("critical", "critical-path")]).splitlines()
    assert lines[1] == click.style("critical", fg="red") + "  critical-path"


def test_a_table_without_rows_is_its_heading() -> None:
    assert click.unstyle(table(("A", "B"), [])) == "A  B"
