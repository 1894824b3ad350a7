"""What Consul finds on request: other datacenters, the mesh, prepared queries, addresses in reverse.

None of it is watched, for it is asked rarely and names are without number
there: an answer is good for `FRESH` seconds and is then asked for again, and
kept aside for the time when Consul is slow or lost. What a flood of made-up
names can cost is bounded:

- Most need no request: a service of our own datacenter is known by the
  snapshot, one of another by its list of names, read at most once in `FRESH`
  seconds, and an address by an index of all of them.
- The rest, names of prepared queries and of nodes elsewhere, shares
  `MAX_FETCHES` requests at a time, and of those that find nothing `MISSES` a
  second. Beyond that a name that is not known is not asked for.
- `KEPT_LIMIT` answers are kept, and as many that there is nothing; neither
  drive out the others.

Consul has no request for "who has this address", so for reverse names the
services of all nodes are read into an index, at most every `INDEX_FRESH` seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from registrator.catalog import CatalogError, Unavailable
from registrator.catalog.consul.client import ConsulClient
from registrator.catalog.consul.errors import NotFound
from registrator.catalog.consul.fetches import Fetches, Spawn
from registrator.catalog.consul.slices import in_slices
from registrator.catalog.consul.watch import Contact
from registrator.model import ADDRESS, NODE, QUERY, Entry, Instance, Node, Selected, Selection, Snapshot

FRESH = 1.0  # seconds, as for a service without a watch
INDEX_FRESH = 10.0  # seconds
PATIENCE = 0.5  # seconds for which a lookup waits for news of what is known
KEPT_LIMIT = 1000  # answers
MOST_AT = 16  # instances that are found by one address: those of a node may be many
# The pool has 7 connections beside watches. Another datacenter may hang, and writes must go on.
MAX_FETCHES = 4  # requests at a time
NODES_AT_ONCE = 2  # nodes that are read at a time for the index of addresses
MISSES = 20.0  # requests a second that find nothing; they may be saved up for
MISSES_AT_ONCE = 100.0

NOTHING = Selected()
INDEX = Selection(ADDRESS, "")  # the index of all addresses is read for any of them


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer and when it was true (monotonic)."""

    found: Selected
    true_at: float

    @property
    def age(self) -> float:
        """Seconds since then."""
        return time.monotonic() - self.true_at


class Misses:
    """How many more requests may find nothing: a bucket that fills by `MISSES` a second."""

    def __init__(self) -> None:
        self._left = MISSES_AT_ONCE
        self._counted_at = time.monotonic()

    @property
    def left(self) -> float:
        """As of now."""
        now = time.monotonic()
        self._left = min(MISSES_AT_ONCE, self._left + (now - self._counted_at) * MISSES)
        self._counted_at = now
        return self._left

    def count(self) -> None:
        """One more found nothing."""
        self._left = self.left - 1


class Selections:
    """Implements `selected` and `select` of `catalog.Directory`.

    `current` gives the directory's snapshot; `spawn` starts a task that the
    directory ends with its others, or raises Unavailable where it has ended.
    What is older than `max_stale` seconds is not served.
    """

    def __init__(
        self,
        client: ConsulClient,
        contact: Contact,
        current: Callable[[], Snapshot | None],
        spawn: Spawn,
        max_stale: float = float("inf"),
    ) -> None:
        self._client = client
        self._contact = contact
        self._current = current
        self._max_stale = max_stale
        self._found: OrderedDict[Selection, Kept] = OrderedDict()  # the latest found last
        self._missing: OrderedDict[Selection, Kept] = OrderedDict()
        self._fetches: Fetches[Selection] = Fetches(spawn)
        self._misses = Misses()
        self._names: dict[str, tuple[float, Collection[str]]] = {}  # datacenter -> read at, service names
        self._index: Mapping[str, Sequence[Entry]] = {}  # IP address -> who has it
        self._indexed_at = float("-inf")

    def selected(self, selection: Selection) -> Selected | None:
        """What was found lately, or None; what cannot exist is nothing at once."""
        if not _can_be(selection.name) or self._is_unknown(selection):
            return NOTHING
        kept = self._kept(selection)
        fresh = INDEX_FRESH if selection.kind == ADDRESS else FRESH
        return kept.found if kept and kept.age < fresh else None

    async def select(self, selection: Selection) -> Selected:
        """Ask Consul, once for all who want the same; what is known serves while it is slow or lost."""
        found = self.selected(selection)
        if found is not None:
            return found
        known = self._kept(selection)
        if known and known.age > self._max_stale:
            known = None
        try:
            await self._ask(selection, known)
        except CatalogError:
            if known is None:
                raise
        kept = self._kept(selection) or known
        return kept.found if kept else NOTHING

    def _kept(self, selection: Selection) -> Kept | None:
        """What was found last, however old."""
        if selection.kind == ADDRESS:
            found = Selected(tuple(self._index.get(selection.name, ())))
            return Kept(found, self._indexed_at) if self._indexed_at > 0 else None
        return self._found.get(selection) or self._missing.get(selection)

    def _is_unknown(self, selection: Selection) -> bool:
        """Whether it is about a service of which a list of names says that it is not there."""
        if selection.kind in (NODE, QUERY, ADDRESS):
            return False
        if selection.datacenter:
            read_at, names = self._names.get(selection.datacenter, (float("-inf"), ()))
            return time.monotonic() - read_at < FRESH and selection.name not in names
        snapshot = self._current()
        return snapshot is not None and selection.name not in snapshot.names

    async def _ask(self, selection: Selection, known: Kept | None) -> None:
        """Have it asked for, and wait for that: not for long if something is known. Raises CatalogError."""
        if not self._contact.there.is_set():
            raise Unavailable(
                f"Consul at {self._client.address} has been away for {self._contact.age:.0f} s, "
                f"and {selection.name} ({selection.kind}) was not asked for before"
            )
        about = INDEX if selection.kind == ADDRESS else selection
        if about not in self._fetches:
            self._admit(known)
        work = self._read_index if about is INDEX else partial(self._fetch, selection)
        await self._fetches.join(about, work, PATIENCE if known else None)

    def _admit(self, known: Kept | None) -> None:
        """Raise Unavailable for a request too many."""
        if len(self._fetches) >= MAX_FETCHES:
            raise Unavailable(f"{MAX_FETCHES} requests to Consul are under way already; ask again")
        if self._misses.left < 1 and (known is None or known.found == NOTHING):
            raise Unavailable("too many names are asked for that do not exist; ask again in a while")

    async def _fetch(self, selection: Selection) -> None:
        """Ask and keep the answer. Raises CatalogError."""
        try:
            found = await self._find(selection)
        except CatalogError:
            self._misses.count()
            raise
        self._found.pop(selection, None)
        self._missing.pop(selection, None)
        if found == NOTHING:
            self._misses.count()
        room = self._missing if found == NOTHING else self._found
        room[selection] = Kept(found, time.monotonic())
        if len(room) > KEPT_LIMIT:
            room.popitem(last=False)

    async def _find(self, selection: Selection) -> Selected:
        name, datacenter = selection.name, selection.datacenter
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

    async def _read_index(self) -> None:
        """Find out who has which address, by all nodes' services; of each no more than name and address."""
        snapshot = self._current()
        nodes = sorted(snapshot.nodes.values(), key=lambda node: node.name) if snapshot else []
        limit = asyncio.Semaphore(NODES_AT_ONCE)

        async def read(node: Node) -> tuple[Instance, ...]:
            async with limit:
                return (await self._client.node(node.name))[1]

        index: dict[str, list[Entry]] = {}

        def add(one: tuple[Node, Instance]) -> None:
            node, instance = one
            entry = Entry(node, Instance(instance.id, instance.service, instance.address, instance.port))
            for ip in instance.reversible:
                found = index.setdefault(ip, [])
                if len(found) < MOST_AT:
                    found.append(entry)

        for node, instances in zip(nodes, await asyncio.gather(*map(read, nodes)), strict=True):
            await in_slices(((node, one) for one in sorted(instances, key=lambda one: one.id)), add)
        self._index, self._indexed_at = index, time.monotonic()


def _can_be(name: str) -> bool:
    """Whether Consul can be asked for a name: it goes into a URL's path."""
    return "/" not in name and name.isprintable()
