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
from typing import TypeVar

from registrator.catalog import Directory
from registrator.lookup.consul_api import Query
from registrator.lookup.http_reply import RETRY, Unserved
from registrator.model import Service, Snapshot

T = TypeVar("T")

MAX_WAITING = 384  # blocking queries at once; the connections beyond stay free for others
MAX_LOADING = 8  # services asked of the catalog at once, where one request wants all of them
PULSE = 0.05  # seconds


class Reads:
    """Reads of a directory. Every method that needs a snapshot raises Unserved while there is none."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self._pulse = Pulse(directory)
        self._waiting: set[asyncio.Task[object]] = set()
        self._loads = asyncio.Semaphore(MAX_LOADING)
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
        """Await what may take long; None when the server closes meanwhile. Raises Unserved."""
        waiter = asyncio.ensure_future(answer)
        if self.closing or len(self._waiting) >= MAX_WAITING:
            waiter.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiter
            if self.closing:
                return None
            raise Unserved(503, f"{MAX_WAITING} blocking queries are open already; close some", RETRY)
        self._waiting.add(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            handler = asyncio.current_task()
            if handler is None or handler.cancelling():  # the client has gone: it was not `end_waits`
                raise
            return None
        finally:
            self._waiting.discard(waiter)

    def end_waits(self) -> None:
        """Answer all blocking queries now, with what there is; later ones do not block."""
        self.closing = True
        for waiter in self._waiting:
            waiter.cancel()

    async def _load_all(self) -> tuple[Snapshot, int]:
        """Every service, also those that leave the snapshot while others are loaded."""
        snapshot = self.snapshot()
        services = dict(snapshot.services)
        missing = iter([name for name in snapshot.names if name not in services])
        await asyncio.gather(*(self._load_each(missing, services) for _ in range(MAX_LOADING)))
        whole = Snapshot(
            snapshot.index,
            snapshot.names,
            services,
            snapshot.nodes,
            snapshot.datacenter,
            snapshot.datacenters,
        )
        return whole, max(snapshot.index, max((s.index for s in services.values()), default=0))

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
            if latest and any(service.index > query.index for service in latest.services.values()):
                return
            if latest and latest.index > query.index:
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
