"""Builders for containers as tests speak of them."""

from __future__ import annotations

from typing import Any

from registrator.bridge.addresses import Host
from registrator.model import Attachment, Binding, Container, Port
from registrator.policy import Policy

HOST = Host(owner="ENGINE", name="node1", ips=("192.0.2.7", "2001:db8::7"))
POLICY = Policy()

APP = Attachment("app_default", "aaaabbbbccccddddeeee", "172.20.0.5")
DUAL = Attachment("dual", "ddddeeeeffff00001111", "172.21.0.5", "fd00:21::5")
BRIDGE = Attachment("bridge", "bbbb00001111222233334", "172.17.0.5")
INGRESS = Attachment("ingress", "1111222233334444aaaa", "10.0.0.5")


def exposed(number: int, protocol: str = "tcp") -> Port:
    return Port(number, protocol)


def published(number: int, at: int, host_ip: str = "0.0.0.0", protocol: str = "tcp") -> Port:
    return Port(number, protocol, (Binding(host_ip, at),))


def container(*ports: Port, **facts: Any) -> Container:
    """A running container "c1" of image "team/web:2" on the network app_default."""
    defaults: dict[str, Any] = {
        "id": "c" * 64,
        "name": "c1",
        "image": "registry:5000/team/web:2",
        "state": "running",
        "networks": (APP,),
        "network_mode": "app_default",
    }
    return Container(ports=ports, **{**defaults, **facts})
