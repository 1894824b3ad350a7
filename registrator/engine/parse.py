"""Docker's JSON documents -> the model's words: pure, and forgiving.

Written against API 1.41 (Docker 20.10) to 1.52 (Docker 29). What is missing or
odd counts as absent; only a document that does not say what it is about is
`Malformed`. What a Swarm adds is in `swarm`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import compress, islice
from signal import Signals
from typing import Any

from registrator.limits import (
    BINDINGS,
    ENVIRONMENT,
    FACT_OCTETS,
    LABELS,
    NETWORKS,
    PORT_BINDINGS,
    PORTS,
    Limit,
)
from registrator.model import Attachment, Binding, Container, Engine, Event, Port, Problem, Task
from registrator.shapes import (
    Malformed,
    as_address,
    as_integer,
    as_list,
    as_mapping,
    as_port,
    as_protocol,
    as_text,
    as_texts,
)

# The actions that an agent needs, by the type of what acts (API, "Monitor events").
CONTAINER_ACTIONS = frozenset(
    ("start", "die", "kill", "pause", "unpause", "health_status", "rename", "update", "destroy")
)
NETWORK_ACTIONS = frozenset(("connect", "disconnect"))
SERVICE_ACTIONS = frozenset(("create", "update", "remove"))  # of a Swarm's services, on its managers alone

SWARM = "com.docker.swarm."
DEFAULT_STOP_TIMEOUT = 10.0  # seconds
DEFAULT_STOP_SIGNAL, LAST_SIGNAL = 15, 64
OUTPUT_LIMIT = 500  # characters of a health check's output
LONGEST_FACT = FACT_OCTETS.value

_PLACE = ("NetworkID", "IPAddress", "GlobalIPv6Address")  # what matters of a container's place on a network
_TASK = ("service.name", "service.id", "task.id", "task.name", "node.id")  # labels, after SWARM
_HEALTH_IN_STATUS = re.compile(r"\((?:health: )?(starting|healthy|unhealthy)\)")
_STARTED = re.compile(
    r"(?P<seconds>[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.[0-9]+)?Z"
)
_SIGNAL = re.compile(
    r"(?:SIG)?(?:(?P<number>[0-9]{1,2})|(?P<name>[A-Z][A-Z0-9]*))(?P<offset>[+-][0-9]{1,2})?"
)


@dataclass(frozen=True, slots=True)
class Listed:
    """A container in a listing; `fingerprint` differs when the listing says something new of it."""

    id: str
    fingerprint: bytes


# The listing: GET /containers/json ----------------------------------------


def parse_listed(document: object) -> Listed:
    """One element of the listing. Raises `Malformed`."""
    listed = as_mapping(document)
    networks = as_mapping(as_mapping(listed.get("NetworkSettings")).get("Networks"))
    facts = [
        _sorted(listed.get("Names")),
        listed.get("State"),
        _listed_health(listed),
        hash(frozenset(as_texts(listed.get("Labels")).items())),
        _listed_ports(as_list(listed.get("Ports"))),
        {name: [as_mapping(network).get(key) for key in _PLACE] for name, network in networks.items()},
    ]
    canonical = json.dumps(facts, sort_keys=True).encode()
    return Listed(_id(listed), hashlib.blake2b(canonical, digest_size=16).digest())


def _id(document: Mapping[str, Any]) -> str:
    if not (identity := as_text(document.get("Id"))):
        raise Malformed("a container without an Id")
    return identity


def _listed_health(listed: Mapping[str, Any]) -> str:
    """The health part of "Up 2 minutes (healthy)", whose time goes on by itself."""
    found = _HEALTH_IN_STATUS.search(as_text(listed.get("Status")))
    return found[1] if found else ""


def _listed_ports(ports: list[Any]) -> list[Any]:
    """The ports, which come in a random order; of very many only how many: they do not change."""
    return _sorted(ports) if len(ports) <= PORTS.value // 4 else [len(ports)]


def _sorted(value: object) -> list[str]:
    return sorted(json.dumps(element, sort_keys=True) for element in as_list(value))


# One container: GET /containers/{id}/json ---------------------------------


def parse_inspect(document: object) -> Container:
    """A container's own document. Raises `Malformed`."""
    inspected = as_mapping(document)
    config = as_mapping(inspected.get("Config"))
    state = as_mapping(inspected.get("State"))
    health = as_mapping(state.get("Health"))
    settings = as_mapping(inspected.get("NetworkSettings"))
    # One more than there may be, so that they are found to be too many.
    labels = as_texts(dict(islice(as_mapping(config.get("Labels")).items(), LABELS.value + 1)))
    exposed, published = as_mapping(config.get("ExposedPorts")), as_mapping(settings.get("Ports"))
    networks = as_mapping(settings.get("Networks"))
    name = as_text(inspected.get("Name")).removeprefix("/")
    return Container(
        id=_id(inspected),
        name=name if len(name) <= LONGEST_FACT else f"{name[: LONGEST_FACT - 13]}-{_id(inspected)[:12]}",
        image=as_text(config.get("Image"))[:LONGEST_FACT],
        hostname=as_text(config.get("Hostname"))[:LONGEST_FACT],
        state=as_text(state.get("Status")),
        health=_health(health),
        health_output=_health_output(health),
        exit_code=as_integer(state.get("ExitCode")) or 0,
        started=_started(state.get("StartedAt")),
        labels=labels,
        env=_environment(config.get("Env")),
        ports=_ports(exposed, published),
        networks=_attachments(networks),
        network_mode=_network_mode(as_mapping(inspected.get("HostConfig"))),
        stop_signal=signal_number(config.get("StopSignal")) or DEFAULT_STOP_SIGNAL,
        stop_timeout=_stop_timeout(config.get("StopTimeout")),
        compose_service=labels.get("com.docker.compose.service", "")[:LONGEST_FACT],
        compose_project=labels.get("com.docker.compose.project", "")[:LONGEST_FACT],
        task=_task(labels),
        refused=_refused(
            (PORTS, max(len(exposed), len(published))),
            (NETWORKS, len(networks)),
            (ENVIRONMENT, len(as_list(config.get("Env")))),
        ),
    )


def _refused(*counted: tuple[Limit, int]) -> tuple[Problem, ...]:
    """What there is more of than is taken in."""
    return tuple(
        Problem(
            f"its {limit.unit}",
            f"{number:,} are more than {limit.value:,}; {limit.beyond}",
            "give it fewer",
            limit.name,
        )
        for limit, number in counted
        if number > limit.value
    )


def _health(health: Mapping[str, Any]) -> str:
    status = as_text(health.get("Status"))
    return "" if status == "none" else status


def _health_output(health: Mapping[str, Any]) -> str:
    log = as_list(health.get("Log"))
    return as_text(as_mapping(log[-1]).get("Output")).strip()[:OUTPUT_LIMIT] if log else ""


def _started(value: object) -> str:
    """A time without its fraction; the year 1 is Docker's "never"."""
    told = _STARTED.fullmatch(as_text(value))
    return f"{told['seconds']}Z" if told else ""


def _environment(value: object) -> dict[str, str]:
    pairs = (as_text(entry).partition("=") for entry in as_list(value)[: ENVIRONMENT.value])
    return {name: content for name, _, content in pairs if name}


def _ports(exposed: Mapping[str, Any], published: Mapping[str, Any]) -> tuple[Port, ...]:
    """What the image or user exposes and what is published, by number and protocol; published ones first."""
    bindings: dict[tuple[int, str], tuple[Binding, ...]] = {}
    room = BINDINGS.value
    for keys in (compress(published, published.values()), published, exposed):
        for key in _first(keys) if len(bindings) < PORTS.value else ():
            number, _, text = key.partition("/")
            at = as_port(number), as_protocol(as_text(text))
            if all(at) and at not in bindings:
                bindings[at] = _bindings(as_list(published.get(key))[: min(room, PORT_BINDINGS.value)])
                room -= len(bindings[at])
    kept = sorted(bindings, key=lambda at: not bindings[at])[: PORTS.value]
    return tuple(Port(number, protocol, bindings[number, protocol]) for number, protocol in sorted(kept))


def _first(keys: Iterable[str]) -> list[str]:
    """As many ports ("80/tcp") as are taken in, by number: an engine writes them sorted as text."""
    return sorted(keys, key=len)[: PORTS.value]


def _bindings(value: object) -> tuple[Binding, ...]:
    """Where a port is published, IPv4 first; no HostIp is every IPv4 address."""
    found = set()
    for entry in map(as_mapping, as_list(value)):
        host = as_address(entry.get("HostIp") or "0.0.0.0")
        port = as_port(as_text(entry.get("HostPort")))
        if host and port:
            found.add((":" in host, host, port))
    return tuple(Binding(host, port) for _, host, port in sorted(found))


def _attachments(networks: Mapping[str, Any]) -> tuple[Attachment, ...]:
    """The networks on which the container has an address, by name."""
    found = []
    for name in sorted(networks)[: NETWORKS.value]:
        facts = as_mapping(networks[name])
        place = Attachment(
            as_text(name)[:LONGEST_FACT],
            as_text(facts.get("NetworkID"))[:LONGEST_FACT],
            as_address(facts.get("IPAddress")),
            as_address(facts.get("GlobalIPv6Address")),
        )
        if place.network_id and place.addresses:
            found.append(place)
    return tuple(found)


def _network_mode(host_config: Mapping[str, Any]) -> str:
    """An engine on Linux means the bridge by "default"."""
    mode = as_text(host_config.get("NetworkMode"))
    return "bridge" if mode in ("", "default") else mode


def _stop_timeout(value: object) -> float:
    """Seconds between the stop signal and SIGKILL; a negative number is Docker's "for ever"."""
    seconds = as_integer(value)
    if seconds is None:
        return DEFAULT_STOP_TIMEOUT
    return float(seconds) if seconds >= 0 else math.inf


def _task(labels: Mapping[str, str]) -> Task | None:
    """The Swarm task, from the labels that the engine itself puts on a task's container.

    Others may put them on theirs: `DockerEngine.inspect` asks the engine whether it is one.

    A task's name is "<service>.<slot or node id>.<task id>", and a service's
    own name may have dots.
    """
    told = {key: labels.get(f"{SWARM}{key}", "")[:LONGEST_FACT] for key in _TASK}
    if not told["service.name"] or not told["task.id"]:
        return None
    parts = told["task.name"].rsplit(".", 2)
    return Task(
        service=told["service.name"],
        service_id=told["service.id"],
        task_id=told["task.id"],
        slot=parts[1] if len(parts) == 3 else "",
        node_id=told["node.id"],
        stack=labels.get("com.docker.stack.namespace", "")[:LONGEST_FACT],
    )


# Events: GET /events ------------------------------------------------------


def parse_event(document: object) -> Event | None:
    """An event as a wake-up for its container or Swarm service; None for one that wakes nobody.

    Type, Action and Actor are read, since API 1.52 has no status, id and from.
    """
    event = as_mapping(document)
    actor = as_mapping(event.get("Actor"))
    attributes = as_mapping(actor.get("Attributes"))
    action = as_text(event.get("Action")).partition(":")[0]  # "health_status: healthy"
    match event.get("Type"):
        case "container" if action in CONTAINER_ACTIONS:
            container = as_text(actor.get("ID"))
        case "network" if action in NETWORK_ACTIONS:
            container = as_text(attributes.get("container"))
        case "service" if action in SERVICE_ACTIONS:
            return Event(action=f"service {action}", service=as_text(actor.get("ID")))
        case _:
            return None
    signum = signal_number(attributes.get("signal")) if action == "kill" else 0
    time = max(0, as_integer(event.get("timeNano")) or 0) / 1e9
    return Event(container, action, signum, time=time) if container else None


def signal_number(value: object) -> int:
    """The number of a signal told as 15, "15", "SIGTERM", "term" or "SIGRTMIN+3"; 0 for what is none."""
    text = str(value) if as_integer(value) is not None else as_text(value)
    told = _SIGNAL.fullmatch(text.upper())
    if not told:
        return 0
    base = int(told["number"] or Signals.__members__.get(f"SIG{told['name']}", 0))
    number = base + int(told["offset"] or 0)
    return number if base and 0 < number <= LAST_SIGNAL else 0


# The node: GET /info ------------------------------------------------------


def parse_info(document: object) -> Engine:
    """Who the node is. Raises `Malformed` without an id: ownership rests on it."""
    info = as_mapping(document)
    swarm = as_mapping(info.get("Swarm"))
    engine = Engine(
        id=as_text(info.get("ID")),
        name=as_text(info.get("Name")),
        swarm_node_id=as_text(swarm.get("NodeID")),
        swarm_address=as_address(swarm.get("NodeAddr")),
        manager=swarm.get("ControlAvailable") is True,
        cluster_id=as_text(as_mapping(swarm.get("Cluster")).get("ID")),
    )
    if not engine.id and not engine.swarm_node_id:
        raise Malformed("/info without an ID")
    return engine
