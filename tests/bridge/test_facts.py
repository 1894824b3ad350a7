"""A task as registered: with what only managers know, at addresses that peers and checks can reach."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from registrator.bridge.facts import with_facts
from registrator.bridge.instances import instances
from registrator.bridge.views import Views
from registrator.model import (
    OUTSIDE,
    Attachment,
    Binding,
    Container,
    Instance,
    MeshPort,
    Port,
    SwarmService,
    Task,
    View,
)
from registrator.policy import Policy
from tests.bridge.build import BRIDGE, HOST, INGRESS, POLICY, container, exposed, published

RED_ID, BLUE_ID = "red0red1red2red3red4red5r", "blue0blue1blue2blue3blue4"
RED = Attachment("red", RED_ID, "10.0.1.3")
BLUE = Attachment("blue", BLUE_ID, "10.0.2.3")
GATEWAY = Attachment("docker_gwbridge", "9" * 64, "172.18.0.6")
LOCAL = Attachment("app_default", "a" * 64, "172.20.0.5")

TASK = Task("shop_web", "svc1", "task1", "3", "node1", "shop")
NODE, HTTP_8080 = "192.0.2.7", MeshPort(80, "tcp", 8080)


def task(*ports: Port, **facts: Any) -> Container:
    """The container of a task on the overlay "red"."""
    defaults = {
        "networks": (RED, GATEWAY),
        "network_mode": "bridge",
        "task": TASK,
        "name": "shop_web.3.task1",
    }
    return container(*ports, **{**defaults, **facts})


def service(*mesh: MeshPort, **labels: str) -> SwarmService:
    return SwarmService("svc1", "shop_web", labels, mesh)


def in_mesh(*ports: Port, **facts: Any) -> Container:
    """The same with its port 80 published by the mesh at 8080."""
    return with_facts(task(*ports, **facts), service(HTTP_8080))


def only(task: Container, policy: Policy = POLICY) -> Instance:
    """The one instance of a container, with nothing refused."""
    (instance,), problems = instances(task, HOST, policy)
    assert not problems
    return instance


# The merge ------------------------------------------------------------------


def test_a_container_of_no_known_service_stays_as_it_is() -> None:
    """Facts that nobody has told change nothing."""
    assert with_facts(task(exposed(80)), None) == task(exposed(80))


def test_the_services_grace_period_is_the_tasks() -> None:
    """The container's own is Docker's default, whatever the service says."""
    assert with_facts(task(), replace(service(), stop_timeout=60.0)).stop_timeout == 60.0
    assert with_facts(task(), service()).stop_timeout == task().stop_timeout


@pytest.mark.parametrize(
    ("deploy", "own", "merged", "why"),
    [
        ({"a": "1"}, {}, {"a": "1"}, "a label under deploy: counts as the container's"),
        ({"a": "1"}, {"b": "2"}, {"a": "1", "b": "2"}, "both are there"),
        ({"a": "1"}, {"a": "2"}, {"a": "2"}, "the container's own wins: it is the more specific"),
        ({"a": "1"}, {"a": ""}, {"a": ""}, "even if it is empty"),
    ],
)
def test_labels(deploy: dict[str, str], own: dict[str, str], merged: dict[str, str], why: str) -> None:
    """Deploy labels lie under the container's."""
    assert with_facts(task(labels=own), service(**deploy)).labels == merged, why


MESH = Binding("0.0.0.0", 8080, mesh=True)


@pytest.mark.parametrize(
    ("ports", "mesh", "merged", "why"),
    [
        ((), (HTTP_8080,), (Port(80, "tcp", (MESH,)),), "a port that the image does not expose"),
        ((exposed(80),), (HTTP_8080,), (Port(80, "tcp", (MESH,)),), "one that it does"),
        ((published(80, 8081),), (HTTP_8080,), (Port(80, "tcp", (Binding("0.0.0.0", 8081), MESH)),),
         "published by host mode too: that comes first, it leads to this task"),
        ((exposed(53, "udp"),), (MeshPort(53, "tcp", 8080),), (Port(53, "tcp", (MESH,)), exposed(53, "udp")),
         "protocols are apart, in the order of all ports"),
        ((exposed(80),), (), (exposed(80),), "nothing in the mesh"),
    ],
)  # fmt: skip
def test_mesh_ports(
    ports: tuple[Port, ...], mesh: tuple[MeshPort, ...], merged: tuple[Port, ...], why: str
) -> None:
    """A port that the mesh publishes is published by the task's node."""
    assert with_facts(task(*ports), service(*mesh)).ports == merged, why


# What becomes of it ---------------------------------------------------------


def test_meta_tells_the_tasks_place_in_the_swarm() -> None:
    """Operators and pages group by it."""
    own = {key: value for key, value in only(task(exposed(80))).meta.items() if "swarm" in key}
    assert own == {
        "registrator-swarm-service": "shop_web",
        "registrator-swarm-task": "task1",
        "registrator-swarm-slot": "3",
        "registrator-swarm-node": "node1",
        "registrator-swarm-stack": "shop",
    }


def test_meta_is_silent_on_what_is_not_there() -> None:
    """A service of no stack has none; a plain container has none of it all."""
    alone = only(task(exposed(80), task=Task("web", "svc1", "task1", "3", "node1")))
    assert "registrator-swarm-stack" not in alone.meta
    assert not any("swarm" in key for key in only(container(exposed(80))).meta)


@pytest.mark.parametrize(
    ("subject", "policy", "places", "why"),
    [
        (task(exposed(80)), POLICY, "red 10.0.1.3:80", "an overlay alone"),
        (task(exposed(80), networks=(BLUE, INGRESS, RED, GATEWAY)), POLICY,
         "blue 10.0.2.3:80, red 10.0.1.3:80",
         "never ingress or docker_gwbridge"),
        (task(exposed(80), networks=(BLUE, RED)), Policy(networks=("red",)),
         "red 10.0.1.3:80, blue 10.0.2.3:80",
         "the network that the operator prefers comes first"),
        (container(exposed(80), networks=(LOCAL, RED, BRIDGE)), POLICY,
         "red 10.0.1.3:80, app_default 172.20.0.5:80, bridge 172.17.0.5:80",
         "a Swarm's network before the engine's own: it holds on every node"),
        (in_mesh(networks=(INGRESS, RED, GATEWAY)), POLICY, f"published {NODE}:8080, red 10.0.1.3:80",
         "the mesh: the node's address and the published port, IPv4 alone"),
        (in_mesh(networks=(INGRESS, GATEWAY)), POLICY, f"published {NODE}:8080",
         "the mesh alone, and no EXPOSE"),
        (task(published(80, 8081)), POLICY, f"published {NODE}:8081, red 10.0.1.3:80", "a host-mode port"),
        (in_mesh(published(80, 8081)), POLICY, f"published {NODE}:8081, red 10.0.1.3:80",
         "host mode and mesh: the one that leads to this task"),
        (in_mesh(networks=(INGRESS, RED, GATEWAY)), Policy(internal=True),
         f"published {NODE}:8080, red 10.0.1.3:80", "all are there with --internal as well"),
    ],
)  # fmt: skip
def test_addresses_of_a_task(subject: Container, policy: Policy, places: str, why: str) -> None:
    """Every address on which peers reach a task, the most wanted first."""
    known = only(subject, policy).addresses
    assert ", ".join(f"{a.network} {a.ip}:{a.port}" for a in known) == places, why


def test_labels_of_deploy_name_a_service_that_has_nothing_else() -> None:
    """SERVICE_NAME, tags and the rest work under deploy:."""
    instance = only(
        with_facts(task(exposed(80)), service(SERVICE_NAME="web", SERVICE_TAGS="a,b", SERVICE_X="y"))
    )
    assert (instance.service, instance.tags, instance.meta["x"]) == ("web", ("a", "b"), "y")


def test_a_label_of_deploy_keeps_a_service_out() -> None:
    """registrator.enable=false under deploy: is heard."""
    facts = SwarmService("svc1", "shop_web", {"registrator.enable": "false"})
    assert instances(with_facts(task(exposed(80)), facts), HOST, POLICY) == ((), ())


# Checks ---------------------------------------------------------------------

TCP = {"SERVICE_CHECK_TCP": "true"}


@pytest.mark.parametrize(
    ("subject", "target", "why"),
    [
        (task(exposed(80), labels=TCP), "172.18.0.6:80", "on an overlay: by docker_gwbridge"),
        (in_mesh(labels=TCP), "172.18.0.6:80", "in the mesh any task would answer"),
        (task(published(80, 8081), labels=TCP), f"{NODE}:8081", "host mode: where the node publishes it"),
        (in_mesh(published(80, 8081), labels=TCP), f"{NODE}:8081", "and with a mesh"),
        (task(exposed(80), labels=TCP, networks=(RED,)), "10.0.1.3:80", "internal: there is no other way"),
        (task(exposed(80), labels={**TCP, "SERVICE_IP": "10.9.9.9"}), "10.9.9.9:80", "as the operator told"),
        (container(exposed(80), labels=TCP), "172.20.0.5:80", "no Swarm: the registered address"),
    ],
)
def test_a_check_is_aimed_at_what_the_node_reaches(subject: Container, target: str, why: str) -> None:
    """The catalog's prober is on the node, and on no overlay."""
    instance = only(subject)
    assert [check.target for check in instance.checks] == [target], why


def test_http_checks_and_scripts_are_aimed_alike() -> None:
    """URL, and the address that a script is given."""
    labels = {"SERVICE_CHECK_HTTP": "/health", "SERVICE_CHECK_SCRIPT": "probe $SERVICE_IP $SERVICE_PORT"}
    instance = only(task(exposed(80), labels=labels), Policy(allow_script_checks=True))
    http, script = instance.checks
    assert http.target == "http://172.18.0.6:80/health"
    assert script.args == ("probe", "172.18.0.6", "80")
    assert (instance.address, instance.port) == ("10.0.1.3", 80)


# Views ----------------------------------------------------------------------


def test_a_task_asks_from_docker_gwbridge_and_sees_its_overlays() -> None:
    """The gateway is where its queries come from, and no network that it shares with anybody."""
    views = Views()
    views.put(task(networks=(RED, BLUE, INGRESS, GATEWAY)))
    assert views.of("172.18.0.6") == views.of("10.0.1.3") == View(frozenset((RED_ID[:12], BLUE_ID[:12])))
    assert views.of(INGRESS.ipv4) == OUTSIDE


def test_an_address_of_the_gateway_goes_with_its_container() -> None:
    """When the task is gone its address sees from outside, until the next task has it."""
    views = Views()
    first, second = task(id="1" * 64), task(id="2" * 64, networks=(BLUE, GATEWAY))
    views.put(first)
    views.put(second)
    views.drop(first.id)
    assert views.of("172.18.0.6") == View(frozenset((BLUE_ID[:12],)))
    views.drop(second.id)
    assert views.of("172.18.0.6") == OUTSIDE
