"""Following an engine's events in the background of a test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from registrator.engine import DockerEngine
from registrator.model import Event


class Watch:
    """All events that came; `expect` finds the next of a kind and passes over those before it."""

    def __init__(self) -> None:
        self.seen: list[Event] = []
        self._more = asyncio.Condition()
        self._position = 0

    async def follow(self, engine: DockerEngine) -> None:
        async with contextlib.aclosing(engine.events()) as events:
            async for event in events:
                async with self._more:
                    self.seen.append(event)
                    self._more.notify_all()

    async def expect(self, *events: Event, timeout: float = 10) -> None:
        """Wait for these events, in this order; others may come between them."""
        for event in events:
            try:
                async with asyncio.timeout(timeout), self._more:
                    while event not in self.seen[self._position :]:
                        await self._more.wait()
            except TimeoutError:
                raise AssertionError(f"no {event} among {self.seen[self._position :]}") from None
            self._position = self.seen.index(event, self._position) + 1


@contextlib.asynccontextmanager
async def watching(engine: DockerEngine) -> AsyncIterator[Watch]:
    """A `Watch` that is subscribed already."""
    watch = Watch()
    task = asyncio.create_task(watch.follow(engine))
    try:
        await watch.expect(Event())
        yield watch
    finally:
        task.cancel()
        await asyncio.wait([task])
