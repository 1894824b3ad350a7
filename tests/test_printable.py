"""Text of others: nothing in it commands a terminal, leaves its line or cannot be encoded."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from registrator.printable import printable

ROWS = [
    ("letters of any script stay", "köln 東京", "köln 東京"),
    ("a backslash stays", r"C:\new", r"C:\new"),
    ("a line break is written out", "a\nb", r"a\nb"),
    ("a terminal's escape sequence is written out", "\x1b[31mred", r"\x1b[31mred"),
    ("a one-byte control sequence introducer too", "\x9b31m", r"\x9b31m"),
    ("DEL too", "\x7f", r"\x7f"),
    ("a mark that reverses what follows too", "a\u202eb", r"a\u202eb"),
    ("an isolate that does too", "a\u2067b", r"a\u2067b"),
    ("a line separator too", "a\u2028b", r"a\u2028b"),
    ("a paragraph separator too", "a\u2029b", r"a\u2029b"),
    ("a next line too", "a\x85b", r"a\x85b"),
    ("a carriage return, which would overwrite the line, too", "ok\rno", r"ok\rno"),
    ("half of a pair that is not a character too", "\ud800", r"\ud800"),
]


@pytest.mark.parametrize(("given", "shown"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_what_is_written_out(given: str, shown: str) -> None:
    assert printable(given) == shown


def test_no_character_gets_through_that_controls_separates_or_has_no_code() -> None:
    """Of all of Unicode, what is left is on one line, can be encoded, and has no control characters."""
    shown = printable("".join(map(chr, range(sys.maxunicode + 1))))
    assert len(shown.splitlines()) == 1
    assert shown.encode().decode() == shown
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
