"""Builders of Docker's documents: each says only what its test is about."""

from __future__ import annotations

from typing import Any

ID = "4f66ad9e0b2c"
LABELS = {
    "com.docker.swarm.service.name": "shop_web.front",
    "com.docker.swarm.service.id": "svc1",
    "com.docker.swarm.task.id": "task1",
    "com.docker.swarm.task.name": "shop_web.front.3.task1",
    "com.docker.swarm.node.id": "node1",
    "com.docker.stack.namespace": "shop",
}


def inspected(
    *,
    config: dict[str, Any] | None = None,
    state: dict[str, Any] | None = None,
    ports: dict[str, Any] | None = None,
    networks: dict[str, Any] | None = None,
    network_mode: str = "bridge",
) -> dict[str, Any]:
    """`GET /containers/{id}/json`, with Docker's own nulls."""
    return {
        "Id": ID,
        "Name": "/web",
        "State": {"Status": "running", "ExitCode": 0, **(state or {})},
        "Config": {
            "Image": "nginx:1",
            "Labels": None,
            "Env": None,
            "ExposedPorts": None,
            "StopSignal": None,
            **(config or {}),
        },
        "HostConfig": {"NetworkMode": network_mode},
        "NetworkSettings": {"Ports": ports, "Networks": networks},
    }


def listed(**changes: Any) -> dict[str, Any]:
    """An element of `GET /containers/json`."""
    return {
        "Id": ID,
        "Names": ["/web"],
        "Image": "nginx:1",
        "State": "running",
        "Status": "Up 2 minutes (healthy)",
        "Labels": {"SERVICE_NAME": "web"},
        "Ports": [
            {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        ],
        "NetworkSettings": {"Networks": {"bridge": network("n1", "172.17.0.2")}},
        **changes,
    }


def network(network_id: str, ipv4: str = "", ipv6: str = "") -> dict[str, Any]:
    """A container's endpoint on a network."""
    return {
        "NetworkID": network_id,
        "IPAddress": ipv4,
        "GlobalIPv6Address": ipv6,
        "Gateway": "",
        "Aliases": None,
    }


def event(kind: str, action: str, actor: str = ID, **attributes: str) -> dict[str, Any]:
    """An event as API 1.52 tells it: without status, id and from."""
    return {
        "Type": kind,
        "Action": action,
        "Actor": {"ID": actor, "Attributes": attributes},
        "scope": "local",
        "time": 1795201557,
        "timeNano": 1795201557000000042,
    }
