"""Only differences are written: every request of a quiet agent is counted, on both of its sides."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.consul import ConsulServer
from tests.support.engine import Docker, health, wait_for
from tests.support.proxy import Proxy
from tests.support.truth import Stage, at_once

pytestmark = [pytest.mark.engine, pytest.mark.consul]

CONTAINERS = 200
ROUNDS = 'registrator_reconcile_rounds_total{result="ok"}'
# Health is told again every 200 s; here every 50 ms.
RESTLESS = """
from registrator.bridge import reconcile
reconcile.REFRESH = 0.05
"""


@pytest.fixture
def engine(tmp_path: Path, engine_url: str) -> Iterator[Proxy]:
    proxy = Proxy(engine_url, tmp_path / "docker.sock")
    yield proxy
    proxy.close()


@pytest.fixture
def registry(consul: ConsulServer) -> Iterator[Proxy]:
    proxy = Proxy(consul.url)
    yield proxy
    proxy.close()


def test_a_resync_of_two_hundred_unchanged_containers_writes_nothing(
    tmp_path: Path, docker: Docker, consul: ConsulServer, engine: Proxy, registry: Proxy
) -> None:
    """One look at the engine and one at Consul's agent, both as a whole; no inspect, no write."""
    stage = Stage(tmp_path, docker, consul, "--resync", "1", engine_url=engine.url, consul_url=registry.url)
    try:
        at_once(lambda n: stage.start(f"web-{n % 5}"), range(CONTAINERS), 8)
        stage.agent.start_ready()
        stage.settle()
        rounds = stage.agent.metric(ROUNDS)
        wait_for(lambda: stage.agent.metric(ROUNDS) == rounds + 1, "next round")
        wait_for(lambda: stage.agent.metric(ROUNDS) == rounds + 2, "round after it")
        asked, told = len(engine.requests), len(registry.requests)
        wait_for(lambda: stage.agent.metric(ROUNDS) == rounds + 5, "three more rounds")
        of_consul = Counter(request for request in registry.requests[told:] if "wait=" not in request)
        assert of_consul == {"GET /v1/agent/services": 3, "GET /v1/agent/checks": 3}
        of_engine = engine.requests[asked:]  # other tests' containers may be at work on the same engine
        ours = {container for containers in stage.containers.values() for container in containers}
        assert not [request for request in of_engine if not ours.isdisjoint(request.split("/"))]
        assert sum(request.endswith("/containers/json") for request in of_engine) == 3
    finally:
        stage.close()


def test_health_that_does_not_change_does_not_reach_raft(
    tmp_path: Path, docker: Docker, consul: ConsulServer, registry: Proxy
) -> None:
    """Docker probes, each time with another output, and the agent refreshes its TTL check all the time."""
    stage = Stage(tmp_path, docker, consul, "--resync", "1", consul_url=registry.url, code=RESTLESS)
    try:
        probe = health("date +%N; usleep 1000", interval=0.1)
        docker.wait_health(stage.start("web", healthcheck=probe))
        stage.agent.start_ready()
        stage.settle()
        wait_for(lambda: stage.agent.metric(ROUNDS) > 2, "third round")
        before, entries = catalog(consul), raft_entries(consul)
        refreshed = registry.count("^PUT /v1/agent/check/update/")
        wait_for(lambda: registry.count("^PUT /v1/agent/check/update/") >= refreshed + 30, "30 refreshes")
        assert catalog(consul) == before
        assert raft_entries(consul) - entries < 3  # Consul's own housekeeping
    finally:
        stage.close()


def catalog(consul: ConsulServer) -> list[tuple[int, Any]]:
    """What Consul's servers hold, with the index of the latest change to each part of it."""
    found = []
    for path in ("/v1/health/service/web", "/v1/catalog/services", "/v1/health/state/any"):
        with urllib.request.urlopen(consul.url + path, timeout=5) as reply:
            found.append((int(reply.headers["X-Consul-Index"]), json.load(reply)))
    return found


def raft_entries(consul: ConsulServer) -> int:
    """The number of the latest entry in Raft's log."""
    return int(consul.get("/v1/agent/self")["Stats"]["raft"]["last_log_index"])
