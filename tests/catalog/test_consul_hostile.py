"""Whatever Consul's documents and answers hold, the catalog lives, and other names are answered."""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from registrator.catalog import CatalogError, Unavailable
from registrator.catalog.consul import form, watch
from registrator.catalog.consul.client import ConsulClient
from registrator.catalog.consul.errors import Unreadable
from registrator.catalog.consul.http import Reply
from registrator.catalog.consul.watch import Watch
from registrator.limits import CONSUL_ELEMENT
from registrator.settings import ConsulAddress
from registrator.stats import Stats
from tests.catalog.consul_catalogs import eventually, running
from tests.catalog.servers import serving
from tests.support.consul import ConsulServer
from tests.support.nasty import HOLE, json_values, spoilt, with_holes

NODE = {
    "ID": "n-1",
    "Node": "n1",
    "Address": "10.0.0.1",
    "Datacenter": "dc1",
    "TaggedAddresses": {"lan": "10.0.0.1"},
    "Meta": {"rack": "a"},
}
SERVICE = {
    "ID": "web:1",
    "Service": "web",
    "Tags": ["blue"],
    "Address": "10.0.0.5",
    "Port": 80,
    "Meta": {"registrator-owner": "me"},
    "TaggedAddresses": {"front/0123456789ab/ipv4": {"Address": "172.18.0.2", "Port": 80}},
    "Weights": {"Passing": 1, "Warning": 1},
    "EnableTagOverride": False,
    "Proxy": {"Config": {}},
}
CHECK = {
    "CheckID": "c",
    "Name": "c",
    "Status": "passing",
    "Notes": "",
    "Output": "ok",
    "ServiceID": "web:1",
    "ServiceName": "web",
    "Type": "ttl",
}
ENTRY = {"Node": NODE, "Service": SERVICE, "Checks": [CHECK]}
GOOD = {"Node": NODE, "Service": {**SERVICE, "ID": "web:2"}, "Checks": []}
KEY = {"Key": "registrator/swarm/c/s", "Value": "e30=", "ModifyIndex": 7}
SELF = {
    "Config": {"NodeName": "n1", "Datacenter": "dc1", "NodeID": "n-1"},
    "Member": {"Addr": "10.0.0.1"},
    "Meta": {},
}

Read = Callable[[ConsulClient], Awaitable[Any]]
DOCUMENTS: Mapping[str, tuple[Any, Read]] = {
    "agent/self": (SELF, lambda client: client.own_node()),
    "agent/services": ({"web:1": SERVICE}, lambda client: client.services()),
    "agent/service": (SERVICE, lambda client: client.service("web:1")),
    "agent/checks": ({"c": CHECK}, lambda client: client.checks()),
    "catalog/services": ({"web": ["blue"], "Web": None}, lambda client: client.names(0, 0)),
    "catalog/nodes": ([NODE], lambda client: client.nodes(0, 0)),
    "catalog/datacenters": (["dc1", "dc2"], lambda client: client.datacenters()),
    "catalog/node": ({"Node": NODE, "Services": {"web:1": SERVICE}}, lambda client: client.node("n1")),
    "health/service": ([ENTRY], lambda client: client.entries("web", 0, 0)),
    "health/connect": ([ENTRY], lambda client: client.found("connect", "web", "")),
    "query": (
        {"Service": "web", "Nodes": [ENTRY], "DNS": {"TTL": "10s"}},
        lambda client: client.query("q", ""),
    ),
    "kv": ([KEY], lambda client: client.keys("registrator/swarm/", 0, 0)),
}


def client_of(text: str) -> ConsulClient:
    """A client to whom every GET is answered with a text."""
    client = ConsulClient(ConsulAddress("http://consul.test"), Stats())

    async def get(*_: object, **__: object) -> Reply:
        return Reply(7, text)

    client.http.get = get
    return client


async def survives(read: Read, text: str) -> Any:
    """The answer that a document leads to, or the CatalogError; anything else is let out."""
    try:
        return await read(client_of(text))
    except CatalogError as error:
        return error


@pytest.mark.parametrize(("document", "read"), DOCUMENTS.values(), ids=DOCUMENTS)
async def test_every_place_of_every_document_may_hold_anything(document: Any, read: Read) -> None:
    """What comes of it is of the model's types, and can be encoded; or it is a failure of this read."""
    logging.disable(logging.WARNING)
    try:
        assert not isinstance(await survives(read, json.dumps(document)), CatalogError)
        for text in spoilt(document):
            found = await survives(read, text)
            repr(found).encode()
            assert "\n" not in str(found)
    finally:
        logging.disable(logging.NOTSET)


@given(st.data())
def test_any_document_may_come(data: st.DataObject) -> None:
    """The same, of whatever JSON, at whatever places."""
    document, read = data.draw(st.sampled_from(list(DOCUMENTS.values())))
    for _ in range(data.draw(st.integers(1, 3))):
        document = data.draw(st.sampled_from(list(with_holes(document))))
        value = json.dumps(data.draw(json_values))
        document = json.loads(json.dumps(document).replace(json.dumps(HOLE), value))
    asyncio.run(survives(read, json.dumps(document)))


async def test_a_bad_instance_spoils_itself() -> None:
    """Whatever stands at any place of one instance, the other one of the name is found."""
    logging.disable(logging.WARNING)
    try:
        for text in spoilt(ENTRY):
            _, entries = await client_of(f"[{text},{json.dumps(GOOD)}]").entries("web", 0, 0)
            assert "web:2" in {entry.instance.id for entry in entries}
    finally:
        logging.disable(logging.NOTSET)


async def test_a_bad_member_or_element_spoils_itself() -> None:
    """A service's tags, a node, a key, an agent's service: the ones next to it are used."""
    bad = "[" * 2000 + "]" * 2000
    _, names = await client_of(f'{{"bad":{bad},"null":null,"web":["a",7,null]}}').names(0, 0)
    assert names == {"bad": (), "null": (), "web": ("a",)}
    _, nodes = await client_of(f"[{bad},null,{json.dumps({**NODE, 'Node': 5})},{json.dumps(NODE)}]").nodes(
        0, 0
    )
    assert set(nodes) == {"n1"}
    _, keys = await client_of(f"[{bad},null,{json.dumps(KEY)}]").keys("p", 0, 0)
    assert set(keys) == {"registrator/swarm/c/s"}
    services = await client_of(f'{{"a":{bad},"b":null,"web:1":{json.dumps(SERVICE)}}}').services()
    assert services["a"] == {"ID": "a", "Service": "", "Meta": {}}  # somebody's, whoever it is
    assert form.instance(services["web:1"]).service == "web"
    node, instances = await client_of(
        f'{{"Node":{json.dumps(NODE)},"Services":{{"a":{bad},"web:1":{json.dumps(SERVICE)}}}}}'
    ).node("n1")
    assert node is not None
    assert [one.id for one in instances] == ["web:1"]


async def test_a_list_of_which_nothing_can_be_used_is_not_an_empty_one() -> None:
    """Otherwise a spoilt document would make NXDOMAIN of a name that is there."""
    with pytest.raises(Unreadable, match="nothing of what Consul"):
        await client_of("[null]").entries("web", 0, 0)
    assert await client_of("[]").entries("web", 0, 0) == (7, ())
    with pytest.raises(Unreadable, match="not a JSON object"):
        await client_of("[1, 2]").services()


async def test_what_is_left_out_is_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Again only when it was over in between."""
    stats = Stats()
    texts = ["[null,{}]"] * 3 + ["[]"] + ["[null,{}]"]
    client = ConsulClient(ConsulAddress("http://consul.test"), stats)
    for text in texts:
        client.http.get = client_of(text).http.get
        with suppress(Unreadable):
            await client.entries("web\x1b", 0, 0)
    assert stats.malformed == {"consul": 8}
    assert len([record for record in caplog.records if "are left out" in record.getMessage()]) == 2


async def test_a_document_longer_than_memory_is_stepped_over() -> None:
    """One service's hundred megabytes of tags spoil its tags, of which nothing is kept."""
    stats = Stats()
    client = ConsulClient(ConsulAddress("http://consul.test"), stats)

    class Long(Reply):
        async def pieces(self):  # type: ignore[no-untyped-def]  # noqa: ANN202
            yield b'{"big":["'
            for _ in range(400):
                yield b"x" * 2**16
            yield b'"],"web":["a"]}'

    async def get(*_: object, **__: object) -> Reply:
        return Long(7)

    client.http.get = get
    assert (await client.names(0, 0))[1] == {"big": (), "web": ("a",)}
    assert stats.limited == {CONSUL_ELEMENT.name: 1}


async def test_what_does_not_block_is_not_asked_without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that jumps to and fro, or a server that answers at once whatever it is asked."""
    monkeypatch.setattr(watch, "PAUSE", 0.0)
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    for indexes in ([5, 4, 3, 2, 1], [5] * 8):
        rest = iter(indexes)

        async def ask(_: int) -> tuple[int, str]:
            return next(rest), "same"  # noqa: B023 - it is used up before the next

        watched: Watch[str] = Watch(ask)
        waits.clear()
        for _ in indexes:
            await watched.advance()
        assert waits[0] == 0
        assert min(waits[3:]) > watch.FIRST_BACKOFF / 2


async def test_a_spoilt_document_is_asked_for_as_rarely_as_a_refused_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody has to correct it first, and it may be long."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)

    async def ask(_: int) -> tuple[int, str]:
        raise AssertionError

    watched: Watch[str] = Watch(ask)
    watched.failures = 20
    await watched.back_off(Unreadable("x"))
    assert waits[0] >= watch.MAX_BACKOFF_REFUSED / 2


# Over HTTP ------------------------------------------------------------------


class FakeConsul:
    """Consul's catalog with `web`, and `bad` whose answer is a test's own; `asked` are the paths."""

    def __init__(self, bad: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self._bad = bad
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        if "index" in request.query:
            await asyncio.sleep(5)
        documents = {
            "/v1/catalog/services": {"web": [], "bad": []},
            "/v1/catalog/nodes": [NODE],
            "/v1/catalog/datacenters": ["dc1"],
            "/v1/health/service/web": [ENTRY],
        }
        if request.path in documents:
            return web.json_response(documents[request.path], headers={"X-Consul-Index": "7"})
        return await self._bad(request)


def plain(body: bytes = b"[]", **headers: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request) -> web.StreamResponse:
        given = {"X-Consul-Index": "7"} | {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(body=body, headers={k: v for k, v in given.items() if v})

    return answer


async def broken_chunks(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(
        b"HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n[]\r\n"
    )
    await asyncio.sleep(0.1)
    request.transport.close()
    return web.Response()


async def broken_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"X-Consul-Index": "7", "Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'[{"Node":')
    assert request.transport is not None
    request.transport.close()
    return response


async def redirect(_: web.Request) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": "/v1/health/service/web", "X-Consul-Index": "7"})


async def long_error(_: web.Request) -> web.StreamResponse:
    return web.Response(status=500, body=b"\x1b[31m\x00" * 2**20)


ANSWERS = {
    "an index of 400 digits": plain(X_Consul_Index="1" * 400),
    "an index of other digits": plain(X_Consul_Index="٣"),
    "a negative index": plain(X_Consul_Index="-5"),
    "an index with underscores": plain(X_Consul_Index="1_0"),
    "no index": plain(X_Consul_Index=""),
    "another content type that is not JSON": plain(b"<html>", Content_Type="text/html"),
    "compression that nobody asked for": plain(b"\x1f\x8b" + b"\0" * 100, Content_Encoding="gzip"),
    "an encoding that nobody knows": plain(b"[]", Content_Encoding="x"),
    "chunks that are none": broken_chunks,
    "a body that breaks off": broken_off,
    "a redirect": redirect,
    "a long error": long_error,
    "an object": plain(b"{}"),
    "not UTF-8": plain(b'["\xff"'),
    "nothing": plain(b""),
    "a deep document": plain(b"[" * 2_000_000),
}


@pytest.mark.parametrize("bad", ANSWERS.values(), ids=ANSWERS)
async def test_one_names_answer_spoils_that_name(
    bad: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> None:
    """The name fails, again and again, as a failure to act on; the other one is answered before and after."""
    async with serving(FakeConsul(bad).answer) as url, running(url) as catalog:
        for _ in range(2):
            assert (await catalog.load("web")).services["web"].entries
            with pytest.raises(CatalogError) as caught:
                await catalog.load("bad")
            assert str(caught.value).isprintable()
        assert catalog.age == 0


async def test_a_spoilt_name_is_not_read_for_each_who_asks() -> None:
    """A flood of questions for it is one request in five seconds."""
    fake = FakeConsul(plain(b"[null]"))
    async with serving(fake.answer) as url, running(url) as catalog:
        for _ in range(50):
            with pytest.raises(Unreadable):
                await catalog.load("bad")
        assert fake.asked.count("/v1/health/service/bad") <= 3


# The real Consul ------------------------------------------------------------


def deep(name: str, depth: int) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for _ in range(depth):
        config = {"a": config}
    proxy = {"DestinationServiceName": "web", "Config": config}
    return {"Name": name, "ID": name, "Kind": "connect-proxy", "Port": 1, "Proxy": proxy}


@pytest.mark.consul
async def test_a_deep_document_in_the_real_consul(consul: ConsulServer) -> None:
    """A mesh proxy nested 900 deep and more: the agent's own services, nodes and other names go on."""
    await asyncio.to_thread(
        consul.put, "/v1/agent/service/register", {"Name": "web", "ID": "web", "Port": 80}
    )
    body = json.dumps(deep("deep", 900)).replace('{"a": {}}', '{"a":' * 300 + "1" + "}" * 300)
    await asyncio.to_thread(_put_text, consul, "/v1/agent/service/register", body)
    for _ in range(2):  # at a restart too
        async with running(consul.url) as catalog:
            await eventually(lambda: catalog.snapshot and {"web", "deep"} <= set(catalog.snapshot.names))
            assert (await catalog.load("web")).services["web"].entries
            with pytest.raises(Unavailable, match="nothing of what Consul"):
                await catalog.load("deep")
            assert await catalog.owned("me") == {}
            assert catalog.age == 0


def _put_text(consul: ConsulServer, path: str, body: str) -> None:
    request = urllib.request.Request(consul.url + path, data=body.encode(), method="PUT")
    with urllib.request.urlopen(request, timeout=10) as reply:
        assert reply.status == 200
