"""What the Consul of these tests holds: one or more of everything that DNS can ask for.

It is written straight into Consul's catalog (`/v1/catalog/register`), which
needs no agent for a node and no probe for a status. Names say what is
peculiar about them, so that a difference explains itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tests.support.consul import ConsulServer

JSON = dict[str, Any]

NODES: dict[str, JSON] = {
    "Node-1": {"Address": "10.1.0.1", "NodeMeta": {"os": "linux", "rfc1035-note": "hello world"}},
    "n2.lan": {
        "Address": "10.1.0.2",
        "TaggedAddresses": {"lan": "10.1.0.2", "lan_ipv4": "10.1.0.2", "wan": "203.0.113.2"},
    },
    "six": {"Address": "2001:db8::6", "NodeMeta": {"family": "6"}},
    "both": {
        "Address": "10.1.0.4",
        "TaggedAddresses": {"lan_ipv4": "10.1.0.4", "lan_ipv6": "2001:db8::4", "wan": "203.0.113.4"},
    },
    "named": {"Address": "www.example.org"},
    "under_score": {
        "Address": "10.1.0.6",
        "NodeMeta": {"long": "x" * 250, "RFC1035-Key": "value", "empty": ""},
    },
    "sick": {"Address": "10.1.0.7"},
    "closed": {"Address": "10.1.0.8"},
}

# Not serfHealth: Consul removes nodes that have it and are not in its gossip.
SICK_NODE = {"CheckID": "disk", "Name": "Disk is full", "Status": "critical"}
CLOSED_NODE = {"CheckID": "_node_maintenance", "Name": "Node Maintenance Mode", "Status": "critical"}


def service(
    name: str, number: int = 1, *, node: str = "Node-1", status: str = "passing", **fields: Any
) -> JSON:
    """Instance `number` at 10.0.0.<number>:8000 unless `fields` say otherwise, with one check."""
    ident = f"{name}-{number}"
    document = {"ID": ident, "Service": name, "Address": f"10.0.0.{number}", "Port": 8000, **fields}
    check = {"CheckID": f"{ident}:check", "Name": "alive", "Status": status, "ServiceID": ident}
    return {"Node": node, "SkipNodeUpdate": True, "Service": document, "Checks": [check]}


def proxy(destination: str, number: int, **fields: Any) -> JSON:
    """A sidecar proxy of a service in the mesh."""
    config = {"DestinationServiceName": destination}
    return service(f"{destination}-proxy", number, Kind="connect-proxy", Proxy=config, **fields)


def in_maintenance(registration: JSON) -> JSON:
    """The registration as `consul maint -enable` leaves it."""
    ident = registration["Service"]["ID"]
    check = {
        "CheckID": f"_service_maintenance:{ident}",
        "Name": "Service Maintenance Mode",
        "Status": "critical",
        "ServiceID": ident,
    }
    return {**registration, "Checks": [*registration["Checks"], check]}


def crowd(name: str, size: int) -> Iterator[JSON]:
    """Many instances on two nodes, each with an address of its own."""
    for number in range(size):
        node = ("Node-1", "n2.lan")[number % 2]
        yield service(name, number, node=node, Address=f"10.2.{number // 250}.{number % 250 + 1}")


WEB: list[JSON] = [
    service("web", 1, Tags=["Blue", "v1.2"], Weights={"Passing": 7, "Warning": 2}),
    service("web", 2, Tags=["green"], status="warning", Weights={"Passing": 7, "Warning": 2}),
    service("web", 3, Tags=["red"], status="critical"),
    service("web", 4, node="both", Tags=["tcp", "udp"], Address="2001:db8:1::4", Port=8080),
    in_maintenance(service("web", 5, Tags=["closed"])),
]

PECULIAR: list[JSON] = [
    service("solo", 9),
    service("heavy", Weights={"Passing": 65535, "Warning": 0}),
    service("light", status="warning", Weights={"Passing": 3, "Warning": 0}),
    service("down", status="critical"),
    service("warned", status="warning"),
    service("on-sick-node", node="sick"),
    service("on-closed-node", node="closed"),
    in_maintenance(service("resting")),
    service("bare", Address=""),
    service("bare", 2, node="n2.lan", Address="", Port=8001),
    service("bare-both", node="both", Address=""),
    service("bare-six", node="six", Address=""),
    service("bare-named", node="named", Address=""),
    service("bare-under", node="under_score", Address=""),
    service("six-only", Address="2001:db8:1::1"),
    service("outer", Address="www.example.org", Port=443),
    service("to-solo", Address="solo.service.consul"),
    service("to-solo-dc", Address="solo.service.dc1.consul"),
    service("to-solo-dot", Address="solo.service.consul."),
    service("to-six", Address="six-only.service.consul"),
    service("to-node", Address="node-1.node.consul"),
    service("to-none", Address="none.service.consul"),
    service("to-outer", Address="outer.service.consul"),
    service("to-to-solo", Address="to-solo.service.consul"),
    service("itself", Address="itself.service.consul"),
    service("ping", Address="pong.service.consul"),
    service("pong", Address="ping.service.consul"),
    service("same-address", 1, Port=8000),
    service("same-address", 1, node="n2.lan", Port=8001),
    service("same-port", 1),
    service("same-port", 1, node="n2.lan"),
    service("Upper", Tags=["MiXed"]),
    service("under_score", Tags=["snake_tag"]),
    service("port-0", Port=0),
    service("bare-port-0", Address="", Port=0),
    service(
        "ours", 61, Meta={"registrator-owner": "an engine"},
        TaggedAddresses={"net/0123456789ab/ipv4": {"Address": "10.0.0.61", "Port": 8000}},
    ),
    service("tagged", TaggedAddresses={"lan": {"Address": "10.9.0.1", "Port": 99}}),
    service("tagged", 2, TaggedAddresses={"wan": {"Address": "203.0.113.9", "Port": 99}}),
]  # fmt: skip

MESH: list[JSON] = [
    service("native", Connect={"Native": True}, Tags=["inmesh"]),
    proxy("web", 21, Port=21000, Tags=["blue"]),
    proxy("web", 22, Port=21000, status="critical"),
    proxy("web", 23, node="n2.lan", Address=""),
    service("gateway", 31, Kind="ingress-gateway", Port=8888),
    service("gateway", 32, node="six", Kind="ingress-gateway", Address="", Port=8888),
]  # fmt: skip

GATEWAY = {
    "Kind": "ingress-gateway",
    "Name": "gateway",
    "Listeners": [{"Port": 8888, "Protocol": "tcp", "Services": [{"Name": "solo"}]}],
}

QUERIES: list[JSON] = [
    {"Name": "find-web", "Service": {"Service": "web"}},
    {"Name": "find-passing", "Service": {"Service": "web", "OnlyPassing": True}},
    {"Name": "find-green", "Service": {"Service": "web", "Tags": ["green"]}, "DNS": {"TTL": "11s"}},
    {"Name": "find-bare", "Service": {"Service": "bare"}},
    {"Name": "find-many", "Service": {"Service": "many"}},
    {"Name": "find-none", "Service": {"Service": "nobody"}},
    {"Name": "find-down", "Service": {"Service": "down"}},
    {"Name": "find-outer", "Service": {"Service": "outer"}},
    {"Name": "find-proxy", "Service": {"Service": "web", "Connect": True}},
    {"Name": "find.dotted", "Service": {"Service": "solo"}},
    {"Name": "Find-Upper", "Service": {"Service": "solo"}},
    {"Name": "fail-over", "Service": {"Service": "nobody", "Failover": {"Datacenters": ["dc2"]}}},
    {"Name": "over-there", "Service": {"Service": "far-web", "Failover": {"Datacenters": ["dc2"]}}},
    {
        "Name": "any-",
        "Template": {"Type": "name_prefix_match", "Regexp": "^any-(.+)$"},
        "Service": {"Service": "${match(1)}"},
    },
]  # fmt: skip

FAR_NODES: dict[str, JSON] = {"far-node": {"Address": "10.3.0.1", "NodeMeta": {"where": "far"}}}

FAR: list[JSON] = [
    service("far-web", 41, node="far-node", Tags=["blue"]),
    service("far-web", 42, node="far-node", status="critical"),
    service("far-bare", node="far-node", Address=""),
    service("solo", 43, node="far-node"),
    proxy("far-web", 44, node="far-node"),
]  # fmt: skip


def registrations() -> Iterator[JSON]:
    """All services of the near datacenter."""
    yield from WEB
    yield from PECULIAR
    yield from MESH
    for name, size in (("three", 3), ("thirty", 30), ("many", 300)):
        yield from crowd(name, size)


def fill(near: ConsulServer, far: ConsulServer) -> None:
    """Write everything, to two datacenters that are joined already."""
    _register(near, NODES, registrations())
    for node, check in (("sick", SICK_NODE), ("closed", CLOSED_NODE)):
        _register(near, {}, [{"Node": node, "SkipNodeUpdate": True, "Check": check}])
    near.put("/v1/config", GATEWAY)
    _register(far, FAR_NODES, FAR)
    for query in QUERIES:
        near.post("/v1/query", query)


def _register(server: ConsulServer, nodes: Mapping[str, JSON], documents: Iterable[JSON]) -> None:
    for name, node in nodes.items():
        server.put("/v1/catalog/register", {"Node": name, **node})
    for document in documents:
        server.put("/v1/catalog/register", document)
