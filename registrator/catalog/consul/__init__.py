"""The catalog in Consul: any Consul from 1.8 on, through its agent on this node.

client      python-consul2 with an HTTP of our own
errors      every failure as one line to act on
form        Instance <-> Consul's JSON (pure)
registry    what the bridge writes to: the agent's services and checks
watch       blocking queries, all their rules
bulletin    what managers tell all agents of Swarm's services, in the key-value store
facts       Swarm's services <-> the keys that hold them (pure)
directory   what lookups read: names, nodes and the services asked for
fetches     requests under way, shared by all who want the same
selections  what lookups find on request: other datacenters, mesh, queries, addresses
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from registrator.catalog.consul.bulletin import ConsulBulletin
from registrator.catalog.consul.client import ConsulClient
from registrator.catalog.consul.directory import ConsulDirectory
from registrator.catalog.consul.registry import ConsulRegistry
from registrator.catalog.consul.watch import Contact, Disturbances
from registrator.model import Node, Snapshot
from registrator.settings import ConsulAddress
from registrator.stats import Stats


class ConsulCatalog:
    """The Protocols of a catalog, `Registry`, `Bulletin` and `Directory`, on one Consul agent.

    Building it does no I/O; `async with` opens and closes its one connection
    pool. Entering raises SettingError for TLS files that cannot be used, and
    never fails for a Consul that is away. `run` must go on inside it for
    lookups to see anything; they see nothing that is older than `max_stale`
    seconds, unless that is 0.
    """

    def __init__(self, address: ConsulAddress, stats: Stats, max_stale: float = 0.0) -> None:
        disturbances = Disturbances()
        self._client = ConsulClient(address, stats)
        self._open = AsyncExitStack()
        registry = ConsulRegistry(self._client, disturbances, stats)
        self._directory = ConsulDirectory(self._client, Contact(disturbances), stats, max_stale)
        bulletin = ConsulBulletin(self._client)
        # The parts share nothing but the client and the disturbances.
        self.owned = registry.owned
        self.taken = registry.taken
        self.register = registry.register
        self.deregister = registry.deregister
        self.report = registry.report
        self.disturbances = registry.disturbances
        self.settled = registry.settled
        self.publish = bulletin.publish
        self.published = bulletin.published
        self.shown = self._directory.shown
        self.load = self._directory.load
        self.selected = self._directory.selected
        self.select = self._directory.select
        self.wait = self._directory.wait
        self.run = self._directory.run

    @property
    def snapshot(self) -> Snapshot | None:
        """The latest snapshot; None before names and nodes have both been read, or when it is too old."""
        return self._directory.snapshot

    @property
    def age(self) -> float:
        """Seconds since contact with Consul's catalog was lost; 0 while there is contact."""
        return self._directory.age

    async def __aenter__(self) -> Self:
        await self._open.enter_async_context(self._client.http.session())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def node(self) -> Node:
        """The Consul agent's own node; raises CatalogError."""
        return await self._client.own_node()
