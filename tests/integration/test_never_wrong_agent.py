"""Never wrong for longer than a second: an agent that is killed, renamed, cannot log, or is told nonsense."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.consul import ConsulServer
from tests.support.engine import Docker, PrivateEngine
from tests.support.truth import Stage

pytestmark = [pytest.mark.engine, pytest.mark.consul]

FULL_DISK = """
import os
os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
"""
# Half a second after its start the clock steps back by an hour, and every half second by another.
STEPPING_CLOCK = """
import time
real, real_ns, start = time.time, time.time_ns, time.monotonic()
def steps():
    return 3600 * int(2 * (time.monotonic() - start))
time.time = lambda: real() - steps()
time.time_ns = lambda: real_ns() - steps() * 10**9
"""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Comes last among a test's fixtures: what it holds is closed while engine and Consul are there."""
    with ExitStack() as stack:
        yield stack


def ready(stack: ExitStack, stage: Stage) -> Stage:
    """A stage whose agent is ready, with two containers of `kept` and three of `changing`."""
    stack.callback(stage.close)
    for service in ("kept", "kept", "changing", "changing", "changing"):
        stage.start(service)
    stage.agent.start_ready()
    stage.settle()
    return stage


def test_the_agent_is_killed_and_containers_die_and_start_meanwhile(
    tmp_path: Path, docker: Docker, consul: ConsulServer, stack: ExitStack
) -> None:
    """Its next life adopts what is still true, removes the dead and adds the new."""
    stage = ready(stack, Stage(tmp_path, docker, consul))
    for _ in range(2):
        stage.agent.stop(signal.SIGKILL)
        kept = {key: i for key, i in stage.registered().items() if i.service == "kept"}
        stage.change("changing", "changing")
        docker.kill(stage.containers["changing"].pop())
        stage.start("new")
        stage.agent.start_ready()
        stage.settle()
        assert kept.items() <= stage.registered().items()


def test_the_agent_is_killed_in_the_middle_of_a_burst(
    tmp_path: Path, docker: Docker, consul: ConsulServer, stack: ExitStack
) -> None:
    """Whatever it had begun to write, its next life finishes."""
    stage = ready(stack, Stage(tmp_path, docker, consul))
    for _ in range(3):
        stage.churn([{"service": "burst"} for _ in range(6)], workers=4)
        stage.agent.stop(signal.SIGKILL)
        stage.churn([{"service": "burst"} for _ in range(2)], workers=4)
        stage.agent.start()
    stage.agent.stop(signal.SIGKILL)
    stage.agent.start_ready()
    stage.settle()


def test_the_agent_comes_back_under_another_host_name(
    tmp_path: Path, private_engine: PrivateEngine, consul: ConsulServer, stack: ExitStack
) -> None:
    """Ids carry the host's name, ownership does not: every id is another, and none of the old is left."""
    docker = Docker(private_engine.url)
    stack.callback(docker.api.close)
    private_engine.rename_host("before")
    stage = ready(stack, Stage(tmp_path, docker, consul))
    assert all(key.startswith("before:") for key in stage.registered())
    stage.agent.stop()
    private_engine.rename_host("after")
    stage.change("changing")
    stage.agent.start_ready()
    stage.settle()
    assert all(key.startswith("after:") for key in stage.registered())


@pytest.mark.parametrize(
    "code", [pytest.param(FULL_DISK, id="disk full"), pytest.param(STEPPING_CLOCK, id="clock steps back")]
)
def test_the_agent_goes_on(
    tmp_path: Path, docker: Docker, consul: ConsulServer, code: str, stack: ExitStack
) -> None:
    """When nothing can be logged, and when the clock steps back again and again."""
    stage = ready(stack, Stage(tmp_path, docker, consul, "--log-level", "debug", code=code))
    for _ in range(3):
        stage.change("changing", "changing")
        stage.settle()
    consul.kill()
    stage.change("changing")
    consul.restart()
    stage.settle()
    assert stage.agent.stop() in (0, 120)  # 120: Python could not write out its standard error
    if code == FULL_DISK:
        assert stage.agent.log == ""


def test_ten_thousand_labels(tmp_path: Path, docker: Docker, consul: ConsulServer, stack: ExitStack) -> None:
    """The container gets what can be had, with one line on it, and the others notice nothing."""
    stage = ready(stack, Stage(tmp_path, docker, consul))
    many = {f"label-{n}": "x" * 50 for n in range(5_000)} | {f"SERVICE_KEY_{n}": "x" for n in range(5_000)}
    with stage.lookups_going_on("kept"):
        stage.start("many", labels=many)
        stage.change("changing")
        stage.settle()
    assert len(stage.agent.log.encode()) < 20_000
