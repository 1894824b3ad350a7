"""The Directory on Consul: a snapshot kept true by blocking queries, in memory for lookups.

Two watches run always: all names, and all nodes. So an unknown name costs no
request. Instances are loaded when a name is first asked for, and from then on
its own watch keeps them true. There are at most `HOT_LIMIT` of those, for
Consul grants a client address 200 connections and our pool has 100:

- While a slot is free, a name that was loaded gets it and keeps it.
- When none is, it is served for `FRESH` seconds and then leaves the snapshot,
  which sends the next lookup to `load`. Up to `STALE` seconds after it was
  read, that lookup is answered with it at once while it is read anew; later,
  the lookup waits for the reading, but not longer than `PATIENCE`. What was
  read is kept aside for that, and for the time when Consul is lost.
- As long as names are without a slot, each watched one must show that it is
  still asked for: its instances leave the snapshot, which sends the next
  lookup to `load`, and that puts them back at once, without a request. A name
  for which nobody came until its query returned once more gives up its slot.

Our indexes are our own, not Consul's: they only ever grow, also when Consul
comes back with another state.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Collection, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from registrator.catalog import CatalogError, Unavailable
from registrator.catalog.consul.client import ConsulClient
from registrator.catalog.consul.errors import Unreadable
from registrator.catalog.consul.fetches import Fetches, Outcome
from registrator.catalog.consul.selections import Selections
from registrator.catalog.consul.waiters import Waiters
from registrator.catalog.consul.watch import SETTLING, Contact, Watch, follow
from registrator.model import Entry, Node, Service, Snapshot
from registrator.stats import Stats

log = logging.getLogger(__name__)

# 8 connections of the pool's 100 are left for writes, loads and the watches that always run.
HOT_LIMIT = 90
KEPT_LIMIT = 1000  # services kept aside for the time when Consul is lost
SPOILT = 5.0  # seconds until a service is read again whose document could not be used
FRESH = 1.0  # seconds for which a service without a watch is served, and until the next look at such
STALE = 2.0  # seconds for which it is served at once, while it is read anew
PATIENCE = 0.5  # seconds for which a lookup waits for news of a service that is known
VITAL_WAIT = 15.0  # seconds: a Consul that freezes, or whose host is gone, is missed after this at the latest
HOT_WAIT = 60.0  # seconds: also how long a name keeps a slot for which nobody asks


@dataclass(slots=True)
class Hot:
    """A service with a watch. Since `proving_since` it has to show that it is asked for; 0: it need not."""

    service: Service
    watch: Watch[tuple[Entry, ...]]
    task: asyncio.Task[None] | None = None
    proving_since: float = 0.0


@dataclass(slots=True)
class Cold:
    """A service without a watch, as it was at `true_at` (monotonic); lookups see it while it is `served`."""

    service: Service
    true_at: float
    served: bool

    @property
    def age(self) -> float:
        """Seconds since it was known to be true."""
        return time.monotonic() - self.true_at


class ConsulDirectory:
    """Implements `catalog.Directory`; `run` must be running for anything to be known.

    What is older than `max_stale` seconds is not known any more; 0: there is no such limit.
    """

    def __init__(
        self, client: ConsulClient, contact: Contact, stats: Stats | None = None, max_stale: float = 0.0
    ) -> None:
        self._client = client
        self._stats = stats or Stats()
        self._contact = contact
        self._max_stale = max_stale or float("inf")
        self._names = Watch(lambda index: client.names(index, VITAL_WAIT))
        self._nodes = Watch(lambda index: client.nodes(index, VITAL_WAIT))
        self._datacenters: tuple[str, ...] = ()
        self._hot: dict[str, Hot] = {}
        self._cold: OrderedDict[str, Cold] = OrderedDict()  # the latest known last
        self._crowded_at = float("-inf")  # when a service was last read that got no watch
        self._spoilt: OrderedDict[str, tuple[float, Unreadable]] = OrderedDict()  # until when, and why
        self._loading: Fetches[str] = Fetches(self._spawn)
        # Above every index of an earlier life of this agent, so that nobody waits for what has passed.
        self._index = int(time.time())
        self._snapshot: Snapshot | None = None
        self._waiters = Waiters()
        self._tasks: asyncio.TaskGroup | None = None
        self._later: asyncio.TimerHandle | None = None  # another look at names that were missing
        selections = Selections(client, contact, lambda: self.snapshot, self._spawn, self._max_stale)
        self.selected = selections.selected
        self.select = selections.select

    @property
    def snapshot(self) -> Snapshot | None:
        """The latest snapshot, None before names and nodes have both been read, or when it is too old."""
        return self._snapshot if self.age <= self._max_stale else None

    @property
    def age(self) -> float:
        """Seconds since contact with Consul's catalog was lost; 0 while there is contact."""
        return self._contact.age

    async def run(self) -> None:
        """Keep the snapshot true until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._tasks.create_task(follow(self._names, self._contact, self._catalog_changed))
                self._tasks.create_task(follow(self._nodes, self._contact, self._catalog_changed))
                self._tasks.create_task(self._follow_datacenters())
                self._tasks.create_task(self._expire())
        finally:
            self._tasks = None

    async def load(self, service: str) -> Snapshot:
        """See `catalog.Directory.load`; loads of one name at the same time are one request."""
        snapshot = self._known()
        if service in snapshot.services or service not in snapshot.names:
            return snapshot
        if hot := self._hot.get(service):
            hot.proving_since = 0.0
            self._publish()
        else:
            await self._load(service)
        return self._known()

    async def wait(self, service: str | None, index: int, timeout: float) -> Snapshot:
        """See `catalog.Directory.wait`; a service that is not there counts with the snapshot's index."""
        deadline = time.monotonic() + timeout
        while True:
            changed = self._waiters.join(service)
            snapshot = await self.load(service) if service and self.snapshot else self.snapshot
            left = deadline - time.monotonic()
            if snapshot and (snapshot.index_of(service) > index or left <= 0):
                return snapshot
            if left <= 0:
                return self._known()
            # A service without a watch is looked at again when it is no longer fresh.
            unwatched = service is not None and service not in self._hot
            await self._waiters.wait(changed, min(left, FRESH) if unwatched else left)

    async def shown(self, services: Collection[str], timeout: float) -> None:
        """See `catalog.Registry.shown`: Consul tells of a registration some milliseconds after it."""
        wanted = {service.lower() for service in services}
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            changed = self._waiters.join(None)
            if self._snapshot and wanted <= self._snapshot.names.keys():
                return
            await self._waiters.wait(changed, deadline - time.monotonic())

    # Names and nodes -----------------------------------------------------------

    def _catalog_changed(self) -> None:
        """Names or nodes are others: services that are gone are forgotten, watch and all."""
        names, nodes = self._names.data, self._nodes.data
        if names is None or nodes is None:
            return
        if self._later:
            self._later.cancel()
        filling = self._contact.unsettled or self._contact.refilling
        if self._snapshot and filling and self._snapshot.names.keys() - names.keys():
            # A Consul that came back empty has its services again in a moment: nobody is to miss them.
            self._later = asyncio.get_running_loop().call_later(SETTLING, self._catalog_changed)
            return
        for service in [name for name in self._hot if name not in names]:
            # Its query is answered by the very change that brought us here: nothing stays behind at Consul.
            task = self._hot.pop(service).task
            if task:
                task.cancel()
        for service in [name for name in self._cold if name not in names]:
            del self._cold[service]
        self._publish(self._next_index())

    async def _follow_datacenters(self) -> None:
        """Read the datacenters at the start and whenever Consul was away."""
        while True:
            await self._contact.there.wait()
            self._contact.returned.clear()
            try:
                self._datacenters = await self._client.datacenters()
            except CatalogError as error:
                log.debug("the datacenters could not be read: %s", error)
                await asyncio.sleep(1)
                continue
            if self._snapshot:
                self._publish()
            await self._contact.returned.wait()

    # Instances -----------------------------------------------------------------

    async def _load(self, service: str) -> None:
        """Have the instances of a service without a watch in the snapshot; raises CatalogError."""
        known = self._cold.get(service)
        if known and known.age > self._max_stale:
            known = None
        try:
            if not self._contact.there.is_set():
                raise Unavailable(
                    f"Consul at {self._client.address} has been away for {self.age:.0f} s, "
                    f"and {service} was not asked for before"
                )
            if service in self._spoilt:
                self._refuse_spoilt(service)
            patience = (0.0 if known.age < STALE else PATIENCE) if known else None
            await self._loading.join(service, partial(self._fetch, service), patience)
        except CatalogError:
            if known is None:
                raise
        if known and self._cold.get(service) is known and not known.served:
            known.served = True
            self._publish()

    def _spawn(self, work: Coroutine[Any, Any, Outcome]) -> asyncio.Task[Outcome]:
        """Start a task that ends with `run`."""
        if self._tasks is None:
            work.close()
            raise Unavailable("the agent is being stopped; ask another one")
        return self._tasks.create_task(work)

    def _refuse_spoilt(self, service: str) -> None:
        """Raise again, for a while, why a service's document could not be used: it may be long."""
        until, error = self._spoilt[service]
        if time.monotonic() < until:
            raise error
        del self._spoilt[service]

    async def _fetch(self, service: str) -> None:
        """Read a service once; raises CatalogError."""
        try:
            index, entries = await self._client.entries(service, 0, 0)
        except CatalogError as error:
            self._stats.loads["failed"] += 1
            if isinstance(error, Unreadable):
                self._spoilt[service] = time.monotonic() + SPOILT, error
                while len(self._spoilt) > KEPT_LIMIT:
                    self._spoilt.popitem(last=False)
            raise
        self._stats.loads["ok"] += 1
        if service in self._known().names:
            self._keep(service, index, entries)

    def _keep(self, name: str, index: int, entries: tuple[Entry, ...]) -> None:
        """Serve what was just read: with a watch from now on where a slot is free."""
        known = self._cold.pop(name, None)
        if known and (known.service.entries == entries or self._is_on_its_way(entries)):
            service = known.service
        else:
            service = self._version(name, entries)
        if self._tasks and len(self._hot) < HOT_LIMIT:
            hot = self._hot[name] = Hot(service, Watch(partial(self._ask, name), index, entries))
            hot.task = self._tasks.create_task(self._watch(name, hot))
        else:
            self._crowded_at = time.monotonic()
            self._cold[name] = Cold(service, self._crowded_at, served=True)
            while len(self._cold) > KEPT_LIMIT:
                self._cold.popitem(last=False)
        self._publish()

    def _version(self, key: str, entries: tuple[Entry, ...]) -> Service:
        """A new version of a service, under the name with which it was registered."""
        name = entries[0].instance.service if entries else key
        return Service(name, self._next_index(), entries)

    async def _ask(self, service: str, index: int) -> tuple[int, tuple[Entry, ...]]:
        return await self._client.entries(service, index, HOT_WAIT)

    async def _watch(self, name: str, hot: Hot) -> None:
        """Keep a service true until it gives up its slot, or is cancelled because it is gone."""
        while not self._gives_up(hot):
            await self._contact.settled()
            try:
                news = await hot.watch.advance()
            except CatalogError as error:
                log.debug("watching %s failed: %s", name, error)
                await hot.watch.back_off(error)
                continue
            entries = hot.watch.data or ()
            if news and not self._is_on_its_way(entries):
                hot.service = self._version(name, entries)
                self._publish()
        del self._hot[name]
        self._stats.watched = len(self._hot)
        self._cold[name] = Cold(hot.service, time.monotonic(), served=False)

    def _is_on_its_way(self, entries: tuple[Entry, ...]) -> bool:
        """Whether a service has no instance because all of Consul is being filled again."""
        return not entries and self._contact.refilling

    def _gives_up(self, hot: Hot) -> bool:
        """Whether others want the slot and nobody asked for this service during one whole wait."""
        now = time.monotonic()
        if now - self._crowded_at >= HOT_WAIT:
            return False
        if hot.proving_since:
            return now - hot.proving_since >= HOT_WAIT
        hot.proving_since = now
        self._publish()
        return False

    async def _expire(self) -> None:
        """Take services without a watch out of the snapshot when they are no longer fresh."""
        while True:
            await asyncio.sleep(FRESH)
            limit = FRESH if self._contact.there.is_set() else self._max_stale
            old = [cold for cold in self._cold.values() if cold.served and cold.age > limit]
            for cold in old:
                cold.served = False
            if old:
                self._publish()

    # The snapshot --------------------------------------------------------------

    def _known(self) -> Snapshot:
        if self._snapshot and not self.snapshot:
            raise Unavailable(
                f"Consul at {self._client.address} has been away for {self.age:.0f} s, "
                "and what is known is older than --max-stale allows"
            )
        if self._snapshot is None:
            raise Unavailable(
                f"nothing is known yet of Consul at {self._client.address}; it is being read, try again soon"
            )
        return self._snapshot

    def _next_index(self) -> int:
        self._index += 1
        return self._index

    def _publish(self, index: int = 0) -> None:
        """Swap the snapshot and wake those who wait for what changed; a new `index`: names or nodes did."""
        before = self._snapshot
        names: Mapping[str, tuple[str, ...]] = self._names.data or {}
        nodes: Mapping[str, Node] = self._nodes.data or {}
        if before and not index:  # newer ones may not be for showing yet
            names, nodes = before.names, before.nodes
        datacenter = next((node.datacenter for node in nodes.values() if node.datacenter), "dc1")
        services = {name: hot.service for name, hot in self._hot.items() if not hot.proving_since}
        services |= {name: cold.service for name, cold in self._cold.items() if cold.served}
        after = Snapshot(
            index=index or (before.index if before else self._index),
            names=names,
            services=services,
            nodes=nodes,
            datacenter=datacenter,
            datacenters=self._datacenters or (datacenter,),
        )
        self._snapshot = after
        self._stats.watched = len(self._hot)
        self._waiters.wake(lambda key: before is None or before.index_of(key) != after.index_of(key))
