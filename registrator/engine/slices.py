"""Long JSON documents, decoded in slices: one container's may have megabytes of labels or exposed ports.

A thread would not help: `json` holds the interpreter's lock while it decodes.
So an object or a list that is long is decoded in parts of some thousand
characters, and others on the loop have their turn in between. A part ends where
a member seems to end; when it does not decode, that was inside a member, and
the next members are decoded one by one.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Generator, Iterator
from time import perf_counter
from typing import Any

from registrator.engine.shapes import Malformed

LONG = 2**16  # characters; what is shorter is decoded in a fraction of a millisecond
DEPTH = 6  # objects and lists within one another that are taken apart; what is deeper is decoded at once
PART = 2**12  # characters
STEP = 32  # members that are decoded one by one before others can have their turn
SLICE = 0.0005  # seconds

PAUSE = object()  # what generators yield in between

_decode = json.JSONDecoder().raw_decode
_space = re.compile(r"[ \t\n\r]*")
# Between two elements of a listing: each begins with its id. In a text the quote would be escaped.
_NEXT = '},{"I'


async def decoded(text: str) -> Any:  # noqa: ANN401 - JSON is anything
    """Like `json.loads`, with turns for others where the text is long."""
    if len(text) < LONG:
        return json.loads(text)
    steps = _document(text)
    slice_ends = perf_counter() + SLICE
    while True:
        try:
            next(steps)
        except StopIteration as end:
            await asyncio.sleep(0)
            return end.value
        if perf_counter() > slice_ends:
            await asyncio.sleep(0)
            slice_ends = perf_counter() + SLICE


def iterate_list(text: str) -> Iterator[Any]:
    """Decode a JSON array element by element, so that a long one can be taken in slices.

    An element that is itself long gives PAUSE some times before it. Raises
    `Malformed` where the text is no array.
    """
    position = _after_space(text, 0)
    if text[position : position + 1] != "[":
        raise Malformed("no JSON array")
    position = _after_space(text, position + 1)
    closed = text.startswith("]", position)
    while not closed:
        try:
            element, position = yield from _value(text, position, DEPTH * _is_long(text, position))
        except (ValueError, RecursionError):
            raise Malformed("broken JSON in a list") from None
        yield element
        position = _after_space(text, position)
        closed = text.startswith("]", position)
        if not closed and not text.startswith(",", position):
            raise Malformed("a JSON array without an end")
        position = _after_space(text, position + 1)


def _is_long(text: str, position: int) -> bool:
    """Whether the element that begins here is long, as far as that is seen by where the next one begins."""
    return len(text) - position > LONG and text.find(_NEXT, position, position + LONG) < 0


def _document(text: str) -> Generator[object, None, Any]:
    value, position = yield from _value(text, _after_space(text, 0), DEPTH)
    if _after_space(text, position) != len(text):
        raise ValueError("more than one JSON document")
    return value


def _value(text: str, position: int, depth: int) -> Generator[object, None, tuple[Any, int]]:
    """The value that begins at a position, and where it ends. Raises ValueError."""
    opening = text[position : position + 1]
    if not depth or opening not in ("{", "["):
        return _decode(text, position)
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
            yield PAUSE
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
        return json.loads(f"{opening}{text[position:end]}{closing}"), end
    except ValueError:
        return None


def _member(text: str, position: int, opening: str, depth: int) -> Generator[object, None, tuple[Any, int]]:
    """One member, as an object or a list of its own, and where it ends."""
    key = None
    if opening == "{":
        key, position = _key(text, position)
    if text[position : position + 1] in ("{", "["):
        value, position = yield from _value(text, position, depth - 1)
    else:
        value, position = _decode(text, position)
    return ([value] if key is None else {key: value}), position


def _key(text: str, position: int) -> tuple[str, int]:
    """A member's name, and where its value begins."""
    key, position = _decode(text, position)
    position = _after_space(text, position)
    if not isinstance(key, str) or not text.startswith(":", position):
        raise ValueError("no name of a member")
    return key, _after_space(text, position + 1)


def _after_space(text: str, position: int) -> int:
    found = _space.match(text, position)
    return found.end() if found else position
