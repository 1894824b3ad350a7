"""What a Swarm adds to the engine's documents -> the model's words: pure.

Services are known to managers alone (`GET /services`). A container's address
on docker_gwbridge, by which it reaches its node and its node reaches it, is in
the bridge's own document only: libnetwork attaches containers to it by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from registrator.model import GATEWAY, Attachment, Container, MeshPort, SwarmService
from registrator.shapes import (
    Malformed,
    as_address,
    as_integer,
    as_list,
    as_mapping,
    as_port_number,
    as_protocol,
    as_text,
    as_texts,
)

INGRESS = "ingress"  # a publish mode; "host" is the other one


def parse_service(document: object) -> SwarmService:
    """One element of `GET /services`. Raises `Malformed`."""
    service = as_mapping(document)
    spec = as_mapping(service.get("Spec"))
    identity = as_text(service.get("ID"))
    if not identity:
        raise Malformed("a service without an ID")
    mode, replicas = _mode(as_mapping(spec.get("Mode")))
    return SwarmService(
        id=identity,
        name=as_text(spec.get("Name")),
        labels=as_texts(spec.get("Labels")),
        mesh=tuple(sorted(_mesh(as_mapping(service.get("Endpoint"))), key=lambda p: (p.number, p.protocol))),
        mode=mode,
        replicas=replicas,
        stop_timeout=_stop_timeout(as_mapping(spec.get("TaskTemplate"))),
    )


def _mode(document: Mapping[str, object]) -> tuple[str, int]:
    """The mode as the `docker` command writes it, and the number of tasks that it asks for."""
    for key, mode, count in (
        ("Replicated", "replicated", "Replicas"),
        ("Global", "global", ""),
        ("ReplicatedJob", "replicated-job", "TotalCompletions"),
        ("GlobalJob", "global-job", ""),
    ):
        if key in document:
            return mode, as_integer(as_mapping(document[key]).get(count)) or 0
    return "", 0


def _stop_timeout(template: Mapping[str, object]) -> float | None:
    """The seconds of a service's stop_grace_period, which is in nanoseconds."""
    grace = as_integer(as_mapping(template.get("ContainerSpec")).get("StopGracePeriod"))
    return None if grace is None else grace / 1e9


def _mesh(endpoint: Mapping[str, object]) -> Iterator[MeshPort]:
    """The ports that every node publishes; those of mode "host" are in the tasks' own documents."""
    for port in map(as_mapping, as_list(endpoint.get("Ports"))):
        number, published = as_port_number(port.get("TargetPort")), as_port_number(port.get("PublishedPort"))
        protocol = as_protocol(as_text(port.get("Protocol")))
        if number and published and protocol and port.get("PublishMode", INGRESS) == INGRESS:
            yield MeshPort(number, protocol, published)


def parse_gateways(document: object) -> dict[str, Attachment]:
    """The places of containers on docker_gwbridge, by container id (`GET /networks/docker_gwbridge`)."""
    network = as_mapping(document)
    places = {}
    for container, endpoint in as_mapping(network.get("Containers")).items():
        facts = as_mapping(endpoint)
        v4, v6 = (as_text(facts.get(key)).partition("/")[0] for key in ("IPv4Address", "IPv6Address"))
        places[as_text(container)] = Attachment(
            GATEWAY, as_text(network.get("Id")), as_address(v4), as_address(v6)
        )
    return places


def with_gateway(container: Container, gateways: Mapping[str, Attachment]) -> Container:
    """A container with its place on docker_gwbridge among its networks, if it has one."""
    place = gateways.get(container.id)
    return container if place is None else replace(container, networks=(*container.networks, place))
