"""Consul's blocking queries, with all their rules in one place, and what is known of the contact.

The rules (https://developer.hashicorp.com/consul/api-docs/features/blocking):
the same index or equal data is no news; an index lower than the last means
that Consul's state is another, so ask again from 0; after an error ask again
from 0 as well, since a Consul that came back empty would let a query with the
old index hang; errors are met with capped backoff and jitter, for ever.

A blocking query that is given up keeps its place among the 200 connections
that Consul grants a client address until its wait is over (seen on 1.8.7: the
handler does not notice). So waits are short, and a `Watch` that is no longer
needed ends when its query returns, not before.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sized
from typing import Generic, TypeVar

from registrator.catalog import CatalogError, Refused
from registrator.catalog.consul.errors import Unreadable

log = logging.getLogger(__name__)
T = TypeVar("T", bound=Sized)

FIRST_BACKOFF = 0.05  # seconds
# A refused connection costs next to nothing, and a Consul that is back shall be noticed within a second.
MAX_BACKOFF = 0.5
MAX_BACKOFF_REFUSED = 5.0  # a token, a definition or a document must be changed first: no hurry
QUICK = 1.0  # seconds: what answers a blocking query sooner with its own index did not block
SETTLING = 0.3  # seconds after Consul's return: should it lack something, that is being registered again
REFILLING = 2.0  # where its state is another: all agents have to notice (MAX_BACKOFF) and to register anew
PAUSE = 0.01  # seconds between an answer and the next question: a burst of changes is one answer or two
PAUSE_EACH = 1e-5  # seconds more for each element: a catalog of thousands of names takes ten ms to read


class Disturbances:
    """Reasons to reconcile in full; those that nobody has taken yet are one."""

    def __init__(self) -> None:
        self._reason = ""
        self._reported = asyncio.Event()

    def report(self, reason: str) -> None:
        """Say that what is registered may no longer be what was written."""
        self._reason = reason
        self._reported.set()

    async def reasons(self) -> AsyncIterator[str]:
        """Yield each reason once, for ever."""
        while True:
            await self._reported.wait()
            self._reported.clear()
            yield self._reason


class Contact:
    """Whether Consul answers, and since when it does not; its return is a disturbance.

    Several parties (`who`) may find it lost; it is back when all of them have
    had an answer again.
    """

    def __init__(self, disturbances: Disturbances) -> None:
        self._disturbances = disturbances
        self._lost: set[object] = set()
        self._lost_at = 0.0
        self._settles_at = 0.0
        self._filled_at = 0.0
        self.there = asyncio.Event()
        self.there.set()
        self.returned = asyncio.Event()

    @property
    def age(self) -> float:
        """Seconds since contact was lost, 0 while there is contact."""
        return time.monotonic() - self._lost_at if self._lost else 0.0

    @property
    def unsettled(self) -> bool:
        """Whether what Consul lacks may be no news: contact is lost, or has only just been found again."""
        return bool(self._lost) or time.monotonic() < self._settles_at

    @property
    def refilling(self) -> bool:
        """Whether Consul's state is another, and what it lacks altogether may still be on its way."""
        return time.monotonic() < self._filled_at

    async def settled(self) -> None:
        """Wait until there is contact, and has been for a moment."""
        while self.unsettled:
            await self.there.wait()
            await asyncio.sleep(max(0.0, self._settles_at - time.monotonic()))

    def lose(self, who: object) -> None:
        """`who` got no answer."""
        if not self._lost:
            self._lost_at = time.monotonic()
            self.there.clear()
        self._lost.add(who)

    def regain(self, who: object) -> None:
        """`who` got an answer."""
        if who not in self._lost:
            return
        age = self.age
        self._lost.remove(who)
        if not self._lost:
            self._settles_at = time.monotonic() + SETTLING
            self.there.set()
            self.returned.set()
            self._disturbances.report(f"Consul answers again after {age:.1f} s")

    def reset(self) -> None:
        """Tell that Consul's state is another than it was, empty most of the time."""
        self._filled_at = time.monotonic() + REFILLING
        self._disturbances.report("Consul's index went backwards: its state is another than it was")


class Watch(Generic[T]):
    """One blocking query, asked again and again; `data` is its latest answer, None before the first.

    `ask` takes an index (0: answer at once) and gives (index, data). `index`
    and `data` may be given where a first answer is there already.
    """

    def __init__(
        self, ask: Callable[[int], Awaitable[tuple[int, T]]], index: int = 0, data: T | None = None
    ) -> None:
        self._ask = ask
        self._index = index  # what to ask from
        self._highest = index  # what was reached: below it Consul's state is another
        self.data = data
        self.went_back = False  # whether the latest answer's index was below the one before
        self.failures = 0
        self._idle = 0  # answers in a row for which nobody should have been asked
        self._paused_until = 0.0

    async def advance(self) -> bool:
        """Wait for one answer; return whether the data are news. Raises CatalogError."""
        await asyncio.sleep(max(0.0, self._paused_until - time.monotonic()))
        asked_at = time.monotonic()
        try:
            index, data = await self._ask(self._index)
        except CatalogError:
            self._index = 0
            self.failures += 1
            raise
        self.failures = 0
        self.went_back = index < self._highest
        self._pause(asked_at, len(data), idle=self.went_back or index == self._index)
        self._index = 0 if self.went_back else index
        self._highest = index
        news = data != self.data
        self.data = data
        return news

    def _pause(self, asked_at: float, size: int, *, idle: bool) -> None:
        """Set when to ask again: what does not block, or jumps to and fro, is not asked without a pause."""
        now = time.monotonic()
        self._idle = self._idle + 1 if idle and now - asked_at < QUICK else 0
        waste = min(MAX_BACKOFF, FIRST_BACKOFF * 2 ** min(self._idle - 1, 10)) if self._idle > 1 else 0.0
        self._paused_until = now + PAUSE + PAUSE_EACH * size + waste

    async def back_off(self, error: CatalogError) -> None:
        """Sleep before the next try: longer with each failure, up to a cap, with jitter."""
        cap = MAX_BACKOFF_REFUSED if isinstance(error, Refused | Unreadable) else MAX_BACKOFF
        longest = min(cap, FIRST_BACKOFF * 2 ** min(self.failures, 10))
        await asyncio.sleep(random.uniform(longest / 2, longest))  # noqa: S311 - jitter keeps no secret


async def follow(watch: Watch[T], contact: Contact, on_news: Callable[[], None]) -> None:
    """Keep a watch that the snapshot stands on going for ever, through every failure.

    `on_news` is called after each answer that is news. The first failure is
    logged, then every tenth.
    """
    while True:
        try:
            news = await watch.advance()
        except CatalogError as error:
            contact.lose(watch)
            if watch.failures % 10 == 1:
                log.warning("%s (try %d; going on with what is known)", error, watch.failures)
            await watch.back_off(error)
        else:
            contact.regain(watch)
            if watch.went_back:
                contact.reset()
            if news:
                on_news()
