"""The addresses of a container port: on each of its networks, and the node's own.

Ingress and docker_gwbridge addresses are no peer's to connect to and are left
out; so are loopback and unspecified ones.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace

from registrator.bridge.forbidden import forbidden, read_address
from registrator.bridge.labels import Wishes, short
from registrator.model import GATEWAY, Address, Attachment, Container, Instance, Port, Problem
from registrator.policy import Policy

INGRESS = "ingress"
UNREACHABLE_NETWORKS = frozenset((INGRESS, GATEWAY))
DEFAULT_BRIDGE = "bridge"
PUBLISHED = "published"  # the network's name in the node's own address
SHORT_ID = 12
MAX_ADDRESS_TEXT = 256  # characters of a label that are looked at for an address


@dataclass(frozen=True, slots=True)
class Host:
    """The Docker node on which the containers live.

    `owner` is the engine's id, `name` the node's name as Docker tells it,
    `ips` its addresses (at most one of each family) for published ports.
    `forced`: the operator gave them, so they win over a binding's own address.
    """

    owner: str
    name: str
    ips: tuple[str, ...]
    forced: bool = False


def reachable_networks(container: Container, preferred: tuple[str, ...] = ()) -> tuple[Attachment, ...]:
    """The networks on which peers reach a container, the most wanted first.

    Those that the operator prefers, in that order; then a Swarm's, which hold
    on every node, and the engine's own, each by name; the default bridge last.
    """
    rank = {name: number for number, name in enumerate(preferred)}

    def order(place: Attachment) -> tuple[int, bool, bool, str]:
        name = place.network
        return rank.get(name, len(rank)), name == DEFAULT_BRIDGE, not place.of_swarm, name

    usable = (n for n in container.networks if n.network not in UNREACHABLE_NETWORKS and n.addresses)
    return tuple(sorted(usable, key=order))


def addresses(container: Container, host: Host, policy: Policy, port: Port) -> tuple[Address, ...]:
    """Every address of a container port: the node's own first, then network by network."""
    if container.network_mode == "host":
        return tuple(Address(PUBLISHED, "", ip, port.number) for ip in host.ips)
    published = (Address(PUBLISHED, "", ip, number) for ip, number in _published(port, host))
    inside = (
        Address(n.network, n.network_id[:SHORT_ID], ip, port.number)
        for n in reachable_networks(container, policy.networks)
        for ip in n.addresses
    )
    return (*published, *inside)


def registered_address(
    container: Container, known: tuple[Address, ...], port: Port, wishes: Wishes, policy: Policy
) -> tuple[Address | None, tuple[Problem, ...]]:
    """The address that is registered as the service's own; None where there is none.

    SERVICE_IP wins, then the label that the operator named, then the network
    that the operator named; else the node's own, or with `--internal` the
    container's. A forbidden address in a label (see `forbidden`) counts only
    where the container has it anyway, as with `--ip 127.0.0.1`.
    """
    ordered = sorted(known, key=lambda a: bool(a.network_id) is not policy.internal)
    wanted = next((a for a in known if policy.ip_from_network and a.network == policy.ip_from_network), None)
    best = wanted or next(iter(ordered), None)
    told = [("SERVICE_IP", wishes.ip)]
    if policy.ip_from_label:
        # The label may hold a prefix length, as in 10.0.0.5/24.
        label = container.labels.get(policy.ip_from_label, "")[:MAX_ADDRESS_TEXT]
        told.append((policy.ip_from_label, label.partition("/")[0].strip()))
    problems: list[Problem] = []
    for subject, text in told:
        if not text:
            continue
        ip = read_address(text)
        if not ip:
            what = f"{short(text)!r} is not an IP address, it is ignored"
            problems.append(Problem(subject, what, "write one such as 10.0.0.5"))
            continue
        at = replace(best, ip=ip) if best else Address(PUBLISHED, "", ip, port.number)
        kind = forbidden(ip)
        if kind and (at.ip, at.port) not in ((a.ip, a.port) for a in known):
            what = f"{short(text)!r} is a {kind} address, which no label may set, it is ignored"
            problems.append(Problem(subject, what, "set an address at which others reach the container"))
            continue
        return at, tuple(problems)
    return best, tuple(problems)


def probed_address(container: Container, host: Host, port: Port, instance: Instance) -> tuple[str, int]:
    """Address and port at which a check meets this very container, asked from its own node.

    The node is on no overlay, and in the mesh any task answers. So a
    container on a Swarm's network is probed where its own node publishes the
    port, else on docker_gwbridge, where no peer but the node reaches it. An
    address that the operator told is left as it is.
    """
    registered = instance.address, instance.port
    gateway = next((n for n in container.networks if n.network == GATEWAY and n.addresses), None)
    if gateway is None or registered not in ((a.ip, a.port) for a in instance.addresses):
        return registered
    own = replace(port, bindings=tuple(b for b in port.bindings if not b.mesh))
    return next(iter(_published(own, host)), (gateway.addresses[0], port.number))


def is_own(container: Container, host: Host, ip: str, number: int) -> bool:
    """Whether TCP to an address and port ends in this very container, as seen from its node.

    Its own addresses, and the node's where this container publishes the port;
    in the host's network all of the node's. A Swarm's networks do not count:
    the node is not on them, and may have a route of the same numbers elsewhere.
    """
    if container.network_mode == "host":
        return ip in host.ips
    if any(ip in place.addresses and not place.of_swarm for place in container.networks):
        return True
    ports = (port for port in container.ports if port.protocol == "tcp")
    return any((ip, number) in _published(port, host) for port in ports)


def _published(port: Port, host: Host) -> list[tuple[str, int]]:
    """Where the node publishes a port, at most once for each family, IPv4 first."""
    found: dict[bool, tuple[str, int]] = {}
    for binding in port.bindings:
        bound = ipaddress.ip_address(binding.host_ip or "0.0.0.0")
        if bound.is_loopback:
            continue
        six = bound.version == 6
        own = next((ip for ip in host.ips if (":" in ip) is six), "")
        ip = own if bound.is_unspecified or (host.forced and own) else str(bound)
        if ip:
            found.setdefault(six, (ip, binding.host_port))
    return [found[six] for six in (False, True) if six in found]
