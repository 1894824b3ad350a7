"""A long JSON text, decoded part by part, with a pause after each: pure.

A container may have megabytes of labels or exposed ports, and a thread would
not help: `json` holds the interpreter's lock while it decodes. So an object or
an array is decoded in parts of some thousand characters. A part ends where a
member seems to end; when it does not decode, that was inside a member, and the
next members are decoded one by one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from typing import Any

DEPTH = 6  # objects and arrays within one another that are taken apart; what is deeper is decoded at once
PART = 2**12  # characters
STEP = 32  # members that are decoded one by one before a part is tried again

# NaN and Infinity are not JSON, but Python's parser takes them.
_decoder = json.JSONDecoder(parse_constant=lambda _: None)
decode = _decoder.raw_decode  # (text, position) -> (value, where it ends); ValueError or RecursionError
_space = re.compile(r"[ \t\n\r]*+")


def in_parts(text: str) -> Generator[None, None, Any]:
    """Decode a whole document. Raises ValueError or RecursionError for what is none."""
    value, position = yield from _value(text, _after_space(text, 0), DEPTH)
    if _after_space(text, position) != len(text):
        raise ValueError("something follows the JSON document")
    return value


def _value(text: str, position: int, depth: int) -> Generator[None, None, tuple[Any, int]]:
    """The value that begins at a position, and where it ends."""
    opening = text[position : position + 1]
    if not depth or opening not in ("{", "["):
        return decode(text, position)
    closing = "}" if opening == "{" else "]"
    made: Any = {} if opening == "{" else []
    add = made.update if opening == "{" else made.extend
    position = _after_space(text, position + 1)
    if text.startswith(closing, position):
        return made, position + 1
    singles = 0  # members to decode one by one before a part is tried
    while True:
        part = None if singles else _part(text, position, opening, closing)
        if part is not None:
            members, position = part
        else:
            singles = (singles or STEP) - 1
            members, position = yield from _member(text, position, opening, depth)
        add(members)
        if not singles:
            yield
        position = _after_space(text, position)
        if text.startswith(closing, position):
            return made, position + 1
        if not text.startswith(",", position):
            raise ValueError("neither a comma nor an end")
        position = _after_space(text, position + 1)


def _part(text: str, position: int, opening: str, closing: str) -> tuple[Any, int] | None:
    """Some members from a position on, and where they end; None where that cannot be seen.

    What decodes is whole: a text that is cut inside a member has a quote or a bracket that is not closed.
    """
    between = ',"' if opening == "{" else {"{": "},{", '"': '","'}.get(text[position : position + 1], ",")
    found = text.find(between, position + PART, position + 2 * PART)
    if found < 0:
        return None
    end = found + len(between) - 2 if opening == "[" and between != "," else found
    try:
        return _decoder.decode(f"{opening}{text[position:end]}{closing}"), end
    except ValueError:
        return None


def _member(text: str, position: int, opening: str, depth: int) -> Generator[None, None, tuple[Any, int]]:
    """One member, as an object or an array of its own, and where it ends."""
    key = None
    if opening == "{":
        key, position = _key(text, position)
    if text[position : position + 1] not in ("{", "["):
        value, position = decode(text, position)
    elif (short := _short(text, position)) is not None:
        value, position = short
    else:
        value, position = yield from _value(text, position, depth - 1)
    return ([value] if key is None else {key: value}), position


def _short(text: str, position: int) -> tuple[Any, int] | None:
    """The object or array that begins here, and where it ends; None where it is longer than a part."""
    try:
        value, length = decode(text[position : position + PART], 0)
    except (ValueError, RecursionError):
        return None
    return value, position + length


def _key(text: str, position: int) -> tuple[str, int]:
    """A member's name, and where its value begins."""
    key, position = decode(text, position)
    position = _after_space(text, position)
    if not isinstance(key, str) or not text.startswith(":", position):
        raise ValueError("a member without a name")
    return key, _after_space(text, position + 1)


def _after_space(text: str, position: int) -> int:
    found = _space.match(text, position)
    return found.end() if found else position
