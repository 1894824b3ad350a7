"""A Swarm's services in Consul's store: several managers, other schemas, tokens, a Consul that dies."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.catalog import Refused, Unavailable
from registrator.catalog.consul import ConsulCatalog
from registrator.catalog.consul.facts import PREFIX, decode, encode, is_later
from registrator.model import MeshPort, SwarmService
from registrator.settings import ConsulAddress
from registrator.stats import Stats
from tests.support.consul import ConsulServer

WEB = SwarmService("web", "shop_web", {"a": "1"}, (MeshPort(80, "tcp", 8080),), "replicated", 2)
OTHER = SwarmService("other", "other", mode="global")


@asynccontextmanager
async def open_at(server: ConsulServer, token: str = "") -> AsyncIterator[ConsulCatalog]:
    async with ConsulCatalog(ConsulAddress(server.url, token=token), Stats()) as catalog:
        yield catalog


def listing(*services: SwarmService) -> Any:
    async def read() -> tuple[SwarmService, ...]:
        return services

    return read


class Store:
    """The keys of a cluster of the test's own, as anybody may read and write them."""

    def __init__(self, server: ConsulServer) -> None:
        self.cluster = secrets.token_hex(6)
        self._server = server
        self._path = f"/v1/kv/{PREFIX}{self.cluster}/"

    def put(self, service: str, document: Any) -> None:
        self._server.put(self._path + service, document)

    def get(self, service: str) -> Any:
        return self._server.get(f"{self._path}{service}?raw")

    def index(self, service: str) -> int:
        return int(self._server.get(self._path + service)[0]["ModifyIndex"])

    def services(self) -> list[str]:
        with suppress(OSError):
            return [key.rpartition("/")[2] for key in self._server.get(self._path + "?keys")]
        return []


@pytest.fixture
def store(consul_shared: ConsulServer) -> Store:
    return Store(consul_shared)


@pytest.fixture
async def catalog(consul_shared: ConsulServer, store: Store) -> AsyncIterator[ConsulCatalog]:
    async with open_at(consul_shared) as catalog:
        yield catalog
        await catalog.publish(store.cluster, listing())


# Several managers -----------------------------------------------------------


async def test_an_older_word_does_not_undo_a_newer(catalog: ConsulCatalog, store: Store) -> None:
    """A manager whose listing is overtaken by another's finds its write refused, and lists again."""
    newest = replace(WEB, replicas=9)
    words = [WEB, newest]

    async def overtaken() -> list[SwarmService]:
        if len(words) == 2:
            await catalog.publish(store.cluster, listing(newest, OTHER))
            return [words.pop(0)]
        return [newest, OTHER]

    await catalog.publish(store.cluster, listing(replace(WEB, replicas=1)))
    await catalog.publish(store.cluster, overtaken)
    assert decode(json.dumps(store.get("web"))) == newest
    assert store.services() == ["other", "web"]


async def test_a_service_that_came_during_the_listing_is_not_deleted(
    catalog: ConsulCatalog, store: Store
) -> None:
    """Only what was published before the listing, and is not in it, is gone."""

    async def too_early() -> list[SwarmService]:
        await catalog.publish(store.cluster, listing(WEB, OTHER))
        return [WEB]

    await catalog.publish(store.cluster, listing(WEB))
    await catalog.publish(store.cluster, too_early)
    assert store.services() == ["other", "web"]


async def test_the_same_again_is_no_write(catalog: ConsulCatalog, store: Store) -> None:
    """Only differences are written."""
    await catalog.publish(store.cluster, listing(WEB, OTHER))
    before = store.index("web"), store.index("other")
    await catalog.publish(store.cluster, listing(WEB, OTHER))
    assert (store.index("web"), store.index("other")) == before
    await catalog.publish(store.cluster, listing(WEB, replace(OTHER, labels={"b": "2"})))
    assert store.index("web") == before[0]


# Schemas --------------------------------------------------------------------


async def test_a_later_schema_is_left_alone_until_the_service_goes(
    catalog: ConsulCatalog, store: Store
) -> None:
    """In a rolling update the newer agents' word stands; their services are gone for all."""
    store.put("web", {"schema": 2, "id": "web", "new": True})
    await catalog.publish(store.cluster, listing(WEB))
    assert store.get("web")["schema"] == 2
    await catalog.publish(store.cluster, listing())
    assert store.services() == []


async def test_a_writer_that_never_rests_is_given_up(catalog: ConsulCatalog, store: Store) -> None:
    """After some attempts the manager says so, and tries again later."""
    count = iter(range(100))

    async def disturbed() -> list[SwarmService]:
        store.put("web", {"somebody": next(count)})
        return [WEB]

    with pytest.raises(Unavailable, match="were others after each of 5 attempts"):
        await catalog.publish(store.cluster, disturbed)


async def test_nonsense_is_overwritten_by_a_manager(catalog: ConsulCatalog, store: Store) -> None:
    """Whatever somebody else wrote there."""
    store.put("web", "nonsense")
    await catalog.publish(store.cluster, listing(WEB))
    assert decode(json.dumps(store.get("web"))) == WEB


async def test_nonsense_hides_nothing_else(catalog: ConsulCatalog, store: Store) -> None:
    """A reader leaves out what it cannot read."""
    await catalog.publish(store.cluster, listing(WEB))
    store.put("other", [1, 2])
    async with aclosing(catalog.published()) as published, asyncio.timeout(5):
        found = await anext(published)
        assert found["web"] == WEB
        assert "other" not in found


texts = st.text(max_size=20)
services = st.builds(
    SwarmService,
    id=texts,
    name=texts,
    labels=st.dictionaries(texts, texts, max_size=4),
    mesh=st.lists(
        st.builds(
            MeshPort, st.integers(1, 65535), st.sampled_from(["tcp", "udp", "sctp"]), st.integers(1, 65535)
        ),
        max_size=4,
    ).map(tuple),
    mode=st.sampled_from(["replicated", "global", "replicated-job", "global-job", ""]),
    replicas=st.integers(0, 10**6),
    stop_timeout=st.none() | st.floats(0, 1e9),
)


@given(services)
def test_what_is_written_is_read_as_it_was(service: SwarmService) -> None:
    """A document is the whole service."""
    assert decode(encode(service)) == service
    assert not is_later(encode(service))


MEMBERS = ("schema", "id", "name", "labels", "mesh", "mode", "replicas", "stop_timeout")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
)


@given(services, st.sampled_from(MEMBERS), JSON)
def test_any_document_is_a_service_or_nothing(service: SwarmService, member: str, value: Any) -> None:
    """Whoever may write keys may write anything: what is odd is no service, and raises nothing."""
    document = json.loads(encode(service))
    for text in (
        json.dumps({**document, member: value}),
        json.dumps({**document, "labels": {"a": value}}),
        str(value),
    ):
        is_later(text)
        found = decode(text)
        if found is not None:
            texts = (found.id, found.name, found.mode, *found.labels, *found.labels.values())
            assert all(isinstance(text, str) for text in texts)
            assert all(0 < port.number <= 65535 and port.published > 0 for port in found.mesh)
            assert decode(encode(found)) == found


# Tokens ---------------------------------------------------------------------

ROOT = "root-secret"
SERVICES = 'service_prefix "" { policy = "write" } node_prefix "" { policy = "read" }'


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, consul_binary: str) -> Iterator[ConsulServer]:
    """A Consul that denies what no token allows."""
    acl = {"enabled": True, "default_policy": "deny", "tokens": {"master": ROOT, "agent": ROOT}}
    with ConsulServer(tmp_path_factory.mktemp("acl"), {"acl": acl}, token=ROOT) as server:
        yield server


def token_of(server: ConsulServer, rules: str) -> str:
    """A token with this policy alone."""
    policy = server.put("/v1/acl/policy", {"Name": secrets.token_hex(4), "Rules": rules})
    return str(server.put("/v1/acl/token", {"Policies": [{"ID": policy["ID"]}]})["SecretID"])


async def test_one_rule_is_enough(guarded: ConsulServer) -> None:
    """Writing below the prefix includes reading."""
    token = token_of(guarded, f'key_prefix "{PREFIX}" {{ policy = "write" }}')
    async with open_at(guarded, token) as catalog:
        await catalog.publish("c1", listing(WEB))
        await catalog.publish("c1", listing(WEB, OTHER))
        async with aclosing(catalog.published()) as published, asyncio.timeout(5):
            assert set(await anext(published)) == {"web", "other"}
        await catalog.publish("c1", listing())


async def test_without_the_rule_a_manager_is_told_which(guarded: ConsulServer) -> None:
    """The error is one line with what to give the token."""
    async with open_at(guarded, token_of(guarded, SERVICES)) as catalog:
        with pytest.raises(Refused, match='give it key_prefix "registrator/swarm/" write'):
            await catalog.publish("c2", listing(WEB))


async def test_without_the_rule_a_reader_is_told_of_nothing_at_once(guarded: ConsulServer) -> None:
    """Consul leaves out what a token may not read, and refuses an unknown one: both hold up nobody."""
    for token in (token_of(guarded, SERVICES), "unknown-token"):
        async with open_at(guarded, token) as catalog, aclosing(catalog.published()) as published:
            async with asyncio.timeout(5):
                assert await anext(published) == {}


# A Consul that dies ---------------------------------------------------------


async def test_a_reader_goes_on_through_the_death_of_consul(consul: ConsulServer) -> None:
    """It tells nothing while Consul is away, and what there is when it is back, be that nothing."""
    async with open_at(consul) as catalog, aclosing(catalog.published()) as published:
        await catalog.publish("c1", listing(WEB))
        async with asyncio.timeout(20):
            assert await anext(published) == {"web": WEB}
            following = asyncio.ensure_future(anext(published))
            await asyncio.to_thread(consul.kill)
            with pytest.raises(Unavailable):
                await catalog.publish("c1", listing(WEB))
            assert not following.done()
            await asyncio.to_thread(consul.restart)
            assert await following == {}
            await catalog.publish("c1", listing(WEB))
            assert await anext(published) == {"web": WEB}


async def test_a_reader_that_finds_consul_away_waits(
    consul: ConsulServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is taken for known before the first answer, and the log says what is waited for."""
    async with open_at(consul) as catalog:
        await catalog.publish("c1", listing(WEB))
        await asyncio.to_thread(consul.kill)
        async with aclosing(catalog.published()) as published, asyncio.timeout(20):
            following = asyncio.ensure_future(anext(published))
            while "cannot be read" not in caplog.text:
                await asyncio.sleep(0.01)
            assert not following.done()
            await asyncio.to_thread(consul.restart)
            assert await following == {}
