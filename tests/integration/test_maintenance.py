"""`registrator maintenance` on a real Consul, beside a running agent and real containers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registrator.cli import cli
from tests.support.agent import AgentProcess
from tests.support.consul import ConsulServer
from tests.support.engine import STUBBORN, Docker, unique, wait_for
from tests.test_cli import run

SECOND = 1.0
NONE = ["NXDOMAIN"]
ROUNDS = 'registrator_reconcile_rounds_total{result="ok"}'


@pytest.fixture
def agent(tmp_path: Path, engine_url: str, consul: ConsulServer) -> Iterator[AgentProcess]:
    process = AgentProcess(tmp_path, "--docker", engine_url, "--consul", consul.url, "--resync", "1")
    yield process
    process.close()


def maintain(consul: ConsulServer, *arguments: str) -> list[str]:
    """The lines of a command that succeeds."""
    result = run("maintenance", *arguments, "--consul", consul.url)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.splitlines()


def ids(consul: ConsulServer, name: str) -> list[str]:
    return sorted(e["Service"]["ID"] for e in consul.get(f"/v1/health/service/{name}"))


def checks(consul: ConsulServer, name: str) -> dict[str, Any]:
    (entry,) = consul.get(f"/v1/health/service/{name}")
    return {check["CheckID"]: check for check in entry["Checks"]}


def test_a_service_is_out_of_lookups_until_it_is_back(
    agent: AgentProcess, docker: Docker, consul: ConsulServer
) -> None:
    """All instances of the name at once; Consul, and so its UI, shows why; nothing is deregistered."""
    agent.start_ready()
    name = unique("web")
    addresses = sorted(
        docker.address(docker.run(labels={"SERVICE_NAME": name, "SERVICE_PORT": "80"})) for _ in range(2)
    )
    wait_for(lambda: agent.ask(name) == addresses, "A records", SECOND)
    both = ids(consul, name)
    lines = maintain(consul, name.upper(), "--reason", "new disk")
    assert lines == [f"{name} ({key}): in maintenance (new disk)" for key in both]
    wait_for(lambda: agent.ask(name) == NONE, "end of the A records", SECOND)
    assert agent.get(f"/v1/health/service/{name}?passing") == []
    shown = agent.get(f"/v1/health/service/{name}")
    notes = [c["Notes"] for e in shown for c in e["Checks"] if "maintenance" in c["CheckID"]]
    assert notes == ["new disk", "new disk"]
    assert maintain(consul, name, "--off") == [f"{name} ({key}): in service" for key in both]
    wait_for(lambda: agent.ask(name) == addresses, "A records again", SECOND)


def test_one_instance_by_its_id(agent: AgentProcess, docker: Docker, consul: ConsulServer) -> None:
    agent.start_ready()
    name = unique("web")
    stays, goes = (
        docker.run(labels={"SERVICE_NAME": name, "SERVICE_PORT": "80", "SERVICE_ID": f"{name}-{n}"})
        for n in (1, 2)
    )
    wait_for(lambda: len(agent.ask(name)) == 2, "A records", SECOND)
    (line,) = maintain(consul, f"{name}-2")
    assert line.startswith(f"{name} ({name}-2): in maintenance (Maintenance mode is enabled for this service")
    wait_for(lambda: agent.ask(name) == [docker.address(stays)], "one A record", SECOND)
    assert docker.inspect(goes)["State"]["Running"]


@pytest.mark.parametrize("target", ["node", "consul-test", "Consul-Test"])
def test_the_whole_node(agent: AgentProcess, docker: Docker, consul: ConsulServer, target: str) -> None:
    agent.start_ready()
    name = unique("web")
    address = docker.address(docker.run(labels={"SERVICE_NAME": name, "SERVICE_PORT": "80"}))
    wait_for(lambda: agent.ask(name) == [address], "A record", SECOND)
    assert maintain(consul, target, "--reason", "kernel") == ["node consul-test: in maintenance (kernel)"]
    wait_for(lambda: agent.ask(name) == NONE, "end of the A record", SECOND)
    assert maintain(consul, target, "--off") == ["node consul-test: in service"]
    wait_for(lambda: agent.ask(name) == [address], "A record again", SECOND)


def test_neither_resyncs_nor_registrations_nor_a_restart_end_it(
    agent: AgentProcess, docker: Docker, consul: ConsulServer, tmp_path: Path, engine_url: str
) -> None:
    """Paused and unpaused (a check comes and goes), on a network more, with other tags in the next life."""
    agent.start_ready()
    name = unique("web")
    labels = {"SERVICE_NAME": name, "SERVICE_PORT": "80", "SERVICE_ID": name, "SERVICE_CHECK_TTL": "600s"}
    container = docker.run(labels={**labels, "SERVICE_CHECK_INITIAL_STATUS": "passing"})
    wait_for(lambda: agent.ask(name) != NONE, "A record", SECOND)
    maintain(consul, name, "--reason", "disk")
    docker.pause(container)
    wait_for(lambda: f"{name}:docker" in checks(consul, name), "check of the paused container", SECOND)
    docker.unpause(container)
    wait_for(lambda: f"{name}:docker" not in checks(consul, name), "end of that check", SECOND)
    docker.connect(docker.network(), container)
    wait_for(lambda: len(tagged(consul, name)) == 2, "second address", SECOND)
    agent.stop()
    options = ("--docker", engine_url, "--consul", consul.url, "--resync", "1", "--tags", "new")
    other = AgentProcess(tmp_path, *options)
    try:
        other.start_ready()
        wait_for(lambda: "new" in consul.get(f"/v1/agent/service/{name}")["Tags"], "new tag", SECOND)
        rounds = other.metric(ROUNDS)
        wait_for(lambda: other.metric(ROUNDS) > rounds + 1, "resyncs", 5)
        found = checks(consul, name)
        assert found[f"_service_maintenance:{name}"]["Notes"] == "disk"
        assert found.keys() == {"serfHealth", f"_service_maintenance:{name}", f"service:{name}"}
        assert other.ask(name) == NONE
        maintain(consul, name, "--off")
        wait_for(lambda: other.ask(name) != NONE, "A record again", SECOND)
    finally:
        other.close()


def test_a_container_that_is_stopped_leaves_nothing_behind(
    agent: AgentProcess, docker: Docker, consul: ConsulServer
) -> None:
    """The instance goes with its container, and its maintenance with the instance."""
    agent.start_ready()
    name = unique("web")
    container = docker.run(labels={"SERVICE_NAME": name, "SERVICE_PORT": "80"}, command=STUBBORN)
    wait_for(lambda: agent.ask(name) != NONE, "A record", SECOND)
    maintain(consul, name)
    docker.kill(container)
    wait_for(lambda: not consul.get(f"/v1/health/service/{name}"), "end of the instance", SECOND)
    assert not [key for key in consul.get("/v1/agent/checks") if "maintenance" in key]


def tagged(consul: ConsulServer, name: str) -> list[str]:
    """The networks on which an instance is, by its tagged addresses."""
    return [key for key in consul.get(f"/v1/agent/service/{name}")["TaggedAddresses"] if "/" in key]


def test_what_is_not_there_is_said_in_one_line(consul: ConsulServer) -> None:
    result = run("maintenance", "nobody", "--consul", consul.url)
    assert result.returncode == 1
    assert result.stderr.startswith(
        f"registrator: the Consul agent at {consul.url} has no service or instance"
    )
    assert "its node is 'consul-test'" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_without_a_consul_there_is_one_line() -> None:
    result = run("maintenance", "web", "--consul", "http://127.0.0.1:1")
    assert result.returncode == 1
    assert "Consul at http://127.0.0.1:1 cannot be reached (connection refused)" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["web"], "give --consul URL"),
        (["web", "--consul", "nonsense"], "--consul: 'nonsense' is no Consul URL"),
        (["web", "--off", "--reason", "why", "--consul", "http://127.0.0.1:1"], "--off takes no --reason"),
        ([], "Missing argument 'TARGET'"),
    ],
)
def test_wrong_usage(arguments: list[str], says: str) -> None:
    result = run("maintenance", *arguments)
    assert result.returncode == 2
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_its_help_has_an_example() -> None:
    assert "registrator maintenance web --reason" in json.dumps(cli.commands["maintenance"].help)
