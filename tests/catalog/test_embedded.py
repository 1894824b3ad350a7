"""The embedded catalog as a Registry and as a Directory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from registrator.catalog import Refused, Unavailable
from registrator.catalog.embedded import EmbeddedCatalog
from registrator.model import (
    CRITICAL,
    META_OWNER,
    PASSING,
    WARNING,
    Check,
    Health,
    Instance,
    Node,
    Snapshot,
    health_check_id,
)
from registrator.stats import Stats

NODE = Node("Web-1", "10.1.0.1", "dc1", "node-id", {"zone": "a"})


@pytest.fixture
async def catalog() -> AsyncIterator[EmbeddedCatalog]:
    """A catalog of one node; not settled yet."""
    async with EmbeddedCatalog(Stats()) as catalog:
        catalog.identify(NODE)
        yield catalog


def instance(number: int = 1, service: str = "web", owner: str = "me", **more: object) -> Instance:
    meta = {META_OWNER: owner}
    return Instance(f"{service}-{number}", service, f"10.9.0.{number}", 80, meta=meta, **more)  # type: ignore[arg-type]


def with_health(status: str, output: str = "", ttl: float = 600.0) -> Instance:
    check = Check(health_check_id("web-1"), "Docker health", "ttl", ttl=ttl)
    return instance(checks=(check,), health=Health(status, output))


def shown(catalog: EmbeddedCatalog) -> Snapshot:
    assert catalog.snapshot is not None
    return catalog.snapshot


async def test_nothing_is_shown_before_the_first_reconcile_is_over(catalog: EmbeddedCatalog) -> None:
    """Until `settled` there is no snapshot to read, load or wait for; then all is in it at once."""
    await catalog.register(instance())
    await asyncio.sleep(0)
    assert catalog.snapshot is None
    with pytest.raises(Unavailable):
        await catalog.load("web")
    with pytest.raises(Unavailable):
        await catalog.wait(None, 0, 0.01)
    catalog.settled()
    assert set(shown(catalog).services) == {"web"}


async def test_a_reader_may_wait_for_the_first_snapshot(catalog: EmbeddedCatalog) -> None:
    """A `wait` begun before `settled` ends with it."""
    waiting = asyncio.create_task(catalog.wait(None, 0, 10))
    await asyncio.sleep(0)
    catalog.settled()
    assert await waiting is catalog.snapshot


async def test_an_empty_catalog_is_shown_too(catalog: EmbeddedCatalog) -> None:
    """A node without containers has a snapshot: its index is 1, its node is known."""
    catalog.settled()
    assert shown(catalog).index == 1
    assert shown(catalog).services == {}
    assert shown(catalog).nodes == {"web-1": NODE}


async def test_an_entry_has_what_consul_shows(catalog: EmbeddedCatalog) -> None:
    """An entry has its node, the instance without what is only the bridge's, serfHealth and its checks."""
    catalog.settled()
    await catalog.register(with_health(WARNING, "paused"))
    (entry,) = (await catalog.load("web")).services["web"].entries
    assert entry.node == NODE
    assert entry.instance == instance()
    assert [(c.id, c.status, c.output, c.service_id, c.kind) for c in entry.checks] == [
        ("serfHealth", PASSING, "Agent alive and reachable", "", ""),
        ("web-1:docker", WARNING, "paused", "web-1", "ttl"),
    ]
    assert entry.status == WARNING


async def test_changes_of_one_turn_of_the_loop_make_one_snapshot(catalog: EmbeddedCatalog) -> None:
    """A hundred registrations in a row are one swap, after the turn in which they came."""
    catalog.settled()
    before = shown(catalog)
    for number in range(100):
        await catalog.register(instance(number))
    assert catalog.snapshot is before
    await asyncio.sleep(0)
    assert len(shown(catalog).services["web"].entries) == 100
    assert shown(catalog).index == before.index + 1


async def test_a_reader_sees_what_was_written_just_before(catalog: EmbeddedCatalog) -> None:
    """`wait` and `load` answer with all writes before them, in the same turn of the loop too."""
    catalog.settled()
    await catalog.register(instance())
    assert "web" in (await catalog.load("web")).services
    await catalog.deregister("web-1")
    assert "web" not in (await catalog.wait("web", 0, 0)).services


async def test_a_write_that_changes_nothing_makes_no_snapshot(catalog: EmbeddedCatalog) -> None:
    """To register the same once more, or to deregister what is not there, leaves the snapshot as it is."""
    catalog.settled()
    await catalog.register(with_health(PASSING, "ok"))
    before = await catalog.load("web")
    await catalog.register(with_health(PASSING, "ok"))
    await catalog.report("web-1", Health(PASSING, "ok"))
    await catalog.deregister("unknown")
    assert await catalog.load("web") is before


async def test_a_change_there_and_back_makes_no_snapshot(catalog: EmbeddedCatalog) -> None:
    """An instance that comes and goes within one turn of the loop was never there."""
    catalog.settled()
    before = shown(catalog)
    await catalog.register(instance())
    await catalog.deregister("web-1")
    assert await catalog.load("web") is before


async def test_wait_ends_with_the_change_it_waits_for(catalog: EmbeddedCatalog) -> None:
    """A blocking query on a service goes on while others change, and ends when that one does."""
    await catalog.register(instance())
    catalog.settled()
    index = shown(catalog).services["web"].index
    waiting = asyncio.create_task(catalog.wait("web", index, 10))
    await catalog.register(instance(service="other"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    await catalog.register(instance(2))
    assert len((await waiting).services["web"].entries) == 2


async def test_wait_ends_when_its_time_is_over(catalog: EmbeddedCatalog) -> None:
    """Without a change the same snapshot comes back after the timeout."""
    catalog.settled()
    assert await catalog.wait(None, 1, 0.01) is catalog.snapshot


async def test_wait_ends_when_the_service_goes_and_when_it_comes_back(catalog: EmbeddedCatalog) -> None:
    """Who follows a service's index, or the snapshot's while it is not there, misses neither."""
    await catalog.register(instance())
    catalog.settled()
    index = shown(catalog).services["web"].index
    await catalog.deregister("web-1")
    gone = await catalog.wait("web", index, 10)
    assert "web" not in gone.services
    await catalog.register(instance())
    back = await catalog.wait("web", gone.index, 10)
    assert back.services["web"].index > gone.index > index


async def test_many_may_wait_and_one_that_gives_up_disturbs_nobody(catalog: EmbeddedCatalog) -> None:
    """A thousand waiting readers all get the new snapshot, though some were cancelled."""
    catalog.settled()
    waiting = [asyncio.create_task(catalog.wait(None, 1, 10)) for _ in range(1000)]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()
    await asyncio.sleep(0)
    await catalog.register(instance())
    assert {id(await task) for task in waiting[1::2]} == {id(catalog.snapshot)}
    assert all(task.cancelled() for task in waiting[::2])


async def test_a_snapshot_does_not_change(catalog: EmbeddedCatalog) -> None:
    """A snapshot once read stays as it was, and refuses to be written to."""
    await catalog.register(instance())
    catalog.settled()
    before = shown(catalog)
    await catalog.register(instance(2))
    await catalog.load("web")
    assert [e.instance.id for e in before.services["web"].entries] == ["web-1"]
    for mapping in (before.names, before.services, before.nodes):
        with pytest.raises(TypeError):
            mapping["x"] = None  # type: ignore[index]


async def test_names_are_found_in_lower_case_with_their_tags(catalog: EmbeddedCatalog) -> None:
    """Service names that differ in case alone are one service; its tags are those of all instances."""
    catalog.settled()
    await catalog.register(instance(1, "Web", tags=("b", "a")))
    await catalog.register(instance(2, "web", tags=("c", "b")))
    snapshot = await catalog.load("web")
    assert snapshot.names == {"web": ("b", "a", "c")}
    assert snapshot.services["web"].name == "Web"
    assert [e.instance.id for e in snapshot.services["web"].entries] == ["Web-1", "web-2"]


async def test_an_instance_may_change_its_service(catalog: EmbeddedCatalog) -> None:
    """An id that is registered under another name is found under that one alone."""
    catalog.settled()
    await catalog.register(Instance("x", "old", "10.0.0.1", 1))
    await catalog.register(Instance("x", "new", "10.0.0.1", 1))
    assert set((await catalog.load("new")).names) == {"new"}


async def test_indexes(catalog: EmbeddedCatalog) -> None:
    """A change of health moves the service's index alone; one of tags, or of the node, the snapshot's too."""
    await catalog.register(with_health(PASSING))
    await catalog.register(instance(service="other"))
    catalog.settled()
    first = shown(catalog)
    assert (first.index, first.services["web"].index, first.services["other"].index) == (1, 1, 1)
    await catalog.report("web-1", Health(CRITICAL, "down"))
    second = await catalog.load("web")
    assert (second.index, second.services["web"].index, second.services["other"].index) == (1, 2, 1)
    await catalog.register(instance(service="other", tags=("new",)))
    third = await catalog.load("web")
    assert (third.index, third.services["web"].index, third.services["other"].index) == (3, 2, 3)
    catalog.identify(Node("Web-1", "10.1.0.2"))
    fourth = await catalog.load("web")
    assert (fourth.index, fourth.services["web"].index, fourth.services["other"].index) == (4, 4, 4)
    assert fourth.services["web"].entries[0].node.address == "10.1.0.2"


async def test_owned_gives_back_what_was_registered(catalog: EmbeddedCatalog) -> None:
    """An owner's instances come back without checks and with their health as it is now; others' do not."""
    await catalog.register(with_health(PASSING, "fine"))
    await catalog.register(instance(2))
    await catalog.register(instance(3, owner="somebody else"))
    await catalog.report("web-1", Health(CRITICAL, "down"))
    assert await catalog.owned("me") == {
        "web-1": instance(health=Health(CRITICAL, "down")),
        "web-2": instance(2),
    }
    assert await catalog.owned("nobody") == {}


@pytest.mark.parametrize("known", [True, False], ids=["no such check", "no such instance"])
async def test_a_report_on_nothing_is_refused(catalog: EmbeddedCatalog, known: bool) -> None:  # noqa: FBT001
    """A health report on what has no health check says what to do."""
    if known:
        await catalog.register(instance())
    with pytest.raises(Refused, match="register it with one first"):
        await catalog.report("web-1", Health(PASSING, ""))


async def test_checks_that_cannot_be_run_are_left_out_with_one_warning(
    catalog: EmbeddedCatalog, caplog: pytest.LogCaptureFixture
) -> None:
    """Checks of other kinds are named in the log once; the instance and its other checks are registered."""
    kinds = ("docker", "script", "ttl")
    checks = tuple(Check(f"c-{kind}", kind, kind, ttl=60.0, status=PASSING) for kind in kinds)
    catalog.settled()
    with caplog.at_level(logging.WARNING):
        await catalog.register(instance(checks=checks))
        await catalog.register(instance(checks=checks, tags=("changed",)))
    (entry,) = (await catalog.load("web")).services["web"].entries
    assert [check.id for check in entry.checks] == ["serfHealth", "c-ttl"]
    assert len(caplog.records) == 2
    assert "web-1: a script check cannot be run by the embedded catalog" in caplog.text
    assert "use an http, tcp or grpc check, or a Consul agent (--consul)" in caplog.text


async def test_nothing_disturbs_it(catalog: EmbeddedCatalog) -> None:
    """Nobody else writes to it, so `disturbances` waits for ever; its snapshot has no age."""
    reason = aiter(catalog.disturbances())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(reason), 0.01)
    assert catalog.age == 0.0


async def test_the_node_comes_first() -> None:
    """To register before `identify` is a mistake of the caller's, and said as such."""
    async with EmbeddedCatalog(Stats()) as catalog:
        with pytest.raises(RuntimeError, match="identify"):
            await catalog.register(instance())


async def test_writes_are_counted() -> None:
    """Each write is counted by its kind, each refused one as a failure too."""
    stats = Stats()
    async with EmbeddedCatalog(stats) as catalog:
        catalog.identify(NODE)
        await catalog.register(with_health(PASSING))
        await catalog.report("web-1", Health(PASSING, ""))
        await catalog.deregister("web-1")
        with pytest.raises(Refused):
            await catalog.report("web-1", Health(PASSING, ""))
    assert stats.writes == {"register": 1, "report": 2, "deregister": 1}
    assert stats.write_failures == {"report": 1}
