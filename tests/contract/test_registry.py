"""What the bridge relies on: what it registers is what it finds, and nobody else's is touched."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from registrator.catalog import Refused
from registrator.model import CRITICAL, META_OWNER, PASSING, WARNING, Address, Health, Weights
from tests.contract.build import Catalog, gone, has_status, health_check, ids, instance, shown, status


async def test_what_is_registered_is_owned(opened: Catalog, name: str, owner: str) -> None:
    """An instance is found at once by its owner, without waiting for anything."""
    wanted = instance(name, owner=owner)
    await opened.register(wanted)
    assert await opened.owned(owner) == {wanted.id: wanted}


async def test_a_second_registration_replaces_the_first(opened: Catalog, name: str, owner: str) -> None:
    """Everything of an instance may change but its id; nothing of the old definition stays."""
    first = replace(
        instance(name, owner=owner),
        addresses=(Address("old", "0" * 12, "10.9.0.1", 80),),
        meta={META_OWNER: owner, "old": "yes"},
    )
    second = replace(first, address="fd00::7", port=0, tags=(), meta={META_OWNER: owner}, addresses=())
    await opened.register(first)
    await opened.register(second)
    assert await opened.owned(owner) == {second.id: second}


async def test_a_registration_under_another_name_moves_the_instance(
    catalog: Catalog, name: str, owner: str
) -> None:
    """The same id with another service name leaves the old name."""
    await catalog.register(instance(name, owner=owner))
    await shown(catalog, name)
    renamed = replace(instance(name, owner=owner), service=f"{name}-new")
    await catalog.register(renamed)
    assert ids(await shown(catalog, f"{name}-new")) == {renamed.id}
    await gone(catalog, name)


async def test_deregistering_takes_out_one_instance(opened: Catalog, name: str, owner: str) -> None:
    """The other instances of the name stay."""
    for number in (1, 2, 3):
        await opened.register(instance(name, number, owner=owner))
    await opened.deregister(f"{name}:2")
    assert set(await opened.owned(owner)) == {f"{name}:1", f"{name}:3"}


async def test_deregistering_what_is_not_there_is_fine(opened: Catalog, name: str, owner: str) -> None:
    """An id that never was, or has gone already, is no error."""
    await opened.deregister(f"{name}:nobody")
    await opened.register(instance(name, owner=owner))
    await opened.deregister(f"{name}:1")
    await opened.deregister(f"{name}:1")
    assert await opened.owned(owner) == {}


async def test_owners_do_not_see_each_other(opened: Catalog, name: str, owner: str) -> None:
    """Ownership is by the owner's id in Meta, whatever an id looks like."""
    mine, other = instance(name, 1, owner=owner), instance(name, 2, owner=f"{owner}-other")
    await opened.register(mine)
    await opened.register(other)
    assert set(await opened.owned(owner)) == {mine.id}
    assert set(await opened.owned(f"{owner}-other")) == {other.id}
    assert await opened.owned(f"{owner}-nobody") == {}
    await opened.deregister(other.id)


async def test_writes_may_be_many_at_once(opened: Catalog, name: str, owner: str) -> None:
    """A hundred registrations at once are all there afterwards, and all go at once."""
    wanted = [instance(name, number, owner=owner) for number in range(1, 101)]
    await asyncio.gather(*map(opened.register, wanted))
    assert await opened.owned(owner) == {i.id: i for i in wanted}
    await asyncio.gather(*(opened.deregister(i.id) for i in wanted))
    assert await opened.owned(owner) == {}


async def test_health_comes_with_the_registration(opened: Catalog, name: str, owner: str) -> None:
    """Status and output are there from the start, without a report."""
    wanted = instance(name, owner=owner, health=Health(WARNING, "low on disk"))
    await opened.register(wanted)
    assert (await opened.owned(owner))[wanted.id].health == Health(WARNING, "low on disk")


@pytest.mark.parametrize("before", [PASSING, WARNING, CRITICAL])
async def test_health_is_replaced_with_the_registration(
    opened: Catalog, name: str, owner: str, before: str
) -> None:
    """Registering again moves the health too: Consul by itself would keep the old status."""
    await opened.register(instance(name, owner=owner, health=Health(before, "before")))
    for after in (Health(CRITICAL, "down"), Health(PASSING, "")):
        await opened.register(instance(name, owner=owner, health=after))
        assert (await opened.owned(owner))[f"{name}:1"].health == after


async def test_health_goes_with_its_check(opened: Catalog, name: str, owner: str) -> None:
    """An instance registered again without health has none."""
    await opened.register(instance(name, owner=owner, health=Health(CRITICAL, "down")))
    await opened.register(instance(name, owner=owner))
    assert (await opened.owned(owner))[f"{name}:1"].health is None


async def test_a_report_moves_status_and_output(catalog: Catalog, name: str, owner: str) -> None:
    """The owner finds it at once, lookups follow."""
    await catalog.register(instance(name, owner=owner, health=Health(PASSING, "fine")))
    assert status(await shown(catalog, name)) == PASSING
    for health in (
        Health(CRITICAL, "gone wrong"),
        Health(WARNING, "better: ünïcode\n2 lines"),
        Health(PASSING, ""),
    ):
        await catalog.report(f"{name}:1", health)
        assert (await catalog.owned(owner))[f"{name}:1"].health == health
        service = await shown(catalog, name, has_status(health.status))
        assert [c.output for c in service.entries[0].checks if c.id == f"{name}:1:docker"] == [health.output]


async def test_a_report_without_a_check_is_refused(opened: Catalog, name: str, owner: str) -> None:
    """An unknown instance, and one that has no health, cannot be reported on."""
    with pytest.raises(Refused):
        await opened.report(f"{name}:nobody", Health(PASSING, ""))
    await opened.register(instance(name, owner=owner))
    with pytest.raises(Refused):
        await opened.report(f"{name}:1", Health(PASSING, ""))


async def test_the_worst_check_decides(catalog: Catalog, name: str, owner: str) -> None:
    """An instance's status is the worst among its checks'."""
    wanted = instance(name, owner=owner, health=Health(PASSING, "fine"))
    other = replace(health_check("unused"), id=f"{name}:1:app", name="app", status=WARNING)
    await catalog.register(replace(wanted, checks=(*wanted.checks, other)))
    service = await shown(catalog, name, has_status(WARNING))
    assert {c.id: c.status for c in service.entries[0].checks if c.service_id} == {
        f"{name}:1:docker": PASSING,
        f"{name}:1:app": WARNING,
    }


async def test_weights_come_back(opened: Catalog, name: str, owner: str) -> None:
    """SRV weights are kept by status."""
    wanted = replace(instance(name, owner=owner), weights=Weights(10, 0))
    await opened.register(wanted)
    assert (await opened.owned(owner))[wanted.id].weights == Weights(10, 0)
