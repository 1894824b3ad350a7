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
4. Checks: those that the keys ask for, and Docker's own word on its health.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Mapping
from dataclasses import astuple, dataclass, replace

from registrator.bridge.addresses import Host, addresses, is_own, probed_address, registered_address
from registrator.bridge.bounds import beyond, clipped, gather, result_of
from registrator.bridge.checks import parse_checks
from registrator.bridge.ids import default_id, refusal
from registrator.bridge.labels import (
    MAX_META_VALUE,
    Keys,
    Wishes,
    collect_keys,
    dns_safe,
    parse_port,
    parse_wishes,
)
from registrator.bridge.naming import Tags, default_name, port_id, with_suffix
from registrator.bridge.template import Templates
from registrator.limits import ADDRESSES, CHECKS_OF_CONTAINER, INSTANCES, LABELS, SAID_OF_INSTANCES
from registrator.model import (
    CRITICAL,
    META_CHECKS,
    META_CONTAINER,
    META_OWNER,
    META_SWARM,
    PASSING,
    Check,
    Container,
    Health,
    Instance,
    Port,
    Problem,
    Task,
    health_check_id,
)
from registrator.policy import Policy, allows_name, selects

META_NAME = "registrator-name"
META_STARTED = "registrator-started"

# The TTL of the check by which the agent reports Docker's word. It is long so
# that the agent's own death or update empties no lookup; the node's death
# shows by Consul's serf check.
HEALTH_TTL = 600.0

Found = tuple[tuple[Instance, ...], tuple[Problem, ...]]


@dataclass(frozen=True, slots=True)
class _Subject:
    """All that decides what is registered of one container."""

    container: Container
    host: Host
    policy: Policy
    keys: Keys
    templates: Templates
    tags: Tags


def instances(container: Container, host: Host, policy: Policy, peer: Container | None = None) -> Found:
    """All that is to be registered of a container, and what was refused.

    `peer` is the container whose network this one shares (`container:<id>`).
    """
    return result_of(assemble(container, host, policy, peer))


def assemble(
    container: Container, host: Host, policy: Policy, peer: Container | None = None
) -> Generator[None, None, Found]:
    """Like `instances`, in short steps, so that others can have their turn after each."""
    if not container.up or not selects(policy, container.labels):
        return (), ()
    if peer is not None:
        container = _in_network_of(container, peer)
    if len(container.labels) > LABELS.value:
        return (), (beyond(LABELS, container.name, "give it fewer"),)
    problems = dict.fromkeys(container.refused)
    keys, refused = yield from collect_keys(container.env, container.labels)
    gather(problems, refused)
    if keys.of_container("ignore"):
        return (), ()
    templates = Templates(container)
    subject = _Subject(container, host, policy, keys, templates, Tags(templates, policy))
    yield
    ports, refused = _registrable(subject)
    yield
    several = len(ports) > 1
    wanted = [p for p in ports if not keys.ignores(p.number, p.protocol)]
    yield
    chosen = _few(wanted, subject, refused)
    gather(problems, refused)
    found: dict[str, Instance] = {}
    said = 0
    for port in chosen:
        yield
        refused = []
        made = yield from _of_port(subject, port, refused, several=several)
        said += sum(map(_said, made))
        room = _room_for(made, found, said, refused)
        if room:
            _add(made, found, refused)
        gather(problems, refused)
        if not room:
            break
    refused = []
    bounded = yield from _bounded(tuple(found.values()), container, refused)
    gather(problems, refused)
    return bounded, tuple(problems)


def _few(ports: list[Port], subject: _Subject, problems: list[Problem]) -> list[Port]:
    """As many ports as there may be instances: those that labels name, then published ones, by number."""
    if len(ports) <= INSTANCES.value:
        return ports
    problems.append(beyond(INSTANCES, subject.container.name, "ignore ports, or publish fewer"))
    named = {at for at, _ in zip(subject.keys.named_ports(), range(INSTANCES.value), strict=False)}
    wanted = sorted(ports, key=lambda p: ((p.number, p.protocol) not in named, not p.bindings))
    return sorted(wanted[: INSTANCES.value], key=lambda p: (p.number, p.protocol))


def _room_for(made: list[Instance], found: dict[str, Instance], said: int, problems: list[Problem]) -> bool:
    """Whether the instances of one more port are within the limits; `said` is of all of them."""
    number = len(found) + len(made)
    amounts = (
        (INSTANCES, number),
        (ADDRESSES, number * len(made[0].addresses) if made else 0),
        (SAID_OF_INSTANCES, said),
    )
    for limit, amount in amounts:
        if amount > limit.value:
            problems.append(beyond(limit, "SERVICE_*", "register fewer ports, or say less of each"))
            return False
    return True


def _said(instance: Instance) -> int:
    """How many characters of tags and metadata an instance has."""
    return sum(map(len, instance.tags)) + sum(len(key) + len(value) for key, value in instance.meta.items())


def _add(made: list[Instance], found: dict[str, Instance], problems: list[Problem]) -> None:
    """Take in the instances of one port, each id once."""
    for instance in made:
        if instance.id in found:
            remedy = "give each port an id of its own"
            problems.append(
                Problem("SERVICE_<port>_ID", f"{instance.id!r} is used twice, the second is left out", remedy)
            )
            continue
        found[instance.id] = instance


def _in_network_of(container: Container, peer: Container) -> Container:
    """A container as seen in the network namespace that it shares with its peer."""
    published = {(p.number, p.protocol): p.bindings for p in peer.ports}
    ports = tuple(replace(p, bindings=published.get((p.number, p.protocol), ())) for p in container.ports)
    return replace(container, networks=peer.networks, network_mode=peer.network_mode, ports=ports)


def _registrable(subject: _Subject) -> tuple[tuple[Port, ...], list[Problem]]:
    """The ports to register; the ignored ones are still among them, since they count for the suffix."""
    container, keys = subject.container, subject.keys
    known = {(p.number, p.protocol): p for p in container.ports}
    named = {at: known.get(at) or Port(*at) for at in keys.named_ports()}
    publishes = container.network_mode != "host" and any(p.bindings for p in container.ports)
    every = not publishes or subject.policy.internal
    ports = {at: port for at, port in known.items() if port.bindings or every} | named
    if ports:
        return tuple(ports[at] for at in sorted(ports)), []
    number, problems = parse_port(keys)
    if number or keys.of_container("name"):
        return (Port(number),), problems
    return (), problems


def _of_port(
    subject: _Subject, port: Port, problems: list[Problem], *, several: bool
) -> Generator[None, None, list[Instance]]:
    """The instances of one port: one for each name that it is given. In short steps."""
    container = subject.container
    at = subject.keys.at(port.number, port.protocol)
    wishes, refused = parse_wishes(subject.keys, port.number, port.protocol)
    problems += refused
    if subject.policy.explicit and not wishes.names:
        return []
    if several and wishes.id and not wishes.own_id:
        wishes = replace(wishes, id=f"{wishes.id}:{port_id(port)}")
    default = default_name(container, subject.policy, subject.templates, problems)
    names = _names(subject, port, wishes, default, problems, several=several)
    base = _unnamed(subject, port, _with_own_id(subject, wishes, names, problems), problems)
    if base is None:
        if wishes.names:
            problems.append(Problem(container.name, "has no address to register", "attach it to a network"))
        return []
    own = subject.host.name, container, port
    original = (
        {} if wishes.names or dns_safe(default) == default else {META_NAME: clipped(default, MAX_META_VALUE)}
    )
    named = [
        replace(
            base,
            id=f"{base.id}:{name}" if number else base.id,
            service=name,
            meta={**base.meta, **original},
            inherits=base.id == default_id(*own),
        )
        for number, name in enumerate(names)
    ]
    made = []
    for instance in named:
        yield
        made.append(_with_checks(subject, port, at, instance, problems))
    return made


def _names(
    subject: _Subject, port: Port, wishes: Wishes, default: str, problems: list[Problem], *, several: bool
) -> list[str]:
    """The names of a port that may be taken; those that may not are said."""
    names: list[str] = []
    for wanted in wishes.names or (dns_safe(default),):
        name = with_suffix(wanted, port) if wanted and several and not wishes.own_name else wanted
        if not name:
            what = Problem(subject.container.name, f"{default!r} gives no name for DNS", "set SERVICE_NAME")
            problems.append(what)
        elif not allows_name(subject.policy, name):
            remedy = "choose another name, or see --allow-names and --deny-names"
            problems.append(
                Problem(subject.container.name, f"may not take the name {name!r}, it is left out", remedy)
            )
        else:
            names.append(name)
    return names


def _with_own_id(subject: _Subject, wishes: Wishes, names: list[str], problems: list[Problem]) -> Wishes:
    """The wishes without an id that this container may not have, under any of its names."""
    if not wishes.id:
        return wishes
    refused = refusal((wishes.id, *(f"{wishes.id}:{name}" for name in names[1:])), subject.container)
    if refused is None:
        return wishes
    problems.append(refused)
    return replace(wishes, id="")


def _unnamed(subject: _Subject, port: Port, wishes: Wishes, problems: list[Problem]) -> Instance | None:
    """What all names of a port share; None where it has no address."""
    container, host = subject.container, subject.host
    known = addresses(container, host, subject.policy, port)
    preferred, refused = registered_address(container, known, port, wishes, subject.policy)
    problems += refused
    if preferred is None:
        return None
    own = {META_OWNER: host.owner, META_CONTAINER: container.id, **_swarm_meta(container.task)}
    if container.started:  # the same for the container's whole life: it costs no write of its own
        own[META_STARTED] = container.started
    return Instance(
        id=wishes.id or default_id(host.name, container, port),
        service="",
        address=preferred.ip,
        port=preferred.port,
        tags=subject.tags.of(port, wishes, problems),
        meta={**dict(subject.policy.meta), **wishes.meta, **own},
        addresses=known,
        weights=wishes.weights,
        health=docker_health(container),
        enable_tag_override=wishes.enable_tag_override,
    )


def _swarm_meta(task: Task | None) -> dict[str, str]:
    """A task's place in its Swarm, by which operators and pages can group instances."""
    if task is None:
        return {}
    place = {
        "service": task.service,
        "task": task.task_id,
        "slot": task.slot,
        "node": task.node_id,
        "stack": task.stack,
    }
    return {META_SWARM + key: clipped(value, MAX_META_VALUE) for key, value in place.items() if value}


def _with_checks(
    subject: _Subject, port: Port, at: Mapping[str, str], instance: Instance, problems: list[Problem]
) -> Instance:
    """An instance with the checks that its keys ask for, and Docker's own health."""
    ip, number = probed_address(subject.container, subject.host, port, instance)
    probed = replace(instance, address=ip, port=number)
    own = is_own(subject.container, subject.host, ip, number)
    checks, refused = parse_checks(at, probed, subject.container.id, subject.policy, own=own)
    problems += refused
    if instance.health is not None:
        checks = (*checks, _docker_check(instance.id, subject.policy))
    return _checked(instance, checks)


def _checked(instance: Instance, checks: tuple[Check, ...]) -> Instance:
    """An instance with these checks, and their digest in its Meta."""
    meta = {key: value for key, value in instance.meta.items() if key != META_CHECKS}
    return replace(instance, checks=checks, meta=meta | ({META_CHECKS: _digest(checks)} if checks else {}))


def _bounded(
    found: tuple[Instance, ...], container: Container, problems: list[Problem]
) -> Generator[None, None, tuple[Instance, ...]]:
    """The instances with as many checks as one container may have; Docker's word on its health is not one.

    In short steps.
    """
    wanted = sum(len(instance.checks) - (instance.health is not None) for instance in found)
    left = CHECKS_OF_CONTAINER.value
    if wanted <= left:
        return found
    what = f"asks for {wanted} checks, those after the first {left} are left out"
    problems.append(Problem(container.name, what, "drop some SERVICE_CHECK_ keys", CHECKS_OF_CONTAINER.name))
    bounded = []
    for instance in found:
        yield
        probes = [c for c in instance.checks if c.id != health_check_id(instance.id)]
        health = [c for c in instance.checks if c.id == health_check_id(instance.id)]
        bounded.append(_checked(instance, (*probes[:left], *health)))
        left -= len(probes[:left])
    return tuple(bounded)


def left_behind(held: Instance, reason: str, policy: Policy) -> Instance:
    """An instance that stays registered though its container is on its way out or gone: critical."""
    check = _docker_check(held.id, policy)
    meta = {**held.meta, META_CHECKS: _digest((check,))}
    return replace(held, checks=(check,), meta=meta, health=Health(CRITICAL, reason))


def _docker_check(instance_id: str, policy: Policy) -> Check:
    """The TTL check by which the agent reports Docker's word."""
    after = policy.deregister_after
    return Check(health_check_id(instance_id), "Docker health", "ttl", ttl=HEALTH_TTL, deregister_after=after)


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


def _digest(checks: Iterable[Check]) -> str:
    """A short digest of the checks' definitions, by which a change of them is seen."""
    return hashlib.blake2b(repr([astuple(c) for c in checks]).encode(), digest_size=8).hexdigest()
