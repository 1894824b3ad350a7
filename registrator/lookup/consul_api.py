"""Consul's read API as pure functions: its parameters in, its JSON documents and headers out.

Shapes and words are those of Consul 1.8.7 (`/v1/catalog/...`, `/v1/health/...`),
so that a client made for Consul can be pointed at the agent; a test compares
them key by key with a real one. The catalog tells one index per service, not
per record: CreateIndex and ModifyIndex both carry it, which is right for what
clients do with them (compare, or ignore).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from registrator.model import PASSING, CheckResult, Entry, Instance, Node, Snapshot

Json = Mapping[str, object]

DEFAULT_WAIT, MAX_WAIT = 300.0, 600.0  # seconds, as in Consul
MAX_INDEX = 2**64 - 1  # an index is Go's uint64
UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
DURATION = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h))+", re.ASCII)
DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(\D+)", re.ASCII)
LONGEST_DURATION = 2**63 / 1e9  # seconds: Go keeps a duration as int64 nanoseconds

# strconv.ParseBool; a parameter without a value means true.
TRUE = frozenset({"", "1", "t", "T", "true", "TRUE", "True"})
FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})

# Parameters that would change the answer: to ignore one would be to answer wrongly.
UNSUPPORTED = ("filter", "node-meta")


class BadQuery(ValueError):
    """A parameter that makes no sense; `str()` is Consul's own line where it has one. Status 400."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a request asks for: `index` 0 answers at once, `wait` is in seconds, `tags` are lower-cased."""

    index: int = 0
    wait: float = DEFAULT_WAIT
    passing: bool = False
    tags: frozenset[str] = frozenset()

    def wants(self, entry: Entry) -> bool:
        """Whether an instance has all the tags and, if asked, passes every check."""
        if self.passing and entry.status != PASSING:
            return False
        return not self.tags or self.tags <= {tag.lower() for tag in entry.instance.tags}


def parse_query(parameters: Iterable[tuple[str, str]], datacenter: str) -> Query:
    """Read a query string's parameters, in their order; of those that must be one the first counts.

    Those that do not change what is answered here (`stale`, `consistent`,
    `cached`, `near`, `pretty`, `token`) are taken and ignored. Raises BadQuery.
    """
    values: dict[str, list[str]] = {}
    for name, value in parameters:
        values.setdefault(name, []).append(value)
    first = {name: found[0] for name, found in values.items()}
    for name in UNSUPPORTED:
        if first.get(name):
            raise BadQuery(f"this agent does not support ?{name}; filter the answer, or ask Consul itself")
    if first.get("dc", "") not in ("", datacenter):
        raise BadQuery(f"No path to datacenter: this agent answers for {datacenter} alone")
    return Query(
        index=_parse_index(first.get("index", "")),
        wait=_parse_wait(first.get("wait", "")),
        passing="passing" in first and _parse_bool("passing", first["passing"]),
        tags=frozenset(tag.lower() for tag in values.get("tag", ())),
    )


def _parse_index(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(MAX_INDEX)) or int(text) > MAX_INDEX:
        raise BadQuery("Invalid index")
    return int(text)


def _parse_wait(text: str) -> float:
    """A Go duration, held between 0 and Consul's longest wait; none or not above 0 is the default."""
    if text in ("", "0", "+0", "-0"):
        return DEFAULT_WAIT
    if not DURATION.fullmatch(text):
        raise BadQuery("Invalid wait time")
    seconds = sum(float(number) * UNITS[unit] for number, unit in DURATION_PART.findall(text.lstrip("+-")))
    if seconds >= LONGEST_DURATION:
        raise BadQuery("Invalid wait time")
    if text.startswith("-") or not seconds:
        return DEFAULT_WAIT
    return min(seconds, MAX_WAIT)


def _parse_bool(name: str, text: str) -> bool:
    if text not in TRUE | FALSE:
        raise BadQuery(f"Invalid value for ?{name}")
    return text in TRUE


def headers(index: int, age: float) -> dict[str, str]:
    """The headers of a read: the index for the next blocking query, and how old the answer may be.

    `age` is in seconds, the header in milliseconds. A catalog that is out of
    contact knows no leader.
    """
    return {
        "X-Consul-Index": str(max(index, 1)),  # 0 would make a client poll without a pause
        "X-Consul-KnownLeader": "false" if age else "true",
        "X-Consul-LastContact": str(round(age * 1000)),
    }


def catalog_services(snapshot: Snapshot) -> dict[str, list[str]]:
    """`GET /v1/catalog/services`: every name with its tags.

    A name is written as it was registered where its instances are loaded, and
    in lower case, as it is looked up, where they are not.
    """
    documents: dict[str, list[str]] = {}
    for name, tags in snapshot.names.items():
        service = snapshot.services.get(name)
        documents[service.name if service else name] = list(tags)
    return documents


def catalog_node(node: Node, index: int) -> Json:
    """An element of `GET /v1/catalog/nodes`, and `Node` in `/v1/health/service/<name>`."""
    return {
        "ID": node.id,
        "Node": node.name,
        "Address": node.address,
        "Datacenter": node.datacenter,
        "TaggedAddresses": dict(node.tagged_addresses),
        "Meta": dict(node.meta),
        "CreateIndex": index,
        "ModifyIndex": index,
    }


def catalog_service(entry: Entry, index: int) -> Json:
    """An element of `GET /v1/catalog/service/<name>`: a node and a service in one flat document."""
    node, instance = entry.node, entry.instance
    document: dict[str, object] = {
        "ID": node.id,
        "Node": node.name,
        "Address": node.address,
        "Datacenter": node.datacenter,
        "TaggedAddresses": dict(node.tagged_addresses),
        "NodeMeta": dict(node.meta),
        "ServiceKind": "",
        "ServiceID": instance.id,
        "ServiceName": instance.service,
        "ServiceTags": list(instance.tags),
        "ServiceAddress": instance.address,
        "ServiceWeights": _weights(instance),
        "ServiceMeta": dict(instance.meta),
        "ServicePort": instance.port,
        "ServiceEnableTagOverride": instance.enable_tag_override,
        "ServiceProxy": _no_proxy(),
        "ServiceConnect": {},
        "CreateIndex": index,
        "ModifyIndex": index,
    }
    if tagged := tagged_addresses(instance):  # Consul leaves an empty one out
        document["ServiceTaggedAddresses"] = tagged
    return document


def health_service(entry: Entry, index: int) -> Json:
    """An element of `GET /v1/health/service/<name>`: node, service, and the checks of both."""
    instance = entry.instance
    service: dict[str, object] = {
        "ID": instance.id,
        "Service": instance.service,
        "Tags": list(instance.tags),
        "Address": instance.address,
        "Meta": dict(instance.meta),  # Consul writes null where none was sent, {} where an empty one was
        "Port": instance.port,
        "Weights": _weights(instance),
        "EnableTagOverride": instance.enable_tag_override,
        "Proxy": _no_proxy(),
        "Connect": {},
        "CreateIndex": index,
        "ModifyIndex": index,
    }
    if tagged := tagged_addresses(instance):
        service["TaggedAddresses"] = tagged
    return {
        "Node": catalog_node(entry.node, index),
        "Service": service,
        "Checks": [_check(entry, check, index) for check in entry.checks],
    }


def tagged_addresses(instance: Instance) -> dict[str, Json]:
    """A service's TaggedAddresses: one for each network, and the two that Consul adds by itself.

    Consul adds `lan_ipv4` and `wan_ipv4` (or `_ipv6`) where the registered
    address is an IP address.
    """
    tagged: dict[str, Json] = {
        address.key: {"Address": address.ip, "Port": address.port} for address in instance.addresses
    }
    try:
        family = ipaddress.ip_address(instance.address).version
    except ValueError:
        return tagged
    own = {"Address": instance.address, "Port": instance.port}
    return {f"lan_ipv{family}": own, f"wan_ipv{family}": own} | tagged


def _check(entry: Entry, check: CheckResult, index: int) -> Json:
    return {
        "Node": entry.node.name,
        "CheckID": check.id,
        "Name": check.name,
        "Status": check.status,
        "Notes": check.notes,
        "Output": check.output,
        "ServiceID": check.service_id,
        "ServiceName": check.service,
        "ServiceTags": list(entry.instance.tags) if check.service_id else [],
        "Type": check.kind,
        "Definition": {},
        "CreateIndex": index,
        "ModifyIndex": index,
    }


def _weights(instance: Instance) -> Json:
    return {"Passing": instance.weights.passing, "Warning": instance.weights.warning}


def _no_proxy() -> Json:
    """What Consul 1.8 writes for a service that is no Connect proxy."""
    return {"MeshGateway": {}, "Expose": {}}
