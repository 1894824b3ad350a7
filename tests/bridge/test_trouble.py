"""The loop in trouble: refusals, an engine that is half there, and others who write in its name."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest

from registrator.bridge import reconcile
from registrator.bridge.contests import PATIENCE, Contests
from registrator.bridge.instances import instances
from registrator.catalog import Refused, Taken
from registrator.model import META_CONTAINER, META_OWNER, Container, Event, Failure, Instance
from registrator.policy import Policy
from tests.bridge.build import HOST, container, exposed
from tests.bridge.fakes import UNAVAILABLE, MemoryEngine, MemoryRegistry
from tests.bridge.test_reconcile import A, B, World, running, until

ID = "node1:a:80"


async def rounds(world: World, count: int = 2) -> None:
    """Wait until as many rounds have begun and ended."""
    goal = world.stats.rounds["ok"] + count
    await until(lambda: world.stats.rounds["ok"] >= goal)


class PickyRegistry(MemoryRegistry):
    """Says no to some ids."""

    def __init__(self, *refused: str) -> None:
        super().__init__()
        self.refused = set(refused)

    async def register(self, instance: Instance) -> None:
        if instance.id in self.refused:
            self.calls.append(f"register {instance.id}")
            raise Refused("the catalog says no")
        await super().register(instance)


async def test_a_refused_instance_spoils_none_of_its_containers_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is refused is said once, however often it is tried."""
    two = replace(A, ports=container(exposed(80), exposed(90)).ports)
    async with running(MemoryEngine(two), PickyRegistry(ID), resync=0.01) as world:
        await until(lambda: "node1:a:90" in world.registry.instances)
        await rounds(world, 3)
        assert world.registry.writes.count(f"register {ID}") > 2
        assert [r.getMessage() for r in caplog.records] == [f"{ID}: the catalog says no"]


async def test_what_is_not_written_because_it_is_anothers_is_not_removed_either(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """When its container goes there is nothing to take out. Said once; when the id is free it is written."""

    class Guarded(MemoryRegistry):
        free = False

        async def register(self, instance: Instance) -> None:
            if instance.id == ID and not self.free:
                self.calls.append(f"register {ID}")
                raise Taken("held by somebody else")
            await super().register(instance)

    registry = Guarded()
    async with running(MemoryEngine(A, B), registry, resync=0.01) as world:
        await until(lambda: world.stats.ready)
        await rounds(world, 3)
        world.engine.put(replace(A, state="exited"), "die")
        await until(lambda: world.stats.containers == 1)
        await rounds(world)
        assert f"deregister {ID}" not in registry.writes
        assert [r.getMessage() for r in caplog.records] == [f"{ID}: held by somebody else"]
        registry.free = True
        world.engine.put(A)
        await until(world.is_true)


async def test_what_somebody_took_over_is_let_go_at_the_farewell() -> None:
    """One instance that is not ours any more does not keep the others in the catalog."""

    class Overtaken(MemoryRegistry):
        async def deregister(self, instance_id: str) -> None:
            if instance_id == ID:
                raise Taken("held by somebody else")
            await super().deregister(instance_id)

    async with running(MemoryEngine(A, B), Overtaken()) as world:
        await until(world.is_true)
        await world.loop.withdraw()
        assert set(world.registry.instances) == {ID}


async def test_an_instance_whose_health_check_is_lost_is_registered_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The catalog says no to a report on a check that it does not have."""
    monkeypatch.setattr(reconcile, "REFRESH", 0.02)

    class Forgetful(MemoryRegistry):
        async def report(self, instance_id: str, health: object) -> None:
            self.calls.append(f"report {instance_id}")
            if instance_id not in self.instances:
                raise Refused("no such check")

    async with running(MemoryEngine(replace(A, health="healthy")), Forgetful()) as world:
        await until(lambda: world.stats.ready)
        world.registry.instances.clear()
        await until(lambda: ID in world.registry.instances, 1)


async def test_a_container_that_cannot_be_inspected_holds_up_none_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The engine lists it, and fails on it alone: the agent gets ready without it, and keeps trying."""
    monkeypatch.setattr(reconcile, "FIRST_WRITES", 0.05)

    class Stuck(MemoryEngine):
        stuck = True

        async def inspect(self, container_id: str) -> Container | None:
            if container_id == A.id and self.stuck:
                raise Failure("this one is stuck")
            return await super().inspect(container_id)

    engine = Stuck(A, B)
    async with running(engine, MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        assert set(world.registry.instances) == {"node1:b:80"}
        engine.stuck = False
        await until(world.is_true)


async def test_an_engine_that_inspects_nothing_and_lists_nothing_makes_nobody_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was lost right after the first listing."""
    monkeypatch.setattr(reconcile, "FIRST_WRITES", 0.01)

    class Lost(MemoryEngine):
        listed = False

        async def containers(self) -> list[object]:  # type: ignore[override]
            if self.listed:
                raise Failure("the engine is lost")
            self.listed = True
            return list(await super().containers())

        async def inspect(self, container_id: str) -> Container | None:
            raise Failure("the engine is lost")

    async with running(Lost(A), MemoryRegistry()) as world:
        await until(lambda: world.stats.rounds["failed"] > 2)
        assert not world.stats.ready


async def test_the_return_of_the_catalog_ends_the_pause_after_failed_rounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However long the pause has grown while the catalog was away."""
    monkeypatch.setattr(reconcile, "ROUND_PAUSE", 60.0)
    engine, registry = MemoryEngine(A), MemoryRegistry()
    engine.broken = True
    async with running(engine, registry) as world:
        await until(lambda: world.stats.rounds["failed"] == 1)
        engine.broken = False
        registry.disturbed.put_nowait("it answers again")
        await until(world.is_true, 1)


async def test_a_first_round_that_waits_for_the_catalog_does_not_hold_up_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The catalog is lost between the first reading and the first write, and comes back with others' news."""
    monkeypatch.setattr(reconcile, "FIRST_WRITES", 0.01)
    dead = Instance(
        "node1:d:80", "web", "10.0.0.9", 80, meta={META_OWNER: "ENGINE", META_CONTAINER: "d" * 64}
    )

    class Slow(MemoryRegistry):
        async def register(self, instance: Instance) -> None:
            raise UNAVAILABLE

    registry = Slow()
    async with running(MemoryEngine(A), registry) as world:
        await rounds(world, 2)
        assert not world.stats.ready
        registry.instances[dead.id] = dead
        await until(lambda: not registry.instances)


@pytest.mark.parametrize("late", [False, True])
async def test_a_change_that_was_missed_is_seen_though_the_listing_looks_as_before(*, late: bool) -> None:
    """Paused, then unpaused while no events came: listed as it was before, and not as it was last looked at.

    The pause came after the listing, or (late) while the round was still at work on it.
    """

    class Slow(MemoryRegistry):
        reading = asyncio.Event()
        answer = asyncio.Event()

        async def owned(self, owner: str) -> Mapping[str, Instance]:
            self.reading.set()
            if late:
                await self.answer.wait()
            return await super().owned(owner)

    engine, registry = MemoryEngine(A), Slow()
    async with running(engine, registry) as world:
        await until(registry.reading.is_set if late else lambda: world.stats.ready)
        engine.put(replace(A, state="paused"), "pause")
        await until(lambda: world.loop._containers.get(A.id) == engine.containers_by_id[A.id])
        registry.answer.set()
        await until(lambda: world.stats.ready)
        engine.containers_by_id[A.id] = A
        engine.queue.put_nowait(Event())
        await until(world.is_true, 1)


async def test_after_a_disturbance_one_instance_is_written_again() -> None:
    """It makes a Consul agent pass on what it could not while its servers had no leader."""
    async with running(MemoryEngine(A, B), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        world.registry.calls.clear()
        world.registry.disturbed.put_nowait("it has a leader again")
        await rounds(world, 1)
        await until(lambda: len(world.registry.writes) == 1)
        world.engine.queue.put_nowait(Event())
        await rounds(world, 1)
        assert len(world.registry.writes) == 1
        assert world.is_true()


async def test_a_container_with_thousands_of_problems_does_not_flood_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    many = replace(A, labels={f"SERVICE_KEY.{n}": "x" for n in range(3000)})
    async with running(MemoryEngine(many), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        assert len(warnings) == 11
        assert warnings[-1] == f"container a: and {64 - 10} more like these"


# Others who write ---------------------------------------------------------


def test_contests() -> None:
    """An id is left alone from the second undoing in a row on, for a while."""
    contests = Contests()
    assert contests.note({"a", "b"}) == []
    assert contests.note({"a"}) == ["a"]
    assert "a" in contests
    assert "b" not in contests
    assert contests.note({"b"}) == [], "not in a row"
    for _ in range(PATIENCE - 2):
        assert contests.note({"a"}) == []
    assert "a" in contests
    contests.note(())
    assert "a" not in contests
    contests.note({"a"})
    assert contests.note({"a"}) == ["a"]
    contests.forget(["a", "unknown"])
    assert "a" not in contests
    assert contests.note({"a"}) == []


async def fight(world: World, theirs: Instance | None, theirs_id: str = ID, turns: int = 6) -> int:
    """Let another registrator put its own version back after each round; return how often it had to."""
    undone = 0
    for _ in range(turns):
        if world.registry.instances.get(theirs_id) != theirs:
            undone += 1
            if theirs is None:
                del world.registry.instances[theirs_id]
            else:
                world.registry.instances[theirs_id] = theirs
        world.engine.queue.put_nowait(Event())
        await rounds(world, 1)
        await asyncio.sleep(0.02)
    return undone


async def test_two_agents_of_one_engine_with_other_options_do_not_fight(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Ours puts its version back once, then warns and leaves theirs; the container's end is the end of it."""
    theirs = replace(instances(A, HOST, Policy())[0][0], address="203.0.113.9")
    async with running(MemoryEngine(A), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        assert await fight(world, theirs) == 2
        assert sum("another registrator" in r.getMessage() for r in caplog.records) == 1
        world.engine.put(replace(A, state="exited"), "die")
        await until(lambda: not world.registry.instances)


async def test_an_agent_that_wants_less_does_not_remove_what_another_wants(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The other agent of this engine registers a container that ours is not to register."""
    theirs = instances(A, HOST, Policy())[0][0]
    ignored = replace(A, labels={"SERVICE_IGNORE": "true"})
    async with running(MemoryEngine(ignored), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        assert await fight(world, theirs) == 2
        assert world.registry.instances == {ID: theirs}
        assert sum("another registrator" in r.getMessage() for r in caplog.records) == 1


async def test_a_copy_of_this_machine_does_not_fight_with_it(caplog: pytest.LogCaptureFixture) -> None:
    """The same engine id and the same names, and containers that are unknown here."""
    theirs = instances(replace(A, id="f" * 64), HOST, Policy())[0][0]
    async with running(MemoryEngine(A, B), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        assert await fight(world, theirs) == 2
        assert world.registry.instances[ID] == theirs
        assert "node1:b:80" in world.registry.instances
        assert sum("another registrator" in r.getMessage() for r in caplog.records) == 1


async def test_two_engines_of_one_host_name_on_one_catalog_do_not_fight(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The same ids, another owner: nobody's is removed, and when the other goes ours comes back in time."""
    theirs = replace(instances(A, HOST, Policy())[0][0], meta={META_OWNER: "OTHER", META_CONTAINER: "f" * 64})
    async with running(MemoryEngine(A, B), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        assert await fight(world, theirs) == 2
        (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        assert warning.startswith(f"{ID}: the registrator of another engine (OTHER) keeps taking it")
        world.engine.put(replace(A, state="exited"), "die")
        await until(lambda: world.stats.containers == 1)
        assert world.registry.instances[ID] == theirs
        assert "node1:b:80" in world.registry.instances
        del world.registry.instances[ID]
        world.engine.put(A)
        await until(world.is_true)


async def test_what_an_engine_left_behind_that_is_no_more_is_taken_over() -> None:
    """An engine that was set up anew has a new id, and finds its old services under its own names."""
    old = replace(instances(A, HOST, Policy())[0][0], meta={META_OWNER: "OLD", META_CONTAINER: "f" * 64})
    async with running(MemoryEngine(A), MemoryRegistry(old)) as world:
        await until(world.is_true)


async def test_a_new_address_of_a_contested_container_is_written() -> None:
    """What is contested is left alone only as long as nothing new is wanted."""
    theirs = replace(instances(A, HOST, Policy())[0][0], address="203.0.113.9")
    async with running(MemoryEngine(A), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        await fight(world, theirs)
        (place,) = A.networks
        world.engine.put(replace(A, networks=(replace(place, ipv4="172.20.0.99"),)), "connect")
        await until(world.is_true)


async def test_one_change_from_outside_is_put_right_without_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Somebody edited a service by hand, once in a while."""
    ours = instances(A, HOST, Policy())[0][0]
    async with running(MemoryEngine(A), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        for _ in range(3):
            world.registry.instances[ID] = replace(ours, address="203.0.113.9")
            for _ in range(2):
                world.engine.queue.put_nowait(Event())
                await rounds(world, 1)
            await until(world.is_true)
        assert not [r for r in caplog.records if r.levelname == "WARNING"]


async def test_what_an_earlier_life_registered_of_a_container_that_is_just_written_is_seen() -> None:
    """A container's event comes while the first reading is under way, after the host had another name.

    Its old registration stayed until the next round, a minute later: the reading was not believed of any
    container that was written to meanwhile.
    """
    new, old = instances(A, HOST, Policy())[0][0], "before:a:80"

    class Slow(MemoryRegistry):
        async def owned(self, owner: str) -> Mapping[str, Instance]:
            answer = await super().owned(owner)
            while new.id not in self.instances:  # the lane's write overtakes it
                await asyncio.sleep(0)
            return answer

    engine, registry = MemoryEngine(A), Slow(replace(new, id=old))
    engine.say(A.id, "start")
    async with running(engine, registry) as world:
        await until(lambda: world.stats.ready)
        await until(lambda: set(registry.instances) == {new.id}, 1)
