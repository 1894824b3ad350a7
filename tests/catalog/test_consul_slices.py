"""Long work in slices gives what it gives in one piece, and does not hold up the loop."""

from __future__ import annotations

import asyncio
import time

from registrator.catalog.consul.slices import SLICE, in_slices


async def test_others_get_their_turn() -> None:
    """While 50 ms of work are done, another task runs many times."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def slow(number: int) -> int:
        time.sleep(SLICE / 5)
        return number

    task = asyncio.create_task(other())
    assert await in_slices(range(500), slow) == list(range(500))
    task.cancel()
    assert turns >= 50
