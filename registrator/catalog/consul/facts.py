"""The pure translation between a Swarm's services and the keys of Consul's store that hold them.

`registrator/swarm/<cluster id>/<service id>` holds a JSON document:

    {"schema": 1, "id": "...", "name": "...", "labels": {...}, "mode": "replicated", "replicas": 2,
     "mesh": [{"target": 80, "protocol": "tcp", "published": 8080}], "stop_timeout": 30.0}

The last is only there where the service has one. Within a schema members are
only ever added, and unknown ones are ignored.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

from registrator.model import MeshPort, SwarmService
from registrator.shapes import Malformed, as_integer, as_mapping, as_text

PREFIX = "registrator/swarm/"
SCHEMA = 1
MAX_SECONDS = 1e9


@dataclass(frozen=True, slots=True)
class Key:
    """A key's value, and the index that a check-and-set has to name."""

    index: int
    value: str


def key(item: object) -> tuple[str, Key]:
    """One element of /v1/kv/:prefix?recurse: the key's name, and the key. Raises `Malformed`."""
    facts = as_mapping(item)
    name, index = as_text(facts.get("Key")), as_integer(facts.get("ModifyIndex"))
    if not name or index is None:
        raise Malformed("is a key without a name or an index")
    try:
        octets = base64.b64decode(as_text(facts.get("Value")))
    except ValueError:
        octets = b""  # no document of ours: it is written again
    return name, Key(index, octets.decode("utf-8", "replace"))


def encode(service: SwarmService) -> str:
    """The document of a service."""
    document: dict[str, object] = {
        "schema": SCHEMA,
        "id": service.id,
        "name": service.name,
        "labels": dict(service.labels),
        "mode": service.mode,
        "replicas": service.replicas,
        "mesh": [
            {"target": port.number, "protocol": port.protocol, "published": port.published}
            for port in service.mesh
        ],
    }
    if service.stop_timeout is not None:
        document["stop_timeout"] = service.stop_timeout
    return json.dumps(document, sort_keys=True)


def decode(text: str) -> SwarmService | None:
    """The service that a document tells of; None for one that no agent of this schema wrote."""
    try:
        document = json.loads(text)
        if document["schema"] != SCHEMA:
            return None
        service = SwarmService(
            id=document["id"],
            name=document["name"],
            labels=dict(document["labels"]),
            mesh=tuple(MeshPort(p["target"], p["protocol"], p["published"]) for p in document["mesh"]),
            mode=document["mode"],
            replicas=document["replicas"],
            stop_timeout=document.get("stop_timeout"),
        )
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return service if _is_sound(service) else None


def is_later(text: str) -> bool:
    """Whether a document is of a later schema: an agent that is newer than this one keeps it."""
    try:
        schema = json.loads(text)["schema"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return False
    return isinstance(schema, int) and schema > SCHEMA


def _is_sound(service: SwarmService) -> bool:
    """Whether all is of the type that the model says: whoever may write keys may write anything."""
    texts = [service.id, service.name, service.mode, *service.labels, *service.labels.values()]
    ports = [number for port in service.mesh for number in (port.number, port.published)]
    return (
        all(
            isinstance(text, str) and text == as_text(text)
            for text in (*texts, *(port.protocol for port in service.mesh))
        )
        and all(type(number) is int and 0 < number <= 65535 for number in ports)
        and as_integer(service.replicas) is not None
        and (service.stop_timeout is None or _is_duration(service.stop_timeout))
    )


def _is_duration(seconds: float) -> bool:
    return type(seconds) in (int, float) and 0 <= seconds <= MAX_SECONDS
