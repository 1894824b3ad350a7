"""Waiting for a key to change, cheap for any number of waiters: those on one key share one event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakValueDictionary


class Waiters:
    """Events by key (a service's name, or None for the catalog itself), gone with their last waiter."""

    def __init__(self) -> None:
        self._events: WeakValueDictionary[str | None, asyncio.Event] = WeakValueDictionary()

    def join(self, key: str | None) -> asyncio.Event:
        """The event of the key's next change. Join first, then look, then wait: so no change is missed."""
        event = self._events.get(key)
        if event is None:
            event = self._events[key] = asyncio.Event()
        return event

    async def wait(self, event: asyncio.Event, timeout: float) -> None:
        """Return when the event has come, or after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            pass

    def wake(self, changed: Callable[[str | None], bool]) -> None:
        """Let go those who wait on a key for which `changed` is true."""
        for key in [key for key in self._events if changed(key)]:
            event = self._events.pop(key, None)
            if event is not None:
                event.set()
