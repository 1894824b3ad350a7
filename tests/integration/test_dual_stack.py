"""Both address families: containers on networks that have both, published ports, and what probes them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.rdatatype
import pytest

from registrator.settings import join_host_port
from tests.support.agent import AgentProcess
from tests.support.consul import ConsulServer
from tests.support.engine import HTTPD, Docker, unique, wait_for

pytestmark = pytest.mark.engine

SECOND = 1.0
NODE = ("192.0.2.1", "2001:db8::1")  # the node's addresses, for published ports

Start = Callable[..., AgentProcess]


@pytest.fixture(params=["embedded", pytest.param("consul", marks=pytest.mark.consul)])
def start(request: pytest.FixtureRequest, tmp_path: Path, engine_url: str, docker: Docker) -> Iterator[Start]:
    """Start an agent with these options, on a node with both families."""
    catalog = []
    if request.param == "consul":
        catalog = ["--consul", request.getfixturevalue("consul_shared").url]
    agents: list[AgentProcess] = []

    def started(*options: str) -> AgentProcess:
        node = [word for ip in NODE for word in ("--ip", ip)]
        agents.append(AgentProcess(tmp_path, "--docker", engine_url, *node, *catalog, *options))
        agents[-1].start_ready()
        return agents[-1]

    yield started
    docker.cleanup()
    for agent in agents:
        agent.close()


@pytest.fixture
def network(docker: Docker) -> str:
    """The name of a network with both families."""
    return docker.network(ipv6=True)


def both(docker: Docker, container: str, network: str) -> tuple[str, str]:
    """A container's addresses on a network, IPv4 and IPv6."""
    there = docker.inspect(container)["NetworkSettings"]["Networks"][network]
    return there["IPAddress"], there["GlobalIPv6Address"]


def tagged(agent: AgentProcess, name: str) -> dict[str, tuple[str, int]]:
    """Address and port by the network's name and the family, of a service's only instance."""
    (service,) = agent.get(f"/v1/catalog/service/{name}")
    addresses = service["ServiceTaggedAddresses"].items()
    return {
        f"{key.split('/')[0]} {key.rpartition('/')[2]}": (value["Address"], value["Port"])
        for key, value in addresses
        if "/" in key
    }


def srv(agent: AgentProcess, name: str) -> tuple[list[str], dict[str, list[str]]]:
    """The SRV answers, and the glue's addresses by the type of their records."""
    query = dns.message.make_query(f"{name}.service.consul", "SRV", use_edns=True)
    reply = dns.query.udp(query, "127.0.0.1", port=agent.dns_port, timeout=5)
    glue: dict[str, list[str]] = {}
    targets = {str(record.target) for answer in reply.answer for record in answer}
    for records in reply.additional:
        kind = dns.rdatatype.to_text(records.rdtype)
        if kind in ("A", "AAAA"):
            assert str(records.name) in targets
            glue.setdefault(kind, []).extend(str(record) for record in records)
    return [str(record) for answer in reply.answer for record in answer], glue


def found(agent: AgentProcess, docker: Docker, network: str) -> tuple[str, str, str]:
    """A service that lookups know, and its container's two addresses."""
    name = unique("web")
    container = docker.run(
        command=HTTPD, labels={"SERVICE_NAME": name}, expose=["80/tcp"], networks=[network]
    )
    four, six = both(docker, container, network)
    wait_for(lambda: agent.ask(name) == [four], "A record", SECOND)
    return name, four, six


def test_a_container_with_both_families_is_found_by_both(start: Start, docker: Docker, network: str) -> None:
    """Both are registered, with the container's own port; A and AAAA give them."""
    agent = start()
    name, four, six = found(agent, docker, network)
    assert agent.ask(name, "AAAA") == [six]
    assert tagged(agent, name) == {f"{network} ipv4": (four, 80), f"{network} ipv6": (six, 80)}


def test_the_glue_of_srv_has_both_families(start: Start, docker: Docker, network: str) -> None:
    agent = start()
    name, four, six = found(agent, docker, network)
    answers, glue = srv(agent, name)
    assert {answer.split()[2] for answer in answers} == {"80"}
    assert glue == {"A": [four], "AAAA": [six]}


def test_a_published_port_is_published_in_both_families(start: Start, docker: Docker) -> None:
    """The node's two addresses, each with the host port of its family."""
    agent = start()
    name = unique("web")
    container = docker.run(command=HTTPD, labels={"SERVICE_NAME": name}, ports={"80/tcp": 0})
    bindings = docker.inspect(container)["NetworkSettings"]["Ports"]["80/tcp"]
    ports = {":" in binding["HostIp"]: int(binding["HostPort"]) for binding in bindings}
    assert ports.keys() == {False, True}
    wait_for(lambda: agent.get(f"/v1/catalog/service/{name}"), "instance", SECOND)
    known = tagged(agent, name)
    assert known["published ipv4"] == (NODE[0], ports[False])
    assert known["published ipv6"] == (NODE[1], ports[True])


def test_a_container_on_the_hosts_network_has_the_nodes_addresses(start: Start, docker: Docker) -> None:
    agent = start()
    name = unique("web")
    docker.run(labels={"SERVICE_NAME": name, "SERVICE_PORT": "80"}, network_mode="host")
    wait_for(lambda: agent.ask(name) == [NODE[0]], "A record", SECOND)
    assert agent.ask(name, "AAAA") == [NODE[1]]


def test_an_ipv6_address_alone_may_be_registered(start: Start, docker: Docker) -> None:
    """SERVICE_IP of that family: AAAA answers it; there is no IPv4 address to give."""
    agent = start()
    name = unique("web")
    labels = {"SERVICE_NAME": name, "SERVICE_PORT": "80", "SERVICE_IP": "2001:db8::7"}
    docker.run(labels=labels, network_mode="none")
    wait_for(lambda: agent.ask(name, "AAAA") == ["2001:db8::7"], "AAAA record", SECOND)
    assert agent.ask(name) == ["NOERROR"]
    assert srv(agent, name)[1] == {"AAAA": ["2001:db8::7"]}


def test_checks_probe_an_ipv6_address(start: Start, docker: Docker, network: str) -> None:
    """The URL has it in brackets; the container's own server answers there."""
    agent = start()
    name = unique("web")
    subnets = docker.api.inspect_network(network)["IPAM"]["Config"]
    subnet = ipaddress.ip_network(next(s["Subnet"] for s in subnets if ":" in s["Subnet"]))
    six = str(subnet[2])  # the first is the gateway's
    labels = {"SERVICE_NAME": name, "SERVICE_CHECK_HTTP": "/", "SERVICE_CHECK_TCP": "1", "SERVICE_IP": six}
    container = docker.run(
        command=HTTPD,
        labels={**labels, "SERVICE_CHECK_INTERVAL": "1s"},
        expose=["80/tcp"],
        networks=[network],
    )
    assert both(docker, container, network)[1] == six
    entries = wait_for(lambda: agent.get(f"/v1/health/service/{name}?passing"), "passing checks", 10)
    outputs = {check["Output"].strip() for check in entries[0]["Checks"] if check["ServiceID"]}
    target = join_host_port(six, 80)
    assert outputs == {f"HTTP GET http://{target}/: 200 OK Output: ok", f"TCP connect {target}: Success"}


@pytest.mark.consul
def test_consul_itself_answers_the_registered_address(
    tmp_path: Path, engine_url: str, docker: Docker, consul: ConsulServer, network: str
) -> None:
    """Consul's own DNS knows one address an instance: with an IPv6 one it answers AAAA."""
    agent = AgentProcess(tmp_path, "--docker", engine_url, "--consul", consul.url)
    name = unique("web")
    try:
        agent.start_ready()
        labels = {"SERVICE_NAME": name, "SERVICE_PORT": "80", "SERVICE_IP": "2001:db8::7"}
        docker.run(labels=labels, networks=[network])
        wait_for(lambda: consul.get(f"/v1/health/service/{name}"), "instance", SECOND)
        query = dns.message.make_query(f"{name}.service.consul", "AAAA")
        reply: Any = dns.query.udp(query, "127.0.0.1", port=consul.dns_port, timeout=5)
        assert [str(record) for answer in reply.answer for record in answer] == ["2001:db8::7"]
    finally:
        docker.cleanup()
        agent.close()
