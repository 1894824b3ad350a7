"""Never wrong for longer than a second: a Consul that dies, freezes, is not there yet, or has no leader."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.consul import ConsulServer
from tests.support.consul_cluster import cluster
from tests.support.engine import Docker, wait_for
from tests.support.truth import SECOND, Stage

pytestmark = [pytest.mark.engine, pytest.mark.consul]

FREEZE = 3.0  # seconds
# A frozen Consul is given up after 10 s; here after 1, so that the freeze is longer than that.
IMPATIENT = """
from registrator.catalog.consul import client, directory
client.REQUEST_TIMEOUT, client.MARGIN, directory.VITAL_WAIT = 1.0, 0.5, 0.5
"""


@pytest.fixture
def stage(tmp_path: Path, docker: Docker, consul: ConsulServer) -> Iterator[Stage]:
    """An agent that is ready, with the services `kept` (one container) and `changing` (two)."""
    with ExitStack() as stack:
        yield set_up(Stage(tmp_path, docker, consul), stack)


def set_up(stage: Stage, stack: ExitStack) -> Stage:
    stack.callback(stage.close)
    stage.start("kept")
    for _ in range(2):
        stage.start("changing")
    stage.agent.start_ready()
    stage.settle()
    return stage


def test_consul_is_killed_and_comes_back_empty(stage: Stage, consul: ConsulServer) -> None:
    """Twice. Lookups go on all the time: what was there is not missing for a moment."""
    for _ in range(2):
        with stage.lookups_going_on("kept"):
            consul.kill()
            stage.change("changing")
            consul.restart()
            stage.settle()


def test_consul_comes_back_with_what_died_meanwhile(tmp_path: Path, docker: Docker) -> None:
    """Its data hold the dead and lack the living."""
    alone = {"server": True, "bootstrap_expect": 1, "performance": {"raft_multiplier": 1}}
    with ExitStack() as stack:
        consul = ConsulServer(tmp_path, alone, persistent=True)
        stack.callback(consul.kill)
        consul.start()
        stage = set_up(Stage(tmp_path, docker, consul), stack)
        with stage.lookups_going_on("kept"):
            consul.kill()
            stage.change("changing", "changing")
            stage.start("new")
            consul.restart()
            stage.settle()


def test_consul_freezes(tmp_path: Path, docker: Docker, consul: ConsulServer) -> None:
    """For longer than any request is waited for: writes that were given up are carried out by the thaw."""
    with ExitStack() as stack:
        stage = set_up(Stage(tmp_path, docker, consul, code=IMPATIENT), stack)
        with stage.lookups_going_on("kept"):
            consul.stop()
            frozen = time.monotonic()
            stage.change("changing", "changing")
            short = stage.start("short")
            time.sleep(FREEZE / 2)
            docker.kill(short)
            stage.change("changing")
            time.sleep(max(0.0, frozen + FREEZE - time.monotonic()))
            consul.cont()
            stage.settle()


def test_consul_is_absent_at_the_start(tmp_path: Path, docker: Docker, consul: ConsulServer) -> None:
    """The agent waits for it, is not ready meanwhile, and everything is there as soon as Consul is."""
    consul.kill()
    with ExitStack() as stack:
        stage = Stage(tmp_path, docker, consul)
        stack.callback(stage.close)
        stage.start("early")
        stage.agent.start()
        wait_for(lambda: stage.agent.status("/readyz") == 503, "an answer that it is not ready")
        stage.change("early")
        stage.start("late")
        consul.restart()
        stage.settle()
        wait_for(stage.agent.ready, "readiness", SECOND)


def test_the_leader_of_three_servers_is_lost(tmp_path: Path, docker: Docker) -> None:
    """The agent speaks to a follower; what changes while there is no leader is true when there is one."""
    with ExitStack() as stack:
        servers = stack.enter_context(cluster(tmp_path))
        old = leader_of(servers[0])
        leader = next(s for s in servers if old.endswith(f":{s.ports['server']}"))
        follower = next(s for s in servers if s is not leader)
        stage = set_up(Stage(tmp_path, docker, follower), stack)
        with stage.lookups_going_on("kept"):
            leader.kill()
            stage.change("changing", "changing")
            stage.start("new")
            wait_for(lambda: leader_of(follower) not in ("", old), "other leader", 20)
            stage.settle()


def leader_of(server: ConsulServer) -> str:
    """The address of the leader that a server knows, or ""."""
    return str(server.get("/v1/status/leader"))
