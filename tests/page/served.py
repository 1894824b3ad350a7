"""The front over a catalog in memory, in a thread of its own: a browser test blocks, a server must not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from registrator.journal import Journal
from registrator.lookup.http import HttpFront
from registrator.lookup.http_server import HttpServer
from registrator.model import Snapshot, View
from registrator.stats import Stats
from tests.lookup.fakes import FakeDirectory
from tests.lookup.web import LOOPBACK

T = TypeVar("T")


class Containers:
    """The node's containers, each with the networks that it is on."""

    def __init__(self, **networks: str) -> None:
        self._views = {name: View(frozenset({network})) for name, network in networks.items()}

    def of_container(self, name_or_id: str) -> View | None:
        return self._views.get(name_or_id)

    def names(self) -> list[str]:
        return sorted(self._views)


class Served:
    """A running front; `publish` and `tell` change what it shows."""

    def __init__(self, snapshot: Snapshot, containers: Containers, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = threading.Thread(target=self._loop.run_forever, name="front", daemon=True)
        self._thread.start()
        self._directory = FakeDirectory(snapshot)
        self._journal = self.do(Journal)
        front = HttpFront(
            self._directory,
            stats=Stats(ready=True),
            view_of=lambda _: View(),
            domain="consul",
            containers=containers,
            journal=self._journal,
            local=self._local,
        )
        self._server = HttpServer(front, [LOOPBACK])
        asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result(10)

    @property
    def url(self) -> str:
        return f"http://{self._server.addresses[0]}"

    async def _local(self) -> str:
        """The agent's own node: the first that is known."""
        snapshot = self._directory.snapshot
        return next((node.name for node in snapshot.nodes.values()), "") if snapshot else ""

    def publish(self, snapshot: Snapshot) -> None:
        self.do(lambda: self._directory.publish(snapshot))

    def tell(self, kind: str, text: str, service: str = "", instance: str = "") -> None:
        self.do(lambda: self._journal.add(kind, text, service=service, instance=instance))

    def do(self, action: Callable[[], T]) -> T:
        """Call something in the loop's thread."""

        async def act() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(act(), self._loop).result(10)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@contextmanager
def served(
    snapshot: Snapshot, loop: asyncio.AbstractEventLoop | None = None, **networks: str
) -> Iterator[Served]:
    """A front over a snapshot; `networks` names this node's containers, each with the id of its network."""
    front = Served(snapshot, Containers(**networks), loop or asyncio.new_event_loop())
    try:
        yield front
    finally:
        front.close()
