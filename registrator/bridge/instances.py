"""Container -> Instances: which ports are registered, under which names, at which addresses.

The rules, in the order in which they are applied:

1. Ports. Those that the node publishes; with `--internal`, or where none is
   published, every exposed port. A port that the labels name counts too. A
   container that names its service and has no port is registered with
   SERVICE_PORT, or port 0.
2. Name. SERVICE_NAME, else the Swarm service, else the Compose service, else
   the image's base name; with several ports `-<port>` follows, unless the
   port's own key gave the name (as gliderlabs/registrator has it).
3. Addresses. One on every network of the container, and the node's own with the
   published port; the preferred one is what Consul shows as Address.

Ingress and docker_gwbridge addresses are nobody's to connect to and are left
out; so are loopback and unspecified ones.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace

from registrator.bridge.checks import parse_checks
from registrator.bridge.labels import Keys, Wishes, dns_safe, parse_keys, parse_port, parse_wishes
from registrator.model import (
    CRITICAL,
    META_CHECKS,
    META_CONTAINER,
    META_OWNER,
    PASSING,
    Address,
    Attachment,
    Check,
    Container,
    Health,
    Instance,
    Port,
    Problem,
    health_check_id,
)

UNREACHABLE_NETWORKS = frozenset(("ingress", "docker_gwbridge"))
DEFAULT_BRIDGE = "bridge"
PUBLISHED = "published"  # the network's name in the node's own address
SHORT_ID = 12
META_NAME = "registrator-name"

# The TTL of the check by which the agent reports Docker's word. It is long so
# that the agent's own death or update empties no lookup; the node's death
# shows by Consul's serf check.
HEALTH_TTL = 600.0


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


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator decides about registration."""

    internal: bool = False
    explicit: bool = False


Found = tuple[tuple[Instance, ...], tuple[Problem, ...]]


@dataclass(frozen=True, slots=True)
class _Subject:
    """All that decides what is registered of one container."""

    container: Container
    host: Host
    policy: Policy
    keys: Keys


def instances(container: Container, host: Host, policy: Policy, peer: Container | None = None) -> Found:
    """All that is to be registered of a container, and what was refused.

    `peer` is the container whose network this one shares (`container:<id>`).
    """
    if not container.up:
        return (), ()
    if peer is not None:
        container = _in_network_of(container, peer)
    keys, problems = parse_keys(container.env, container.labels)
    if keys.of_container("ignore"):
        return (), ()
    subject = _Subject(container, host, policy, keys)
    ports, port_problems = _registrable(subject)
    problems += port_problems
    found: dict[str, Instance] = {}
    for port in ports:
        if keys.ignores(port.number, port.protocol):
            continue
        for instance in _of_port(subject, port, problems, several=len(ports) > 1):
            if instance.id in found:
                remedy = "give each port an id of its own"
                problems.append(
                    Problem(
                        "SERVICE_<port>_ID", f"{instance.id!r} is used twice, the second is left out", remedy
                    )
                )
                continue
            found[instance.id] = instance
    return tuple(found.values()), tuple(dict.fromkeys(problems))


def reachable_networks(container: Container) -> tuple[Attachment, ...]:
    """The networks on which peers reach a container, the preferred one first."""
    usable = (n for n in container.networks if n.network not in UNREACHABLE_NETWORKS and n.addresses)
    return tuple(sorted(usable, key=lambda n: (n.network == DEFAULT_BRIDGE, n.network)))


def _in_network_of(container: Container, peer: Container) -> Container:
    """A container as seen in the network namespace that it shares with its peer."""
    published = {(p.number, p.protocol): p.bindings for p in peer.ports}
    ports = tuple(replace(p, bindings=published.get((p.number, p.protocol), ())) for p in container.ports)
    return replace(container, networks=peer.networks, network_mode=peer.network_mode, ports=ports)


def _registrable(subject: _Subject) -> tuple[tuple[Port, ...], list[Problem]]:
    """The ports to register; the ignored ones are still among them, since they count for the suffix."""
    container, keys = subject.container, subject.keys
    known = {(p.number, p.protocol): p for p in container.ports}
    named = [known.get(at) or Port(*at) for at in keys.named_ports()]
    publishes = container.network_mode != "host" and any(p.bindings for p in container.ports)
    chosen = [p for p in container.ports if p.bindings or not publishes or subject.policy.internal]
    ports = tuple(sorted({*chosen, *named}, key=lambda p: (p.number, p.protocol)))
    if ports:
        return ports, []
    number, problems = parse_port(keys)
    if number or keys.of_container("name"):
        return (Port(number),), problems
    return (), problems


def _of_port(subject: _Subject, port: Port, problems: list[Problem], *, several: bool) -> list[Instance]:
    """The instances of one port: one for each name that it is given."""
    container = subject.container
    wishes, refused = parse_wishes(subject.keys, port.number, port.protocol)
    problems += refused
    if subject.policy.explicit and not wishes.names:
        return []
    if several and wishes.id and not wishes.own_id:
        wishes = replace(wishes, id=f"{wishes.id}:{_port_id(port)}")
    base = _unnamed(subject, port, wishes, problems)
    if base is None:
        if wishes.names:
            problems.append(Problem(container.name, "has no address to register", "attach it to a network"))
        return []
    default = _default_name(container)
    named: list[Instance] = []
    for wanted in wishes.names or (dns_safe(default),):
        if not wanted:
            problems.append(Problem(container.name, f"{default!r} gives no name for DNS", "set SERVICE_NAME"))
            continue
        name = _with_suffix(wanted, port) if several and not wishes.own_name else wanted
        original = {} if wishes.names or wanted == default else {META_NAME: default}
        named.append(
            replace(
                base,
                id=f"{base.id}:{name}" if named else base.id,
                service=name,
                meta={**base.meta, **original},
            )
        )
    return [_with_checks(subject, port, instance, problems) for instance in named]


def _unnamed(subject: _Subject, port: Port, wishes: Wishes, problems: list[Problem]) -> Instance | None:
    """What all names of a port share; None where it has no address."""
    container, host = subject.container, subject.host
    addresses = _addresses(container, host, port)
    preferred = _preferred(addresses, port, wishes, subject.policy, problems)
    if preferred is None:
        return None
    tags = (*wishes.tags, "udp") if port.protocol == "udp" else wishes.tags
    return Instance(
        id=wishes.id or _instance_id(host, container, port),
        service="",
        address=preferred.ip,
        port=preferred.port,
        tags=tuple(sorted(set(tags))),
        meta={**wishes.meta, META_OWNER: host.owner, META_CONTAINER: container.id},
        addresses=addresses,
        weights=wishes.weights,
        health=docker_health(container),
        enable_tag_override=wishes.enable_tag_override,
    )


def _with_checks(subject: _Subject, port: Port, instance: Instance, problems: list[Problem]) -> Instance:
    """An instance with the checks that its keys ask for, and Docker's own health."""
    keys = subject.keys.at(port.number, port.protocol)
    checks, refused = parse_checks(keys, instance.id, instance.address, instance.port)
    problems += refused
    if instance.health is not None:
        checks = (*checks, Check(health_check_id(instance.id), "Docker health", "ttl", ttl=HEALTH_TTL))
    if not checks:
        return instance
    return replace(instance, checks=checks, meta={**instance.meta, META_CHECKS: _digest(checks)})


def docker_health(container: Container) -> Health | None:
    """What Docker says of a container's health; None where it says nothing (no HEALTHCHECK)."""
    if container.state == "paused":
        return Health(CRITICAL, f"paused; `docker unpause {container.name}` brings it back")
    if not container.health:
        return None
    if container.health == "healthy":
        return Health(PASSING, container.health_output or "healthy")
    if container.health == "starting":
        return Health(CRITICAL, "starting: its HEALTHCHECK has not passed yet")
    return Health(CRITICAL, container.health_output or "unhealthy")


def _addresses(container: Container, host: Host, port: Port) -> tuple[Address, ...]:
    """Every address of a container port: the node's own first, then network by network."""
    if container.network_mode == "host":
        return tuple(Address(PUBLISHED, "", ip, port.number) for ip in host.ips)
    published = (Address(PUBLISHED, "", ip, number) for ip, number in _published(port, host))
    inside = (
        Address(n.network, n.network_id[:SHORT_ID], ip, port.number)
        for n in reachable_networks(container)
        for ip in n.addresses
    )
    return (*published, *inside)


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


def _preferred(
    addresses: tuple[Address, ...], port: Port, wishes: Wishes, policy: Policy, problems: list[Problem]
) -> Address | None:
    """The address that is registered as the service's own; None where there is none."""
    ordered = sorted(addresses, key=lambda a: bool(a.network_id) is not policy.internal)
    best = next(iter(ordered), None)
    if not wishes.ip:
        return best
    try:
        ip = str(ipaddress.ip_address(wishes.ip))
    except ValueError:
        problems.append(
            Problem("SERVICE_IP", f"{wishes.ip[:40]!r} is no IP address", "write one such as 10.0.0.5")
        )
        return best
    return replace(best, ip=ip) if best else Address(PUBLISHED, "", ip, port.number)


def _default_name(container: Container) -> str:
    if container.task is not None:
        return container.task.service
    return container.compose_service or _image_name(container.image)


def _image_name(image: str) -> str:
    """The base name of an image: "registry:5000/team/redis:7@sha256:..." is "redis"."""
    return image.rpartition("/")[2].partition("@")[0].partition(":")[0]


def _with_suffix(name: str, port: Port) -> str:
    suffix = f"-{port.number}"
    return name and dns_safe(name)[: 63 - len(suffix)].rstrip("-") + suffix


def _instance_id(host: Host, container: Container, port: Port) -> str:
    """`<host>:<container name>:<port>[:udp]`, as gliderlabs/registrator writes it."""
    return f"{host.name}:{container.name}:{_port_id(port)}"


def _port_id(port: Port) -> str:
    return str(port.number) if port.protocol == "tcp" else f"{port.number}:{port.protocol}"


def _digest(checks: Iterable[Check]) -> str:
    """A short digest of the checks' definitions, by which a change of them is seen."""
    return hashlib.blake2b(repr([astuple(c) for c in checks]).encode(), digest_size=8).hexdigest()
