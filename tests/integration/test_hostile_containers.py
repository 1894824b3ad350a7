"""Containers that ask for too much, on a real engine: their own loss, and nobody else's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from registrator.limits import INSTANCES
from tests.support.agent import AgentProcess
from tests.support.engine import HTTPD, Docker, unique, wait_for

MEMORY = 256 * 2**20  # octets of data that the agent's process may have
LIMITED = f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_DATA, ({MEMORY}, {MEMORY})); "
TEN = 'replace -1 "a" "aaaaaaaaaa"'
BOMB = '{{"a"|' + "|".join([TEN] * 9) + "}}"


@pytest.fixture
def small_agent(tmp_path: Path, engine_url: str) -> Iterator[AgentProcess]:
    """An agent whose process may not have more than 256 MB of data; not started."""
    enter = (sys.executable, "-c", LIMITED + "os.execv(sys.argv[1], sys.argv[1:])")
    process = AgentProcess(tmp_path, "--docker", engine_url, enter=enter)
    try:
        yield process
    finally:
        process.close()


def peak(agent: AgentProcess) -> int:
    """The most memory that the agent's process has had, in octets."""
    status = Path(f"/proc/{agent.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024


def test_a_template_that_grows_ends_no_agent(small_agent: AgentProcess, docker: Docker) -> None:
    """Nine steps in 259 characters make a gigabyte: the tags are left out, at the agent's restart too."""
    bomb, web = unique("bomb"), unique("web")
    docker.run(command=HTTPD, labels={"SERVICE_NAME": bomb, "SERVICE_TAGS": BOMB}, expose=["80/tcp"])
    small_agent.start_ready()
    address = docker.address(docker.run(command=HTTPD, labels={"SERVICE_NAME": web}, expose=["80/tcp"]))
    wait_for(lambda: small_agent.ask(web) == [address], "the other container", 20)
    assert small_agent.ask(bomb) != ["NXDOMAIN"]
    assert small_agent.metric('registrator_limited_total{limit="template_result"}') == 1
    assert peak(small_agent) < MEMORY
    small_agent.stop()
    small_agent.start_ready()
    assert small_agent.ask(bomb) != ["NXDOMAIN"]


def test_thousands_of_labels_are_their_own_containers_loss(small_agent: AgentProcess, docker: Docker) -> None:
    """2,000 names of ports, 1,000 other keys and 60,000 exposed ports: 100 instances, said once."""
    hostile, web = unique("hostile"), unique("web")
    labels = {f"SERVICE_{port}_NAME": f"{hostile}-{port}" for port in range(1, 2001)}
    labels |= {f"SERVICE_KEY{n}": "v" for n in range(1000)}
    docker.run(name=hostile, command=HTTPD, labels=labels, expose=["80/tcp"])
    wide = unique("wide")
    docker.run(name=wide, labels={"SERVICE_NAME": wide}, expose=[f"{n}/tcp" for n in range(1, 60001)])
    small_agent.start_ready()
    address = docker.address(docker.run(command=HTTPD, labels={"SERVICE_NAME": web}, expose=["80/tcp"]))
    wait_for(lambda: small_agent.ask(web) == [address], "the other container", 20)
    services = small_agent.get("/v1/catalog/services")
    assert len([name for name in services if name.startswith(hostile)]) == INSTANCES.value
    assert len([name for name in services if name.startswith(wide)]) == INSTANCES.value
    said = [line for line in small_agent.log.splitlines() if f"container {hostile}: " in line]
    assert len(said) == 2, said
    assert all(len(line) < 1000 for line in small_agent.log.splitlines())
    assert peak(small_agent) < MEMORY


def test_an_exposed_port_of_no_protocol_is_none(small_agent: AgentProcess, docker: Docker) -> None:
    """An engine takes whatever stands behind the slash, and it would be part of a default id."""
    web = unique("web")
    docker.run(name=web, command=HTTPD, labels={"SERVICE_NAME": web}, expose=["80/a?b#", "81/..", "82/tcp"])
    small_agent.start_ready()
    found = small_agent.get(f"/v1/catalog/service/{web}")
    assert [instance["ServiceID"].partition(f":{web}:")[2] for instance in found] == ["82"]
