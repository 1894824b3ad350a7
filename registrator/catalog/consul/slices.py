"""Long work on the event loop, done in slices: a large catalog must not hold up a lookup.

A thread would not help: `json` holds the interpreter's lock while it parses.
So what is long is done element by element, and the loop gets a turn between
two of them whenever a slice's time is over (`reading` parses bodies so).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")

SLICE = 0.0005  # seconds


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
