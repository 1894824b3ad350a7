"""The words of the program: frozen dataclasses shared by all rooms.

What Docker says of a container becomes a `Container`; the bridge turns it into
`Instance`s; a catalog holds them and reports them back as `Entry`s in a
`Snapshot`, which lookups read. Nothing here does I/O or knows the time.

Conventions: addresses are text in canonical form ("10.0.1.5", "fd00::5");
durations are seconds as float; ports are 0 where none is known; mappings are
never changed after construction.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

PASSING, WARNING, CRITICAL = "passing", "warning", "critical"

# The severity order in which Consul folds several checks into one status.
SEVERITY = {PASSING: 0, WARNING: 1, CRITICAL: 2}

# Meta keys that the agent writes. "registrator-owner" is the law of ownership:
# the id of the Docker engine whose containers an agent may register and reap.
META_OWNER = "registrator-owner"
META_CONTAINER = "registrator-container"
META_CHECKS = "registrator-checks"
META_SWARM = "registrator-swarm-"  # and "service", "task", "slot", "node", "stack": on Swarm tasks alone

# The bridge by which containers on a Swarm's networks reach their node and the outside.
GATEWAY = "docker_gwbridge"

SWARM_ID = 25  # characters of a Swarm object's id (base 36); an engine's own have 64 (hexadecimal)


class Failure(Exception):
    """Something outside failed. `str()` is one line to act on: what, where, what to do."""


# What Docker says ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Binding:
    """Where the node publishes a container port. `host_ip` may be "0.0.0.0" or "::".

    `mesh`: by Swarm's routing mesh, in which every node answers for any task.
    """

    host_ip: str
    host_port: int
    mesh: bool = False


@dataclass(frozen=True, slots=True)
class Port:
    """A container port, exposed or published; `bindings` is empty when only exposed."""

    number: int
    protocol: str = "tcp"
    bindings: tuple[Binding, ...] = ()


@dataclass(frozen=True, slots=True)
class Attachment:
    """A container's place on one Docker network; a family it lacks is ""."""

    network: str
    network_id: str
    ipv4: str = ""
    ipv6: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its addresses, IPv4 first."""
        return tuple(ip for ip in (self.ipv4, self.ipv6) if ip)

    @property
    def of_swarm(self) -> bool:
        """Whether the network is a Swarm's, the same on every node: its ids are shorter than an engine's."""
        return len(self.network_id) == SWARM_ID


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker's engine knows of a Swarm task, from the container's own labels."""

    service: str
    service_id: str
    task_id: str
    slot: str  # the slot's number, or the node id for a global service
    node_id: str
    stack: str = ""


@dataclass(frozen=True, slots=True)
class MeshPort:
    """A port of a service's tasks that the routing mesh publishes on every node."""

    number: int
    protocol: str
    published: int


@dataclass(frozen=True, slots=True)
class SwarmService:
    """What only a Swarm's managers know of a service (`GET /services`).

    `labels` are those under `deploy:` in a stack file. `replicas` is 0 where
    `mode` has none (global). `stop_timeout` is its stop_grace_period in
    seconds, None where it has none of its own.
    """

    id: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    mesh: tuple[MeshPort, ...] = ()
    mode: str = ""  # replicated, global, replicated-job or global-job
    replicas: int = 0
    stop_timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Container:
    """One container as `GET /containers/{id}/json` tells it."""

    id: str
    name: str
    image: str
    state: str  # created, running, paused, restarting, removing, exited or dead
    health: str = ""  # "", starting, healthy or unhealthy; "" is "no HEALTHCHECK"
    health_output: str = ""  # the last probe's own output
    exit_code: int = 0
    started: str = ""  # when, in UTC (RFC 3339, to the second); "" where that is not known
    hostname: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    networks: tuple[Attachment, ...] = ()
    network_mode: str = "bridge"  # bridge, host, none, container:<id> or a network's name
    stop_signal: int = 15
    stop_timeout: float = 10.0
    compose_service: str = ""
    compose_project: str = ""
    task: Task | None = None
    refused: tuple[Problem, ...] = ()  # what of its document is beyond a limit

    @property
    def up(self) -> bool:
        """Whether its processes exist: running, or paused."""
        return self.state in ("running", "paused")


@dataclass(frozen=True, slots=True)
class Engine:
    """What `GET /info` says of the node: who it is and its place in a Swarm."""

    id: str
    name: str
    swarm_node_id: str = ""
    swarm_address: str = ""
    manager: bool = False
    cluster_id: str = ""  # of the Swarm; only managers are told


@dataclass(frozen=True, slots=True)
class Event:
    """A wake-up from the engine: look again at this container.

    `container` is "" for "look at everything": the subscription is new, so
    events may have been missed, or (with an `action`) one could not be read.
    `signal` is set on `kill` alone. `service` is a Swarm service that changed
    (managers are told): it is about no container.
    `time` is the engine's, in seconds since 1970; 0 where it told none.
    """

    container: str = ""
    action: str = ""
    signal: int = 0
    service: str = ""
    time: float = field(default=0.0, compare=False)


# What the bridge wants ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Problem:
    """Something refused: `subject` (a label, a container), what is wrong, what to do.

    `limit` is the name of the `Limit` that was hit, "" where it was none.
    """

    subject: str
    what: str
    remedy: str
    limit: str = ""

    def __str__(self) -> str:
        return f"{self.subject}: {self.what}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Address:
    """An instance's address on one network.

    `network_id` is "" for the node's own address with the published port,
    which is reached from anywhere that reaches the node.
    """

    network: str
    network_id: str
    ip: str
    port: int

    @property
    def key(self) -> str:
        """Its key among Consul's TaggedAddresses: "<network>/<network id>/ipv4" or "…/ipv6"."""
        return f"{self.network}/{self.network_id}/{'ipv6' if ':' in self.ip else 'ipv4'}"

    @property
    def of_swarm(self) -> bool:
        """Whether the network is a Swarm's, into which there is no way but to be on it.

        Its short id has letters past "f", but for one in 17,000; then it is
        taken for an engine's own.
        """
        return bool(self.network_id.strip("0123456789abcdef"))


@dataclass(frozen=True, slots=True)
class Weights:
    """SRV weights by status (Consul's Weights)."""

    passing: int = 1
    warning: int = 1


@dataclass(frozen=True, slots=True)
class Check:
    """A health check's definition; the fields are those of Consul's check definition.

    `kind` is http, tcp, ttl, grpc, docker or script. `target` is the URL, the
    "host:port" (IPv6 bracketed), the gRPC target or the container id. `args`
    belongs to script and docker checks. `status` is the status until the
    first result. `foreign`: the target may not be the container itself, so
    nothing of what it says is shown but a status and a short reason.
    `redirects`: an HTTP check follows them, to the same host and port.
    """

    id: str
    name: str
    kind: str
    target: str = ""
    interval: float = 10.0
    timeout: float = 0.0  # 0: the catalog's own default, 10 s as in Consul
    ttl: float = 0.0
    status: str = CRITICAL
    method: str = ""
    header: tuple[tuple[str, tuple[str, ...]], ...] = ()
    body: str = ""
    args: tuple[str, ...] = ()
    shell: str = ""
    tls_skip_verify: bool = False
    grpc_use_tls: bool = False
    success_before_passing: int = 0
    failures_before_critical: int = 0
    deregister_after: float = 0.0
    foreign: bool = False
    redirects: bool = True


@dataclass(frozen=True, slots=True)
class Health:
    """What the agent itself says of an instance, through its TTL check."""

    status: str
    output: str


@dataclass(frozen=True, slots=True)
class Instance:
    """One registered address of a service: what the bridge wants in the catalog.

    `address` and `port` are the preferred ones, `addresses` all of them.
    `health` is present only where the agent owns a TTL check (Docker health,
    or a paused container); its check is then among `checks` with the id
    `health_check_id(instance.id)`. `inherits`: the id is the container's
    own default one, so what an earlier registrator left under it is taken
    over. Nothing else that is not ours is ever replaced.
    """

    id: str
    service: str
    address: str
    port: int
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict)
    addresses: tuple[Address, ...] = ()
    weights: Weights = Weights()
    checks: tuple[Check, ...] = ()
    health: Health | None = None
    enable_tag_override: bool = False
    inherits: bool = field(default=False, compare=False)

    @property
    def owner(self) -> str:
        """The id of the engine whose agent registered it; "" for a foreign service."""
        return self.meta.get(META_OWNER, "")

    @property
    def container(self) -> str:
        """The id of its container; "" for a foreign service."""
        return self.meta.get(META_CONTAINER, "")

    @property
    def reversible(self) -> tuple[str, ...]:
        """The addresses whose reverse name is this service's.

        Those on the container's own networks, and the registered one where the
        engine says that it is the container's or its node's. Not one that a
        label chose, nor that of a service that no agent registered: else
        anybody could name any address.
        """
        if not self.owner:
            return ()
        own = self.addresses
        return tuple(dict.fromkeys(a.ip for a in own if a.network_id or a.ip == self.address))


def folded(identifier: str) -> str:
    """An id as Consul's catalog compares it: without its case, each character by itself, as Go does it."""
    return identifier.lower() if identifier.isascii() else "".join(c.lower()[:1] for c in identifier)


def health_check_id(instance_id: str) -> str:
    """The id of the TTL check by which the agent reports Docker's word on an instance."""
    return f"{instance_id}:docker"


# What a catalog reports ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the catalog (a Consul agent; the Docker node itself when embedded)."""

    name: str
    address: str
    datacenter: str = "dc1"
    id: str = ""
    meta: Mapping[str, str] = field(default_factory=dict)
    tagged_addresses: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A check as the catalog reports it; `service_id` is "" for a node's check."""

    id: str
    name: str
    status: str
    output: str = ""
    notes: str = ""
    service_id: str = ""
    service: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One instance with its node and checks: an element of `/v1/health/service/<name>`.

    `instance.address` may be "": then the node's address is meant. It may
    also be a host name.
    """

    node: Node
    instance: Instance
    checks: tuple[CheckResult, ...] = ()

    @property
    def status(self) -> str:
        """The worst status among the node's and the service's checks."""
        for check in self.checks:
            if check.status != PASSING:
                return max((c.status for c in self.checks), key=lambda s: SEVERITY.get(s, 2))
        return PASSING

    @property
    def address(self) -> str:
        """The registered address, or the node's where the service has none."""
        return self.instance.address or self.node.address


@dataclass(frozen=True, slots=True)
class Service:
    """All instances of one name, healthy or not; `index` grows when they change.

    `memo` is for what readers work out of this very version; it goes away with it.
    """

    name: str
    index: int
    entries: tuple[Entry, ...]
    memo: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that lookups may read, immutable, swapped by reference.

    `names` maps every known service (lower-cased) to its tags; `services`
    holds those whose instances are loaded, by the same key. A name in `names`
    that is missing from `services` exists but must be loaded first
    (`Directory.load`). `index` grows when names, tags or nodes change.
    `datacenter` is the one that unqualified names mean; `datacenters` are all.
    """

    index: int
    names: Mapping[str, tuple[str, ...]]
    services: Mapping[str, Service]
    nodes: Mapping[str, Node]
    datacenter: str = "dc1"
    datacenters: tuple[str, ...] = ("dc1",)

    def index_of(self, service: str | None) -> int:
        """The index that a blocking query on `service` (lower-cased) has seen; None: on names and nodes.

        A service that is absent or not loaded has the snapshot's: that grew
        when it went, and its own will be above should it come back.
        """
        known = self.services.get(service) if service is not None else None
        return known.index if known else self.index


# What a Selection may be of.
SERVICE, NODE, CONNECT, INGRESS, QUERY, ADDRESS = "service", "node", "connect", "ingress", "query", "address"


@dataclass(frozen=True, slots=True)
class Selection:
    """What a catalog finds on request, as no snapshot holds it; `name` is lower-cased.

    `kind` is SERVICE or NODE (of another datacenter), CONNECT (what takes
    connections for the service in the mesh), INGRESS (the gateways to it),
    QUERY (what a prepared query finds) or ADDRESS (`name` is an IP address:
    instances that have it, see `Instance.reversible`). `datacenter` is "" for our own.
    """

    kind: str
    name: str
    datacenter: str = ""


@dataclass(frozen=True, slots=True)
class Selected:
    """What was found: instances, healthy or not (a query's are usable, in its order), or a node.

    `service` and `ttl` are a prepared query's: the service it is about, and
    the seconds that it wants as DNS TTL. `memo` is as that of a `Service`.
    """

    entries: tuple[Entry, ...] = ()
    node: Node | None = None
    service: str = ""
    ttl: int | None = None
    memo: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class View:
    """What an asker can reach beyond nodes' own addresses: the ids of its networks.

    The empty view is the asker from outside. Answers are cached per view.
    """

    networks: frozenset[str] = frozenset()


OUTSIDE = View()
