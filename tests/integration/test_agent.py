"""The agent as a whole: its own process, a real engine, the embedded catalog or a real Consul."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from registrator.model import META_OWNER
from tests.support.agent import AgentProcess
from tests.support.consul import ConsulServer
from tests.support.engine import HTTPD, STUBBORN, Docker, PrivateEngine, health, unique, wait_for

SECOND = 1.0  # lookups follow what Docker does within this time


def test_a_container_is_found_by_name_and_its_death_is_seen(agent: AgentProcess, docker: Docker) -> None:
    agent.start_ready()
    name = unique("web")
    container = docker.run(command=HTTPD, env={"SERVICE_NAME": name}, expose=["80/tcp"])
    address = docker.address(container)
    wait_for(lambda: agent.ask(name) == [address], "A record", SECOND)
    assert agent.ask(name, "SRV") == [f"1 1 80 {_hex(address)}.addr.dc1.consul."]
    docker.kill(container)
    wait_for(lambda: agent.ask(name) == ["NXDOMAIN"], "end of the A record", SECOND)


def test_a_published_port_is_the_nodes_with_both_families_kept(agent: AgentProcess, docker: Docker) -> None:
    agent.start_ready()
    name = unique("web")
    container = docker.run(command=HTTPD, labels={"SERVICE_NAME": name}, ports={"80/tcp": 0})
    wait_for(lambda: agent.status(f"/v1/catalog/service/{name}") == 200, "service", SECOND)
    (service,) = wait_for(lambda: agent.get(f"/v1/catalog/service/{name}"), "instance", SECOND)
    assert service["ServicePort"] == docker.published(container, "80/tcp")
    assert service["ServiceAddress"] == service["Address"]
    inside = [a["Address"] for k, a in service["ServiceTaggedAddresses"].items() if k.startswith("bridge/")]
    assert inside == [docker.address(container)]


def test_pause_health_and_rename_are_followed(agent: AgentProcess, docker: Docker) -> None:
    agent.start_ready()
    name = unique("web")
    container = docker.run(
        labels={"SERVICE_NAME": name, "SERVICE_PORT": "80"}, healthcheck=health("test ! -e /tmp/ill")
    )
    wait_for(lambda: agent.ask(name) != ["NXDOMAIN"], "passing instance once its check has passed", 20)
    docker.pause(container)
    wait_for(lambda: agent.ask(name) == ["NXDOMAIN"], "paused instance out of lookups", SECOND)
    docker.unpause(container)
    wait_for(lambda: agent.ask(name) != ["NXDOMAIN"], "instance back in lookups", 5)
    docker.exec(container, "touch", "/tmp/ill")
    docker.wait_health(container, "unhealthy")
    wait_for(lambda: agent.ask(name) == ["NXDOMAIN"], "ill instance out of lookups", SECOND)
    (entry,) = agent.get(f"/v1/health/service/{name}")
    assert [c["Status"] for c in entry["Checks"] if c["Name"] == "Docker health"] == ["critical"]
    docker.rename(container, unique("other"))
    wait_for(
        lambda: agent.get(f"/v1/health/service/{name}")[0]["Service"]["ID"] != entry["Service"]["ID"],
        "new id",
    )
    assert len(agent.get(f"/v1/health/service/{name}")) == 1


def test_a_network_that_comes_later_is_told(agent: AgentProcess, docker: Docker) -> None:
    agent.start_ready()
    name = unique("web")
    container = docker.run(labels={"SERVICE_NAME": name, "SERVICE_PORT": "80"})
    wait_for(lambda: agent.ask(name) == [docker.address(container)], "A record", SECOND)
    network = docker.network()
    docker.connect(network, container)
    address = docker.address(container, network)
    wait_for(lambda: agent.ask(name) == [address], "address on the network of its own", SECOND)
    docker.disconnect(network, container)
    wait_for(lambda: agent.ask(name) == [docker.address(container)], "address on the bridge", SECOND)


def test_docker_stop_drains_before_the_process_goes(agent: AgentProcess, docker: Docker) -> None:
    """Out of lookups on the stop signal, though the process lives on; back when it outlives its grace."""
    agent.start_ready()
    name = unique("web")
    container = docker.run(
        labels={"SERVICE_NAME": name, "SERVICE_PORT": "80"}, command=STUBBORN, stop_timeout=1
    )
    wait_for(lambda: agent.ask(name) != ["NXDOMAIN"], "A record", SECOND)
    docker.kill(container, signal.SIGTERM)
    wait_for(lambda: agent.ask(name) == ["NXDOMAIN"], "drained instance", SECOND)
    assert docker.inspect(container)["State"]["Running"]
    wait_for(lambda: agent.ask(name) == [docker.address(container)], "survivor back in lookups", 5)


def test_checks_from_labels_are_run_by_the_embedded_catalog(agent: AgentProcess, docker: Docker) -> None:
    agent.start_ready()
    name = unique("web")
    labels = {"SERVICE_NAME": name, "SERVICE_CHECK_HTTP": "/", "SERVICE_CHECK_INTERVAL": "1s"}
    docker.run(command=HTTPD, labels=labels, expose=["80/tcp"])
    wait_for(lambda: agent.ask(name) != ["NXDOMAIN"], "passing HTTP check", 5)
    (entry,) = agent.get(f"/v1/health/service/{name}?passing")
    assert any(c["Type"] == "http" and "200 OK" in c["Output"] for c in entry["Checks"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_cleanly_within_two_seconds(agent: AgentProcess, number: int) -> None:
    agent.start_ready()
    began = time.monotonic()
    assert agent.stop(number) == 0
    assert time.monotonic() - began < 2
    assert agent.log.rstrip().endswith("stopped")


def test_told_to_stop_it_lingers_and_still_takes_out_what_stops(
    tmp_path: Path, engine_url: str, docker: Docker
) -> None:
    """A drained Swarm node stops all its tasks at once, the agent's too; a second signal ends it."""
    agent = AgentProcess(tmp_path, "--docker", engine_url, "--linger", "1m")
    name = unique("lingers")
    try:
        agent.start_ready()
        container = docker.run(labels={"SERVICE_NAME": name})
        wait_for(lambda: agent.ask(name) != ["NXDOMAIN"], "registration", 5)
        os.kill(agent.pid, signal.SIGTERM)
        docker.kill(container)
        wait_for(lambda: agent.ask(name) == ["NXDOMAIN"], "the dead one out of lookups", 5)
        assert agent.stop() == 0
    finally:
        agent.close()


def test_it_starts_before_the_engine_and_survives_its_restart(
    tmp_path: Path, private_engine: PrivateEngine
) -> None:
    """Waits for an absent engine, said once; follows one that was killed and came back."""
    private_engine.kill()
    agent = AgentProcess(tmp_path, "--docker", private_engine.url, "--ip", "192.0.2.1")
    try:
        agent.start()
        wait_for(lambda: agent.status("/readyz") == 503, "answer that it is not ready")
        assert agent.status("/livez") == 200
        assert agent.ask("web") == ["SERVFAIL"]
        private_engine.start()
        wait_for(agent.ready, "readiness", 10)
        docker = Docker(private_engine.url)
        container = docker.run(labels={"SERVICE_NAME": "web", "SERVICE_PORT": "80"}, network_mode="host")
        wait_for(lambda: agent.ask("web") == ["192.0.2.1"], "A record", 5)
        private_engine.kill()
        assert agent.ask("web") == ["192.0.2.1"]
        private_engine.start()
        wait_for(
            lambda: container not in {c["Id"] for c in docker.api.containers()}, "end of the container", 20
        )
        wait_for(lambda: agent.ask("web") == ["NXDOMAIN"], "end of the A record", 5)
        docker.api.close()
        warnings = [line for line in agent.log.splitlines() if "WARNING" in line]
        assert 1 <= len(warnings) < 20
    finally:
        agent.close()


class TestConsul:
    """The same agent with a real Consul."""

    @pytest.fixture
    def agent(self, tmp_path: Path, engine_url: str, consul: ConsulServer) -> Any:
        process = AgentProcess(tmp_path, "--docker", engine_url, "--consul", consul.url)
        yield process
        process.close()

    def test_what_runs_is_in_consul_and_answered(
        self, agent: AgentProcess, docker: Docker, consul: ConsulServer
    ) -> None:
        agent.start_ready()
        name = unique("web")
        container = docker.run(labels={"SERVICE_NAME": name, "SERVICE_PORT": "80"})
        wait_for(lambda: consul.get(f"/v1/health/service/{name}"), "instance in Consul", SECOND)
        wait_for(lambda: agent.ask(name) == [docker.address(container)], "A record", SECOND)
        docker.kill(container)
        wait_for(lambda: not consul.get(f"/v1/health/service/{name}"), "end of the instance", SECOND)
        wait_for(lambda: agent.ask(name) == ["NXDOMAIN"], "end of the A record", SECOND)

    def test_services_stay_for_the_next_life_which_adopts_them(
        self, agent: AgentProcess, docker: Docker, consul: ConsulServer
    ) -> None:
        agent.start_ready()
        alive, dead = unique("alive"), unique("dead")
        docker.run(labels={"SERVICE_NAME": alive, "SERVICE_PORT": "80"})
        doomed = docker.run(labels={"SERVICE_NAME": dead, "SERVICE_PORT": "80"})
        wait_for(lambda: {alive, dead} <= consul.get("/v1/catalog/services").keys(), "both services", SECOND)
        agent.stop(signal.SIGKILL)
        docker.kill(doomed)
        assert {alive, dead} <= consul.get("/v1/catalog/services").keys()
        (before,) = consul.get(f"/v1/health/service/{alive}")
        agent.start_ready()
        wait_for(lambda: dead not in consul.get("/v1/catalog/services"), "end of the dead one", SECOND)
        (after,) = consul.get(f"/v1/health/service/{alive}")
        assert before["Service"]["ModifyIndex"] == after["Service"]["ModifyIndex"]

    def test_deregister_on_exit_takes_its_own_and_leaves_the_foreign(
        self, tmp_path: Path, engine_url: str, docker: Docker, consul: ConsulServer
    ) -> None:
        consul.put("/v1/agent/service/register", {"ID": "theirs", "Name": "theirs", "Port": 1})
        agent = AgentProcess(tmp_path, "--docker", engine_url, "--consul", consul.url, "--deregister-on-exit")
        try:
            docker.run(labels={"SERVICE_NAME": unique("web"), "SERVICE_PORT": "80"})
            agent.start_ready()
            assert any(s["Meta"].get(META_OWNER) for s in consul.get("/v1/agent/services").values())
            assert agent.stop() == 0
            assert list(consul.get("/v1/agent/services")) == ["theirs"]
        finally:
            agent.close()

    def test_it_waits_for_an_absent_consul(
        self, agent: AgentProcess, docker: Docker, consul: ConsulServer
    ) -> None:
        consul.kill()
        name = unique("web")
        docker.run(labels={"SERVICE_NAME": name, "SERVICE_PORT": "80"})
        agent.start()
        wait_for(lambda: agent.status("/readyz") == 503, "answer that it is not ready")
        assert agent.ask(name) == ["SERVFAIL"]
        consul.restart()
        wait_for(lambda: consul.get(f"/v1/health/service/{name}"), "instance in Consul", 5)
        wait_for(agent.ready, "readiness", 5)

    def test_a_consul_that_comes_back_empty_is_filled_within_a_second(
        self, agent: AgentProcess, docker: Docker, consul: ConsulServer
    ) -> None:
        name = unique("web")
        container = docker.run(labels={"SERVICE_NAME": name, "SERVICE_PORT": "80"})
        agent.start_ready()
        wait_for(lambda: consul.get(f"/v1/health/service/{name}"), "instance in Consul")
        wait_for(lambda: agent.ask(name) == [docker.address(container)], "A record")
        consul.kill()
        assert agent.ask(name) == [docker.address(container)]
        consul.restart()
        wait_for(lambda: consul.get(f"/v1/health/service/{name}"), "instance in Consul again", SECOND + 0.5)

    def test_a_refused_token_is_said_in_one_line(
        self, tmp_path: Path, engine_url: str, docker: Docker
    ) -> None:
        acl = {"acl": {"enabled": True, "default_policy": "deny", "tokens": {"master": "root-secret"}}}
        server = ConsulServer(tmp_path, acl, token="root-secret")
        env = {"CONSUL_HTTP_TOKEN": "wrong-secret"}
        docker.run(labels={"SERVICE_NAME": unique("web"), "SERVICE_PORT": "80"})
        server.start()
        agent = AgentProcess(tmp_path, "--docker", engine_url, "--consul", server.url, env=env)
        try:
            agent.start()
            wait_for(lambda: "token" in agent.log, "word about the token")
            assert "wrong-secret" not in agent.log
            assert agent.status("/livez") == 200
        finally:
            agent.close()
            server.kill()


def _hex(ip: str) -> str:
    return "".join(f"{int(part):02x}" for part in ip.split("."))
