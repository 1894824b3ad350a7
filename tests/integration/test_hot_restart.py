"""A new agent takes over from the old one, again and again, and nobody who asks notices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from registrator.lookup.sharing import listeners
from tests.support.agent import AgentProcess
from tests.support.askers import DnsPerf, HttpLoop, nothing_is_missing
from tests.support.consul import ConsulServer, free_ports
from tests.support.engine import Docker, unique, wait_for

pytestmark = pytest.mark.engine

REPLACEMENTS = 3
UDP_RATE, TCP_RATE = 1500, 400  # queries a second, over each family
RUN = "registrator.test.run"
SERVICES = ("web", "api", "db")
NODE_IP = "192.0.2.1"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Comes last among a test's fixtures: what it holds is closed while engine and Consul are there."""
    with ExitStack() as stack:
        yield stack


class Succession:
    """Agents on one node that relieve one another, on ports of their own at `hosts`."""

    def __init__(self, folder: Path, stack: ExitStack, hosts: list[str], *options: str) -> None:
        self.agents: list[AgentProcess] = []
        self.dns_port, self.http_port = free_ports(2)
        self._folder, self._stack, self._hosts = folder, stack, hosts
        more = [f"[{host}]" for host in hosts[1:]]
        self._options = [
            *(text for host in more for text in ("--dns", f"{host}:{self.dns_port}")),
            *(text for host in more for text in ("--http", f"{host}:{self.http_port}")),
            *("--ip", NODE_IP, "--reuse-port", *options),
        ]

    def join(self, *options: str) -> AgentProcess:
        """Start one more agent, and wait until it listens on all of the addresses."""
        folder = self._folder / f"agent-{len(self.agents)}"
        folder.mkdir()
        agent = AgentProcess(folder, *self._options, *options, host=self._hosts[0])
        agent.dns_port, agent.http_port = self.dns_port, self.http_port
        self._stack.callback(agent.close)
        before = self._listening()
        agent.start()
        self.agents.append(agent)
        places = len(self._hosts) * 2
        wait_for(lambda: self._listening() == before + places, f"a listening agent; {folder}/agent.log", 40)
        return agent

    def relieve(self, old: AgentProcess) -> AgentProcess:
        """Start a new agent, and then stop the old one."""
        new = self.join()
        assert old.stop() == 0
        return new

    def _listening(self) -> int:
        return sum(len(listeners(h, p)) for h in self._hosts for p in (self.dns_port, self.http_port))


def started(docker: Docker) -> list[str]:
    """Containers for each service; the options that make an agent see them alone."""
    run = unique("run")
    for number, service in enumerate(SERVICES):
        labels = {RUN: run, "SERVICE_NAME": service, "SERVICE_PORT": str(8000 + number)}
        docker.run(labels=labels, network_mode="host")
    return ["--docker", docker.url, "--constraint", f"{RUN}={run}"]


def asking(
    stack: ExitStack, folder: Path, succession: Succession, askers: list[str]
) -> list[DnsPerf | HttpLoop]:
    """Clients of every kind at each of the addresses."""
    names = folder / "names"
    names.write_text("".join(f"{name}.service.consul {kind}\n" for name in SERVICES for kind in ("A", "SRV")))
    clients: list[DnsPerf | HttpLoop] = []
    for host in askers:
        clients.append(DnsPerf(names, host, succession.dns_port, "udp", UDP_RATE))
        clients.append(DnsPerf(names, host, succession.dns_port, "tcp", TCP_RATE, clients=4))
        for keep in (False, True):
            path = "/v1/health/service/web?passing"
            clients.append(HttpLoop(host, succession.http_port, path, keep=keep))
    for client in clients:
        stack.callback(client.close)
    return clients


@pytest.mark.parametrize(
    "hosts",
    [
        pytest.param(["127.0.0.1", "::1"], id="addresses"),
        pytest.param(["0.0.0.0", "::"], id="wildcards"),
    ],
)
def test_no_lookup_is_lost_while_agents_are_replaced(
    tmp_path: Path, docker: Docker, stack: ExitStack, hosts: list[str]
) -> None:
    """UDP, TCP and HTTP, over both families, at addresses and at wildcards."""
    succession = Succession(tmp_path, stack, hosts, *started(docker))
    agent = succession.join()
    wait_for(agent.ready, "first agent", 40)
    clients = asking(stack, tmp_path, succession, ["127.0.0.1", "::1"])
    for _ in range(REPLACEMENTS):
        agent = succession.relieve(agent)
    nothing_is_missing(clients)


@pytest.mark.consul
def test_two_agents_at_once_write_nothing_that_the_other_undoes(
    tmp_path: Path, docker: Docker, consul: ConsulServer, stack: ExitStack
) -> None:
    """With Consul, `--linger` and `--deregister-on-exit`: what is registered stays, logs are quiet."""
    options = ("--consul", consul.url, "--deregister-on-exit", "--linger", "1s", "--resync", "1")
    succession = Succession(tmp_path, stack, ["127.0.0.1"], *started(docker), *options)
    agent = succession.join()
    wait_for(agent.ready, "first agent", 40)
    wait_for(lambda: len(registrations(consul)) == len(SERVICES), "every service in Consul's catalog")
    registered = registrations(consul)
    clients = asking(stack, tmp_path, succession, ["127.0.0.1"])
    for _ in range(REPLACEMENTS):
        agent = succession.relieve(agent)
    nothing_is_missing(clients)
    assert registrations(consul) == registered
    for one in succession.agents:
        assert "WARNING" not in one.log
        assert "ERROR" not in one.log
    assert agent.stop() == 0
    assert not registrations(consul)  # the last one takes its services with it


def registrations(consul: ConsulServer) -> list[tuple[str, int]]:
    """What is registered of the services, each with the index of its latest change."""
    found = [row for name in SERVICES for row in consul.get(f"/v1/catalog/service/{name}")]
    return [(row["ServiceID"], row["ModifyIndex"]) for row in found]
