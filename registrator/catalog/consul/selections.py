"""What Consul finds on request: other datacenters, the mesh, prepared queries, addresses in reverse.

None of it is watched, for it is asked rarely and names are without number
there: an answer is good for `FRESH` seconds and is then asked for again, and
kept aside for the time when Consul is lost. What a flood of made-up names can
cost is bounded: a service that its datacenter does not have is known from the
list of names, read at most once in `FRESH` seconds; all else shares
`MAX_FETCHES` requests at a time and `KEPT_LIMIT` answers.

Consul has no request for "who has this address", so for reverse names the
services of all nodes are read into an index, at most every `INDEX_FRESH` seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from registrator.catalog import CatalogError, Unavailable
from registrator.catalog.consul.client import ConsulClient
from registrator.catalog.consul.errors import NotFound
from registrator.catalog.consul.watch import Contact
from registrator.model import ADDRESS, NODE, QUERY, Entry, Instance, Node, Selected, Selection, Snapshot

FRESH = 1.0  # seconds, as for a service without a watch
INDEX_FRESH = 10.0  # seconds
KEPT_LIMIT = 1000  # answers
MAX_FETCHES = 8  # requests at a time: what the pool has left beside watches
NODES_AT_ONCE = 4  # nodes that are read at a time for the index of addresses

NOTHING = Selected()

Spawn = Callable[[Coroutine[Any, Any, CatalogError | None]], "asyncio.Task[CatalogError | None]"]


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer and the time (monotonic) until which it is fresh."""

    found: Selected
    until: float


class Selections:
    """Implements `selected` and `select` of `catalog.Directory`.

    `current` gives the directory's snapshot; `spawn` starts a task that the
    directory ends with its others, or raises Unavailable where it has ended.
    """

    def __init__(
        self, client: ConsulClient, contact: Contact, current: Callable[[], Snapshot | None], spawn: Spawn
    ) -> None:
        self._client = client
        self._contact = contact
        self._current = current
        self._spawn = spawn
        self._kept: OrderedDict[Selection, Kept] = OrderedDict()  # the latest found last
        self._fetching: dict[Selection, asyncio.Task[CatalogError | None]] = {}
        self._names: dict[str, tuple[float, Collection[str]]] = {}  # datacenter -> read at, service names
        self._index: dict[str, tuple[Entry, ...]] = {}  # IP address -> who has it
        self._index_until = 0.0
        self._reading = asyncio.Lock()

    def selected(self, selection: Selection) -> Selected | None:
        """What was found lately, or None; what cannot exist is nothing at once."""
        if not _can_be(selection.name) or self._is_unknown(selection):
            return NOTHING
        kept = self._kept.get(selection)
        return kept.found if kept and kept.until > time.monotonic() else None

    async def select(self, selection: Selection) -> Selected:
        """Ask Consul, once for all who want the same; what was known before serves while it is lost."""
        found = self.selected(selection)
        if found is not None:
            return found
        error: CatalogError | None = None
        if self._contact.there.is_set():
            task = self._fetching.get(selection) or self._start(selection)
            error = await asyncio.shield(task)  # one asker that gives up does not spoil it for the others
        kept = self._kept.get(selection)
        if kept:
            return kept.found
        raise error or Unavailable(
            f"Consul at {self._client.address} has been away for {self._contact.age:.0f} s, "
            f"and {selection.name} ({selection.kind}) was not asked for before"
        )

    def _is_unknown(self, selection: Selection) -> bool:
        """Whether it is about a service of our own datacenter that is not there: no request for that."""
        if selection.kind in (NODE, QUERY, ADDRESS) or selection.datacenter:
            return False
        snapshot = self._current()
        return snapshot is not None and selection.name not in snapshot.names

    def _start(self, selection: Selection) -> asyncio.Task[CatalogError | None]:
        if len(self._fetching) >= MAX_FETCHES:
            raise Unavailable(f"{MAX_FETCHES} requests to Consul are under way already; ask again")
        task = self._fetching[selection] = self._spawn(self._fetch(selection))
        return task

    async def _fetch(self, selection: Selection) -> CatalogError | None:
        """Ask and keep the answer; the error is returned, for in a task group raising it would end all."""
        try:
            found = await self._find(selection)
        except CatalogError as error:
            return error
        finally:
            del self._fetching[selection]
        self._kept.pop(selection, None)
        self._kept[selection] = Kept(found, time.monotonic() + FRESH)
        while len(self._kept) > KEPT_LIMIT:
            self._kept.popitem(last=False)
        return None

    async def _find(self, selection: Selection) -> Selected:
        name, datacenter = selection.name, selection.datacenter
        if selection.kind == ADDRESS:
            return Selected(await self._with_address(name))
        if selection.kind == NODE:
            node, _ = await self._client.node(name, datacenter)
            return Selected(node=node)
        if selection.kind == QUERY:
            try:
                return await self._client.query(name, datacenter)
            except NotFound:
                return NOTHING
        if datacenter and not await self._has(name, datacenter):
            return NOTHING
        return Selected(await self._client.found(selection.kind, name, datacenter))

    async def _has(self, service: str, datacenter: str) -> bool:
        """Whether another datacenter has a service of that name."""
        read_at, names = self._names.get(datacenter, (0.0, ()))
        if service not in names and time.monotonic() - read_at > FRESH:
            names = await self._client.names_in(datacenter)
            self._names[datacenter] = time.monotonic(), names.keys()
        return service in names

    # Addresses in reverse -------------------------------------------------------

    async def _with_address(self, ip: str) -> tuple[Entry, ...]:
        async with self._reading:
            if self._index_until < time.monotonic():
                self._index = await self._read_index()
                self._index_until = time.monotonic() + INDEX_FRESH
        return self._index.get(ip, ())

    async def _read_index(self) -> dict[str, tuple[Entry, ...]]:
        """Who has which address, by all nodes' services; of each no more than its name and address."""
        snapshot = self._current()
        nodes = sorted(snapshot.nodes.values(), key=lambda node: node.name) if snapshot else []
        limit = asyncio.Semaphore(NODES_AT_ONCE)

        async def read(node: Node) -> tuple[Instance, ...]:
            async with limit:
                return (await self._client.node(node.name))[1]

        index: dict[str, tuple[Entry, ...]] = {}
        for node, instances in zip(nodes, await asyncio.gather(*map(read, nodes)), strict=True):
            for instance in sorted(instances, key=lambda instance: instance.id):
                entry = Entry(node, Instance(instance.id, instance.service, instance.address, instance.port))
                for ip in _own_addresses(instance):
                    index[ip] = (*index.get(ip, ()), entry)
        return index


def _own_addresses(instance: Instance) -> Iterable[str]:
    own = (address.ip for address in instance.addresses if instance.has_address(address.ip))
    return dict.fromkeys(ip for ip in (instance.address, *own) if ip)


def _can_be(name: str) -> bool:
    """Whether Consul can be asked for a name: it goes into a URL's path."""
    return "/" not in name and name.isprintable()
