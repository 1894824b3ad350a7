"""The agent on a real Swarm of one node, which is its own manager, with a real Consul beside it."""

from __future__ import annotations

import time
import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import AgentProcess
from tests.support.consul import ConsulServer
from tests.support.engine import STUBBORN, Docker, PrivateEngine, unique, until_told, wait_for
from tests.support.swarm import OneNodeSwarm

pytestmark = [pytest.mark.engine, pytest.mark.consul]

LINK_LOCAL = "169.254.53.53"
DEAF = until_told("sleep 100000")  # runs, and listens nowhere


@dataclass
class Node:
    """A Swarm's only node with Consul and the agent on its network, as in production.

    Each test leaves its services to their end; when all have ended, nothing of them is left.
    """

    swarm: OneNodeSwarm
    consul: ConsulServer
    agent: AgentProcess

    def entries(self, service: str) -> list[dict[str, Any]]:
        """A service as Consul tells it, its instances in the order of their addresses."""
        entries: list[dict[str, Any]] = self.consul.get(f"/v1/health/service/{service}")
        return sorted(entries, key=lambda e: [a["Address"] for a in e["Service"]["TaggedAddresses"].values()])

    def instances(self, service: str, count: int) -> list[dict[str, Any]]:
        """The same without checks, as soon as there are so many of them."""
        wait_for(lambda: len(self.entries(service)) == count, f"{count} instances of {service}", 20)
        return [entry["Service"] for entry in self.entries(service)]

    def instance(self, service: str) -> dict[str, Any]:
        (instance,) = self.instances(service, 1)
        return instance

    def alone(self, service: str) -> None:
        """Wait until nothing of earlier tests runs, or is registered, any more."""
        swarm = self.swarm
        wait_for(lambda: len(swarm.api.containers()) == len(swarm.containers(service)), "quiet", 30)
        wait_for(lambda: set(self.consul.get("/v1/catalog/services")) == {"consul", service}, "quiet", 30)

    def facts(self) -> dict[str, Any]:
        """The keys that managers have written, by the service's id."""
        try:
            keys = self.consul.get("/v1/kv/registrator/swarm/?recurse")
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 404:  # Consul's word for no keys
                raise
            return {}
        return {key["Key"].rpartition("/")[2]: key for key in keys}

    def dig(self, container: str, name: str, kind: str = "A") -> list[str]:
        """What a container is told by the address that every node has, sorted."""
        question = f"{name}.service.consul"
        told = self.swarm.run_in(container, "dig", "+short", "+tries=1", f"@{LINK_LOCAL}", question, kind)
        return sorted(told.split("\n"))[1:]

    def tells(self, container: str, name: str, addresses: list[str]) -> bool:
        """Whether a container is told exactly these addresses."""
        return self.dig(container, name) == addresses


@pytest.fixture(scope="module")
def node(swarm: OneNodeSwarm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("node")
    with ConsulServer(folder, host=swarm.address, enter=swarm.enter) as consul:
        options = ["--docker", swarm.url, "--consul", consul.url, "--dns-link-local", LINK_LOCAL]
        agent = AgentProcess(folder, *options, host=swarm.address, enter=swarm.enter)
        try:
            agent.start_ready()
            node = Node(swarm, consul, agent)
            yield node
            wait_for(lambda: set(consul.get("/v1/catalog/services")) == {"consul"}, "end of all services", 30)
            wait_for(lambda: not node.facts(), "end of all facts")
        finally:
            agent.close()


@pytest.fixture
def name(node: Node) -> Iterator[str]:
    """The name of a service of the test's own; at its end all services are removed."""
    yield unique("svc")
    for service in node.swarm.api.services():
        node.swarm.remove(service["ID"])


def tagged(instance: dict[str, Any]) -> dict[str, str]:
    """The addresses of ours, "ip:port" by network."""
    found = instance["TaggedAddresses"].items()
    return {key.split("/")[0]: f"{a['Address']}:{a['Port']}" for key, a in found if "/" in key}


def test_a_task_has_its_place_in_meta_and_its_overlay_address_alone(node: Node, name: str) -> None:
    """Service, task, slot and node are told; ingress and docker_gwbridge are nobody's address."""
    network = unique("net")
    node.swarm.overlay(network)
    node.swarm.service(
        name, networks=[network], labels={"SERVICE_PORT": "80", "SERVICE_NAME": name}, replicas=2
    )
    first, second = node.instances(name, 2)
    for instance in (first, second):
        task = instance["Meta"]["registrator-swarm-task"]
        assert instance["ID"].endswith(f"{name}.{instance['Meta']['registrator-swarm-slot']}.{task}:80")
        assert instance["Meta"]["registrator-swarm-service"] == name
        assert instance["Meta"]["registrator-swarm-node"] == node.swarm.api.info()["Swarm"]["NodeID"]
        assert tagged(instance) == {network: f"{instance['Address']}:80"}
        assert instance["Address"].startswith("10.0.")
    assert {first["Meta"]["registrator-swarm-slot"], second["Meta"]["registrator-swarm-slot"]} == {"1", "2"}


def test_a_plain_container_with_a_tasks_labels_is_not_a_task(node: Node, name: str) -> None:
    """Its name, labels and network may be as a task's: it gets neither the service's name nor its facts."""
    network = unique("net")
    node.swarm.overlay(network)
    node.swarm.service(name, networks=[network], mesh={18088: 80}, deploy={"SERVICE_TAGS": "deploy"})
    (task,) = node.swarm.containers(name)
    labels = node.swarm.api.inspect_container(task)["Config"]["Labels"]
    forger = Docker(node.swarm.url)
    forged = {
        **labels,
        "com.docker.swarm.task.id": "0" * 25,
        "com.docker.swarm.task.name": f"{name}.2.{'0' * 25}",
    }
    try:
        container = forger.run(f"{name}.2.{'0' * 25}", networks=[network], labels=forged, expose=["80/tcp"])
        wait_for(lambda: len(node.entries("busybox")) == 1, "the forger under its image's name", 20)
        (entry,) = node.entries("busybox")
        assert entry["Service"]["Meta"]["registrator-container"] == container
        assert not [key for key in entry["Service"]["Meta"] if key.startswith("registrator-swarm")]
        assert "deploy" not in entry["Service"]["Tags"]
        assert tagged(entry["Service"]).keys() == {network}
        instance = node.instance(name)
        assert instance["Meta"]["registrator-container"] == task
        assert instance["Tags"] == ["deploy"]
    finally:
        forger.cleanup()
    wait_for(lambda: not node.entries("busybox"), "its end")


def test_a_mesh_port_is_the_nodes_own_and_needs_no_expose(node: Node, name: str) -> None:
    """The task's engine knows no port at all; the manager's word gives both, and the overlay's too."""
    network = unique("net")
    node.swarm.overlay(network)
    node.swarm.service(name, networks=[network], mesh={18080: 80})
    (container,) = node.swarm.containers(name)
    assert node.swarm.api.inspect_container(container)["NetworkSettings"]["Ports"] == {}
    instance = node.instance(name)
    assert (instance["Address"], instance["Port"]) == (node.swarm.address, 18080)
    overlay = node.swarm.api.inspect_container(container)["NetworkSettings"]["Networks"][network]["IPAddress"]
    assert tagged(instance) == {"published": f"{node.swarm.address}:18080", network: f"{overlay}:80"}


def test_a_host_mode_port_is_the_nodes_own(node: Node, name: str) -> None:
    """It is in the task's own document, on whatever node it runs."""
    node.swarm.service(name, host={18081: 80})
    instance = node.instance(name)
    assert (instance["Address"], instance["Port"]) == (node.swarm.address, 18081)


def test_labels_under_deploy_work_and_follow_at_once(node: Node, name: str) -> None:
    """They name and tag the tasks; a change of them reaches Consul without a new task."""
    wanted = unique("named")
    node.swarm.service(name, mesh={18082: 80}, deploy={"SERVICE_NAME": wanted, "SERVICE_TAGS": "blue"})
    before = node.instance(wanted)
    assert before["Tags"] == ["blue"]
    node.swarm.update(name, Labels={"SERVICE_NAME": wanted, "SERVICE_TAGS": "green"})
    wait_for(lambda: node.instance(wanted)["Tags"] == ["green"], "the new tag", 5)
    assert node.instance(wanted)["ID"] == before["ID"]


def test_a_containers_own_label_wins_over_deploy(node: Node, name: str) -> None:
    """The more specific one."""
    node.swarm.service(
        name, mesh={18083: 80}, labels={"SERVICE_TAGS": "own"}, deploy={"SERVICE_TAGS": "deploy"}
    )
    assert node.instance(name)["Tags"] == ["own"]


def test_a_tasks_grace_period_is_its_services(node: Node, name: str) -> None:
    """No document of its container tells it: a task that is told to stop is drained for so long."""
    labels = {"SERVICE_NAME": name, "SERVICE_PORT": "80"}
    network = unique("net")
    node.swarm.overlay(network)
    node.swarm.service(name, command=STUBBORN, networks=[network], labels=labels, grace=2)
    (container,) = node.swarm.containers(name)
    assert node.swarm.api.inspect_container(container)["Config"].get("StopTimeout") is None
    node.instance(name)
    node.swarm.api.kill(container, "SIGTERM")
    node.instances(name, 0)
    gone = time.monotonic()
    node.instance(name)
    assert 1.0 < time.monotonic() - gone < 8.0  # with Docker's own 10 seconds it would be over 10


def test_a_key_per_service_that_goes_with_it(node: Node, name: str) -> None:
    """One key under the cluster's id, written once, deleted by a manager."""
    service = node.swarm.service(name, mesh={18084: 80})
    node.instance(name)
    cluster = node.swarm.api.info()["Swarm"]["Cluster"]["ID"]
    key = node.facts()[service]
    assert key["Key"] == f"registrator/swarm/{cluster}/{service}"
    assert key["CreateIndex"] == key["ModifyIndex"]
    node.swarm.remove(name)
    wait_for(lambda: service not in node.facts(), "end of the service's key")
    wait_for(lambda: not node.entries(name), "end of its instances")


def test_an_asker_behind_docker_gwbridge_is_known_by_its_overlays(node: Node, name: str) -> None:
    """By 169.254.53.53 a task on the overlay is told the overlay's address, any other the node's and port."""
    inside, outside = unique("net"), unique("net")
    for network in (inside, outside):
        node.swarm.overlay(network)
    near, far = unique("near"), unique("far")
    node.swarm.service(name, networks=[inside], mesh={18085: 80})
    node.swarm.service(near, networks=[inside])
    node.swarm.service(far, networks=[outside])
    overlay = tagged(node.instance(name))[inside].partition(":")[0]
    (asker,), (stranger,) = node.swarm.containers(near), node.swarm.containers(far)
    wait_for(lambda: node.dig(asker, name) == [overlay], "the overlay's address for its own")
    assert node.dig(asker, name, "SRV")[0].split()[2] == "80"
    wait_for(lambda: node.dig(stranger, name) == [node.swarm.address], "the node's address for others")
    assert node.dig(stranger, name, "SRV")[0].split()[2] == "18085"
    assert node.agent.ask(name) == [node.swarm.address]  # from outside


def test_two_stacks_with_one_name_do_not_mix(node: Node, name: str) -> None:
    """Each asker gets the instances of its own overlay; from a third network, what there is."""
    shared = unique("shared")
    networks = [unique("net") for _ in range(3)]
    names = [f"{name}-{number}" for number in range(3)]
    for network in networks:
        node.swarm.overlay(network)
    wish = {"SERVICE_NAME": shared, "SERVICE_PORT": "80"}
    for service, network in zip(names[:2], networks, strict=False):
        node.swarm.service(service, networks=[network], labels=wish, replicas=2)
    node.swarm.service(names[2], networks=[networks[2]])
    known = [tagged(instance) for instance in node.instances(shared, 4)]
    for service, network in zip(names[:2], networks, strict=False):
        own = sorted(places[network].partition(":")[0] for places in known if network in places)
        asker = node.swarm.containers(service)[0]
        wait_for(partial(node.tells, asker, shared, own), "the asker's own two")
    assert len(node.dig(node.swarm.containers(names[2])[0], shared)) == 4


@pytest.mark.parametrize(
    ("check", "ports"),
    [
        ({"SERVICE_CHECK_TCP": "true"}, {}),
        ({"SERVICE_CHECK_HTTP": "/"}, {}),
        ({"SERVICE_CHECK_TCP": "true"}, {"mesh": {18086: 80}}),
        ({"SERVICE_CHECK_HTTP": "/"}, {"host": {18087: 80}}),
    ],
    ids=["tcp on an overlay", "http on an overlay", "tcp in the mesh", "http by host mode"],
)
def test_consul_on_the_host_reaches_what_it_checks(
    node: Node, name: str, check: dict[str, str], ports: dict[str, Any]
) -> None:
    """A check of a task passes when it serves, though Consul is on no overlay; and fails when it does not."""
    network, deaf = unique("net"), unique("deaf")
    node.swarm.overlay(network)
    labels = {**check, "SERVICE_PORT": "80", "SERVICE_CHECK_INTERVAL": "1s"}
    node.swarm.service(name, networks=[network], labels=labels, **ports)
    wait_for(lambda: statuses(node, name) == {"passing"}, f"a passing check of {name}", 20)
    node.swarm.service(deaf, networks=[network], labels=labels, command=DEAF)
    node.instance(deaf)
    wait_for(lambda: "refused" in str(node.entries(deaf)), "a probe of what serves nothing", 20)
    assert statuses(node, deaf) == {"passing", "critical"}
    assert statuses(node, name) == {"passing"}


def statuses(node: Node, service: str) -> set[str]:
    """The statuses of a service's checks and the node's; empty where it is not there with its own check."""
    checks = [check for entry in node.entries(service) for check in entry["Checks"]]
    return {check["Status"] for check in checks} if any(check["ServiceID"] for check in checks) else set()


def test_a_restarted_agent_writes_nothing(node: Node, name: str) -> None:
    """What deploy labels named stays as it is: the first look at a task waits for its facts."""
    node.swarm.service(name, mesh={18088: 80}, deploy={"SERVICE_TAGS": "blue"})
    node.instance(name)
    node.alone(name)
    services, facts = node.consul.get("/v1/agent/services"), node.facts()
    node.agent.stop()
    node.agent.start_ready()
    assert node.agent.metric('registrator_catalog_writes_total{operation="register"}') == 0
    assert node.consul.get("/v1/agent/services") == services
    assert node.facts() == facts


def test_a_consul_that_comes_back_empty_is_told_everything_again(node: Node, name: str) -> None:
    """Facts and instances are written anew, and no instance ever goes by another name."""
    wanted = unique("named")
    service = node.swarm.service(name, mesh={18089: 80}, deploy={"SERVICE_NAME": wanted})
    node.instance(wanted)
    node.consul.kill()
    node.consul.restart()
    wait_for(lambda: node.entries(wanted), "the instance's return", 20)
    wait_for(lambda: service in node.facts(), "the facts' return", 20)
    assert node.entries(name) == []
    assert f"registered {name} at" not in node.agent.log


def test_scaling_is_followed_by_mesh_instances(node: Node, name: str) -> None:
    """Each task of the node is an instance, under the same address of the mesh."""
    node.swarm.service(name, mesh={18090: 80})
    node.instance(name)
    node.swarm.update(name, Mode={"Replicated": {"Replicas": 3}})
    assert {i["Port"] for i in node.instances(name, 3)} == {18090}
    node.swarm.update(name, Mode={"Replicated": {"Replicas": 1}})
    node.instances(name, 1)


def test_the_plan_stays_empty(node: Node, name: str) -> None:
    """Once a task is registered with all that facts and gateway add, nothing is written any more."""
    network = unique("net")
    node.swarm.overlay(network)
    labels = {"SERVICE_CHECK_TCP": "true"}
    node.swarm.service(
        name, networks=[network], mesh={18091: 80}, labels=labels, deploy={"SERVICE_TAGS": "a,b"}
    )
    node.instance(name)
    node.alone(name)
    node.agent.stop()
    node.agent.start_ready()
    assert node.agent.metric('registrator_catalog_writes_total{operation="register"}') == 0
    index = node.consul.get(f"/v1/health/service/{name}")[0]["Service"]["ModifyIndex"]
    time.sleep(1)  # longer than a telling and a reading
    assert node.consul.get(f"/v1/health/service/{name}")[0]["Service"]["ModifyIndex"] == index


# The embedded catalog, and a node that joins and leaves ---------------------


@pytest.fixture
def lonely(private_engine: PrivateEngine) -> Iterator[OneNodeSwarm]:
    """An engine of the test's own that is in no Swarm yet."""
    node = OneNodeSwarm(private_engine)
    yield node
    node.close()


def test_a_node_that_joins_and_leaves_a_swarm_keeps_its_instances(
    lonely: OneNodeSwarm, tmp_path: Path
) -> None:
    """They are of the same owner before, in and after; tasks come and go, and the address follows."""
    agent = AgentProcess(
        tmp_path, "--docker", lonely.url, "--resync", "1", host=lonely.address, enter=lonely.enter
    )

    def shown(service: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = agent.get(f"/v1/health/service/{service}")
        return [entry["Service"] for entry in entries]

    created = lonely.api.create_container(
        "registrator-test/busybox:1",
        until_told("httpd -f -p 80 -h /www"),
        name="plain",
        ports=[80],
        host_config=lonely.api.create_host_config(port_bindings={80: 18092}),
    )
    lonely.api.start(created["Id"])
    try:
        agent.start_ready()
        wait_for(lambda: shown("busybox"), "the plain container's instance")
        before = shown("busybox")
        lonely.init()
        lonely.service("task", mesh={18093: 80}, deploy={"SERVICE_TAGS": "deployed"})
        wait_for(lambda: shown("task"), "the task's instance")
        (task,) = shown("task")
        assert (task["Address"], task["Port"], task["Tags"]) == (lonely.address, 18093, ["deployed"])
        wait_for(lambda: [i["Address"] for i in shown("busybox")] == [lonely.address], "the Swarm's address")
        (during,) = shown("busybox")
        assert (during["ID"], during["Meta"]) == (before[0]["ID"], before[0]["Meta"])
        lonely.leave()
        wait_for(lambda: not shown("task"), "end of the task's instance", 20)
        (after,) = shown("busybox")
        assert (after["ID"], after["Meta"]) == (before[0]["ID"], before[0]["Meta"])
        agent.stop()
        agent.start_ready()
        assert [i["ID"] for i in shown("busybox")] == [before[0]["ID"]]
    finally:
        agent.close()
