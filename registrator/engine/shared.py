"""One read for all who ask at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedRead(Generic[T]):
    """Calls `read` at most once at a time; a caller's answer is to a question asked after it came.

    So a burst of any number of callers costs two reads: the one that is under
    way, and one for all who came meanwhile.
    """

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[T] | None = None

    async def __call__(self) -> T:
        """The answer of `read`; raises what it raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._take_turn())
            self._next.add_done_callback(_look_at)
        return await asyncio.shield(self._next)  # one caller that gives up does not spoil it for the others

    async def _take_turn(self) -> T:
        async with self._lock:
            self._next = None  # who comes from now on needs a later answer
            return await self._read()


def _look_at(task: asyncio.Task[T]) -> None:
    """Take note of an error for which no caller waits any more, so that the loop does not report it."""
    if not task.cancelled():
        task.exception()
