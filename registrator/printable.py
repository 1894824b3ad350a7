"""Text that somebody else wrote, as it may go to a terminal or a log."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""The text with everything that is not printable written out, as `\x1b`.

    That is each control character (C0, DEL, C1), line separator, format
    character (bidirectional overrides, zero width) and lone surrogate; all
    spaces but U+0020.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
