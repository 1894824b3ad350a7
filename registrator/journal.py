"""What the agent did lately, in words: a bounded list that a page or a script can follow.

The bridge adds to it, the front tells it (`/events`); neither knows the other.
It holds what people want to see on a page, not what has to be kept: older
changes fall out, and an agent that starts again starts with an empty one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass

KEPT = 1000

REGISTERED, DEREGISTERED, HEALTH, DRAINED = "registered", "deregistered", "health", "drained"


@dataclass(frozen=True, slots=True)
class Change:
    """One change: `time` is in seconds since 1970, `text` says what happened and why.

    `number` grows by one with each change, over restarts of the agent too
    (it starts at the clock's milliseconds), so that a reader who comes back
    with an old number misses nothing that is still known. `container` is the
    container's id.
    """

    number: int
    time: float
    kind: str
    service: str
    instance: str
    container: str
    text: str


class Journal:
    """The latest `KEPT` changes, the oldest first."""

    def __init__(self) -> None:
        self._changes: deque[Change] = deque(maxlen=KEPT)
        self._number = int(time.time() * 1000)
        self._grown = asyncio.Event()

    def add(
        self, kind: str, text: str, *, service: str = "", instance: str = "", container: str = ""
    ) -> None:
        """Note a change that has just been made."""
        self._number += 1
        self._changes.append(Change(self._number, time.time(), kind, service, instance, container, text))
        self._grown.set()
        self._grown = asyncio.Event()

    def since(self, number: int) -> tuple[Change, ...]:
        """The changes after `number` that are still known; 0 gives all of them."""
        if number >= self._number:  # the usual case of one who follows
            return ()
        return tuple(change for change in self._changes if change.number > number)

    async def wait(self, number: int, timeout: float) -> tuple[Change, ...]:
        """The changes after `number`, as soon as there is one; empty after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while self._number <= number or not self._changes:
                    await self._grown.wait()
        except TimeoutError:
            return ()
        return self.since(number)
