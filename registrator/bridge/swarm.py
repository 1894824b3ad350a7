"""The Swarm's side of an engine: what only managers know, told by managers and read by all.

1. On a manager, all services are listed and published: at start, on each event
   of a service, when what is published is not what was, and every `resync`
   seconds.
2. Every node that runs tasks, and every manager, reads what is published. A task
   is looked at again when its service's facts changed.
3. The container of a task comes out of `inspect` with its service's labels and
   mesh ports, so that nobody after this room's door need know of Swarm.

The first look at a task waits for the first reading: a restarted agent would
otherwise register it under another name for a moment. From then on nothing is
waited for, and nothing that is lost is forgotten: a service that is no longer
published is believed in as long as it has tasks here, since one that is
removed loses its tasks anyway.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Protocol

from registrator.bridge.facts import with_facts
from registrator.bridge.lanes import wait_at_most
from registrator.bridge.reconcile import Listed, Source
from registrator.catalog import Bulletin, Refused, Unavailable
from registrator.complaint import Complaint
from registrator.model import Container, Engine, Event, Failure, SwarmService

log = logging.getLogger(__name__)

PACE = 0.1  # seconds from one telling to the next at least: a burst of events is one or two
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds after a telling that failed


class Manager(Source, Protocol):
    """What is needed of an engine that may be a manager's; every read raises `Failure` when it failed."""

    async def info(self) -> Engine:
        """Who the node is."""
        ...

    async def services(self) -> Sequence[SwarmService]:
        """Every service of the Swarm: a complete listing."""
        ...


class SwarmSource:
    """A `Source` whose tasks come with what managers know. `run` must go on beside its use."""

    def __init__(self, engine: Manager, bulletin: Bulletin, resync: float) -> None:
        self._engine = engine
        self._bulletin = bulletin
        self._resync = resync
        self._facts: Mapping[str, SwarmService] = {}  # by service id
        self._tasks: dict[str, str] = {}  # the service's id by container
        self._told: Mapping[str, SwarmService] = {}  # what this manager published last
        self._manages = False  # whether this node is a manager, as its engine has just said
        self._due = asyncio.Event()
        self._first_told = asyncio.Event()
        self._reading = asyncio.Event()  # somebody needs facts
        self._read = asyncio.Event()  # the first reading is over
        self._complaint = Complaint(log)

    # A Source -----------------------------------------------------------------

    async def containers(self) -> Sequence[Listed]:
        """See `Source.containers`."""
        return await self._engine.containers()

    async def inspect(self, container_id: str) -> Container | None:
        """See `Source.inspect`; a task's container has its service's labels and mesh ports."""
        container = await self._engine.inspect(container_id)
        if container is None or not container.up or container.task is None:
            self._tasks.pop(container_id, None)
            return container
        service = self._tasks[container_id] = container.task.service_id
        self._reading.set()
        await self._read.wait()
        return with_facts(container, self._facts.get(service))

    async def events(self) -> AsyncGenerator[Event]:
        """See `Source.events`; those of services are taken in here."""
        async for event in self._engine.events():
            if event.service or not event.container:  # a new subscription may have missed some
                self._due.set()
            if not event.service:
                yield event

    # Managers' facts ----------------------------------------------------------

    async def run(self, touch: Callable[[str], None]) -> None:
        """Tell and read until cancelled; call `touch` with each container that must be looked at again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_telling())
            group.create_task(self._keep_reading(touch))

    async def _keep_telling(self) -> None:
        pause = FIRST_PAUSE
        while True:
            self._due.clear()
            wait = self._resync
            try:
                await self._tell()
            except Failure as failure:
                if self._manages:  # an engine that is away is said by its events
                    self._complaint.failed("what a manager knows of services is not published: %s", failure)
                if not isinstance(failure, Refused):
                    wait, pause = pause, min(LONGEST_PAUSE, pause * 2)
                if not isinstance(failure, Unavailable):  # else the catalog cannot be read either
                    self._first_told.set()
            else:
                self._complaint.over("what a manager knows of services is published again")
                self._first_told.set()
                pause = FIRST_PAUSE
            await asyncio.sleep(PACE * random.uniform(0.5, 1))  # noqa: S311 - managers need not go in step
            await wait_at_most(self._due, wait)

    async def _tell(self) -> None:
        """On a manager, publish all services."""
        self._manages = False
        node = await self._engine.info()
        self._manages = node.manager and bool(node.cluster_id)
        if self._manages:
            self._reading.set()  # to see that what is published stays so
            await self._bulletin.publish(node.cluster_id, self._list)
        else:
            self._told = {}

    async def _list(self) -> Sequence[SwarmService]:
        services = await self._engine.services()
        self._told = {service.id: service for service in services}
        return services

    async def _keep_reading(self, touch: Callable[[str], None]) -> None:
        await self._reading.wait()
        await self._first_told.wait()
        async for published in self._bulletin.published():
            changed = self._take_in(published)
            if self._read.is_set():
                for container in [c for c, service in self._tasks.items() if service in changed]:
                    touch(container)
            self._read.set()
            if any(published.get(key) != service for key, service in self._told.items()):
                self._due.set()

    def _take_in(self, published: Mapping[str, SwarmService]) -> set[str]:
        """Believe what is published, and what was if it has tasks here; return the ids of what changed."""
        here = set(self._tasks.values())
        before = self._facts
        self._facts = {key: known for key, known in before.items() if key in here} | dict(published)
        return {key for key, service in self._facts.items() if before.get(key) != service}
