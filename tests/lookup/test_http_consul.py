"""Our front beside a real Consul, over the same catalog: a client made for Consul cannot tell them apart."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import consul.std
import pytest
import pytest_asyncio

from registrator.catalog.consul import ConsulCatalog
from registrator.settings import ConsulAddress
from registrator.stats import Stats
from tests.lookup.web import Reply, Web, serve
from tests.support.consul import ConsulServer

pytestmark = pytest.mark.consul

NETWORK = "app/0123456789ab/ipv4"  # as the agent writes a container network's address

SERVICES: list[dict[str, Any]] = [
    {
        "ID": "full-1",
        "Name": "front-full",
        "Address": "10.0.0.5",
        "Port": 80,
        "Tags": ["b", "a"],
        "Meta": {"k": "v", "l": ""},
        "Weights": {"Passing": 3, "Warning": 2},
        "EnableTagOverride": True,
        "TaggedAddresses": {NETWORK: {"Address": "10.0.1.5", "Port": 8080}},
        "Checks": [
            {"CheckID": "full-1:ttl", "Name": "alive", "TTL": "10m", "Status": "passing", "Notes": "by hand"},
            {"CheckID": "full-1:tcp", "TCP": "127.0.0.1:1", "Interval": "1h", "Status": "warning"},
        ],
    },
    {"ID": "full-2", "Name": "front-full", "Address": "10.0.0.6", "Port": 80, "Tags": ["b"]},
    {
        "ID": "full-3",
        "Name": "front-full",
        "Address": "10.0.0.7",
        "Checks": [{"CheckID": "full-3:ttl", "TTL": "10m", "Status": "critical"}],
    },
    {"ID": "bare", "Name": "front-bare"},
    {"ID": "six", "Name": "front-six", "Address": "fd00::5", "Port": 1},
    {"ID": "named", "Name": "front-named", "Address": "db.example.org", "Port": 5432},
    {"ID": "mixed", "Name": "Front-MiXed", "Address": "10.0.0.8", "Port": 2},
]

NAMES = sorted({service["Name"] for service in SERVICES})
PATHS = [
    "/v1/catalog/services",
    "/v1/catalog/nodes",
    *(f"/v1/catalog/service/{name}" for name in [*NAMES, "front-mixed", "front-nobody", "a%2Fb"]),
    *(f"/v1/health/service/{name}" for name in [*NAMES, "front-mixed", "front-nobody", "a%2Fb"]),
    "/v1/catalog/service/front-full?tag=b",
    "/v1/catalog/service/front-full?tag=B&tag=a",
    "/v1/catalog/service/front-full?tag=",
    "/v1/health/service/front-full?passing",
    "/v1/health/service/front-full?passing=1&tag=b",
    "/v1/health/service/front-full?passing=false",
    "/v1/health/service/front-full?tag=a&tag=b",
    "/v1/health/service/front-full?tag=nobody",
    "/v1/health/service/front-full?index=&wait=",
    "/v1/health/service/front-full?index=1&wait=10s",
    "/v1/health/service/front-full?wait=1h&near=_agent&stale",
    "/v1/health/service/front-full?dc=dc1",
]
ANY = ["/v1/catalog/node/{node}", "/v1/catalog/node/nobody", "/v1/catalog/datacenters",
       "/v1/health/state/bad",
       "/v1/health/node/nobody", *(f"/v1/health/checks/{name}" for name in [*NAMES, "front-nobody"]),
       "/v1/health/service/front-full?near=_agent", "/v1/catalog/nodes?near=nobody",
       "/v1/catalog/nodes?node-meta=a:b", "/v1/catalog/services?node-meta=a:b",
       "/v1/health/service/front-full?node-meta=k:v",
       "/v1/health/state/any", "/v1/health/state/critical", "/v1/health/node/{node}"]  # fmt: skip
REFUSED = [
    "/v1/catalog/node/",
    "/v1/health/node/",
    "/v1/health/state/",
    "/v1/health/checks/",
    "/v1/health/service/front-full?index=abc",
    "/v1/health/service/front-full?index=-1",
    "/v1/health/service/front-full?index=18446744073709551616",
    "/v1/health/service/front-full?wait=abc",
    "/v1/health/service/front-full?wait=5",
    "/v1/health/service/front-full?wait=1h5",
    "/v1/health/service/front-full?passing=perhaps",
    "/v1/health/service/",
    "/v1/catalog/service/",
    "/v1/catalog/services?index=x",
    "/v1/catalog/nodes?wait=x",
]

# Expressions over the documents of front-full: what Consul answers to each, we must.
FILTERS = {
    "/v1/health/service/front-full": [
        'Checks.Status == "passing"',
        "Checks.Status != passing",
        'Checks.Status == "critical" or Service.Port == 80',
        "not Checks.Status == critical and Service.Tags contains a",
        '"a" in Service.Tags',
        '"a" not in Service.Tags',
        "Service.Tags not contains `a`",
        'Service.Meta.k == "v"',
        'Service.Meta["k"] == v',
        "Service.Meta.nobody != v",
        "not (Service.Meta.nobody == v)",
        "k in Service.Meta",
        "Service.Meta is empty",
        "Service.Tags is not empty",
        "Service.Weights.Passing == 3",
        "Service.EnableTagOverride == true",
        "Service.TaggedAddresses.lan_ipv4.Address == `10.0.0.6`",
        'Node.Datacenter == "dc1" and (Service.ID == "full-1" or Service.ID == "full-2")',
        "Service.ID == `full-1` or Service.ID == `full-2` and Service.Port == 1",
    ],
    "/v1/catalog/service/front-full": [
        '"full" in ServiceID',
        "ServiceTags contains b and ServiceMeta.k != w",
        "ServicePort != 80",
        "NodeMeta is not empty",
        "ServiceWeights.Warning == 2",
    ],
    "/v1/health/checks/front-full": ['Name == "alive"', "ServiceTags contains a", "Output == nothing"],
    "/v1/health/state/any": ["ServiceName == `front-full`", 'CheckID == "serfHealth"'],
    "/v1/health/node/{node}": ["Status == warning", "ServiceID == `full-3`"],
    "/v1/catalog/nodes": ["Meta is empty", "Datacenter == dc1"],
    "/v1/catalog/node/{node}": ["Service == `front-full`", "Tags contains b"],
    "/v1/agent/services": ["Service == `front-full`", "Meta.k == v"],
}
REFUSED_FILTERS = [
    "Nobody == 1",
    "Service.Tags == a",
    "Service.Meta == v",
    "Service.ID is empty",
    "Service.Port == x",
    "Service.Port contains 8",
    "Service.ID == ",
    "garbage (",
    "(Service.ID == a",
    "Service.ID == a and",
    "not",
    "Node",
    "Service",
]


@pytest.fixture(scope="module")
def filled(consul_shared: ConsulServer) -> Iterator[ConsulServer]:
    """A Consul with services of every shape that the front can meet."""
    for service in SERVICES:
        consul_shared.put("/v1/agent/service/register", service)
    try:
        yield consul_shared
    finally:
        for service in SERVICES:
            consul_shared.put(f"/v1/agent/service/deregister/{service['ID']}")


@pytest_asyncio.fixture
async def front(filled: ConsulServer) -> AsyncIterator[Web]:
    """Our front over that Consul, once it knows the names."""
    async with ConsulCatalog(ConsulAddress(filled.url), Stats()) as catalog:
        running = asyncio.create_task(catalog.run())
        try:
            async with asyncio.timeout(10):
                while not catalog.snapshot:
                    await asyncio.sleep(0.01)
            async with serve(catalog) as web:
                yield web
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def ask(server: ConsulServer, path: str) -> Reply:
    try:
        with urllib.request.urlopen(server.url + path, timeout=20) as response:
            return Reply(response.status, response.headers, response.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, error.headers, error.read().decode())


def comparable(document: Any) -> Any:
    """Without what must differ.

    Indexes count other things, a map's tags have no order, and that no Meta
    was sent (null) is not told from an empty one.
    """
    if isinstance(document, dict):
        if all(isinstance(value, list) for value in document.values()):
            return {name: sorted(tags) for name, tags in document.items()}
        indexes = ("CreateIndex", "ModifyIndex")
        return {
            key: type(value).__name__ if key in indexes else comparable({} if value is None else value)
            for key, value in document.items()
        }
    if isinstance(document, list):
        return [comparable(item) for item in document]
    return document


@pytest.mark.parametrize("path", PATHS)
async def test_every_document_is_equal_key_by_key(filled: ConsulServer, front: Web, path: str) -> None:
    await front.get("/v1/health/service/Front-MiXed")  # loaded, so that the list has its name as registered
    theirs = await asyncio.to_thread(ask, filled, path)
    ours = await front.get(path)
    assert theirs.status == ours.status == 200
    assert comparable(ours.json()) == comparable(theirs.json())
    wanted = {"X-Consul-Index", "X-Consul-KnownLeader", "X-Consul-LastContact"}
    assert {name for name in wanted if theirs.headers.get(name)} == wanted, "Consul sends them"
    assert int(ours.headers["X-Consul-Index"]) > 0
    assert ours.headers["X-Consul-KnownLeader"] == theirs.headers["X-Consul-KnownLeader"] == "true"
    assert ours.headers["X-Consul-LastContact"] == theirs.headers["X-Consul-LastContact"] == "0"
    assert ours.headers["Content-Type"].startswith(theirs.headers["Content-Type"])


def unordered(document: Any) -> Any:
    """Consul lists by its own keys: checks and instances count, not their order."""
    if isinstance(document, list):
        return sorted((unordered(item) for item in document), key=json.dumps)
    return document


async def both(filled: ConsulServer, front: Web, path: str) -> tuple[Reply, Reply]:
    """Consul's reply to a path and ours; `{node}` in it stands for the only node."""
    path = path.format(node=(await front.json("/v1/catalog/nodes"))[0]["Node"])
    return await asyncio.to_thread(ask, filled, path), await front.get(path)


# Many questions in one test: each front leaves blocking queries behind at Consul, which grants us 200.


async def test_the_rest_of_the_read_api_is_equal_key_by_key(filled: ConsulServer, front: Web) -> None:
    for path in ANY:
        theirs, ours = await both(filled, front, path)
        assert theirs.status == ours.status == 200, (path, theirs.text, ours.text)
        assert unordered(comparable(ours.json())) == unordered(comparable(json.loads(theirs.text))), path


async def test_a_filter_chooses_what_it_chooses_in_consul(filled: ConsulServer, front: Web) -> None:
    for path, text in [(path, text) for path, texts in FILTERS.items() for text in texts]:
        theirs, ours = await both(filled, front, f"{path}?{urllib.parse.urlencode({'filter': text})}")
        assert (theirs.status, ours.status) == (200, 200), (text, theirs.text, ours.text)
        assert unordered(comparable(ours.json())) == unordered(comparable(json.loads(theirs.text))), text


async def test_a_filter_that_consul_refuses_is_refused_in_one_line(filled: ConsulServer, front: Web) -> None:
    for text in REFUSED_FILTERS:
        query = urllib.parse.urlencode({"filter": text})
        theirs, ours = await both(filled, front, f"/v1/health/service/front-full?{query}")
        assert (theirs.status, ours.status) == (500, 400), text  # Consul calls it its own fault
        assert ours.text.startswith("Failed to create boolean expression evaluator: ")
        assert ours.text.count("\n") == 1


async def test_the_agent_and_its_status_are_told_as_consul_tells_them(
    filled: ConsulServer, front: Web
) -> None:
    """Of agent/self only the part by which clients learn where they are."""
    for path in ("/v1/status/leader", "/v1/status/peers", "/v1/agent/services"):
        theirs = await asyncio.to_thread(ask, filled, path)
        assert comparable(await front.json(path)) == comparable(json.loads(theirs.text))
    wanted = (await asyncio.to_thread(filled.get, "/v1/agent/self"))["Config"]
    config = (await front.json("/v1/agent/self"))["Config"]
    assert config.keys() == wanted.keys()
    for key in ("Datacenter", "NodeName", "NodeID"):
        assert config[key] == wanted[key]


async def test_a_blocking_query_over_all_checks_returns_with_a_change_of_any(
    filled: ConsulServer, front: Web
) -> None:
    index = (await front.get("/v1/health/state/any")).headers["X-Consul-Index"]
    waiting = asyncio.create_task(front.get(f"/v1/health/state/any?index={index}&wait=20s"))
    definition = {"ID": "late", "Name": "front-late", "Check": {"TTL": "10m", "Status": "passing"}}
    await asyncio.to_thread(filled.put, "/v1/agent/service/register", definition)
    try:
        reply = await asyncio.wait_for(waiting, 10)
        assert int(reply.headers["X-Consul-Index"]) > int(index)
        assert "late" in {check["ServiceID"] for check in reply.json()}
    finally:
        await asyncio.to_thread(filled.put, "/v1/agent/service/deregister/late")


@pytest.mark.parametrize("coding", ["gzip", "identity"])
async def test_long_answers_are_gzipped_for_whom_consul_gzips_them(
    filled: ConsulServer, front: Web, coding: str
) -> None:
    headers, path = {"Accept-Encoding": coding}, "/v1/health/service/front-full"
    async with front.client.get(filled.url + path, headers=headers) as theirs:
        wanted = theirs.headers.get("Content-Encoding")
    ours = await front.get(path, headers=headers)
    assert ours.headers.get("Content-Encoding") == wanted
    assert wanted == ("gzip" if coding == "gzip" else None)


@pytest.mark.parametrize("path", REFUSED)
async def test_every_refusal_has_the_same_status_and_words(
    filled: ConsulServer, front: Web, path: str
) -> None:
    theirs = await asyncio.to_thread(ask, filled, path)
    ours = await front.get(path)
    assert (ours.status, ours.text.strip()) == (theirs.status, theirs.text.strip())


def client(url: str) -> consul.std.Consul:
    host, _, port = url.removeprefix("http://").partition(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its own ACL classes, which nobody uses here
        return consul.std.Consul(host=host, port=int(port))


def read(api: consul.std.Consul) -> dict[str, Any]:
    """All that python-consul2 can read of these routes."""
    try:
        return {
            "services": api.catalog.services()[1],
            "nodes": api.catalog.nodes()[1],
            "service": api.catalog.service("front-full")[1],
            "tagged": api.catalog.service("front-full", tag="a")[1],
            "health": api.health.service("front-full")[1],
            "passing": api.health.service("front-full", passing=True)[1],
            "unknown": api.health.service("front-nobody")[1],
            "node": api.catalog.node(api.catalog.nodes()[1][0]["Node"])[1],
            "datacenters": api.catalog.datacenters(),
            "checks": api.health.checks("front-full")[1],
            "warning": api.health.state("warning")[1],
            "own": api.agent.services(),
            "leader": api.status.leader(),
            "peers": api.status.peers(),
        }
    finally:
        api.http.session.close()


async def test_python_consul2_reads_the_same_from_us(filled: ConsulServer, front: Web) -> None:
    await front.get("/v1/health/service/Front-MiXed")
    theirs = await asyncio.to_thread(read, client(filled.url))
    ours = await asyncio.to_thread(read, client(front.url))
    assert comparable(ours) == comparable(theirs)
    assert [entry["Service"]["ID"] for entry in ours["passing"]] == ["full-2"]


async def test_python_consul2_waits_by_index_for_a_change(filled: ConsulServer, front: Web) -> None:
    """The client's own loop: take the index, ask again with it, get the change."""
    api = client(front.url)
    try:
        index, before = await asyncio.to_thread(api.health.service, "front-wait")
        assert before == []
        waiting = asyncio.create_task(
            asyncio.to_thread(api.health.service, "front-wait", index=index, wait="20s")
        )
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await asyncio.to_thread(
            filled.put, "/v1/agent/service/register", {"ID": "wait", "Name": "front-wait"}
        )
        later, after = await asyncio.wait_for(waiting, 10)
        assert int(later) > int(index)
        assert [entry["Service"]["ID"] for entry in after] == ["wait"]
    finally:
        await asyncio.to_thread(filled.put, "/v1/agent/service/deregister/wait")
        api.http.session.close()


async def test_the_front_answers_on_when_consul_is_gone(consul: ConsulServer) -> None:
    """Law 6, end to end: what was known stays known, with its age."""
    await asyncio.to_thread(consul.put, "/v1/agent/service/register", {"ID": "a", "Name": "a", "Port": 7})
    async with ConsulCatalog(ConsulAddress(consul.url), Stats()) as catalog:
        running = asyncio.create_task(catalog.run())
        async with serve(catalog) as web, asyncio.timeout(20):
            while (await web.get("/lookup/a")).status != 200:
                await asyncio.sleep(0.02)
            consul.kill()
            while not (reply := await web.get("/lookup/a")).headers.get("X-Registrator-Age"):
                await asyncio.sleep(0.02)
            assert reply.status == 200
            assert json.loads(reply.text)["instances"][0]["port"] == 7
            assert (await web.get("/lookup/nobody")).status == 404
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
