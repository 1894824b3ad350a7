"""Long work on the event loop, done in slices: a large catalog must not hold up a lookup.

A thread would not help: `json` holds the interpreter's lock while it parses.
So a body is parsed and translated element by element, and the loop gets a
turn between two elements whenever a slice's time is over.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")

SLICE = 0.0005  # seconds

_decode = json.JSONDecoder().raw_decode
_gap = re.compile(r"[ \t\n\r]*[,:]?[ \t\n\r]*")


async def in_slices(items: Iterable[T], convert: Callable[[T], U]) -> list[U]:
    """Like `[convert(item) for item in items]`, but other tasks run at least every 0.5 ms or so."""
    converted: list[U] = []
    slice_ends = perf_counter() + SLICE
    for item in items:
        converted.append(convert(item))
        if perf_counter() > slice_ends:
            await asyncio.sleep(0)
            slice_ends = perf_counter() + SLICE
    return converted


def elements(body: str) -> Iterator[Any]:
    """The elements of a JSON array, or the (key, value) pairs of an object, parsed one at a time.

    `null` has none, as Go writes an empty array so. Raises ValueError for what is neither.
    """
    text = body.strip()
    if text == "null":
        return
    closing = {"[": "]", "{": "}"}.get(text[:1])
    if closing is None:
        raise ValueError("neither a JSON array nor an object")
    position = _after_gap(text, 1)
    while not text.startswith(closing, position):
        value, position = _decode(text, position)
        position = _after_gap(text, position)
        if closing == "}":
            key = value
            value, position = _decode(text, position)
            position = _after_gap(text, position)
            yield key, value
        else:
            yield value


def _after_gap(text: str, position: int) -> int:
    match = _gap.match(text, position)
    return match.end() if match else position
