"""`docker service create`, `scale`, `update` and `rm`, under the eyes of clients on all nodes.

Several run at the same time, each with a service of its own, for Swarm spends
most of an update waiting. That no client fails is a zero of thousands: each of
its turns is a lookup and a connection to what that said.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest

from scripts.lab.lab import Lab
from scripts.lab.node import Node
from scripts.lab.waiting import until
from tests.lab.clients import Clients, calling
from tests.lab.services import HEALTH_CHECK, Service, service
from tests.lab.truth import agent_of, agree, get

pytestmark = [pytest.mark.engine, pytest.mark.consul, pytest.mark.lab]

Operation = Callable[[Lab], Clients | None]

AT_ONCE = 3
QUICK = ("--update-monitor", "1s", "--rollback-monitor", "1s")


def created(*options: str, expected: int, endpoint: str = "dnsrr") -> Operation:
    """What `service ls`, `ps` and `inspect` say of it is what every node's agent knows, down to the ports."""

    def operation(lab: Lab) -> None:
        with service(lab, *options, endpoint=endpoint) as made:
            made.settled(expected)
            ls = ("service", "ls", "--filter", f"name={made.name}", "--format", "{{.Replicas}}")
            assert lab.manager.docker(*ls) == f"{expected}/{expected}"
            columns = ("--no-trunc", "--filter", "desired-state=running", "--format", "{{.ID}} {{.Node}}")
            tasks = sorted(made.docker("ps", *columns).splitlines())
            for node in lab.nodes:
                assert sorted(looked_up(node, made.name)) == tasks
            until(partial(same_ports, made, expected), f"inspect and registrator services of {made.name}")

    return operation


def looked_up(node: Node, name: str) -> list[str]:
    """The task and the node of each instance, by a node's lookups."""
    found = get(node, 8580, f"/lookup/{name}")["instances"]
    return [f"{each['meta']['registrator-swarm-task']} {each['node']}" for each in found]


def same_ports(made: Service, expected: int) -> bool:
    """Whether `service inspect` and `registrator services` of each node tell of the same replicas and ports.

    Ports of the mesh are known to managers alone, and reach the others through Consul.
    """
    replicated = made.inspect()["Spec"]["Mode"].get("Replicated", {"Replicas": len(made.lab.nodes)})
    ports = {port["PublishedPort"] for port in made.inspect()["Endpoint"].get("Ports", [])}
    assert replicated["Replicas"] == expected
    for node in made.lab.nodes:
        agent = agent_of(node)
        listed = json.loads(node.docker("exec", agent, "registrator", "services", "--json"))
        (line,) = (each for each in listed if each["name"] == made.name)
        entries = get(node, 8500, f"/v1/health/service/{made.name}?passing&stale")
        places = [entry["Service"]["TaggedAddresses"].get("published//ipv4", {}) for entry in entries]
        if len(line["passing"]) != expected or {place["Port"] for place in places if place} != ports:
            return False
    return True


def scaled(lab: Lab) -> Clients:
    """1, 5, 2: who is told to stop is out of lookups before it stops."""
    with service(lab, *HEALTH_CHECK, replicas=1) as made, calling(lab.nodes, made.name) as clients:
        made.scale(5)
        made.scale(2)
    assert all(len(served) >= 5 for served in clients.served)
    return clients


def updated_and_back(lab: Lab) -> Clients:
    """One task at a time, the old one stopped first; then `update --rollback`."""
    with service(lab, *HEALTH_CHECK, *QUICK, replicas=2) as made, calling(lab.nodes, made.name) as clients:
        made.update("--env-add", "VERSION=2")
        made.updated()
        made.settled(2)
        assert made.versions() == {"2": 2}
        made.update("--rollback")
        made.updated("rollback_completed")
        made.settled(2)
        assert made.versions() == {"1": 2}
    return clients


def rolled_back(*bad: str) -> Operation:
    """What never gets well is never answered with, and Swarm goes back to what was."""
    safely = ("--update-order", "start-first", "--update-failure-action", "rollback")

    def operation(lab: Lab) -> Clients:
        with (
            service(lab, *HEALTH_CHECK, *QUICK, *safely, replicas=2) as made,
            calling(lab.nodes, made.name) as clients,
        ):
            made.update("--env-add", "VERSION=2", "--no-resolve-image", *bad)
            made.updated("rollback_completed")
            made.settled(2)
            assert made.versions() == {"1": 2}
        assert not [answer for served in clients.served for answer in served if answer.endswith(" 2")]
        return clients

    return operation


OPERATIONS: dict[str, Operation] = {
    "created, replicated": created("--replicas", "2", expected=2),
    "created, global": created("--mode", "global", expected=3),
    "created with a port of the node": created(
        "--publish", "target=8000,published=18001,mode=host", expected=1
    ),
    "created with a port of the mesh": created("--publish", "18000:8000", expected=1, endpoint="vip"),
    "created with a health check": created("--replicas", "2", *HEALTH_CHECK, expected=2),
    "scaled 1, 5, 2": scaled,
    "updated, and rolled back by hand": updated_and_back,
    "updated to an image that is nowhere": rolled_back("--image", "registrator/nowhere:1"),
    "updated to a command that ends": rolled_back("--args", "false"),
    "updated to what fails its health check": rolled_back("--health-cmd", "false", "--health-retries", "1"),
}


@pytest.fixture(scope="module")
def under_way(lab: Lab) -> Iterator[dict[str, Future[Clients | None]]]:
    """All operations, begun or waiting for their turn."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        yield {name: threads.submit(operation, lab) for name, operation in OPERATIONS.items()}


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_service(
    under_way: dict[str, Future[Clients | None]], name: str, measured: Callable[[str], None]
) -> None:
    """What its operation says of it holds, and no client of it ever failed."""
    clients = under_way[name].result()
    if clients is not None:
        measured(f"{name}: {clients}")
        assert not clients.failures, clients


def test_nothing_is_left_of_them(lab: Lab, under_way: dict[str, Future[Clients | None]]) -> None:
    """When all of them are over, catalogs and lookups hold what runs, and nothing else."""
    for operation in under_way.values():
        operation.exception()
    assert not [name for name, _, _ in agree(lab) if name.startswith("svc-")]
