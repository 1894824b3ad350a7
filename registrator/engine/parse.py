"""Docker's JSON documents -> the model's words: pure, and forgiving.

Written against API 1.41 (Docker 20.10) to 1.52 (Docker 29). An engine says
null for an empty map, and versions differ in what they leave out, so whatever
is missing or odd counts as absent. Only a document that does not say what it
is about is `Malformed`.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from signal import Signals
from typing import Any

from registrator.model import Attachment, Binding, Container, Engine, Event, Port, Task

# The actions that an agent needs, by the type of what acts (API, "Monitor events").
CONTAINER_ACTIONS = frozenset(
    ("start", "die", "kill", "pause", "unpause", "health_status", "rename", "update", "destroy")
)
NETWORK_ACTIONS = frozenset(("connect", "disconnect"))

SWARM = "com.docker.swarm."
DEFAULT_STOP_TIMEOUT = 10.0  # seconds
DEFAULT_STOP_SIGNAL, LAST_SIGNAL = 15, 64
OUTPUT_LIMIT = 500  # characters of a health check's output

_PLACE = ("NetworkID", "IPAddress", "GlobalIPv6Address")  # what matters of a container's place on a network
_HEALTH_IN_STATUS = re.compile(r"\((?:health: )?(starting|healthy|unhealthy)\)")
_SIGNAL = re.compile(
    r"(?:SIG)?(?:(?P<number>[0-9]{1,2})|(?P<name>[A-Z][A-Z0-9]*))(?P<offset>[+-][0-9]{1,2})?"
)
_LIST_START = re.compile(r"\s*\[\s*")
_LIST_NEXT = re.compile(r"\s*([,\]])\s*")


class Malformed(ValueError):
    """A document that no Docker engine writes; `str()` says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A container in a listing; `fingerprint` differs when the listing says something new of it."""

    id: str
    fingerprint: bytes


# The listing: GET /containers/json ----------------------------------------


def iterate_list(text: str) -> Iterator[Any]:
    """Decode a JSON array element by element, so that a long one can be taken in slices.

    Raises `Malformed` where it is none.
    """
    decode = json.JSONDecoder().raw_decode
    start = _LIST_START.match(text)
    if not start:
        raise Malformed("no JSON array")
    position = start.end()
    closed = text.startswith("]", position)
    while not closed:
        try:
            element, position = decode(text, position)
        except (ValueError, RecursionError):
            raise Malformed("broken JSON in a list") from None
        yield element
        separator = _LIST_NEXT.match(text, position)
        if not separator:
            raise Malformed("a JSON array without an end")
        position, closed = separator.end(), separator[1] == "]"


def parse_listed(document: object) -> Listed:
    """One element of the listing. Raises `Malformed`."""
    listed = _mapping(document)
    networks = _mapping(_mapping(listed.get("NetworkSettings")).get("Networks"))
    facts = [
        _sorted(listed.get("Names")),
        listed.get("State"),
        _listed_health(listed),
        listed.get("Labels"),
        _sorted(listed.get("Ports")),  # they come in a random order
        {name: [_mapping(network).get(key) for key in _PLACE] for name, network in networks.items()},
    ]
    canonical = json.dumps(facts, sort_keys=True).encode()
    return Listed(_id(listed), hashlib.blake2b(canonical, digest_size=16).digest())


def _listed_health(listed: Mapping[str, Any]) -> str:
    """The health part of "Up 2 minutes (healthy)", whose time goes on by itself."""
    found = _HEALTH_IN_STATUS.search(_text(listed.get("Status")))
    return found[1] if found else ""


def _sorted(value: object) -> list[str]:
    return sorted(json.dumps(element, sort_keys=True) for element in _list(value))


# One container: GET /containers/{id}/json ---------------------------------


def parse_inspect(document: object) -> Container:
    """A container's own document. Raises `Malformed`."""
    inspected = _mapping(document)
    config = _mapping(inspected.get("Config"))
    state = _mapping(inspected.get("State"))
    health = _mapping(state.get("Health"))
    settings = _mapping(inspected.get("NetworkSettings"))
    labels = _texts(config.get("Labels"))
    return Container(
        id=_id(inspected),
        name=_text(inspected.get("Name")).removeprefix("/"),
        image=_text(config.get("Image")),
        hostname=_text(config.get("Hostname")),
        state=_text(state.get("Status")),
        health=_health(health),
        health_output=_health_output(health),
        exit_code=_integer(state.get("ExitCode")) or 0,
        labels=labels,
        env=_environment(config.get("Env")),
        ports=_ports(_mapping(config.get("ExposedPorts")), _mapping(settings.get("Ports"))),
        networks=_attachments(_mapping(settings.get("Networks"))),
        network_mode=_network_mode(_mapping(inspected.get("HostConfig"))),
        stop_signal=signal_number(config.get("StopSignal")) or DEFAULT_STOP_SIGNAL,
        stop_timeout=_stop_timeout(config.get("StopTimeout")),
        compose_service=labels.get("com.docker.compose.service", ""),
        compose_project=labels.get("com.docker.compose.project", ""),
        task=_task(labels),
    )


def _health(health: Mapping[str, Any]) -> str:
    status = _text(health.get("Status"))
    return "" if status == "none" else status


def _health_output(health: Mapping[str, Any]) -> str:
    log = _list(health.get("Log"))
    return _text(_mapping(log[-1]).get("Output")).strip()[:OUTPUT_LIMIT] if log else ""


def _environment(value: object) -> dict[str, str]:
    pairs = (_text(entry).partition("=") for entry in _list(value))
    return {name: content for name, _, content in pairs if name}


def _ports(exposed: Mapping[str, Any], published: Mapping[str, Any]) -> tuple[Port, ...]:
    """The union of what the image or user exposes and what is published, by number and protocol."""
    bindings: dict[tuple[int, str], tuple[Binding, ...]] = {}
    for key in (*exposed, *published):
        number, _, protocol = key.partition("/")
        if port := _port_number(number):
            bindings[port, protocol or "tcp"] = _bindings(published.get(key))
    return tuple(Port(number, protocol, bindings[number, protocol]) for number, protocol in sorted(bindings))


def _bindings(value: object) -> tuple[Binding, ...]:
    """Where a port is published, IPv4 first; no HostIp is every IPv4 address."""
    found = set()
    for entry in map(_mapping, _list(value)):
        host = _address(entry.get("HostIp") or "0.0.0.0")
        port = _port_number(_text(entry.get("HostPort")))
        if host and port:
            found.add((":" in host, host, port))
    return tuple(Binding(host, port) for _, host, port in sorted(found))


def _attachments(networks: Mapping[str, Any]) -> tuple[Attachment, ...]:
    """The networks on which the container has an address, by name."""
    found = []
    for name, network in sorted(networks.items()):
        facts = _mapping(network)
        place = Attachment(
            name,
            _text(facts.get("NetworkID")),
            _address(facts.get("IPAddress")),
            _address(facts.get("GlobalIPv6Address")),
        )
        if place.network_id and place.addresses:
            found.append(place)
    return tuple(found)


def _network_mode(host_config: Mapping[str, Any]) -> str:
    """An engine on Linux means the bridge by "default"."""
    mode = _text(host_config.get("NetworkMode"))
    return "bridge" if mode in ("", "default") else mode


def _stop_timeout(value: object) -> float:
    """Seconds between the stop signal and SIGKILL; a negative number is Docker's "for ever"."""
    seconds = _integer(value)
    if seconds is None:
        return DEFAULT_STOP_TIMEOUT
    return float(seconds) if seconds >= 0 else math.inf


def _task(labels: Mapping[str, str]) -> Task | None:
    """The Swarm task, from the labels that the engine itself puts on a task's container.

    A task's name is "<service>.<slot or node id>.<task id>", and a service's
    own name may have dots.
    """
    service, task_id = labels.get(f"{SWARM}service.name", ""), labels.get(f"{SWARM}task.id", "")
    if not service or not task_id:
        return None
    parts = labels.get(f"{SWARM}task.name", "").rsplit(".", 2)
    return Task(
        service=service,
        service_id=labels.get(f"{SWARM}service.id", ""),
        task_id=task_id,
        slot=parts[1] if len(parts) == 3 else "",
        node_id=labels.get(f"{SWARM}node.id", ""),
        stack=labels.get("com.docker.stack.namespace", ""),
    )


# Events: GET /events ------------------------------------------------------


def parse_event(document: object) -> Event | None:
    """An event as a wake-up for its container; None for one that wakes nobody.

    Type, Action and Actor are read, since API 1.52 has no status, id and from.
    """
    event = _mapping(document)
    actor = _mapping(event.get("Actor"))
    attributes = _mapping(actor.get("Attributes"))
    action = _text(event.get("Action")).partition(":")[0]  # "health_status: healthy"
    match event.get("Type"):
        case "container" if action in CONTAINER_ACTIONS:
            container = _text(actor.get("ID"))
        case "network" if action in NETWORK_ACTIONS:
            container = _text(attributes.get("container"))
        case _:
            return None
    signum = signal_number(attributes.get("signal")) if action == "kill" else 0
    return Event(container, action, signum) if container else None


def event_time(document: object) -> str:
    """When an event happened, as the `since` of /events wants it: "seconds.nanoseconds", or ""."""
    nanoseconds = _integer(_mapping(document).get("timeNano"))
    return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}" if nanoseconds else ""


def signal_number(value: object) -> int:
    """The number of a signal told as 15, "15", "SIGTERM", "term" or "SIGRTMIN+3"; 0 for what is none."""
    told = _SIGNAL.fullmatch(str(value).upper())
    if not told:
        return 0
    base = int(told["number"] or Signals.__members__.get(f"SIG{told['name']}", 0))
    number = base + int(told["offset"] or 0)
    return number if base and 0 < number <= LAST_SIGNAL else 0


# The node: GET /info ------------------------------------------------------


def parse_info(document: object) -> Engine:
    """Who the node is. Raises `Malformed` without an id: ownership rests on it."""
    info = _mapping(document)
    swarm = _mapping(info.get("Swarm"))
    engine = Engine(
        id=_text(info.get("ID")),
        name=_text(info.get("Name")),
        swarm_node_id=_text(swarm.get("NodeID")),
        swarm_address=_address(swarm.get("NodeAddr")),
        manager=swarm.get("ControlAvailable") is True,
    )
    if not engine.id and not engine.swarm_node_id:
        raise Malformed("/info without an ID")
    return engine


# Whatever JSON may hold -> the type that is meant, or its empty value ------


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> dict[str, str]:
    return {key: content for key, content in _mapping(value).items() if isinstance(content, str)}


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


def _id(document: Mapping[str, Any]) -> str:
    if not (identity := _text(document.get("Id"))):
        raise Malformed("a container without an Id")
    return identity


def _port_number(text: str) -> int:
    """1 to 65535, or 0 for what is no port."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    return number if number <= 65535 else 0


def _address(value: object) -> str:
    """An IP address in canonical form, or "" for what is none."""
    return _canonical(_text(value))


@lru_cache(1024)  # the same few come again and again: "::", "0.0.0.0", the containers' own
def _canonical(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
