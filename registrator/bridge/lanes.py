"""Lanes: at most one worker per key, so that what happens to one container stays in order.

A wake-up for a key whose worker is busy is remembered once: the worker runs
again when it is done. So a burst of events costs one more look, never a queue.
A worker that failed tries again by itself, with capped backoff and jitter.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 1.0


class Lanes:
    """Run `work(key)` for each key touched, never twice at a time for the same key.

    `work` says whether it failed in a way that is worth another try (True: try
    again). It must not raise.
    """

    def __init__(self, work: Callable[[str], Awaitable[bool]]) -> None:
        self._work = work
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: dict[str, asyncio.Event] = {}

    def touch(self, key: str) -> None:
        """Wake the key's lane: it will look (again) at the key as it is from now on."""
        if key in self._tasks:
            self._again[key].set()
            return
        self._again[key] = asyncio.Event()
        self._tasks[key] = asyncio.create_task(self._run(key))

    @property
    def busy(self) -> bool:
        """Whether any lane is at work."""
        return bool(self._tasks)

    async def finished(self, timeout: float, apart_from: Collection[str] = ()) -> bool:
        """Wait until the lanes at work now, apart from some, have succeeded; False when time ran out."""
        tasks = [task for key, task in self._tasks.items() if key not in apart_from]
        if not tasks:
            return True
        _, unfinished = await asyncio.wait(tasks, timeout=timeout)
        return not unfinished

    async def close(self) -> None:
        """Cancel all work and wait for its end."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _run(self, key: str) -> None:
        again = self._again[key]
        pause = FIRST_PAUSE
        try:
            while True:
                again.clear()
                if await self._work(key):
                    await wait_at_most(again, pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                    pause = min(LONGEST_PAUSE, pause * 2)
                elif not again.is_set():
                    return
        finally:
            del self._tasks[key], self._again[key]


async def wait_at_most(event: asyncio.Event, timeout: float) -> None:
    """Wait for an event, but no longer than `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return
