"""Blocking queries: they return on the change that they wait for, and cost little while they wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from aiohttp import ClientConnectionError, ClientSession, TCPConnector

from registrator.lookup import http_reads
from tests.lookup.fakes import NODE, FakeDirectory, entry, snapshot_of
from tests.lookup.web import Web, serve

WEB, DB = entry("web"), entry("db")
BEFORE = snapshot_of(WEB, DB)
WEB_GREW = snapshot_of(WEB, entry("web", 2), DB, index=10, indexes={"web": 11})
DB_GREW = snapshot_of(WEB, DB, entry("db", 2), index=10, indexes={"db": 11})
NODE_CAME = replace(BEFORE, index=11, nodes={**BEFORE.nodes, "n2": replace(NODE, name="n2")})

ROUTES = ["/v1/health/service/web", "/v1/catalog/service/web"]


async def until(condition: Callable[[], object], within: float = 5.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.002)


async def blocked(web: Web, directory: FakeDirectory, path: str) -> asyncio.Task[int]:
    """A query that has begun to wait; its result is the index of its answer."""

    async def ask() -> int:
        response = await web.get(path)
        assert response.status == 200
        return int(response.headers["X-Consul-Index"])

    waiters = directory.waiters
    task = asyncio.create_task(ask())
    await until(lambda: directory.waiters > waiters)
    return task


@pytest.mark.parametrize("path", ROUTES)
async def test_it_returns_when_its_service_changes(path: str) -> None:
    directory = FakeDirectory(BEFORE)
    async with serve(directory) as web:
        query = await blocked(web, directory, f"{path}?index=10&wait=1m")
        directory.publish(WEB_GREW)
        assert await asyncio.wait_for(query, 5) == 11


@pytest.mark.parametrize("path", ROUTES)
async def test_it_does_not_return_when_another_service_changes(path: str) -> None:
    directory = FakeDirectory(BEFORE)
    async with serve(directory) as web:
        query = await blocked(web, directory, f"{path}?index=10&wait=1m")
        other = await blocked(web, directory, "/v1/health/service/db?index=10&wait=1m")
        directory.publish(DB_GREW)
        assert await asyncio.wait_for(other, 5) == 11
        assert not query.done()
        directory.publish(snapshot_of(WEB, DB, indexes={"web": 12, "db": 11}))
        assert await asyncio.wait_for(query, 5) == 12


@pytest.mark.parametrize("path", ["/v1/catalog/services", "/v1/catalog/nodes"])
async def test_a_query_for_names_or_nodes_returns_when_these_change(path: str) -> None:
    directory = FakeDirectory(BEFORE)
    async with serve(directory) as web:
        query = await blocked(web, directory, f"{path}?index=10&wait=1m")
        directory.publish(WEB_GREW)
        await web.get("/livez")
        assert not query.done(), "an instance came, but no name and no node"
        directory.publish(NODE_CAME)
        assert await asyncio.wait_for(query, 5) == 11


async def test_a_query_for_an_unknown_service_returns_when_it_appears() -> None:
    directory = FakeDirectory(BEFORE)
    async with serve(directory) as web:
        query = await blocked(web, directory, "/v1/health/service/new?index=10&wait=1m")
        directory.publish(snapshot_of(WEB, DB, entry("new"), index=11))
        assert await asyncio.wait_for(query, 5) == 11
        assert len(await web.json("/v1/health/service/new")) == 1


async def test_a_query_for_a_service_returns_when_it_goes() -> None:
    directory = FakeDirectory(BEFORE)
    async with serve(directory) as web:
        query = await blocked(web, directory, "/v1/health/service/web?index=10&wait=1m")
        directory.publish(snapshot_of(DB, index=11, indexes={"db": 10}))
        assert await asyncio.wait_for(query, 5) == 11
        assert await web.json("/v1/health/service/web") == []


@pytest.mark.parametrize("path", [*ROUTES, "/v1/catalog/services", "/v1/catalog/nodes"])
async def test_it_returns_unchanged_when_its_wait_is_over(path: str) -> None:
    async with serve(FakeDirectory(BEFORE)) as web:
        began = time.monotonic()
        response = await web.get(f"{path}?index=10&wait=200ms")
        assert 0.15 < time.monotonic() - began < 5
        assert response.headers["X-Consul-Index"] == "10"


@pytest.mark.parametrize("path", [*ROUTES, "/v1/catalog/services", "/v1/catalog/nodes"])
@pytest.mark.parametrize("index", ["0", "9", ""])
async def test_an_index_that_is_passed_already_is_answered_at_once(path: str, index: str) -> None:
    async with serve(FakeDirectory(BEFORE)) as web:
        response = await asyncio.wait_for(web.get(f"{path}?index={index}&wait=1m"), 5)
        assert response.headers["X-Consul-Index"] == "10"


async def test_two_hundred_blocking_queries_are_cheap_and_all_wake_at_once() -> None:
    directory = FakeDirectory(BEFORE)
    async with serve(directory) as web, ClientSession(connector=TCPConnector(limit=0)) as many:

        async def ask() -> int:
            async with many.get(f"{web.url}/v1/health/service/web?index=10&wait=1m") as response:
                return len(await response.json())

        queries = [asyncio.create_task(ask()) for _ in range(200)]
        await until(lambda: directory.waiters == 200)
        cpu = time.process_time()
        await asyncio.sleep(0.5)
        assert time.process_time() - cpu < 0.1, "waiting costs nothing"
        assert (await asyncio.wait_for(web.get("/livez"), 1)).status == 200
        directory.publish(WEB_GREW)
        assert await asyncio.wait_for(asyncio.gather(*queries), 5) == [2] * 200
        assert directory.waiters == 0


async def test_a_client_that_goes_takes_its_query_along() -> None:
    directory = FakeDirectory(BEFORE)
    async with serve(directory) as web:
        query = await blocked(web, directory, "/v1/health/service/web?index=10&wait=5m")
        query.cancel()
        await until(lambda: directory.waiters == 0)


async def test_closing_answers_the_open_queries_within_a_second() -> None:
    directory = FakeDirectory(BEFORE)
    async with serve(directory) as web:
        queries = [await blocked(web, directory, f"{path}?index=10&wait=5m") for path in ROUTES * 10]
        url = web.url
        began = time.monotonic()
        await web.server.close()
        assert time.monotonic() - began < 1
        assert await asyncio.gather(*queries) == [10] * 20
        with pytest.raises(ClientConnectionError):
            await web.client.get(f"{url}/livez")


async def test_beyond_the_cap_a_blocking_query_is_refused_and_others_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_reads, "MAX_WAITING", 3)
    directory = FakeDirectory(BEFORE)
    async with serve(directory) as web:
        queries = [await blocked(web, directory, "/v1/health/service/web?index=10&wait=1m") for _ in range(3)]
        refused = await web.get("/v1/health/service/web?index=10&wait=1m")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert (await web.get("/v1/health/service/web")).status == 200
        directory.publish(WEB_GREW)
        assert await asyncio.gather(*queries) == [11] * 3


@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        ("index=abc", "Invalid index"),
        ("index=-1", "Invalid index"),
        ("wait=abc", "Invalid wait time"),
        ("index=10&wait=5", "Invalid wait time"),
        ("passing=maybe", "Invalid value for ?passing"),
    ],
)
async def test_a_bad_parameter_is_400_in_consuls_words(parameters: str, line: str) -> None:
    async with serve(FakeDirectory(BEFORE)) as web:
        response = await web.get(f"/v1/health/service/web?{parameters}")
    assert (response.status, response.text.strip()) == (400, line)
