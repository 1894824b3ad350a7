"""Whose an id is: nothing at a real Consul that is somebody else's is written or removed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from registrator.catalog import Refused, Taken
from registrator.catalog.consul import ConsulCatalog
from registrator.catalog.consul.client import ConsulClient
from registrator.catalog.consul.standing import Standing, may_replace
from registrator.model import META_CONTAINER, META_OWNER, PASSING, Check, Health, Instance, health_check_id
from registrator.settings import ConsulAddress
from registrator.stats import Stats
from tests.support.consul import ConsulServer
from tests.support.engine import unique

OWNER = "engine-1"
CONTAINER = "c" * 64
META = {META_OWNER: OWNER, META_CONTAINER: CONTAINER}
OLD = {"ID": "node1:shop:80", "Service": "shop", "Meta": {}}


def ttl(check_id: str) -> Check:
    return Check(check_id, "TTL", "ttl", ttl=600.0, status=PASSING)


def ours(instance_id: str, *checks: str, name: str = "ours", inherits: bool = False) -> Instance:
    made = tuple(ttl(check) for check in checks)
    return Instance(instance_id, name, "10.0.0.1", 80, meta=META, checks=made, inherits=inherits)


@pytest.fixture
def there(consul_shared: ConsulServer) -> ConsulServer:
    return consul_shared


@pytest.fixture
async def catalog(there: ConsulServer) -> AsyncIterator[ConsulCatalog]:
    """A registry that has read what is owned, as at the beginning of a round; what it made goes."""
    async with ConsulCatalog(ConsulAddress(there.url), Stats()) as catalog:
        await catalog.owned(OWNER)
        yield catalog
        for instance_id in await catalog.owned(OWNER):
            with suppress(Refused):
                await catalog.deregister(instance_id)


async def standing(there: ConsulServer, *service_ids: str) -> dict[str, Any]:
    """The services of these ids and their checks, and all nodes' checks, as Consul's agent tells them."""
    services = await asyncio.to_thread(there.get, "/v1/agent/services")
    checks = await asyncio.to_thread(there.get, "/v1/agent/checks")
    found = {key: service for key, service in services.items() if key in service_ids}
    return found | {key: check for key, check in checks.items() if check["ServiceID"] in ("", *service_ids)}


async def by_hand(there: ConsulServer, service_id: str, *checks: dict[str, Any], **more: Any) -> None:
    """Register a service as its owner does, after the catalog's latest reading."""
    document = {"ID": service_id, "Name": service_id, "Port": 1, "Checks": list(checks), **more}
    await asyncio.to_thread(there.put, "/v1/agent/service/register", document)


async def remove(there: ConsulServer, service_id: str) -> None:
    await asyncio.to_thread(there.put, f"/v1/agent/service/deregister/{service_id}")


TTL = {"TTL": "600s", "Status": "passing"}


@pytest.mark.consul
@pytest.mark.parametrize(
    "meta", [{}, {META_OWNER: "ANOTHER", META_CONTAINER: "f" * 64}, {META_CONTAINER: CONTAINER}]
)
@pytest.mark.parametrize("upper", [False, True], ids=["the same id", "the id in capitals"])
async def test_a_service_of_somebody_elses_is_neither_written_nor_removed(
    there: ConsulServer,
    catalog: ConsulCatalog,
    meta: dict[str, str],
    upper: bool,  # noqa: FBT001
) -> None:
    """It came after the latest reading, and stays as it is, by its id and by one that Consul takes for it."""
    vault = unique("vault")
    await by_hand(there, vault, TTL, Meta=meta)
    before = await standing(there, vault)
    wanted = ours(vault.upper() if upper else vault, f"{vault}:tcp", name=vault)
    with pytest.raises(Taken, match="held"):
        await catalog.register(wanted)
    if not upper:
        with pytest.raises(Taken):
            await catalog.deregister(vault)
    assert await standing(there, vault) == before
    assert wanted.id not in await catalog.owned(OWNER)
    await remove(there, vault)
    await catalog.register(wanted)  # it is free now
    assert wanted.id in await catalog.owned(OWNER)


@pytest.mark.consul
async def test_ids_are_compared_as_consul_does(there: ConsulServer, catalog: ConsulCatalog) -> None:
    """Go lower-cases each character by itself: to it the Turkish capital I with its dot is an i."""
    vip = unique("vip")
    alike = vip.replace("i", "\u0130")
    await by_hand(there, vip, TTL)
    with pytest.raises(Taken, match="the same to Consul's catalog"):
        await catalog.register(ours(alike))
    with pytest.raises(Taken, match="is held by"):
        await catalog.register(ours(f"{vip}-2", f"service:{alike}"))
    await remove(there, vip)


@pytest.mark.consul
async def test_a_check_of_somebody_elses_is_not_replaced(there: ConsulServer, catalog: ConsulCatalog) -> None:
    """With several checks Consul numbers them: `service:pay:2` is what SERVICE_ID=pay:2 would have."""
    pay = unique("pay")
    await by_hand(there, pay, TTL, TTL)
    before = await standing(there, pay)
    assert {f"service:{pay}:1", f"service:{pay}:2"} <= before.keys()
    for check_id in (f"service:{pay}:2", f"SERVICE:{pay}:2"):
        with pytest.raises(Taken, match=f"its check {check_id} is held by service {pay}"):
            await catalog.register(ours(f"{pay}:2", check_id))
    assert await standing(there, pay) == before
    await remove(there, pay)


@pytest.mark.consul
async def test_a_check_of_the_node_is_not_replaced(there: ConsulServer, catalog: ConsulCatalog) -> None:
    """A machine's own check belongs to no service."""
    disk = unique("disk")
    check = {"ID": f"{disk}:http", "Name": "disk", **TTL}
    await asyncio.to_thread(there.put, "/v1/agent/check/register", check)
    before = await standing(there)
    with pytest.raises(Taken, match="a check of the node"):
        await catalog.register(ours(disk, f"{disk}:http"))
    assert await standing(there) == before
    await asyncio.to_thread(there.put, f"/v1/agent/check/deregister/{disk}:http")


@pytest.mark.consul
async def test_an_instance_that_somebody_took_over_is_let_go(
    there: ConsulServer, catalog: ConsulCatalog
) -> None:
    """Between two readings: neither a new definition nor a report nor the end of its container reaches it."""
    web = unique("web")
    health = health_check_id(web)
    instance = replace(ours(web, health, f"{web}:tcp"), health=Health(PASSING, "fine"))
    await catalog.register(instance)
    await by_hand(there, web, {"CheckID": health, **TTL}, Meta={})
    before = await standing(there, web)
    with pytest.raises(Taken):
        await catalog.register(replace(instance, port=81))
    with pytest.raises(Taken):
        await catalog.deregister(web)
    assert await standing(there, web) == before
    await remove(there, web)


@pytest.mark.consul
async def test_two_of_ours_do_not_share_a_check(catalog: ConsulCatalog) -> None:
    """The second of two at once is refused: each has its checks, or is not there."""
    one = unique("one")
    first, second = (
        ours(f"service:{one}", f"service:{one}:docker"),
        ours(f"{one}:docker", f"service:{one}:docker"),
    )
    results = await asyncio.gather(catalog.register(first), catalog.register(second), return_exceptions=True)
    assert [isinstance(result, Taken) for result in results].count(True) == 1


@pytest.mark.consul
@pytest.mark.parametrize("service_id", ["a b", "größe", "a+b&c=d", "a;b", "a:b@c", "%41"])
async def test_an_id_is_quoted_whole(there: ConsulServer, catalog: ConsulCatalog, service_id: str) -> None:
    """Whatever is in it, it is found again, reported on, put into maintenance and removed."""
    service_id = f"{unique('q')}{service_id}"
    instance = replace(ours(service_id, health_check_id(service_id)), health=Health(PASSING, "fine"))
    await catalog.register(instance)
    await catalog.report(service_id, Health("critical", "down"))
    assert (await catalog.owned(OWNER))[service_id].health == Health("critical", "down")
    client = ConsulClient(ConsulAddress(there.url))
    async with client.http.session():
        await client.maintain_service(service_id, enable=True, reason="disk")
        assert f"_service_maintenance:{service_id}" in await client.checks()
        await client.maintain_service(service_id, enable=False)
    await catalog.register(replace(instance, checks=(), health=None))
    assert service_id not in {check["ServiceID"] for check in there.get("/v1/agent/checks").values()}
    await catalog.deregister(service_id)
    assert service_id not in await catalog.owned(OWNER)


@pytest.mark.consul
@pytest.mark.parametrize("ghost", ["/../ghost", "?ghost", "#ghost", "%2fghost"])
async def test_no_id_reaches_another_service(there: ConsulServer, catalog: ConsulCatalog, ghost: str) -> None:
    """Not even one that no container gets: the path that it makes is its own."""
    victim = unique("victim")
    await by_hand(there, victim, TTL)
    before = await standing(there, victim)
    for instance_id in (f"{victim}{ghost}", f"x/../{victim}", f"../deregister/{victim}", f"{victim}?a=b"):
        with suppress(Refused):
            await catalog.deregister(instance_id)
        with suppress(Refused):
            await catalog.report(instance_id, Health("critical", "down"))
    assert await standing(there, victim) == before
    await remove(there, victim)


@pytest.mark.consul
async def test_what_is_read_for_a_label_is_read_once_for_all_who_wait(
    catalog: ConsulCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers with ids of their own that start together share readings; default ids need none."""
    readings = 0
    read = ConsulClient.checks

    async def counted(client: ConsulClient) -> Any:
        nonlocal readings
        readings += 1
        return await read(client)

    monkeypatch.setattr(ConsulClient, "checks", counted)
    some = unique("some")
    await asyncio.gather(*(catalog.register(ours(f"{some}-{n}")) for n in range(48)))
    assert 1 <= readings <= 12
    readings = 0
    await asyncio.gather(*(catalog.register(ours(f"node1:{some}-{n}:80", inherits=True)) for n in range(48)))
    assert readings == 0


ROWS = [
    # what stands there                                  our id            may it be replaced, and why
    ({**OLD}, "node1:shop:80", True, "what gliderlabs/registrator left"),
    ({**OLD, "ID": "node1:shop:53:udp"}, "node1:shop:53:udp", True, "the same of a udp port"),
    ({**OLD, "Service": "other"}, "node1:shop:80", True, "the same under another name"),
    ({**OLD, "Kind": "connect-proxy"}, "node1:shop:80", False, "a proxy, which it never made"),
    ({**OLD, "ID": "node1:shop:80:shop"}, "node1:shop:80:shop", False, "an id that it never made"),
    ({**OLD, "Meta": {META_OWNER: OWNER}}, "x", True, "our own"),
    ({**OLD, "Meta": {META_OWNER: "before"}}, "node1:shop:80:shop", True, "of this engine's earlier life"),
]  # fmt: skip


@pytest.mark.parametrize(("service", "instance_id", "may", "why"), ROWS, ids=[row[3] for row in ROWS])
def test_what_may_be_replaced_under_a_default_id(
    service: dict[str, Any],
    instance_id: str,
    may: bool,  # noqa: FBT001
    why: str,
) -> None:
    instance = ours(instance_id, inherits=True)
    assert may_replace(instance, service) is may, why
    chosen = replace(instance, inherits=False)
    assert may_replace(chosen, service) is (service["Meta"].get(META_OWNER) == OWNER), "a label gave the id"


def test_without_an_owner_nothing_is_ours() -> None:
    """Two without a mark are not the same."""
    assert not may_replace(Instance("x", "x", "", 0), {"ID": "x", "Service": "x", "Meta": None})


def test_what_stands_there_follows_readings_and_writes() -> None:
    """A write that came while a reading was under way is newer; all else is as read, nothing stays behind."""
    known = Standing()
    services: dict[str, Any] = {"a": {"Meta": META}, "b": {"Meta": {}}}
    checks: dict[str, Any] = {
        "a:x": {"ServiceID": "a"},
        "disk": {"ServiceID": ""},
        "_service_maintenance:a": {"ServiceID": "a"},
    }
    known.take_in(services, checks)
    assert known.checks_of("a") == {"a:x"}
    assert known.bears("DISK") == {""}
    known.begin_reading()
    known.put(ours("c", "c:x"), ["c:x"])
    known.removed("a")
    known.take_in(services, checks)
    assert (known.checks_of("c"), known.checks_of("a")) == (frozenset({"c:x"}), frozenset())
    known.begin_reading()
    known.take_in({}, {})
    assert not any(vars(known).values())


def test_one_containers_ids_may_differ_in_case_alone() -> None:
    """As when it is renamed: the new id is registered before the old one goes."""
    known = Standing()
    known.put(ours("node1:shop:80"), ())
    assert known.obstacle(ours("node1:Shop:80")) == ""
    other = replace(ours("node1:Shop:80"), meta={META_OWNER: OWNER, META_CONTAINER: "d" * 64})
    assert "node1:shop:80" in known.obstacle(other)
