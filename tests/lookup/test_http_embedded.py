"""The front over the embedded catalog: as over Consul, without one."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import consul.std
import pytest
import pytest_asyncio

from registrator.catalog.consul import ConsulCatalog
from registrator.catalog.embedded import EmbeddedCatalog
from registrator.model import (
    CRITICAL,
    META_OWNER,
    PASSING,
    Address,
    Check,
    Health,
    Instance,
    Node,
    Weights,
    health_check_id,
)
from registrator.settings import ConsulAddress
from registrator.stats import Stats
from tests.lookup.web import Web, serve
from tests.support import unavailable
from tests.support.consul import ConsulServer

NODE = Node("host7", "192.0.2.7", id="0007", tagged_addresses={"lan": "192.0.2.7"})
WEB = Instance(
    id="host7:web:80",
    service="embedded-web",
    address="10.0.1.5",
    port=80,
    tags=("b", "a"),
    meta={META_OWNER: "engine-7", "k": "v"},
    addresses=(Address("app", "0123456789ab", "10.0.1.5", 80), Address("node", "", "192.0.2.7", 8080)),
    weights=Weights(3, 2),
    checks=(Check(health_check_id("host7:web:80"), "Docker health", "ttl", ttl=600.0),),
    health=Health(PASSING, "all well"),
)
BARE = Instance(id="bare", service="embedded-bare", address="10.0.1.6", port=0)


@pytest_asyncio.fixture
async def catalog() -> AsyncIterator[EmbeddedCatalog]:
    async with EmbeddedCatalog(Stats()) as catalog:
        catalog.identify(NODE)
        await catalog.register(WEB)
        await catalog.register(BARE)
        catalog.settled()
        yield catalog


@pytest_asyncio.fixture
async def web(catalog: EmbeddedCatalog) -> AsyncIterator[Web]:
    async with serve(catalog) as web:
        yield web


@pytest.mark.consul
@pytest.mark.parametrize("instance", [WEB, BARE], ids=lambda instance: instance.service)
async def test_its_documents_are_those_of_a_real_consul_for_the_same_instance(
    instance: Instance, web: Web, consul_shared: ConsulServer
) -> None:
    """The node is another, and Consul's index too; all else is equal, key by key."""
    health, flat = (f"/v1/{kind}/service/{instance.service}" for kind in ("health", "catalog"))
    async with ConsulCatalog(ConsulAddress(consul_shared.url), Stats()) as real:
        await real.register(instance)
        try:
            theirs = await asyncio.to_thread(consul_shared.get, health)
            theirs_flat = await asyncio.to_thread(consul_shared.get, flat)
        finally:  # one of them has no owner, so the catalog would leave it
            await asyncio.to_thread(consul_shared.put, f"/v1/agent/service/deregister/{instance.id}")
    assert comparable(await web.json(health)) == comparable(theirs)
    assert comparable(await web.json(flat)) == comparable(theirs_flat)


@pytest.mark.consul
async def test_python_consul2_reads_the_same_from_the_embedded_catalog_as_from_consul(
    web: Web, consul_shared: ConsulServer
) -> None:
    """All calls of the client that are about a service; what belongs to the node counts by its keys."""
    async with ConsulCatalog(ConsulAddress(consul_shared.url), Stats()) as real:
        await real.register(WEB)
        try:
            theirs = await asyncio.to_thread(read, consul_shared.url)
        finally:
            await real.deregister(WEB.id)
    ours = await asyncio.to_thread(read, web.url)
    assert comparable(ours) == comparable(theirs)


@pytest.mark.consul
async def test_py_consul_reads_the_same_and_waits_for_the_same_change(
    catalog: EmbeddedCatalog, web: Web, consul_shared: ConsulServer
) -> None:
    """A client of other hands: all of its calls, and its blocking query."""
    async with ConsulCatalog(ConsulAddress(consul_shared.url), Stats()) as real:
        await real.register(WEB)
        try:
            async with py_consul(consul_shared.url) as client:
                theirs = await line_of(client)
                await real.report(WEB.id, Health(CRITICAL, "gone"))
                assert await line_of(client) == {"later": True, "status": CRITICAL}
        finally:
            await real.deregister(WEB.id)
    async with py_consul(web.url) as client:
        ours = await line_of(client)
        await catalog.report(WEB.id, Health(CRITICAL, "gone"))
        assert await line_of(client) == {"later": True, "status": CRITICAL}
    assert comparable(about_web(ours)) == comparable(about_web(theirs))
    assert ours["leaders"] == 2, "host and port"


@asynccontextmanager
async def py_consul(url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """PyPI's py-consul in a process of its own: its package has the name of python-consul2's."""
    where = Path(sys.prefix) / "consul-client"
    if not where.is_dir():
        unavailable("needs py-consul; run scripts/venv.sh")
    program = Path(__file__).parent / "clients" / "py_consul.py"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(program), url, WEB.service),
        env={**os.environ, "PYTHONPATH": str(where)},
        stdout=subprocess.PIPE,
        limit=2**20,
    )
    try:
        yield process
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def line_of(process: asyncio.subprocess.Process) -> Any:
    """What it says next."""
    assert process.stdout
    return json.loads(await asyncio.wait_for(process.stdout.readline(), 60) or "null")


def about_web(told: dict[str, Any]) -> dict[str, Any]:
    """Of what tells of the whole catalog the part that is about WEB."""
    ours = {
        key: [check for check in told[key] if check["ServiceID"] == WEB.id] for key in ("state", "its checks")
    }
    ours |= {key: told[key][WEB.id] for key in ("node", "own")}
    return {**told, **ours, "services": sorted(told["services"][WEB.service])}


def read(url: str) -> dict[str, Any]:
    """What python-consul2 makes of each call."""
    host, _, port = url.removeprefix("http://").partition(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its own ACL classes, which nobody uses here
        api = consul.std.Consul(host=host, port=int(port))
    try:
        node = api.catalog.nodes()[1][0]["Node"]
        return {
            "service": api.catalog.service("embedded-web")[1],
            "health": api.health.service("embedded-web", passing=True, tag="a")[1],
            "near": api.catalog.service("embedded-web", near="_agent", tag="b")[1],
            "of a node with": api.health.service("embedded-web", node_meta={"nobody": "has"})[1],
            "nodes": api.catalog.nodes(near="_agent")[1],
            "unknown": api.health.service("embedded-nobody")[1],
            "gone by": api.health.service("embedded-web", index=1, wait="10ms")[1],
            "leader and peers": [api.status.leader().count(":"), len(api.status.peers())],
            "checks": api.health.checks("embedded-web")[1],
            "state": [c for c in api.health.state("passing")[1] if c["ServiceID"] == WEB.id],
            "on the node": api.catalog.node(node)[1]["Services"][WEB.id],
            "its checks": [c for c in api.health.node(node)[1] if c["ServiceID"] == WEB.id],
            "own": api.agent.services()[WEB.id],
            "tags": sorted(api.catalog.services()[1]["embedded-web"]),
            "datacenters": api.catalog.datacenters(),
            "where": api.agent.self()["Config"]["Datacenter"],
        }
    finally:
        api.http.session.close()


def comparable(document: Any) -> Any:
    """Without the values that belong to the node, and the indexes: there only the keys count."""
    if isinstance(document, list):
        return [comparable(item) for item in document]
    if not isinstance(document, dict):
        return document
    if "Node" in document and "Address" in document:  # the node's own fields
        of_the_node = ("ID", "Node", "Address", "Datacenter", "TaggedAddresses", "Meta", "NodeMeta")
        document = {key: None if key in of_the_node else value for key, value in document.items()}
    others = ("CreateIndex", "ModifyIndex", "Node")
    return {
        key: type(value).__name__ if key in others and not isinstance(value, dict) else comparable(value)
        for key, value in document.items()
    }


# The reads of programs that are in no package registry we use, in the form that Consul's Go client sends.
SHAPES = {
    "Prometheus' consul_sd_config": [
        "/v1/agent/self",
        "/v1/catalog/services?stale=&wait=120000ms",
        "/v1/health/service/embedded-web?dc=dc1&stale=&tag=a&wait=120000ms",
    ],
    "consul-template": [
        "/v1/agent/self",
        "/v1/catalog/datacenters",
        "/v1/catalog/nodes?near=_agent&stale=&wait=60000ms",
        "/v1/catalog/node/host7?stale=&wait=60000ms",
        "/v1/catalog/services?stale=&wait=60000ms",
        "/v1/catalog/service/embedded-web?near=_agent&stale=&tag=a&wait=60000ms",
        "/v1/health/service/embedded-web?passing=1&stale=&wait=60000ms",
    ],
    "Traefik's provider": [
        "/v1/catalog/services?cached=&stale=",
        "/v1/catalog/services?consistent=",
        "/v1/health/service/embedded-web?cached=&stale=",
        "/v1/catalog/service/embedded-web?consistent=&filter=ServicePort+==+80",
    ],
}


@pytest.mark.parametrize("client", SHAPES)
async def test_the_requests_of_others_are_understood(web: Web, client: str) -> None:
    """With their parameters they get what they would get without, and the headers that they go on by."""
    for path in SHAPES[client]:
        reply = await web.get(path)
        assert reply.status == 200, (path, reply.text)
        assert reply.json() == await web.json(path.partition("?")[0]) != []
        if "/agent/" not in path:
            assert int(reply.headers["X-Consul-Index"]) > 0
            assert reply.headers["X-Consul-LastContact"] == "0"
            assert reply.headers["X-Consul-KnownLeader"] == "true"


async def test_a_lookup_follows_a_change_of_health_at_once(catalog: EmbeddedCatalog, web: Web) -> None:
    assert len((await web.json("/lookup/embedded-web"))["instances"]) == 1
    await catalog.report(WEB.id, Health(CRITICAL, "it does not answer"))
    assert (await web.json("/lookup/embedded-web"))["instances"] == []
    (entry,) = await web.json("/v1/health/service/embedded-web")
    assert [check["Status"] for check in entry["Checks"]] == [PASSING, CRITICAL]
    assert entry["Checks"][1]["Output"] == "it does not answer"


async def test_a_blocking_query_returns_with_the_change_and_not_with_another(
    catalog: EmbeddedCatalog, web: Web
) -> None:
    index = (await web.get("/v1/health/service/embedded-web")).headers["X-Consul-Index"]
    query = asyncio.create_task(web.get(f"/v1/health/service/embedded-web?index={index}&wait=1m"))
    await catalog.register(replace(BARE, port=7))
    other = await web.get(f"/v1/health/service/embedded-bare?index={index}&wait=1m")
    assert int(other.headers["X-Consul-Index"]) > int(index)
    assert not query.done()
    began = time.monotonic()
    await catalog.report(WEB.id, Health(CRITICAL, "gone"))
    reply = await asyncio.wait_for(query, 5)
    assert time.monotonic() - began < 1
    assert int(reply.headers["X-Consul-Index"]) > int(index)
    assert reply.json()[0]["Checks"][1]["Status"] == CRITICAL


async def test_a_query_for_a_service_that_goes_and_comes_back_sees_both(
    catalog: EmbeddedCatalog, web: Web
) -> None:
    seen = []
    index = (await web.get("/v1/health/service/embedded-web")).headers["X-Consul-Index"]
    for change in (catalog.deregister(WEB.id), catalog.register(WEB)):
        query = asyncio.create_task(web.get(f"/v1/health/service/embedded-web?index={index}&wait=1m"))
        await web.get("/livez")
        await change
        reply = await asyncio.wait_for(query, 5)
        index = reply.headers["X-Consul-Index"]
        seen.append(len(reply.json()))
    assert seen == [0, 1]


async def test_before_the_first_reconcile_it_is_503() -> None:
    async with EmbeddedCatalog(Stats()) as catalog:
        catalog.identify(NODE)
        async with serve(catalog) as web:
            assert (await web.get("/readyz")).status == 503
            assert (await web.get("/lookup/embedded-web")).status == 503
            catalog.settled()
            assert (await web.get("/readyz")).status == 200
            assert (await web.get("/lookup/embedded-web")).status == 404
