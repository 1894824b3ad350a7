"""An engine and a registry in memory, with failures that a real one cannot be told to have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Hashable, Mapping
from dataclasses import dataclass, replace

from registrator.catalog import Refused, Unavailable
from registrator.model import Container, Event, Failure, Health, Instance


@dataclass(frozen=True)
class Row:
    id: str
    fingerprint: Hashable


class MemoryEngine:
    """Containers by id; `say` sends an event, as an engine does after a change."""

    def __init__(self, *containers: Container) -> None:
        self.containers_by_id = {c.id: c for c in containers}
        self.queue: asyncio.Queue[Event] = asyncio.Queue()
        self.queue.put_nowait(Event())
        self.broken = False
        self.cleaned_up = asyncio.Event()  # an engine that is at work on a container lets an inspect wait
        self.cleaned_up.set()
        self.inspected: list[str] = []

    def put(self, container: Container, action: str = "start") -> None:
        self.containers_by_id[container.id] = container
        self.say(container.id, action)

    def remove(self, container_id: str) -> None:
        del self.containers_by_id[container_id]
        self.say(container_id, "destroy")

    def say(self, container_id: str, action: str, signal: int = 0) -> None:
        self.queue.put_nowait(Event(container_id, action, signal))

    async def containers(self) -> list[Row]:
        await self._answer()
        return [Row(c.id, str(c)) for c in self.containers_by_id.values() if c.up]

    async def inspect(self, container_id: str) -> Container | None:
        await self._answer()
        await self.cleaned_up.wait()
        self.inspected.append(container_id)
        return self.containers_by_id.get(container_id)

    async def events(self) -> AsyncIterator[Event]:
        while True:
            yield await self.queue.get()

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.broken:
            raise Failure("the engine does not answer")


class MemoryRegistry:
    """Instances by id; counts every call, and fails when told to."""

    def __init__(self, *instances: Instance) -> None:
        self.instances = {i.id: i for i in instances}
        self.calls: list[str] = []
        self.failure: Exception | None = None
        self.carried_out = False  # whether a failing write is carried out all the same
        self.disturbed: asyncio.Queue[str] = asyncio.Queue()
        self.is_settled = False
        self.shows = asyncio.Event()  # whether lookups know what is registered
        self.shows.set()
        self._taken: dict[str, str] = {}

    async def owned(self, owner: str) -> Mapping[str, Instance]:
        self.calls.append("owned")
        await self._answer()
        self._taken = {i.id: i.owner for i in self.instances.values() if i.owner not in ("", owner)}
        return {i.id: replace(i, checks=()) for i in self.instances.values() if i.owner == owner}

    def taken(self) -> Mapping[str, str]:
        return self._taken

    async def register(self, instance: Instance) -> None:
        self.calls.append(f"register {instance.id}")
        if self.carried_out:
            self.instances[instance.id] = instance
        await self._answer()
        self.instances[instance.id] = instance

    async def deregister(self, instance_id: str) -> None:
        self.calls.append(f"deregister {instance_id}")
        await self._answer()
        self.instances.pop(instance_id, None)

    async def report(self, instance_id: str, health: Health) -> None:
        self.calls.append(f"report {instance_id} {health.status}")
        await self._answer()
        self.instances[instance_id] = replace(self.instances[instance_id], health=health)

    async def disturbances(self) -> AsyncIterator[str]:
        while True:
            yield await self.disturbed.get()

    def settled(self) -> None:
        self.is_settled = True

    async def shown(self, services: Collection[str], timeout: float) -> None:
        self.calls.append("shown " + " ".join(sorted(services)))
        await self.shows.wait()

    @property
    def writes(self) -> list[str]:
        return [call for call in self.calls if not call.startswith(("owned", "shown"))]

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure


UNAVAILABLE = Unavailable("the catalog does not answer")
REFUSED = Refused("the catalog says no")
