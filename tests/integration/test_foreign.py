"""Nobody takes another's name, id or check: containers that try to, on a real engine and a real Consul."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.rcode
import pytest

from registrator.model import META_OWNER
from tests.support.agent import AgentProcess
from tests.support.consul import ConsulServer
from tests.support.engine import Docker, unique, wait_for

pytestmark = [pytest.mark.engine, pytest.mark.consul]

ROUNDS = 'registrator_reconcile_rounds_total{result="ok"}'
CHECK = {"TTL": "600s", "Status": "passing"}


@pytest.fixture
def agent(tmp_path: Path, engine_url: str, consul: ConsulServer) -> Iterator[AgentProcess]:
    """An agent that compares everything each second, with a Consul of its own."""
    agent = AgentProcess(
        tmp_path, "--docker", engine_url, "--consul", consul.url, "--resync", "1", "--ip", "192.0.2.1"
    )
    agent.start_ready()
    yield agent
    agent.close()


def rounds(agent: AgentProcess, count: int = 2) -> None:
    """Wait until so many more rounds are over."""
    goal = agent.metric(ROUNDS) + count
    wait_for(lambda: agent.metric(ROUNDS) >= goal, "more rounds", 20)


def foreign(consul: ConsulServer) -> dict[str, Any]:
    """All that is at the Consul agent without a mark of ours, services and checks."""
    services, checks = consul.get("/v1/agent/services"), consul.get("/v1/agent/checks")
    theirs = {key: service for key, service in services.items() if META_OWNER not in service["Meta"]}
    return theirs | {f"check {k}": c for k, c in checks.items() if c["ServiceID"] in theirs}


def ours(consul: ConsulServer) -> dict[str, Any]:
    services = consul.get("/v1/agent/services")
    return {key: service for key, service in services.items() if META_OWNER in service["Meta"]}


@pytest.mark.parametrize(
    "labels",
    [
        {"SERVICE_ID": "vault"},
        {"SERVICE_ID": "VAULT"},
        {"SERVICE_ID": "vault", "SERVICE_NAME": "vault"},
        {"SERVICE_80_ID": "vault", "SERVICE_CHECK_TTL": "60s"},
        {"SERVICE_ID": "pay:1", "SERVICE_CHECK_TTL": "60s"},
        {"SERVICE_ID": "pay:2", "SERVICE_CHECK_TTL": "60s"},
        {"SERVICE_ID": "vault-db", "SERVICE_CHECK_TCP": "true"},
    ],
    ids=str,
)
def test_a_label_does_not_take_what_others_have_registered(
    labels: dict[str, str], agent: AgentProcess, docker: Docker, consul: ConsulServer
) -> None:
    """Not when its container comes, nor while it runs, nor when it goes; the log says so once."""
    register(consul, "vault", CHECK)
    register(consul, "pay", CHECK, CHECK)
    register(consul, "db", {"CheckID": "vault-db:tcp", **CHECK})
    before = foreign(consul)
    name = unique("evil")
    container = docker.run(name, ports={"80/tcp": 0}, labels=labels)
    wait_for(lambda: " held " in agent.log, "a line in the log", 20)
    rounds(agent)
    assert foreign(consul) == before
    docker.kill(container)
    docker.remove(container)
    other = docker.run(unique("good"), ports={"80/tcp": 0})
    wait_for(
        lambda: any(docker.inspect(other)["Id"] in str(service) for service in ours(consul).values()),
        "it",
        20,
    )
    rounds(agent)
    assert foreign(consul) == before
    assert agent.log.count(" held ") == 1
    agent.stop()
    assert foreign(consul) == before


def register(consul: ConsulServer, service_id: str, *checks: dict[str, Any]) -> None:
    """As somebody does by hand."""
    document = {"ID": service_id, "Name": service_id, "Port": 8200, "Checks": list(checks)}
    consul.put("/v1/agent/service/register", document)


@pytest.mark.parametrize(
    "wanted", ["x/../ghost", "..", "consul", "{node}:{victim}:80", "{node}:{victim}:80:more"]
)
def test_an_id_that_is_refused_is_the_default_one(
    wanted: str, agent: AgentProcess, docker: Docker, consul: ConsulServer
) -> None:
    """It goes with its container; the victim that comes later has its own."""
    node, victim, name = docker.api.info()["Name"], unique("victim"), unique("evil")
    labels = {"SERVICE_ID": wanted.format(node=node, victim=victim), "SERVICE_NAME": "stolen"}
    container = docker.run(name, ports={"80/tcp": 0}, labels=labels)
    wait_for(lambda: f"{node}:{name}:80" in ours(consul), "the default id", 20)
    docker.run(victim, ports={"80/tcp": 0}, labels={"SERVICE_NAME": "own"})
    wait_for(lambda: f"{node}:{victim}:80" in ours(consul), "the victim", 20)
    assert ours(consul)[f"{node}:{victim}:80"]["Service"] == "own"
    assert agent.log.count(f"container {name}: SERVICE_ID: ") == 1
    docker.kill(container)
    wait_for(lambda: f"{node}:{name}:80" not in ours(consul), "its end", 20)
    assert f"{node}:{victim}:80" in ours(consul)


def test_a_container_is_not_a_server_of_consuls(
    agent: AgentProcess, docker: Docker, consul: ConsulServer
) -> None:
    """It may be called so, and is found by its name; who leads, Consul says."""
    before = agent.get("/v1/status/peers"), agent.get("/v1/status/leader")
    docker.run(unique("evil"), ports={"8300/tcp": 0}, labels={"SERVICE_NAME": "consul"})
    wait_for(lambda: len(agent.get("/v1/catalog/service/consul")) == 2, "both", 20)
    assert (agent.get("/v1/status/peers"), agent.get("/v1/status/leader")) == before
    assert before == (consul.get("/v1/status/peers"), consul.get("/v1/status/leader"))


def test_a_container_is_not_a_server_without_consul_either(
    tmp_path: Path, engine_url: str, docker: Docker
) -> None:
    """The agent's own node stands for the servers there."""
    embedded = AgentProcess(tmp_path, "--docker", engine_url, "--ip", "192.0.2.1")
    try:
        embedded.start_ready()
        assert embedded.get("/v1/status/peers") == ["192.0.2.1:8300"]
        docker.run(
            unique("evil"), ports={"8300/tcp": 0}, labels={"SERVICE_NAME": "consul", "SERVICE_IP": "10.9.9.9"}
        )
        wait_for(lambda: embedded.status("/v1/catalog/service/consul") == 200, "answer")
        wait_for(lambda: embedded.get("/v1/catalog/service/consul"), "the container", 20)
        assert embedded.get("/v1/status/peers") == ["192.0.2.1:8300"]
        assert embedded.get("/v1/status/leader") == "192.0.2.1:8300"
    finally:
        embedded.close()


def test_names_are_the_operators_to_give(tmp_path: Path, engine_url: str, docker: Docker) -> None:
    """`wpad` by default to nobody; with --allow-names only what matches; a bare name is one label."""
    first = AgentProcess(
        tmp_path,
        "--docker",
        engine_url,
        "--bare-names",
        "--allow-names",
        "good-*,com",
        "--deny-names",
        "wpad",
    )
    good, evil = unique("good"), unique("evil")
    try:
        docker.run(unique("c"), ports={"80/tcp": 0}, labels={"SERVICE_NAME": f"{good},{evil},wpad,com"})
        docker.run(
            unique("c"), ports={"80/tcp": 0}, labels={"SERVICE_NAME": "com", "SERVICE_TAGS": "www.bank"}
        )
        first.start_ready()
        names = first.get("/v1/catalog/services").keys()
        assert {good, "com"} <= names
        assert not {evil, "wpad"} & names
        assert rcode(first, "com") == "NOERROR"
        assert rcode(first, "www.bank.com") == rcode(first, "bank.com") == "REFUSED"
    finally:
        first.close()


def rcode(agent: AgentProcess, name: str) -> str:
    query = dns.message.make_query(name, "A")
    return dns.rcode.to_text(dns.query.udp(query, agent.host, port=agent.dns_port, timeout=5).rcode())


def test_names_that_nobody_has_are_denied_without_an_option(
    tmp_path: Path, engine_url: str, docker: Docker
) -> None:
    agent = AgentProcess(tmp_path, "--docker", engine_url)
    name = unique("c")
    try:
        docker.run(name, ports={"80/tcp": 0}, labels={"SERVICE_NAME": "WPAD,localhost,com,consul"})
        agent.start_ready()
        names = agent.get("/v1/catalog/services").keys()
        assert "consul" in names
        assert not {"wpad", "localhost", "com"} & {name.lower() for name in names}
        assert agent.log.count(f"container {name}: {name}: may not take the name") == 3
    finally:
        agent.close()
