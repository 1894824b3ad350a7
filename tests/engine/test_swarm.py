"""What a Swarm's documents mean, and reads that many share."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from registrator.engine.parse import parse_event, parse_inspect
from registrator.engine.shared import SharedRead
from registrator.engine.swarm import parse_gateways, parse_service, with_gateway
from registrator.model import Attachment, Event, MeshPort, SwarmService
from registrator.shapes import Malformed
from tests.engine.documents import ID, event, inspected, network


def service(ports: list[Any] | None = None, **spec: Any) -> dict[str, Any]:
    """An element of `GET /services`."""
    return {"ID": "svc1", "Spec": {"Name": "shop_web", **spec}, "Endpoint": {"Ports": ports}}


def port(target: Any, published: Any, protocol: str = "tcp", mode: str = "ingress") -> dict[str, Any]:
    return {"Protocol": protocol, "TargetPort": target, "PublishedPort": published, "PublishMode": mode}


@pytest.mark.parametrize(
    ("document", "means", "why"),
    [
        (service(), {}, "a service with nothing more, and Docker's null for its ports"),
        (service(Labels={"SERVICE_NAME": "web"}), {"labels": {"SERVICE_NAME": "web"}}, "labels of deploy:"),
        (service([port(80, 8080)]), {"mesh": (MeshPort(80, "tcp", 8080),)}, "a port of the mesh"),
        (service([port(80, 8080, mode="host")]), {}, "a host-mode port is in the task's own document"),
        (service([port(80, 8080), port(53, 53, "udp"), port(53, 53)]),
         {"mesh": (MeshPort(53, "tcp", 53), MeshPort(53, "udp", 53), MeshPort(80, "tcp", 8080))}, "in order"),
        (service([port(80, 8080, "../x"), port(53, 53, "UDP")]),
         {"mesh": (MeshPort(53, "udp", 53),)}, "a protocol that is none"),
        (service([port(80, 0), port(None, 80), "odd"]), {}, "a port that is not allocated yet, and odd ones"),
        (service(Mode={"Replicated": {"Replicas": 3}}), {"mode": "replicated", "replicas": 3}, "replicated"),
        (service(Mode={"Global": {}}), {"mode": "global"}, "global: one on each node, whatever their number"),
        (service(Mode={"ReplicatedJob": {"TotalCompletions": 5}}),
         {"mode": "replicated-job", "replicas": 5}, "a job: so many tasks until it is done"),
        (service(Mode={"GlobalJob": {}}), {"mode": "global-job"}, "a job on each node"),
        (service(Mode={"Odd": {}}), {}, "a mode of times to come"),
        (service(TaskTemplate={"ContainerSpec": {"StopGracePeriod": 2_500_000_000}}),
         {"stop_timeout": 2.5}, "a grace period of its own, in nanoseconds"),
    ],
)  # fmt: skip
def test_a_service(document: object, means: dict[str, Any], why: str) -> None:
    """Labels, mesh ports, mode and replicas are taken; the rest is absent."""
    assert parse_service(document) == replace(SwarmService("svc1", "shop_web"), **means), why


def test_a_service_without_an_id_is_an_error() -> None:
    """Facts are told by the service's id."""
    with pytest.raises(Malformed, match="without an ID"):
        parse_service({"Spec": {"Name": "web"}})


@pytest.mark.parametrize("action", ["create", "update", "remove"])
def test_an_event_of_a_service_is_about_no_container(action: str) -> None:
    """It wakes the service's facts; the action tells it from a container's."""
    assert parse_event(event("service", action, "svc1")) == Event(action=f"service {action}", service="svc1")


def test_a_container_that_is_created_wakes_nobody() -> None:
    """The engine's filter lets "create" through for the sake of services."""
    assert parse_event(event("container", "create")) is None
    assert parse_event(event("network", "create")) is None


GATEWAYS = {
    "Id": "9" * 64,
    "Containers": {
        ID: {"Name": "gateway_8ef0", "IPv4Address": "172.18.0.6/16", "IPv6Address": "FD18::6/64"},
        "ingress-sbox": {"Name": "gateway_ingress-sbox", "IPv4Address": "172.18.0.2/16", "IPv6Address": ""},
    },
}


def test_a_container_behind_the_gateway_has_its_place_there() -> None:
    """Its addresses on docker_gwbridge come after the networks that its own document tells of."""
    red = network("mdpb9duv7rn5vef4ylgsq736n", "10.0.1.3")
    container = parse_inspect(inspected(networks={"red": red}))
    place = Attachment("docker_gwbridge", "9" * 64, "172.18.0.6", "fd18::6")
    assert with_gateway(container, parse_gateways(GATEWAYS)).networks == (*container.networks, place)
    assert container.networks[0].of_swarm
    assert not place.of_swarm


@pytest.mark.parametrize("document", [None, {}, {"Containers": None}, {"Containers": {"other": None}}])
def test_a_container_without_a_gateway_stays_as_it_is(document: object) -> None:
    """An internal overlay has no gateway."""
    container = parse_inspect(inspected())
    assert with_gateway(container, parse_gateways(document)) == container


async def test_callers_at_the_same_time_share_a_read_that_began_after_they_came() -> None:
    """One read is under way, the next is for all who came meanwhile."""
    begun: list[int] = []
    go_on = asyncio.Event()

    async def read() -> int:
        begun.append(len(begun))
        await go_on.wait()
        return begun[-1]

    shared = SharedRead(read)
    first = asyncio.create_task(shared())
    while not begun:
        await asyncio.sleep(0)
    others = [asyncio.create_task(shared()) for _ in range(50)]
    await asyncio.sleep(0)
    go_on.set()
    assert await first == 0
    assert await asyncio.gather(*others) == [1] * 50


async def test_a_failed_shared_read_fails_for_its_callers_alone() -> None:
    """All who wait for it are told, a caller that gave up is missed by nobody, and the next read is anew."""
    answers: list[int] = []

    async def read() -> int:
        await asyncio.sleep(0)
        if not answers:
            raise OSError("away")
        return answers.pop()

    shared = SharedRead(read)
    waiting = [asyncio.create_task(shared()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError, OSError, OSError]
    answers.append(7)
    assert await shared() == 7
