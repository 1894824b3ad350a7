"""Long documents of the engine: decoded in slices, with turns for others on the loop in between."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

from registrator.documents import parse_in_parts

SLICE = 0.0005  # seconds


async def decoded(octets: bytes) -> Any:  # noqa: ANN401 - JSON is anything
    """A whole document. Raises `Malformed` for what cannot be read."""
    parts = parse_in_parts(octets)
    slice_ends = perf_counter() + SLICE
    while True:
        try:
            next(parts)
        except StopIteration as end:
            return end.value
        if perf_counter() > slice_ends:
            await asyncio.sleep(0)
            slice_ends = perf_counter() + SLICE
