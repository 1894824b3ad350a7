"""A directory in memory, and short ways to fill one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from registrator.catalog import CatalogError, Unavailable
from registrator.model import (
    PASSING,
    Address,
    CheckResult,
    Entry,
    Instance,
    Node,
    Selected,
    Selection,
    Service,
    Snapshot,
    Weights,
)

NODE = Node("n1", "192.0.2.1", id="0001", tagged_addresses={"lan": "192.0.2.1"}, meta={"rack": "a"})


class FakeDirectory:
    """A `Directory` whose snapshot a test publishes; `waiters` counts those that block on it."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self.snapshot = snapshot
        self.age = 0.0
        self.waiters = 0
        self.to_load: dict[str, Service] = {}  # known by name, loaded when asked for
        self.selections: dict[Selection, Selected] = {}  # found already
        self.to_select: dict[Selection, Selected] = {}  # found when asked for
        self.broken: CatalogError | None = None
        self._changed = asyncio.Event()

    def publish(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._changed.set()
        self._changed = asyncio.Event()

    async def load(self, service: str) -> Snapshot:
        if self.broken:
            raise self.broken
        assert self.snapshot
        if service in self.to_load:
            services = {**self.snapshot.services, service: self.to_load.pop(service)}
            self.publish(replace(self.snapshot, services=services))
        return self.snapshot

    def selected(self, selection: Selection) -> Selected | None:
        return self.selections.get(selection)

    async def select(self, selection: Selection) -> Selected:
        if self.broken:
            raise self.broken
        self.selections[selection] = self.to_select.get(selection, Selected())
        return self.selections[selection]

    async def wait(self, service: str | None, index: int, timeout: float) -> Snapshot:
        self.waiters += 1
        try:
            async with asyncio.timeout(timeout):
                while self._index(service) <= index:
                    await self._changed.wait()
        except TimeoutError:
            pass
        finally:
            self.waiters -= 1
        if self.snapshot is None:
            raise Unavailable("nothing is known")
        return self.snapshot

    async def run(self) -> None:
        await asyncio.Event().wait()

    def _index(self, service: str | None) -> int:
        if self.snapshot is None:
            return -1
        found = self.snapshot.services.get(service or "")
        return found.index if found else self.snapshot.index


def entry(
    service: str,
    number: int = 1,
    *,
    status: str = PASSING,
    tags: tuple[str, ...] = (),
    node: Node = NODE,
    addresses: tuple[Address, ...] = (),
    **fields: Any,
) -> Entry:
    """Instance `number` of a service: at 10.0.0.<number>:80 unless `fields` say otherwise, with one check."""
    fields = {"address": f"10.0.0.{number}", "port": 80, "weights": Weights(), **fields}
    instance = Instance(f"{service}-{number}", service, tags=tags, addresses=addresses, **fields)
    check = CheckResult(f"{instance.id}:check", "alive", status, "said so", "", instance.id, service, "ttl")
    serf = CheckResult("serfHealth", "Serf Health Status", PASSING, "Agent alive and reachable")
    return Entry(node, instance, (serf, check))


def snapshot_of(*entries: Entry, index: int = 10, indexes: Mapping[str, int] | None = None) -> Snapshot:
    """A snapshot of these entries; a service's index is `index` unless `indexes` has one for it."""
    services: dict[str, Service] = {}
    for key in dict.fromkeys(entry.instance.service.lower() for entry in entries):
        mine = tuple(e for e in entries if e.instance.service.lower() == key)
        services[key] = Service(mine[0].instance.service, (indexes or {}).get(key, index), mine)
    return Snapshot(
        index=index,
        names={key: _tags(service.entries) for key, service in services.items()},
        services=services,
        nodes={e.node.name.lower(): e.node for e in entries},
    )


def _tags(entries: Iterable[Entry]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tag for e in entries for tag in e.instance.tags))
