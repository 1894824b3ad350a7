"""Facts of managers: who tells them, when, and what becomes of a task when they change or are lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from registrator.bridge import swarm
from registrator.bridge.swarm import SwarmSource
from registrator.catalog import CatalogError
from registrator.catalog.embedded_bulletin import EmbeddedBulletin
from registrator.model import Container, Engine, Event, Failure, MeshPort, SwarmService, Task
from tests.bridge.build import container, exposed
from tests.bridge.fakes import REFUSED, UNAVAILABLE, MemoryEngine

MANAGER = Engine("ENGINE", "node1", "node-id", "10.78.0.1", manager=True, cluster_id="cluster")
WORKER = Engine("ENGINE", "node1", "node-id", "10.78.0.1")
WEB = SwarmService("svc-web", "web", {"SERVICE_NAME": "named"}, (MeshPort(80, "tcp", 8080),))
OTHER = SwarmService("svc-other", "other")
PLAIN = container(exposed(80), id="p" * 64, name="plain")
TASK = container(exposed(80), id="t" * 64, name="web.1.x", task=Task("web", WEB.id, "x", "1", "node-id"))


class MemoryManager(MemoryEngine):
    """An engine that may be a manager's; `services_broken` is what its listing of services raises."""

    def __init__(self, *containers: Container, info: Engine = MANAGER) -> None:
        super().__init__(*containers)
        self.who = info
        self.known: list[SwarmService] = []
        self.services_broken: Failure | None = None
        self.listings = 0

    async def info(self) -> Engine:
        await self._answer()
        return self.who

    async def services(self) -> list[SwarmService]:
        self.listings += 1
        if self.services_broken:
            raise self.services_broken
        return list(self.known)

    def change(self, *services: SwarmService) -> None:
        """The Swarm's services are others, and managers are told."""
        self.known = list(services)
        self.queue.put_nowait(Event(action="service update", service="any"))


class Board(EmbeddedBulletin):
    """A bulletin that fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.failure: CatalogError | None = None

    async def publish(self, cluster_id: str, read: Callable[[], Awaitable[Iterable[SwarmService]]]) -> None:
        if self.failure:
            raise self.failure
        await super().publish(cluster_id, read)

    async def post(self, *services: SwarmService) -> None:
        """What another node's manager publishes, or what a catalog that came back empty holds."""

        async def read() -> tuple[SwarmService, ...]:
            return services

        await super().publish("cluster", read)


@dataclass
class World:
    engine: MemoryManager
    board: Board
    source: SwarmSource
    touched: list[str] = field(default_factory=list)

    async def named(self, wanted: str, container_id: str = TASK.id) -> None:
        """Return when a look at a task shows this SERVICE_NAME ("": none)."""
        async with asyncio.timeout(5):
            while True:
                looked = await self.source.inspect(container_id)
                assert looked
                if looked.labels.get("SERVICE_NAME", "") == wanted:
                    return
                await asyncio.sleep(0.001)


@asynccontextmanager
async def running(
    engine: MemoryManager, board: Board | None = None, resync: float = 60.0
) -> AsyncIterator[World]:
    board = board or Board()
    world = World(engine, board, SwarmSource(engine, board, resync))

    async def listen() -> None:
        async with aclosing(world.source.events()) as events:
            async for event in events:
                assert not event.service

    tasks = [
        asyncio.create_task(world.source.run(world.touched.append)),
        asyncio.create_task(listen()),
    ]
    try:
        yield world
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], bool], timeout: float = 5.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_managers_own_task_has_its_facts_at_the_first_look() -> None:
    """The first look waits for the first telling and reading: no task is ever seen without."""
    engine = MemoryManager(TASK)
    engine.known = [WEB]
    async with running(engine) as world:
        looked = await world.source.inspect(TASK.id)
        assert looked
        assert looked.labels["SERVICE_NAME"] == "named"
        assert looked.ports[0].bindings[0].host_port == 8080
        assert world.touched == []


async def test_a_container_that_is_no_task_waits_for_nothing() -> None:
    """Swarm's trouble is none of a plain container's."""
    source = SwarmSource(MemoryManager(PLAIN), Board(), 60.0)
    assert await source.inspect(PLAIN.id) == PLAIN  # though nobody tells or reads
    assert await source.inspect("none") is None


async def test_a_workers_task_has_what_managers_published() -> None:
    """And what they never told of is a container as its engine tells it."""
    board = Board()
    await board.post(WEB)
    stranger = replace(TASK, id="s" * 64, task=Task("x", "svc-x", "x", "1", "node-id"))
    async with running(MemoryManager(TASK, stranger, info=WORKER), board) as world:
        await world.named("named")
        assert await world.source.inspect(stranger.id) == stranger
        assert world.engine.listings == 0


async def test_an_event_of_a_service_is_heard_at_once_and_only_its_tasks_are_touched() -> None:
    """The other tasks, and plain containers, are left alone."""
    other = replace(TASK, id="o" * 64, task=Task("other", OTHER.id, "y", "1", "node-id"))
    engine = MemoryManager(TASK, PLAIN, other)
    engine.known = [WEB, OTHER]
    async with running(engine) as world:
        for known in (TASK, PLAIN, other):
            await world.source.inspect(known.id)
        engine.change(replace(WEB, labels={"SERVICE_NAME": "renamed"}), OTHER)
        await until(lambda: world.touched == [TASK.id])
        await world.named("renamed")


async def test_a_service_that_is_not_published_any_more_is_believed_in_while_it_has_tasks() -> None:
    """A catalog that came back empty takes no label from a task; the facts go with the last task."""
    board = Board()
    await board.post(WEB)
    async with running(MemoryManager(TASK, info=WORKER), board) as world:
        await world.named("named")
        await board.post()
        await board.post(OTHER)  # two readings later
        await world.named("named")
        assert world.touched == []
        world.engine.put(replace(TASK, state="exited"), "die")
        await world.source.inspect(TASK.id)
        await board.post()
        world.engine.put(TASK)
        await asyncio.sleep(0)
        await world.named("")


async def test_a_manager_puts_back_what_was_lost() -> None:
    """It reads what is published, and tells again when that is not what it told."""
    engine = MemoryManager()  # one that runs no tasks: drained, as managers often are
    engine.known = [WEB]
    async with running(engine) as world:
        published = world.board.published()
        await until(lambda: engine.listings > 0)
        await world.board.post()
        async with asyncio.timeout(5):
            while WEB.id not in await anext(published):
                pass


async def test_managers_that_agree_are_quiet() -> None:
    """Two managers of one Swarm do not wake one another for ever."""
    board = Board()
    first, second = MemoryManager(TASK), MemoryManager(TASK)
    first.known = second.known = [WEB]
    async with running(first, board) as one, running(second, board) as two:
        await one.named("named")
        await two.named("named")
        await asyncio.sleep(3 * swarm.PACE)
        before = first.listings + second.listings
        await asyncio.sleep(5 * swarm.PACE)
        assert first.listings + second.listings == before


async def test_a_swarm_without_a_leader_leaves_facts_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    """A listing that fails deletes nothing; it is tried again by itself."""
    engine = MemoryManager(TASK)
    engine.known = [WEB]
    async with running(engine) as world:
        await world.named("named")
        engine.services_broken = Failure("the swarm does not have a leader")
        engine.change()
        await until(lambda: "does not have a leader" in caplog.text)
        await world.named("named")
        engine.services_broken = None
        engine.known = [replace(WEB, labels={"SERVICE_NAME": "elected"})]
        await world.named("elected")


async def test_a_manager_that_is_none_any_more_publishes_nothing() -> None:
    """After a demotion or a leave its last word stands, until another manager's."""
    engine = MemoryManager(TASK)
    engine.known = [WEB]
    async with running(engine) as world:
        await world.named("named")
        engine.who = WORKER
        engine.change()
        await asyncio.sleep(2 * swarm.PACE)
        await world.named("named")
        await world.board.post(replace(WEB, labels={"SERVICE_NAME": "elsewhere"}))
        await world.named("elsewhere")
        assert engine.listings == 1


async def test_a_node_that_becomes_a_manager_is_noticed_within_a_round() -> None:
    """Nothing tells it; it is asked every `resync` seconds."""
    engine = MemoryManager(TASK, info=WORKER)
    engine.known = [WEB]
    async with running(engine, resync=0.05) as world:
        await world.named("")
        engine.who = MANAGER
        await world.named("named")


async def test_a_catalog_that_refuses_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    """A token without the right: one warning, and tasks are looked at without facts."""
    board = Board()
    board.failure = REFUSED
    engine = MemoryManager(TASK)
    engine.known = [WEB]
    async with running(engine, board) as world:
        await world.named("")
        engine.change(WEB)
        await asyncio.sleep(3 * swarm.PACE)
        assert [r.levelname for r in caplog.records] == ["WARNING"]
        assert "what a manager knows of services is not published: the catalog says no" in caplog.text


async def test_a_catalog_that_is_away_is_waited_for() -> None:
    """A manager that starts before its catalog tells first, so that no task is registered without facts."""
    board = Board()
    board.failure = UNAVAILABLE
    engine = MemoryManager(TASK)
    engine.known = [WEB]
    async with running(engine, board) as world:
        look = asyncio.create_task(world.source.inspect(TASK.id))
        done, _ = await asyncio.wait([look], timeout=0.3)
        assert not done
        board.failure = None
        looked = await asyncio.wait_for(look, 5)
        assert looked
        assert looked.labels["SERVICE_NAME"] == "named"


async def test_a_new_subscription_may_have_missed_a_service() -> None:
    """After the engine was away all services are listed again."""
    engine = MemoryManager(TASK)
    engine.known = [WEB]
    async with running(engine) as world:
        await world.named("named")
        engine.known = [replace(WEB, labels={"SERVICE_NAME": "missed"})]
        engine.queue.put_nowait(Event())
        await world.named("missed")


async def test_a_burst_of_events_is_few_listings() -> None:
    """A rolling update makes an event for each step: some listings a second are enough."""
    engine = MemoryManager(TASK)
    async with running(engine) as world:
        await world.named("")
        for number in range(50):
            engine.change(replace(WEB, replicas=number))
            await asyncio.sleep(0.01)
        await world.named("named")
        async with asyncio.timeout(5):  # until the last word is told
            while (await anext(world.board.published()))[WEB.id].replicas != 49:
                await asyncio.sleep(0.01)
        assert engine.listings < 25
