"""Which services the directory watches, how fresh it is, and how little it asks for."""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import replace

import pytest

from registrator.catalog.consul import ConsulCatalog, directory
from registrator.catalog.consul.client import ConsulClient
from registrator.catalog.consul.http import MAX_CONNECTIONS
from registrator.model import CRITICAL, META_OWNER, PASSING, Check, Health, Instance, Service, health_check_id
from tests.catalog.consul_catalogs import Disturbed, connections_to, eventually, running
from tests.support.consul import ConsulServer


def instance(service: str, number: int = 1) -> Instance:
    return Instance(f"{service}:{number}", service, "10.0.0.5", 8000 + number, meta={META_OWNER: "me"})


async def register(catalog: ConsulCatalog, *services: str) -> None:
    """Register one instance of each, and wait until their names are known."""
    await asyncio.gather(*(catalog.register(instance(service)) for service in services))
    await eventually(lambda: catalog.snapshot and set(services) <= set(catalog.snapshot.names))


async def follows(catalog: ConsulCatalog, service: str, number: int) -> float:
    """Add an instance to a service, and measure the seconds until lookups have it."""
    await catalog.register(instance(service, number))
    started = time.perf_counter()
    async with asyncio.timeout(5):
        while not any(
            e.instance.id == f"{service}:{number}" for e in (await loaded(catalog, service)).entries
        ):
            await asyncio.sleep(0.002)
    return time.perf_counter() - started


async def loaded(catalog: ConsulCatalog, service: str) -> Service:
    return (await catalog.load(service)).services[service]


class Requests:
    """Notes every read of a service's instances, by name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        original = ConsulClient.entries

        async def entries(client: ConsulClient, service: str, index: int, wait: float) -> object:
            self.names.append(service)
            return await original(client, service, index, wait)

        monkeypatch.setattr(ConsulClient, "entries", entries)


async def test_a_hot_service_is_fresh(consul: ConsulServer) -> None:
    """Once asked for, a service follows Consul within 50 ms (median of 20 moves of its health)."""
    check = Check(health_check_id("web:1"), "Docker health", "ttl", ttl=600)
    async with running(consul.url) as catalog:
        await catalog.register(replace(instance("web"), checks=(check,), health=Health(PASSING, "")))
        await eventually(lambda: catalog.snapshot and "web" in catalog.snapshot.names)
        latencies = []
        for turn in range(20):
            before = await loaded(catalog, "web")
            await asyncio.sleep(0.02)
            await catalog.report("web:1", Health((CRITICAL, PASSING)[turn % 2], ""))
            started = time.perf_counter()
            await catalog.wait("web", before.index, 5)
            latencies.append(time.perf_counter() - started)
    assert sorted(latencies)[10] < 0.05


async def test_loads_at_the_same_time_are_one_request(
    consul: ConsulServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred askers cost one request, also when the first of them gives up; unknown names cost none."""
    async with running(consul.url) as catalog:
        await register(catalog, "web")
        requests = Requests(monkeypatch)
        impatient = asyncio.create_task(catalog.load("web"))
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.gather(*(catalog.load("web") for _ in range(100)))
        await asyncio.gather(*(catalog.load(f"nobody-{n}") for n in range(100)))
        assert 1 <= len(requests.names) <= 2  # the load, and perhaps the watch that goes on from it
        assert set(requests.names) == {"web"}


async def test_names_that_come_and_go(consul: ConsulServer) -> None:
    """Watches end with their names: a thousand names in turn leave neither watches nor data behind."""
    async with running(consul.url) as catalog:
        for turn in range(10):
            names = [f"job-{turn}-{n}" for n in range(20)]
            await register(catalog, *names)
            await asyncio.gather(*map(catalog.load, names))
            await asyncio.gather(*(catalog.deregister(f"{name}:1") for name in names))
        await eventually(lambda: catalog.snapshot and set(catalog.snapshot.names) == {"consul"})
        assert catalog.snapshot is not None
        assert catalog.snapshot.services == {}
        await asyncio.sleep(0.1)
        assert connections_to(consul.http_port) < 60
        assert not catalog._directory._hot


async def test_more_names_than_watches(consul: ConsulServer) -> None:
    """150 services are answered over fewer connections than the pool has, and all follow."""
    names = [f"web-{n}" for n in range(150)]
    async with running(consul.url) as catalog, Disturbed(catalog) as disturbed:
        await register(catalog, *names)
        for name in names:
            assert len((await loaded(catalog, name)).entries) == 1
        assert len(catalog._directory._hot) == directory.HOT_LIMIT <= 96
        assert connections_to(consul.http_port) < MAX_CONNECTIONS
        assert await follows(catalog, names[0], 2) < 0.5  # it has a watch
        assert await follows(catalog, names[-1], 2) < 2 * directory.FRESH + 0.5  # it has none
        # Writes get through although nearly all connections are taken.
        started = time.monotonic()
        await asyncio.gather(*(catalog.register(instance(name, 3)) for name in names))
        assert time.monotonic() - started < 5
        assert connections_to(consul.http_port) <= MAX_CONNECTIONS
        assert (catalog.age, disturbed.reasons) == (0, [])


async def test_a_service_without_a_watch_leaves_when_it_is_no_longer_fresh(
    consul: ConsulServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the next lookup reads it again; when Consul is away, what was known is served instead."""
    monkeypatch.setattr(directory, "HOT_LIMIT", 1)
    monkeypatch.setattr(directory, "FRESH", 0.2)
    async with running(consul.url) as catalog:
        await register(catalog, "hot", "cold", "unseen")
        await loaded(catalog, "hot")
        cold = await loaded(catalog, "cold")
        await eventually(lambda: catalog.snapshot and "cold" not in catalog.snapshot.services)
        assert catalog.snapshot is not None
        assert "hot" in catalog.snapshot.services
        assert await loaded(catalog, "cold") == cold  # read again, nothing new: the index stays
        await asyncio.to_thread(consul.kill)
        await eventually(lambda: catalog.age > 0)
        assert await loaded(catalog, "cold") == cold
        await asyncio.sleep(0.5)
        assert catalog.snapshot.services["cold"] == cold


async def test_who_waits_for_a_service_without_a_watch_is_told(
    consul: ConsulServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blocking query of ours on it returns when it changes, a little later than with a watch."""
    monkeypatch.setattr(directory, "HOT_LIMIT", 0)
    monkeypatch.setattr(directory, "FRESH", 0.1)
    async with running(consul.url) as catalog:
        await register(catalog, "web")
        before = await loaded(catalog, "web")
        waiting = asyncio.create_task(catalog.wait("web", before.index, 10))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await catalog.register(instance("web", 2))
        async with asyncio.timeout(1):
            assert len((await waiting).services["web"].entries) == 2


async def test_a_service_that_nobody_asks_for_gives_its_watch_to_another(
    consul: ConsulServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two slots for three names, those that are asked for get them; the third keeps none."""
    monkeypatch.setattr(directory, "HOT_LIMIT", 2)
    monkeypatch.setattr(directory, "HOT_WAIT", 0.5)
    monkeypatch.setattr(directory, "FRESH", 0.1)
    async with running(consul.url) as catalog:
        await register(catalog, "old", "asked", "new")
        await loaded(catalog, "old")
        await loaded(catalog, "asked")
        async with asyncio.timeout(10):
            while set(catalog._directory._hot) != {"asked", "new"}:
                for name in ("asked", "new"):
                    assert len((await loaded(catalog, name)).entries) == 1
                await asyncio.sleep(0.02)
        assert await follows(catalog, "new", 2) < 0.5


async def test_a_large_service_does_not_hold_up_the_loop(consul: ConsulServer) -> None:
    """While 1000 instances are read, no slice of work is long (in CPU time: others do not count)."""
    longest = 0.0

    async def measure() -> None:
        nonlocal longest
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)

    async with running(consul.url) as catalog:
        await asyncio.gather(*(catalog.register(instance("web", number)) for number in range(1000)))
        await eventually(lambda: catalog.snapshot and "web" in catalog.snapshot.names)
        gc.disable()  # a collection among all that pytest holds takes longer than any slice
        measuring = asyncio.create_task(measure())
        await asyncio.sleep(0)
        try:
            assert len((await loaded(catalog, "web")).entries) == 1000
        finally:
            gc.enable()
            measuring.cancel()
    assert longest < 0.012  # seconds; in one piece it would be over 20 ms
