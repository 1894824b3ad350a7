"""The loop, with an engine and a registry in memory: order, failures, ownership, economy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registrator.bridge.addresses import Host
from registrator.bridge.instances import instances
from registrator.bridge.reconcile import Reconciler
from registrator.model import (
    CRITICAL,
    META_CONTAINER,
    META_OWNER,
    OUTSIDE,
    PASSING,
    Binding,
    Container,
    Event,
    Instance,
    Port,
    View,
)
from registrator.policy import Policy
from registrator.stats import Stats
from tests.bridge.build import HOST, container, exposed
from tests.bridge.fakes import REFUSED, UNAVAILABLE, MemoryEngine, MemoryRegistry

A = container(exposed(80), id="a" * 64, name="a")
B = container(exposed(80), id="b" * 64, name="b")
FOREIGN = Instance("node1:a:80", "web", "203.0.113.1", 80)


@dataclass
class World:
    engine: MemoryEngine
    registry: MemoryRegistry
    stats: Stats
    loop: Reconciler

    def expected(self) -> dict[str, Instance]:
        wanted = (i for c in self.engine.containers_by_id.values() for i in instances(c, HOST, Policy())[0])
        return {i.id: i for i in wanted}

    def is_true(self) -> bool:
        return self.registry.instances == self.expected()


async def until(condition: Callable[[], bool], timeout: float = 5.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def running(
    engine: MemoryEngine, registry: MemoryRegistry, resync: float = 60.0
) -> AsyncIterator[World]:
    stats = Stats()

    async def identify() -> Host:
        return HOST

    loop = Reconciler(engine, registry, identify, Policy(), stats, resync)
    task = asyncio.create_task(loop.run())
    try:
        yield World(engine, registry, stats, loop)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_runs_is_registered_and_readiness_is_told() -> None:
    async with running(MemoryEngine(A, B), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        assert world.is_true()
        assert world.registry.is_settled
        assert (world.stats.containers, world.stats.instances) == (2, 2)


async def test_an_agent_is_not_ready_before_lookups_know_what_it_registered() -> None:
    """Who asks an agent that says it is ready got NXDOMAIN while Consul's word was on its way."""
    registry = MemoryRegistry()
    registry.shows.clear()
    async with running(MemoryEngine(A, B), registry) as world:
        await until(lambda: "shown web" in registry.calls)
        assert world.is_true()
        assert not world.stats.ready
        registry.shows.set()
        await until(lambda: world.stats.ready)


async def test_a_start_a_death_and_a_removal_follow() -> None:
    async with running(MemoryEngine(), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        world.engine.put(A)
        await until(lambda: "node1:a:80" in world.registry.instances)
        world.engine.put(replace(A, state="exited"), "die")
        await until(lambda: not world.registry.instances)
        world.engine.put(A)
        await until(world.is_true)
        world.engine.remove(A.id)
        await until(lambda: not world.registry.instances)


async def test_a_rename_moves_the_instance() -> None:
    async with running(MemoryEngine(A), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        world.engine.put(replace(A, name="renamed"), "rename")
        await until(lambda: list(world.registry.instances) == ["node1:renamed:80"])
        assert world.registry.writes[-2:] == ["register node1:renamed:80", "deregister node1:a:80"]


async def test_the_stop_signal_drains_before_the_death() -> None:
    """No inspect is waited for: the kill event alone takes the instance out."""
    async with running(MemoryEngine(A), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        world.engine.inspected.clear()
        world.engine.say(A.id, "kill", 15)
        await until(lambda: not world.registry.instances)
        assert world.engine.inspected == []
        assert world.stats.draining == 1
        world.engine.put(replace(A, state="exited"), "die")
        await until(lambda: world.stats.draining == 0 and world.stats.containers == 0)


async def test_a_death_is_believed_before_the_engine_has_cleaned_up() -> None:
    """No inspect is waited for: the engine answers one only when the network is taken down."""
    async with running(MemoryEngine(A), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        world.engine.cleaned_up.clear()
        world.engine.put(replace(A, state="exited"), "die")
        await until(lambda: not world.registry.instances)
        assert world.stats.containers == 1
        world.engine.cleaned_up.set()
        await until(lambda: world.stats.containers == 0)
        assert world.is_true()


async def test_a_start_right_after_a_death_is_seen() -> None:
    """Restarted by the engine: the start comes while the look at the dead one is still waited for."""
    async with running(MemoryEngine(A), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        world.engine.cleaned_up.clear()
        world.engine.put(replace(A, state="exited"), "die")
        await until(lambda: not world.registry.instances)
        world.engine.put(A, "start")
        world.engine.cleaned_up.set()
        await until(world.is_true)


async def test_another_signal_does_not_drain() -> None:
    async with running(MemoryEngine(A), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        world.engine.say(A.id, "kill", 1)
        await until(lambda: len(world.engine.inspected) > 1)
        assert world.is_true()


async def test_a_container_that_outlives_its_grace_period_comes_back() -> None:
    stubborn = replace(A, stop_timeout=-0.45)  # half a second of margin is added
    async with running(MemoryEngine(stubborn), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        world.engine.say(A.id, "kill", 15)
        await until(lambda: not world.registry.instances)
        await until(world.is_true)


async def test_health_moves_without_registering_anew() -> None:
    ill = replace(A, health="unhealthy", health_output="refused")
    async with running(MemoryEngine(replace(A, health="healthy")), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        assert world.registry.instances["node1:a:80"].health is not None
        world.engine.put(ill, "health_status")
        await until(world.is_true)
        assert world.registry.writes == ["register node1:a:80", f"report node1:a:80 {CRITICAL}"]
        world.engine.put(replace(ill, health="healthy"), "health_status")
        await until(lambda: world.registry.writes[-1] == f"report node1:a:80 {PASSING}")


async def test_nothing_changed_nothing_written() -> None:
    """A resync of unchanged containers is one listing, one reading, no inspect, no write."""
    async with running(MemoryEngine(A, B), MemoryRegistry(), resync=0.01) as world:
        await until(lambda: world.stats.ready)
        world.registry.calls.clear()
        world.engine.inspected.clear()
        await until(lambda: len(world.registry.calls) >= 5)
        assert world.registry.writes == []
        assert world.engine.inspected == []


async def test_an_earlier_lifes_registrations_are_adopted_and_its_dead_are_removed() -> None:
    wanted = instances(A, HOST, Policy())[0][0]
    dead = Instance(
        "node1:old:80", "web", "10.0.0.9", 80, meta={META_OWNER: "ENGINE", META_CONTAINER: "d" * 64}
    )
    async with running(MemoryEngine(A), MemoryRegistry(wanted, dead)) as world:
        await until(lambda: world.stats.ready)
        assert world.registry.writes == ["deregister node1:old:80"]


async def test_the_dead_of_an_earlier_life_go_though_their_die_event_is_replayed() -> None:
    """The lane looked while nothing was adopted yet; the reading that then adopts it must not overlook it."""
    dead = Instance(
        "node1:old:80", "web", "10.0.0.9", 80, meta={META_OWNER: "ENGINE", META_CONTAINER: "d" * 64}
    )
    engine = MemoryEngine(A)
    engine.say("d" * 64, "die")
    async with running(engine, MemoryRegistry(dead)) as world:
        await until(lambda: world.stats.ready)
        await until(lambda: "node1:old:80" not in world.registry.instances, 1)


async def test_foreign_services_are_never_touched() -> None:
    foreign = replace(FOREIGN, id="theirs")
    others = replace(FOREIGN, id="node2:a:80", meta={META_OWNER: "ANOTHER", META_CONTAINER: "f" * 64})
    async with running(MemoryEngine(A), MemoryRegistry(foreign, others), resync=0.01) as world:
        await until(lambda: world.stats.rounds["ok"] > 3)
        assert world.registry.instances["theirs"] == foreign
        assert world.registry.instances["node2:a:80"] == others


async def test_a_catalog_that_came_back_empty_is_filled_again() -> None:
    async with running(MemoryEngine(A, B), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        world.registry.instances.clear()
        world.registry.disturbed.put_nowait("it was away")
        await until(world.is_true)


async def test_an_engine_that_does_not_answer_removes_nothing() -> None:
    async with running(MemoryEngine(A), MemoryRegistry(), resync=0.01) as world:
        await until(lambda: world.stats.ready)
        world.engine.broken = True
        world.engine.say(A.id, "update")
        await until(lambda: world.stats.rounds["failed"] > 1)
        assert world.is_true()
        del world.engine.containers_by_id[A.id]
        world.engine.broken = False
        await until(lambda: not world.registry.instances)


async def test_a_catalog_that_does_not_answer_is_tried_again() -> None:
    async with running(MemoryEngine(), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        world.registry.failure = UNAVAILABLE
        world.engine.put(A)
        await until(lambda: len(world.registry.writes) > 1)
        world.registry.failure = None
        await until(world.is_true)


async def test_a_registration_whose_answer_was_lost_is_still_removed() -> None:
    """The write was carried out though it failed, and the container died before another try."""
    async with running(MemoryEngine(), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        world.registry.failure, world.registry.carried_out = UNAVAILABLE, True
        world.engine.put(A)
        await until(lambda: bool(world.registry.instances))
        world.engine.put(replace(A, state="exited"), "die")
        world.registry.failure, world.registry.carried_out = None, False
        await until(lambda: not world.registry.instances)


async def test_a_refused_registration_spoils_only_itself_and_is_tried_with_the_next_round() -> None:
    async with running(MemoryEngine(A), MemoryRegistry(), resync=0.05) as world:
        world.registry.failure = None
        await until(lambda: world.stats.ready)
        world.registry.failure = REFUSED
        world.engine.put(B)
        await until(lambda: "register node1:b:80" in world.registry.writes)
        assert "node1:a:80" in world.registry.instances
        world.registry.failure = None
        await until(world.is_true)


async def test_two_containers_with_one_id_do_not_fight(caplog: pytest.LogCaptureFixture) -> None:
    """The first holds it, one line says so, and the second gets it when the first is gone."""
    same = {"SERVICE_ID": "same"}
    first, second = replace(A, labels=same), replace(B, labels=same)
    async with running(MemoryEngine(first), MemoryRegistry(), resync=0.02) as world:
        await until(lambda: world.stats.ready)
        world.engine.put(second)
        await until(lambda: world.stats.containers == 2)
        rounds = world.stats.rounds["ok"]
        await until(lambda: world.stats.rounds["ok"] > rounds + 2)
        assert world.registry.instances["same"].container == A.id
        assert sum("its id same is held by container a" in r.getMessage() for r in caplog.records) == 1
        world.engine.put(replace(first, state="exited"), "die")
        await until(lambda: world.registry.instances["same"].container == B.id)


async def test_a_container_in_anothers_network_follows_the_other() -> None:
    sharer = container(exposed(90), id="s" * 64, name="s", networks=(), network_mode=f"container:{A.id}")
    async with running(MemoryEngine(sharer), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        assert not world.registry.instances
        world.engine.put(A)
        await until(lambda: "node1:s:90" in world.registry.instances)
        assert world.registry.instances["node1:s:90"].address == A.networks[0].ipv4
        world.engine.put(replace(A, state="exited"), "die")
        await until(lambda: not world.registry.instances)


async def test_what_was_refused_is_said_once_with_the_containers_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad = replace(A, labels={"SERVICE_99999_NAME": "x"})
    async with running(MemoryEngine(bad), MemoryRegistry(), resync=0.01) as world:
        await until(lambda: world.stats.rounds["ok"] > 3)
        world.engine.say(bad.id, "update")
        await until(lambda: len(world.engine.inspected) > 1)
        assert sum("container a: SERVICE_99999_NAME" in r.getMessage() for r in caplog.records) == 1


async def test_a_fault_of_our_own_spoils_one_container(caplog: pytest.LogCaptureFixture) -> None:
    """An address that no engine sends: the other container is registered all the same, and it is said."""
    odd = replace(A, ports=(Port(80, "tcp", (Binding("nonsense", 1),)),))
    async with running(MemoryEngine(odd, B), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        assert list(world.registry.instances) == ["node1:b:80"]
        assert any("please report this" in record.getMessage() for record in caplog.records)


async def test_withdraw_takes_out_what_is_ours_and_nothing_else() -> None:
    foreign = replace(FOREIGN, id="theirs")
    async with running(MemoryEngine(A, B), MemoryRegistry(foreign)) as world:
        await until(lambda: world.stats.ready)
    await world.loop.withdraw()
    assert list(world.registry.instances) == ["theirs"]


async def test_an_asker_is_known_by_its_address() -> None:
    async with running(MemoryEngine(A), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        assert world.loop.views.of("172.20.0.5") == View(frozenset(("aaaabbbbcccc",)))
        assert world.loop.views.of("198.51.100.1") == OUTSIDE
        world.engine.remove(A.id)
        await until(lambda: world.loop.views.of("172.20.0.5") == OUTSIDE)


steps = st.lists(
    st.tuples(
        st.sampled_from(["start", "die", "kill", "pause", "rename", "lose", "fail", "mend", "resubscribe"]),
        st.integers(0, 3),
    ),
    max_size=25,
)


@given(steps)
@settings(deadline=None, max_examples=60)
def test_whatever_happens_in_the_end_the_catalog_is_true(sequence: list[tuple[str, int]]) -> None:
    """Random lives of four containers, events lost and writes failing in between."""
    asyncio.run(_live(sequence))


async def _live(sequence: list[tuple[str, int]]) -> None:
    async with running(MemoryEngine(), MemoryRegistry()) as world:
        for number, (step, which) in enumerate(sequence):
            known = world.engine.containers_by_id.get(str(which) * 64)
            fresh: Container = container(exposed(80), id=str(which) * 64, name=f"c{which}")
            if step == "start":
                world.engine.put(fresh)
            elif step == "lose":  # an event that never came
                world.engine.containers_by_id[fresh.id] = fresh
            elif step in ("fail", "mend"):
                world.registry.failure = UNAVAILABLE if step == "fail" else None
                world.registry.carried_out = bool(which % 2)
            elif step == "resubscribe":
                world.engine.queue.put_nowait(Event())
            elif known is not None and known.up:  # the dead only start
                if step == "kill":
                    world.engine.say(known.id, "kill", 9)
                changes = {"rename": {"name": f"n{number}"}, "pause": {"state": "paused"}}
                world.engine.put(replace(known, **changes.get(step, {"state": "exited"})), step)  # type: ignore[arg-type]
            for _ in range(which):
                await asyncio.sleep(0)
        world.registry.failure = None
        world.engine.queue.put_nowait(Event())
        await until(lambda: world.is_true() and world.stats.ready)
