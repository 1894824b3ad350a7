"""Two Consul datacenters joined over WAN, an agent with other DNS options, and our front beside each."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from registrator.catalog.consul import ConsulCatalog
from registrator.lookup.ask import Ttls, Zone
from registrator.lookup.resolver import Resolver
from registrator.model import OUTSIDE
from registrator.settings import parse_consul
from registrator.stats import Stats
from tests.conformance import catalog
from tests.support.consul import ConsulServer

SERVICE_TTLS = {"*": 3, "th*": 7, "thirty": 11, "w*": 20}

# The same options in Consul's words and in ours.
TUNED: dict[str, Any] = {
    "alt_domain": "alt.example",
    "dns_config": {
        "only_passing": True,
        "enable_truncate": True,
        "udp_answer_limit": 5,
        "node_ttl": "60s",
        "service_ttl": {pattern: f"{seconds}s" for pattern, seconds in SERVICE_TTLS.items()},
    },
}
PLAIN_ZONE = Zone.named("consul")
TUNED_ZONE = Zone.named("consul", "alt.example", ttls=Ttls(60, SERVICE_TTLS), only_passing=True)
TUNED_MOST = 5


@dataclass(frozen=True)
class Pair:
    """A Consul agent's DNS port, and our resolver with the same options on the same catalog."""

    port: int
    resolver: Resolver


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulServer]:
    """The server of dc1, joined with the one of dc2; both hold the catalog."""
    with contextlib.ExitStack() as stack:
        dc1, dc2 = (
            stack.enter_context(ConsulServer(tmp_path_factory.mktemp("consul"), config))
            for config in ({}, {"datacenter": "dc2", "node_name": "far-server"})
        )
        dc2.put(f"/v1/agent/join/127.0.0.1:{dc1.ports['serf_wan']}?wan=1")
        _await(lambda: len(dc1.get("/v1/catalog/datacenters")) == 2)
        catalog.fill(dc1, dc2)
        _await(lambda: dc1.get("/v1/health/service/far-web?dc=dc2"))
        yield dc1


@pytest.fixture(scope="module")
def tuned(near: ConsulServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulServer]:
    """A client agent of dc1, with DNS options of its own."""
    folder = tmp_path_factory.mktemp("consul")
    agent = {
        "server": False,
        "node_name": "tuned",
        "data_dir": str(folder / "data"),
        "start_join": [f"127.0.0.1:{near.ports['serf_lan']}"],
    }
    with ConsulServer(folder, {**agent, **TUNED}) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plain_pair(near: ConsulServer) -> AsyncIterator[Pair]:
    """Both with their defaults."""
    async with _directory(near) as directory:
        resolver = Resolver(directory, PLAIN_ZONE, view_of=lambda _: OUTSIDE, stats=Stats())
        yield Pair(near.dns_port, resolver)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tuned_pair(near: ConsulServer, tuned: ConsulServer) -> AsyncIterator[Pair]:
    """Both with other options: TTLs, only passing instances, more answers, a second domain."""
    async with _directory(near) as directory:
        resolver = Resolver(directory, TUNED_ZONE, view_of=lambda _: OUTSIDE, stats=Stats(), most=TUNED_MOST)
        yield Pair(tuned.dns_port, resolver)


@contextlib.asynccontextmanager
async def _directory(server: ConsulServer) -> AsyncIterator[ConsulCatalog]:
    async with ConsulCatalog(parse_consul(server.url, {}), Stats()) as directory:
        running = asyncio.create_task(directory.run())
        async with asyncio.timeout(10):
            while (snapshot := directory.snapshot) is None or len(snapshot.datacenters) < 2:
                await asyncio.sleep(0.01)
        yield directory
        running.cancel()
        await asyncio.wait([running])


def _await(condition: Any) -> None:
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)
