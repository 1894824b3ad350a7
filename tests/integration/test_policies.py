"""What becomes of services whose containers end, on a real engine and both catalogs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import unavailable
from tests.support.agent import AgentProcess
from tests.support.engine import STUBBORN, Docker, unique, wait_for

pytestmark = pytest.mark.engine

SECOND = 1.0

Start = Callable[..., AgentProcess]


@pytest.fixture(params=["embedded", pytest.param("consul", marks=pytest.mark.consul)])
def start(request: pytest.FixtureRequest, tmp_path: Path, engine_url: str, docker: Docker) -> Iterator[Start]:
    """Start an agent with these options; one after another in the same test is its next life."""
    catalog = []
    if request.param == "consul":
        catalog = ["--consul", request.getfixturevalue("consul").url]
    agents: list[AgentProcess] = []

    def started(*options: str) -> AgentProcess:
        agent = AgentProcess(tmp_path, "--docker", engine_url, *catalog, *options)
        agents.append(agent)
        agent.start_ready()
        return agent

    yield started
    docker.cleanup()
    for agent in agents:
        agent.close()


def states(agent: AgentProcess, name: str) -> dict[str, str]:
    """The checks of a service's only instance that are not passing: id's last part to output; {} for none."""
    entries = agent.get(f"/v1/health/service/{name}")
    checks = [check for entry in entries for check in entry["Checks"]]
    return {c["CheckID"].rpartition(":")[2]: c["Output"] for c in checks if c["Status"] == "critical"}


def registered(agent: AgentProcess, name: str) -> bool:
    return bool(agent.get(f"/v1/health/service/{name}"))


def told(docker: Docker, name: str, command: list[str], **more: Any) -> str:
    """A container of this service, which ends as its command does when it is told to."""
    return docker.run(labels={"SERVICE_NAME": name, "SERVICE_PORT": "80"}, command=command, **more)


def ending(code: int) -> list[str]:
    """A command that ends with this exit code on SIGUSR1."""
    return ["sh", "-c", f"trap 'exit {code}' USR1; sleep 100000 & wait"]


ENDS: list[tuple[str, str, int, int, str | None]] = [
    # the policy and how it ended             policy        code  signal          kept with this output
    ("always: a failure goes too",            "always",     3,    signal.SIGUSR1, None),
    ("on-success: exit 0 goes",               "on-success", 0,    signal.SIGUSR1, None),
    ("on-success: a failure stays",           "on-success", 3,    signal.SIGUSR1, "exited with code 3"),
    ("on-success: what was killed goes",      "on-success", 0,    signal.SIGKILL, None),
    ("never: exit 0 stays",                   "never",      0,    signal.SIGUSR1, "exited with code 0"),
    ("never: what was killed stays",          "never",      0,    signal.SIGKILL, "exited with code 137"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "code", "number", "output"), [row[1:] for row in ENDS], ids=[row[0] for row in ENDS]
)
def test_deregister(
    start: Start, docker: Docker, policy: str, code: int, number: int, output: str | None
) -> None:
    """What stays is critical, and no lookup finds it; the next life of the agent keeps to that."""
    agent = start("--deregister", policy)
    name = unique("web")
    container = told(docker, name, ending(code))
    wait_for(lambda: agent.ask(name) != ["NXDOMAIN"], "A record", SECOND)
    docker.kill(container, number)
    wait_for(lambda: agent.ask(name) == ["NXDOMAIN"], "end of the A record", SECOND)
    if output is None:
        wait_for(lambda: not registered(agent, name), "end of the instance", SECOND)
    else:
        wait_for(lambda: states(agent, name) == {"docker": output}, "critical instance", SECOND)


def failed(agent: AgentProcess, docker: Docker) -> tuple[str, str]:
    """The name and the container of a service that ended with an error, which its instance tells."""
    name = unique("web")
    container = told(docker, name, ending(3))
    wait_for(lambda: agent.ask(name) != ["NXDOMAIN"], "A record", SECOND)
    docker.kill(container, signal.SIGUSR1)
    wait_for(lambda: states(agent, name) == {"docker": "exited with code 3"}, "critical instance", SECOND)
    return name, container


def test_a_failed_container_that_is_started_again_is_back(start: Start, docker: Docker) -> None:
    agent = start("--deregister", "on-success")
    name, container = failed(agent, docker)
    docker.start(container)
    wait_for(lambda: agent.ask(name) != ["NXDOMAIN"], "A record again", SECOND)
    assert states(agent, name) == {}


def test_a_failed_container_that_is_removed_goes(start: Start, docker: Docker) -> None:
    """With on-success a service stays as long as its container is there to be looked into."""
    agent = start("--deregister", "on-success")
    name, container = failed(agent, docker)
    docker.remove(container)
    wait_for(lambda: not registered(agent, name), "end of the instance", SECOND)


@pytest.mark.parametrize("start", ["consul"], indirect=True)
def test_the_next_life_keeps_what_is_to_be_kept(start: Start, docker: Docker) -> None:
    """Whether they ended before the agent did or after, and whether their container is still there."""
    first = start("--deregister", "never")
    names = [unique(kind) for kind in ("before", "after", "removed")]
    before, after, removed = (told(docker, name, ending(3)) for name in names)
    wait_for(lambda: all(registered(first, name) for name in names), "instances", SECOND)
    docker.kill(before, signal.SIGUSR1)
    wait_for(lambda: "docker" in states(first, names[0]), "critical instance", SECOND)
    first.stop(signal.SIGKILL)
    docker.kill(after, signal.SIGUSR1)
    docker.remove(removed)
    second = start("--deregister", "never")
    wait_for(lambda: states(second, names[1]) == {"docker": "exited with code 3"}, "second", SECOND)
    wait_for(lambda: states(second, names[2]) == {"docker": "its container is gone"}, "third", SECOND)
    assert states(second, names[0]) == {"docker": "exited with code 3"}
    second.stop()
    third = start("--deregister", "on-success")
    wait_for(lambda: not registered(third, names[2]), "end of what has no container", SECOND)
    assert registered(third, names[0])


@pytest.mark.parametrize("stop_signal", ["SIGINT", "SIGUSR1"])
def test_only_its_own_stop_signal_drains_a_container(start: Start, docker: Docker, stop_signal: str) -> None:
    """Out of lookups from that signal on; back when it is over the grace period and still alive."""
    agent = start()
    name = unique("web")
    container = told(docker, name, STUBBORN, stop_signal=stop_signal, stop_timeout=1)
    address = [docker.address(container)]
    wait_for(lambda: agent.ask(name) == address, "A record", SECOND)
    seen = agent.metric(KILLS)
    docker.kill(container, signal.SIGTERM)
    docker.kill(container, signal.SIGHUP)
    wait_for(lambda: agent.metric(KILLS) >= seen + 2, "events", SECOND)
    assert agent.ask(name) == address
    began = time.monotonic()
    docker.kill(container, getattr(signal, stop_signal))
    wait_for(lambda: agent.ask(name) == ["NXDOMAIN"], "drained instance", SECOND)
    assert docker.inspect(container)["State"]["Running"]
    wait_for(lambda: agent.ask(name) == address, "survivor back in lookups", 5)
    assert time.monotonic() - began >= 1


def test_a_longer_stop_than_the_containers_own_is_not_known(start: Start, docker: Docker) -> None:
    """Neither event nor inspect tells of `docker stop -t`: the container is back until it is killed."""
    agent = start()
    name = unique("web")
    container = told(docker, name, STUBBORN, stop_timeout=1)
    address = [docker.address(container)]
    wait_for(lambda: agent.ask(name) == address, "A record", SECOND)
    stopping = threading.Thread(target=docker.stop, args=(container, 4))
    stopping.start()
    wait_for(lambda: agent.ask(name) == ["NXDOMAIN"], "drained instance", SECOND)
    wait_for(lambda: agent.ask(name) == address, "survivor of its own grace period", 3)
    stopping.join()
    wait_for(lambda: agent.ask(name) == ["NXDOMAIN"], "end of the instance", SECOND)
    wait_for(lambda: not registered(agent, name), "end of the registration", SECOND)


def test_docker_stop_drains_while_the_process_finishes(start: Start, docker: Docker) -> None:
    """`docker stop` of a service that takes its time: gone from lookups at once, not when it has ended."""
    agent = start()
    name = unique("web")
    slow = ["sh", "-c", "trap 'sleep 3; exit 0' INT; sleep 100000 & wait"]
    container = told(docker, name, slow, stop_signal="SIGINT")
    wait_for(lambda: agent.ask(name) != ["NXDOMAIN"], "A record", SECOND)
    docker.kill(container, signal.SIGINT)
    wait_for(lambda: agent.ask(name) == ["NXDOMAIN"], "drained instance", SECOND)
    assert docker.inspect(container)["State"]["Running"]
    wait_for(lambda: not docker.inspect(container)["State"]["Running"], "end of the container")
    assert not registered(agent, name)


def test_what_is_kept_is_critical_while_it_is_told_to_stop(start: Start, docker: Docker) -> None:
    """With `never` a drained instance is not deregistered even for the time of the drain."""
    agent = start("--deregister", "never")
    name = unique("web")
    container = told(docker, name, STUBBORN, stop_timeout=1)
    address = [docker.address(container)]
    wait_for(lambda: agent.ask(name) == address, "A record", SECOND)
    docker.kill(container, signal.SIGTERM)
    wait_for(lambda: states(agent, name) == {"docker": "told to stop"}, "critical instance", SECOND)
    wait_for(lambda: agent.ask(name) == address, "survivor back in lookups", 5)
    assert states(agent, name) == {}


@pytest.mark.consul
@pytest.mark.patient
@pytest.mark.parametrize("start", ["consul"], indirect=True)
def test_consul_drops_what_is_critical_for_too_long(start: Start, docker: Docker) -> None:
    """What `never` kept goes by --deregister-after (Consul's least is a minute), and is not told again."""
    if not os.environ.get("REGISTRATOR_REQUIRE_ALL"):
        unavailable("takes 90 s (set REGISTRATOR_REQUIRE_ALL to run it)")
    agent = start("--deregister", "never", "--deregister-after", "1m", "--resync", "5")
    name = unique("web")
    container = told(docker, name, ending(3))
    wait_for(lambda: agent.ask(name) != ["NXDOMAIN"], "A record", SECOND)
    docker.kill(container, signal.SIGUSR1)
    wait_for(lambda: states(agent, name) == {"docker": "exited with code 3"}, "critical instance", SECOND)
    began = time.monotonic()
    wait_for(lambda: not registered(agent, name), "end of the instance", 120)
    assert time.monotonic() - began > 59
    rounds = agent.metric(ROUNDS)
    wait_for(lambda: agent.metric(ROUNDS) > rounds + 1, "resyncs", 20)
    assert not registered(agent, name)


KILLS = 'registrator_events_total{action="kill"}'
ROUNDS = 'registrator_reconcile_rounds_total{result="ok"}'
