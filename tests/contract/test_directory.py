"""What the front relies on: the snapshot, loading and waiting."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from registrator.catalog import Unavailable
from registrator.model import ADDRESS, CRITICAL, META_OWNER, PASSING, Address, Health, Selection, Weights
from tests.contract.build import Catalog, gone, has_count, has_ids, ids, instance, shown, status


async def test_nothing_is_known_before_the_first_snapshot(opened: Catalog, name: str) -> None:
    """No snapshot, and an error for who asks all the same: never an empty answer."""
    assert opened.snapshot is None
    with pytest.raises(Unavailable):
        await opened.load(name)
    with pytest.raises(Unavailable):
        await opened.wait(name, 0, 0.01)
    with pytest.raises(Unavailable):
        await opened.wait(None, 0, 0.01)


async def test_the_first_snapshot_has_the_node(catalog: Catalog) -> None:
    """The node is found by its lower-cased name, in its datacenter."""
    snapshot = catalog.snapshot
    assert snapshot is not None
    node = snapshot.nodes["consul-test"]
    assert (node.name.lower(), node.address, node.datacenter) == ("consul-test", "127.0.0.1", "dc1")
    assert (snapshot.datacenter, snapshot.datacenters) == ("dc1", ("dc1",))
    assert catalog.age == 0


async def test_what_was_registered_before_is_in_the_first_snapshot(
    opened: Catalog, name: str, owner: str
) -> None:
    """Names are complete in the first snapshot: a name that is missing does not exist."""
    await opened.register(instance(name, owner=owner))
    running = asyncio.create_task(opened.run())
    opened.settled()
    snapshot = await opened.wait(None, 0, 5)
    assert name in snapshot.names
    assert ids((await opened.load(name)).services[name]) == {f"{name}:1"}
    running.cancel()
    await asyncio.wait([running])


async def test_lookups_know_what_was_registered_when_shown_returns(
    catalog: Catalog, name: str, owner: str
) -> None:
    """Of many that were written one after the other, all, whatever their names' case."""
    names = [f"{name}-{number}" for number in range(10)]
    for number, each in enumerate(names):
        await catalog.register(instance(each, number, owner=owner))
    async with asyncio.timeout(5):
        await catalog.shown([each.upper() for each in names], 60)
    assert catalog.snapshot is not None
    assert set(names) <= catalog.snapshot.names.keys()


async def test_shown_waits_no_longer_than_it_may(catalog: Catalog, name: str) -> None:
    """A service that does not come, for a token may not read it, holds up nothing for ever."""
    begin = time.monotonic()
    await catalog.shown([name], 0.1)
    assert time.monotonic() - begin < 1


async def test_an_instance_is_shown_as_it_was_registered(catalog: Catalog, name: str, owner: str) -> None:
    """Address, port, tags, meta, weights and all addresses by network of both families, with its node."""
    wanted = replace(
        instance(name, owner=owner),
        address="fd00::5",
        port=8080,
        tags=("a,b", "blue", "größer"),
        meta={META_OWNER: owner, "colour": "bläulich"},
        weights=Weights(7, 3),
        addresses=(
            Address("app_default", "0123456789ab", "172.18.0.5", 80),
            Address("app_default", "0123456789ab", "fd00::5", 80),
            Address("node", "", "192.0.2.7", 32768),
            Address("node", "", "2001:db8::7", 32769),
            Address("overlay", "z9y8x7w6v5u4", "10.0.1.5", 80),
        ),
    )
    await catalog.register(wanted)
    (entry,) = (await shown(catalog, name)).entries
    assert entry.instance == wanted
    assert entry.address == "fd00::5"
    assert entry.node.name.lower() == "consul-test"


async def test_an_instance_without_an_address_has_its_nodes(catalog: Catalog, name: str, owner: str) -> None:
    """As in Consul: an empty address means the node's."""
    await catalog.register(replace(instance(name, owner=owner), address=""))
    (entry,) = (await shown(catalog, name)).entries
    assert entry.address == "127.0.0.1"


async def test_names_have_the_tags_of_all_instances(catalog: Catalog, name: str, owner: str) -> None:
    """Each tag once, from whichever instance it comes."""
    await catalog.register(replace(instance(name, 1, owner=owner), tags=("a", "b")))
    await catalog.register(replace(instance(name, 2, owner=owner), tags=("b", "c")))
    await shown(catalog, name, has_count(2))
    async with asyncio.timeout(5):
        while (snapshot := catalog.snapshot) is None or len(snapshot.names[name]) < 3:
            await asyncio.sleep(0.005)
    assert sorted(snapshot.names[name]) == ["a", "b", "c"]


async def test_names_are_case_insensitive(catalog: Catalog, name: str, owner: str) -> None:
    """A name is known by its lower-cased form, and its instances keep how it was written."""
    await catalog.register(replace(instance(name, owner=owner), service=name.upper()))
    service = await shown(catalog, name)
    assert service.name == name.upper()
    assert [entry.instance.service for entry in service.entries] == [name.upper()]
    assert catalog.snapshot is not None
    assert name.upper() not in catalog.snapshot.names


async def test_an_unknown_name_loads_as_nothing(catalog: Catalog, name: str) -> None:
    """It is no error: the caller sees that the name is not among the names."""
    snapshot = await catalog.load(name)
    assert name not in snapshot.names
    assert name not in snapshot.services


async def test_many_loads_of_one_name_agree(catalog: Catalog, name: str, owner: str) -> None:
    """A crowd that asks for the same name at once gets the same service."""
    await catalog.register(instance(name, owner=owner))
    async with asyncio.timeout(5):
        while (snapshot := catalog.snapshot) is None or name not in snapshot.names:
            await asyncio.sleep(0.005)
    snapshots = await asyncio.gather(*(catalog.load(name) for _ in range(50)))
    assert {s.services[name].index for s in snapshots} == {snapshots[0].services[name].index}
    assert ids(snapshots[0].services[name]) == {f"{name}:1"}


async def test_a_name_vanishes_with_its_last_instance(catalog: Catalog, name: str, owner: str) -> None:
    """It leaves the names and the services; while one instance is left it stays."""
    for number in (1, 2):
        await catalog.register(instance(name, number, owner=owner))
    await shown(catalog, name, has_count(2))
    await catalog.deregister(f"{name}:1")
    assert ids(await shown(catalog, name, has_count(1))) == {f"{name}:2"}
    await catalog.deregister(f"{name}:2")
    await gone(catalog, name)
    assert catalog.snapshot is not None
    assert name not in catalog.snapshot.services


async def test_a_name_may_come_back(catalog: Catalog, name: str, owner: str) -> None:
    """Gone and registered again, ten times: lookups follow each time, and the index only grows."""
    last = 0
    for number in range(1, 11):
        await catalog.register(instance(name, number, owner=owner))
        service = await shown(catalog, name, has_ids(f"{name}:{number}"))
        assert service.index > last
        last = service.index
        await catalog.deregister(f"{name}:{number}")
        await gone(catalog, name)
        assert catalog.snapshot is not None
        assert catalog.snapshot.index > last


async def test_wait_returns_on_a_change(catalog: Catalog, name: str, owner: str) -> None:
    """Who waits for a service is woken by its change, long before the time is over."""
    await catalog.register(instance(name, owner=owner, health=Health(PASSING, "")))
    before = await shown(catalog, name)
    waiting = asyncio.create_task(catalog.wait(name, before.index, 30))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    started = time.monotonic()
    await catalog.report(f"{name}:1", Health(CRITICAL, "down"))
    after = (await waiting).services[name]
    assert time.monotonic() - started < 1
    assert after.index > before.index
    assert status(after) == CRITICAL


async def test_wait_returns_at_once_for_what_has_changed_already(
    catalog: Catalog, name: str, owner: str
) -> None:
    """An index from before, or 0, needs no waiting; for a name that is not loaded it is loaded."""
    await catalog.register(instance(name, owner=owner))
    await shown(catalog, name)
    async with asyncio.timeout(1):
        snapshot = await catalog.wait(name, 0, 30)
        assert name in snapshot.services
        await catalog.wait(name, snapshot.services[name].index - 1, 30)
        await catalog.wait(None, snapshot.index - 1, 30)


async def test_wait_returns_when_its_time_is_over(catalog: Catalog, name: str, owner: str) -> None:
    """With what there is then, and the same index."""
    await catalog.register(instance(name, owner=owner))
    before = await shown(catalog, name)
    started = time.monotonic()
    after = await catalog.wait(name, before.index, 0.2)
    assert 0.15 < time.monotonic() - started < 1
    assert after.services[name] == before


async def test_wait_for_a_name_to_come(catalog: Catalog, name: str, owner: str) -> None:
    """A name that does not exist counts with the snapshot's index; its registration wakes who waits."""
    assert catalog.snapshot is not None
    waiting = asyncio.create_task(catalog.wait(name, catalog.snapshot.index, 30))
    await asyncio.sleep(0.02)
    await catalog.register(instance(name, owner=owner))
    async with asyncio.timeout(2):
        assert name in (await waiting).names


async def test_wait_for_a_name_to_go(catalog: Catalog, name: str, owner: str) -> None:
    """The end of the last instance wakes who waits."""
    await catalog.register(instance(name, owner=owner))
    before = await shown(catalog, name)
    waiting = asyncio.create_task(catalog.wait(name, before.index, 30))
    await asyncio.sleep(0.02)
    await catalog.deregister(f"{name}:1")
    async with asyncio.timeout(2):
        snapshot = await waiting
    assert name not in snapshot.services or not snapshot.services[name].entries


async def test_many_wait_at_once(catalog: Catalog, name: str, owner: str) -> None:
    """Two thousand waiters on one service are all woken by its change."""
    await catalog.register(instance(name, 1, owner=owner))
    before = await shown(catalog, name)
    waiting = [asyncio.create_task(catalog.wait(name, before.index, 30)) for _ in range(2000)]
    await asyncio.sleep(0.02)
    await catalog.register(instance(name, 2, owner=owner))
    async with asyncio.timeout(5):
        snapshots = await asyncio.gather(*waiting)
    assert all(snapshot.services[name].index > before.index for snapshot in snapshots)


async def test_indexes_are_not_moved_by_others(catalog: Catalog, name: str, owner: str) -> None:
    """What happens to another service leaves a service's index alone; no index ever goes back."""
    await catalog.register(instance(name, owner=owner))
    before = await shown(catalog, name)
    assert catalog.snapshot is not None
    snapshot_index, last = catalog.snapshot.index, 0
    for number in range(1, 6):
        await catalog.register(instance(f"{name}-other", number, owner=owner))
        other = await shown(catalog, f"{name}-other", has_count(number))
        assert other.index > last
        last = other.index
    assert (await catalog.load(name)).services[name] == before
    assert catalog.snapshot.index > snapshot_index


async def test_a_snapshot_never_changes(catalog: Catalog, name: str, owner: str) -> None:
    """Who holds one reads the same from it for ever."""
    await catalog.register(instance(name, owner=owner))
    await shown(catalog, name)
    held = catalog.snapshot
    assert held is not None
    names, services = dict(held.names), dict(held.services)
    await catalog.register(instance(name, 2, owner=owner))
    await shown(catalog, name, has_count(2))
    await catalog.deregister(f"{name}:1")
    await catalog.deregister(f"{name}:2")
    await gone(catalog, name)
    assert catalog.snapshot is not held
    assert (dict(held.names), dict(held.services)) == (names, services)


async def test_whose_address_it_is(catalog: Catalog, name: str, owner: str) -> None:
    """An instance is found by the addresses on its networks; not by one that a label chose.

    Nor is a service that no agent registered, whatever address it says it has:
    else anybody who may set a label would give addresses of others a name.
    """
    places = tuple(Address("net", "0123456789ab", ip, 80) for ip in ("10.77.0.5", "fd77::5"))
    published = Address("published", "", "192.0.2.77", 32768)
    true = replace(instance(name, owner=owner), address="192.0.2.77", addresses=(published, *places))
    lie = replace(instance(f"{name}-lie", owner=owner), address="8.8.8.8", addresses=(published, *places))
    six = replace(instance(f"{name}-six", owner=owner), address="2001:4860:4860::8888", addresses=())
    foreign = replace(instance(f"{name}-foreign", owner=""), address="9.9.9.9", addresses=places, meta={})
    for one in (true, lie, six, foreign):
        await catalog.register(one)
        await shown(catalog, one.service)

    async def found(ip: str) -> set[str]:
        entries = (await catalog.select(Selection(ADDRESS, ip))).entries
        return {entry.instance.service for entry in entries}

    assert await found("10.77.0.5") == {name, f"{name}-lie"}
    assert await found("fd77::5") == {name, f"{name}-lie"}
    assert await found("192.0.2.77") == {name}
    for stranger in ("8.8.8.8", "2001:4860:4860::8888", "9.9.9.9", "10.0.0.1"):
        assert await found(stranger) == set(), stranger
