"""Never wrong for longer than a second: others on the same Consul agent, by right or by mistake."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from registrator.model import META_OWNER
from tests.support.agent import AgentProcess
from tests.support.consul import ConsulServer
from tests.support.engine import Docker, PrivateEngine, wait_for
from tests.support.truth import Stage

pytestmark = [pytest.mark.engine, pytest.mark.consul]

ROUNDS = 'registrator_reconcile_rounds_total{result="ok"}'
WRITES = 'registrator_catalog_writes_total{kind="%s"}'
WARNING = "another registrator keeps writing it in this engine's name"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Comes last among a test's fixtures: what it holds is closed while engine and Consul are there."""
    with ExitStack() as stack:
        yield stack


def test_foreign_services_of_the_same_names_are_untouched(
    tmp_path: Path, docker: Docker, consul: ConsulServer, stack: ExitStack
) -> None:
    """By hand, by gliderlabs/registrator, by the agent of another engine: whatever happens to ours."""
    for number, meta in enumerate(({}, {"registrator-container": "f" * 64}, {META_OWNER: "ANOTHER"})):
        check = {"CheckID": f"theirs-{number}:docker", "TTL": "600s", "Status": "passing"}
        theirs = {"ID": f"vm:theirs:{number}", "Name": "web", "Port": 81, "Meta": meta, "Check": check}
        consul.put("/v1/agent/service/register", theirs)
    before = foreign(consul)
    stage = Stage(tmp_path, docker, consul, "--resync", "1", "--deregister-on-exit")
    stack.callback(stage.close)
    stage.start("web")
    stage.agent.start_ready()
    stage.change("web")
    stage.agent.stop(signal.SIGKILL)
    stage.change("web")
    stage.agent.start_ready()
    wait_for(lambda: stage.agent.metric(ROUNDS) > 2, "third round")
    assert not stage.differences_of_registrations(stage.desired())
    assert foreign(consul) == before
    stage.agent.stop()
    assert stage.registered() == {}
    assert foreign(consul) == before


def test_two_agents_with_the_same_options_agree(
    tmp_path: Path, docker: Docker, consul: ConsulServer, stack: ExitStack
) -> None:
    stage = Stage(tmp_path, docker, consul, "--resync", "1")
    stack.callback(stage.close)
    stage.agent.start_ready()
    stage.another_agent("--resync", "1").start_ready()
    for _ in range(3):
        stage.churn([{"service": "web"} for _ in range(4)], workers=2)
        stage.start("web")
        stage.settle()
    idle(*stage.agents)
    assert "another" not in stage.agents[0].log + stage.agents[1].log


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--tags", "second"], id="other tags"),
        pytest.param(["--constraint", "no=such"], id="less"),
    ],
)
def test_two_agents_with_other_options_do_not_fight(
    tmp_path: Path, docker: Docker, consul: ConsulServer, options: list[str], stack: ExitStack
) -> None:
    """A warning on each instance, then both leave it as it is; what dies is taken out all the same."""
    stage = Stage(tmp_path, docker, consul, "--resync", "1")
    stack.callback(stage.close)
    doomed = stage.start("web")
    stage.start("web")
    stage.agent.start_ready()
    stage.another_agent("--resync", "1", *options).start_ready()
    wait_for(lambda: warnings(stage.agents) >= 2, "warning on each instance", 20)
    wait_for(lambda: len(stage.registered()) == 2, "both instances", 5)
    idle(*stage.agents)
    docker.kill(doomed)
    wait_for(lambda: len(stage.registered()) == 1, "end of the dead", 1)
    assert warnings(stage.agents) == 2


def test_two_engines_of_one_host_name_do_not_fight(
    tmp_path: Path, docker: Docker, private_engine: PrivateEngine, consul: ConsulServer, stack: ExitStack
) -> None:
    """Two containers of one name, so one id: one of them keeps it, and one line says what to do."""
    private_engine.rename_host(docker.api.info()["Name"])
    other = Docker(private_engine.url)
    stack.callback(other.api.close)
    stages = []
    for number, one in enumerate((docker, other)):
        (tmp_path / str(number)).mkdir()
        stages.append(Stage(tmp_path / str(number), one, consul, "--resync", "1"))
        stack.callback(stages[-1].close)
    first, second = stages
    for stage in stages:
        stage.start("web", name=first.run, labels={"SERVICE_PORT": "80"})
        stage.start("other")
        stage.agent.start_ready()
    agents = [first.agent, second.agent]
    wait_for(lambda: sum(" keeps taking it " in agent.log for agent in agents) == 1, "warning", 20)
    idle(*agents)
    assert sum(agent.log.count(" keeps taking it ") for agent in agents) == 1
    assert sorted(len(stage.registered()) for stage in stages) == [1, 2]


def foreign(consul: ConsulServer) -> dict[str, Any]:
    """What stands on the Consul agent that is not ours, services and checks, as it is told."""
    services, checks = consul.get("/v1/agent/services"), consul.get("/v1/agent/checks")
    theirs = {
        key for key, service in services.items() if service["Meta"].get(META_OWNER) in (None, "ANOTHER")
    }
    return {key: services[key] for key in theirs} | {
        key: check for key, check in checks.items() if check["ServiceID"] in theirs
    }


def idle(*agents: AgentProcess) -> None:
    """Check that three rounds of each agent go by without a write."""
    before = [writes(agent) for agent in agents]
    for agent in agents:
        goal = agent.metric(ROUNDS) + 3
        wait_for(lambda agent=agent, goal=goal: agent.metric(ROUNDS) >= goal, "three more rounds")  # type: ignore[misc]
    assert [writes(agent) for agent in agents] == before


def writes(agent: AgentProcess) -> float:
    return sum(agent.metric(WRITES % kind) for kind in ("register", "deregister", "report"))


def warnings(agents: list[AgentProcess]) -> int:
    return sum(agent.log.count(WARNING) for agent in agents)
