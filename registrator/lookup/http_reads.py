"""How the HTTP front reads the catalog: now, or when it has changed (Consul's blocking queries).

A directory can wait for one service, or for names and nodes. For those who
want to hear of any change (`/events`, queries over all checks) `Pulse` looks
whether the snapshot is another one: while somebody listens, 20 times a second,
once for all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from registrator import limits
from registrator.catalog import Directory
from registrator.lookup.consul_api import Query
from registrator.lookup.http_gate import client
from registrator.lookup.http_places import NoPlace, Places
from registrator.lookup.http_reply import RETRY, Unserved
from registrator.model import Service, Snapshot
from registrator.stats import Stats

T = TypeVar("T")

MAX_WAITING, MAX_OF_CLIENT = limits.HTTP_WAITS.value, limits.HTTP_CLIENT_WAITS.value
MAX_LOADING = 8  # services asked of the catalog at once, where one request wants all of them
PULSE = 0.05  # seconds


class Reads:
    """Reads of a directory. Every method that needs a snapshot raises Unserved while there is none."""

    def __init__(self, directory: Directory, stats: Stats) -> None:
        self.directory = directory
        self.stats = stats
        self._pulse = Pulse(directory)
        self._waiting: Places[asyncio.Future[Any]] = Places(MAX_WAITING, MAX_OF_CLIENT)
        self._loads = asyncio.Semaphore(MAX_LOADING)
        self._whole: asyncio.Task[Snapshot] | None = None
        self._newest: tuple[Snapshot | None, int] = (None, 0)
        self.closing = False

    def snapshot(self) -> Snapshot:
        """The latest snapshot. Raises Unserved."""
        snapshot = self.directory.snapshot
        if snapshot is None:
            raise Unserved(503, "the catalog has not been read yet; try again in a second", RETRY)
        return snapshot

    async def load(self, name: str) -> Snapshot:
        """The snapshot with a service loaded where it exists. Raises Unserved and CatalogError."""
        snapshot = self.snapshot()
        if name in snapshot.names and name not in snapshot.services:
            return await self.directory.load(name)
        return snapshot

    async def read(self, name: str, query: Query) -> Snapshot:
        """The snapshot with service `name` loaded where it exists ("": the names and nodes alone).

        With an index it waits first until what is asked for is newer. Raises
        Unserved and CatalogError.
        """
        snapshot = await self.load(name)
        if query.index and snapshot.index_of(name) <= query.index:
            subject = name if name in snapshot.names else None
            await self.block(self.directory.wait(subject, query.index, query.wait))
            snapshot = await self.load(name)
        return snapshot

    async def read_all(self, query: Query) -> tuple[Snapshot, int]:
        """A snapshot with every service loaded, and the index above which any of it changes."""
        snapshot, index = await self._load_all()
        if query.index and index <= query.index:
            await self.block(self._grown(query, snapshot))
            snapshot, index = await self._load_all()
        return snapshot, index

    async def changed(self, seen: Snapshot | None, seconds: float) -> Snapshot | None:
        """The snapshot when it is another one than `seen`, or after `seconds`."""
        return await self._pulse.changed(seen, seconds)

    async def block(self, answer: Awaitable[T]) -> T | None:
        """Await what may take long; None when the server closes or others need the place. Raises Unserved."""
        who, waiter = client(), asyncio.ensure_future(answer)
        try:
            if self.closing:
                return None
            self._make_room(who, waiter)
            return await waiter
        except asyncio.CancelledError:
            handler = asyncio.current_task()
            if handler is None or handler.cancelling():  # the client has gone
                raise
            return None
        finally:
            self._waiting.leave(who, waiter)
            if not waiter.done():
                waiter.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await waiter

    def _make_room(self, who: str, waiter: asyncio.Future[Any]) -> None:
        """Give a blocking query a place, for which another may be answered early. Raises Unserved."""
        try:
            loser = self._waiting.take(who, waiter)
        except NoPlace as full:
            limit = limits.HTTP_CLIENT_WAITS if full.own else limits.HTTP_WAITS
            self.stats.limited[limit.name] += 1
            raise Unserved(503, "too many blocking queries are open; close some", RETRY) from None
        if loser is not None:
            self.stats.limited[limits.HTTP_WAITS.name] += 1
            loser.cancel()

    def end_waits(self) -> None:
        """Answer all blocking queries now, with what there is; later ones do not block."""
        self.closing = True
        for waiter in self._waiting.holders():
            waiter.cancel()

    async def _load_all(self) -> tuple[Snapshot, int]:
        """Every service, also those that leave the snapshot while others are loaded."""
        whole = self.snapshot()
        if any(name not in whole.services for name in whole.names):
            if self._whole is None or self._whole.done():  # all who ask while one reads have what it finds
                self._whole = asyncio.create_task(self._load_missing(whole))
                self._whole.add_done_callback(_take_note)
            whole = await asyncio.shield(self._whole)
        return whole, self._newest_index(whole)

    async def _load_missing(self, snapshot: Snapshot) -> Snapshot:
        services = dict(snapshot.services)
        missing = iter([name for name in snapshot.names if name not in services])
        await asyncio.gather(*(self._load_each(missing, services) for _ in range(MAX_LOADING)))
        return replace(snapshot, services=services)

    def _newest_index(self, snapshot: Snapshot) -> int:
        """The highest index in a snapshot: many wait for it to rise."""
        if self._newest[0] is not snapshot:
            highest = max((service.index for service in snapshot.services.values()), default=0)
            self._newest = (snapshot, max(snapshot.index, highest))
        return self._newest[1]

    async def _load_each(self, names: Iterator[str], services: dict[str, Service]) -> None:
        """Load one after the other into `services`; several do so with the same names."""
        for name in names:
            async with self._loads:
                if service := (await self.directory.load(name)).services.get(name):
                    services[name] = service

    async def _grown(self, query: Query, seen: Snapshot) -> None:
        """Return when any index is above the query's, or its time is over."""
        deadline = asyncio.get_running_loop().time() + query.wait
        latest: Snapshot | None = seen
        while (left := deadline - asyncio.get_running_loop().time()) > 0:
            latest = await self.changed(latest, left)
            if latest and self._newest_index(latest) > query.index:
                return


class Pulse:
    """Tells those who wait for it that a directory has another snapshot."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._listeners = 0
        self._beat = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def changed(self, seen: Snapshot | None, seconds: float) -> Snapshot | None:
        """The snapshot when it is another one than `seen`, or after `seconds`."""
        self._listeners += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
        try:
            async with asyncio.timeout(seconds):
                while self._directory.snapshot is seen:
                    await self._beat.wait()
        except TimeoutError:
            pass
        finally:
            self._listeners -= 1
        return self._directory.snapshot

    async def _watch(self) -> None:
        seen = self._directory.snapshot
        while self._listeners:
            await asyncio.sleep(PULSE)
            if self._directory.snapshot is not seen:
                seen = self._directory.snapshot
                self._beat.set()
                self._beat = asyncio.Event()


def _take_note(task: asyncio.Task[Snapshot]) -> None:
    """Know a task's failure, whether or not anybody still waits for it."""
    if not task.cancelled():
        task.exception()
