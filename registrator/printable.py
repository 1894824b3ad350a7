"""Text of somebody else's as it may go to a terminal, a log or a line of HTTP text: pure.

Names, tags, metadata and checks' outputs are written by others. Control
characters among them (ESC begins a terminal's commands), line and paragraph
separators, changes of writing direction and lone surrogates are written out,
so that text stays on its line, shows what it is and can be encoded.
"""

from __future__ import annotations


def printable(text: str) -> str:
    r"""The text with every character that is not printable (`str.isprintable`) as Python writes it.

    ESC becomes `\x1b`, a line feed `\n`, U+202E `\u202e`; what is printable,
    the space among it, stays.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
