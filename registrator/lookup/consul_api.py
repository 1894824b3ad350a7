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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from registrator import limits
from registrator.lookup import consul_filter
from registrator.model import PASSING, CheckResult, Entry, Instance, Node, Service, Snapshot
from registrator.settings import join_host_port

Json = Mapping[str, object]

DEFAULT_WAIT, MAX_WAIT = 300.0, 600.0  # seconds, as in Consul
MAX_INDEX = 2**64 - 1  # an index is Go's uint64
UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
# In both a text can be read in one way only: a digit that two parts could take would make them exponential.
DURATION = re.compile(r"[+-]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+", re.ASCII)
DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)([^\d.]+)", re.ASCII)
LONGEST_TEXT = limits.HTTP_DURATION.value
MOST_VALUES = limits.HTTP_VALUES.value
LONGEST_DURATION = 2**63 / 1e9  # seconds: Go keeps a duration as int64 nanoseconds

# strconv.ParseBool; a parameter without a value means true.
TRUE = frozenset({"", "1", "t", "T", "true", "TRUE", "True"})
FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})

# Where Consul's servers are registered, with the port by which they are peers.
SERVERS = "consul"
SERVER_PORT = 8300  # of a Consul server, by default


class BadQuery(ValueError):
    """A parameter that makes no sense; `str()` is Consul's own line where it has one. Status 400."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a request asks for: `index` 0 answers at once, `wait` is in seconds, `tags` are lower-cased.

    `near` is the node whose own come first ("_agent": this agent's).
    `filter` is an expression as it was sent, `node_meta` what a node's Meta must hold.
    """

    index: int = 0
    wait: float = DEFAULT_WAIT
    passing: bool = False
    tags: frozenset[str] = frozenset()
    near: str = ""
    filter: str = ""
    node_meta: frozenset[tuple[str, str]] = frozenset()

    def wants_node(self, node: Node) -> bool:
        """Whether a node has the Meta that is asked for."""
        return self.node_meta <= node.meta.items()

    def wants(self, entry: Entry) -> bool:
        """Whether an instance has all the tags and, if asked, passes every check."""
        if (self.passing and entry.status != PASSING) or not self.wants_node(entry.node):
            return False
        return not self.tags or self.tags <= {tag.lower() for tag in entry.instance.tags}


def parse_query(parameters: Iterable[tuple[str, str]], datacenter: str) -> Query:
    """Read a query string's parameters, in their order; of those that must be one the first counts.

    Those that do not change what is answered here (`stale`, `consistent`,
    `cached`, `pretty`, `token`) are taken and ignored. Raises BadQuery.
    """
    values: dict[str, list[str]] = {}
    for name, value in parameters:
        values.setdefault(name, []).append(value)
    for name in ("tag", "node-meta"):
        if len(values.get(name, ())) > MOST_VALUES:
            raise BadQuery(f"?{name} can be given {MOST_VALUES} times at most")
    first = {name: found[0] for name, found in values.items()}
    if first.get("dc", "") not in ("", datacenter):
        raise BadQuery(f"No path to datacenter: this agent answers for {datacenter} alone")
    return Query(
        index=_parse_index(first.get("index", "")),
        wait=_parse_wait(first.get("wait", "")),
        passing="passing" in first and _parse_bool("passing", first["passing"]),
        tags=frozenset(tag.lower() for tag in values.get("tag", ())),
        near=first.get("near", "").lower(),
        filter=first.get("filter", ""),
        node_meta=frozenset(_pair(text) for text in values.get("node-meta", ())),
    )


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition(":")
    return key, value


def parse_filter(query: Query, fields: consul_filter.Fields) -> consul_filter.Test | None:
    """The test that a query's filter makes of documents with these fields, if it has one. Raises BadQuery."""
    if not query.filter:
        return None
    try:
        return consul_filter.parse(query.filter, fields)
    except consul_filter.BadFilter as error:
        raise BadQuery(f"Failed to create boolean expression evaluator: {error}") from None


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
    if len(text) > LONGEST_TEXT or not DURATION.fullmatch(text):
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


def catalog_services(snapshot: Snapshot) -> Iterator[tuple[str, list[str]]]:
    """The members of `GET /v1/catalog/services`: every name with its tags.

    A name is written as it was registered where its instances are loaded, and
    in lower case, as it is looked up, where they are not.
    """
    for name, tags in snapshot.names.items():
        loaded = snapshot.services.get(name)
        yield loaded.name if loaded else name, list(tags)


def service_on_nodes(service: Service, query: Query) -> tuple[str, list[str]] | None:
    """Such a member for the nodes that the query wants alone; None where the service is on none of them."""
    there = [entry.instance for entry in service.entries if query.wants_node(entry.node)]
    tags = dict.fromkeys(tag for instance in there for tag in instance.tags)
    return (service.name, list(tags)) if there else None


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
    return {
        "Node": catalog_node(entry.node, index),
        "Service": service(entry.instance, index),
        "Checks": [check(entry, result, index) for result in entry.checks],
    }


def agent_service(instance: Instance) -> Json:
    """A value of `GET /v1/agent/services`: an instance of the agent's own node."""
    document: dict[str, object] = {
        "ID": instance.id,
        "Service": instance.service,
        "Tags": list(instance.tags),
        "Address": instance.address,
        "Meta": dict(instance.meta),  # Consul writes null where none was sent, {} where an empty one was
        "Port": instance.port,
        "Weights": _weights(instance),
        "EnableTagOverride": instance.enable_tag_override,
    }
    if tagged := tagged_addresses(instance):
        document["TaggedAddresses"] = tagged
    return document


def service(instance: Instance, index: int) -> Json:
    """An instance as `/v1/health/service/<name>` and `/v1/catalog/node/<name>` show it."""
    return {
        **agent_service(instance),
        "Proxy": _no_proxy(),
        "Connect": {},
        "CreateIndex": index,
        "ModifyIndex": index,
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


def entries_of(snapshot: Snapshot) -> Iterator[tuple[Entry, int]]:
    """Every loaded instance, each with the index of its service."""
    for name in sorted(snapshot.services):
        found = snapshot.services[name]
        yield from ((entry, found.index) for entry in found.entries)


def checks(snapshot: Snapshot) -> Iterator[tuple[Entry, CheckResult, int]]:
    """Every check once, with an instance that shows it: a node's own are seen at all of its instances."""
    seen: set[tuple[str, str]] = set()
    for entry, index in entries_of(snapshot):
        for result in entry.checks:
            if (key := (entry.node.name, result.id)) not in seen:
                seen.add(key)
                yield entry, result, index


def peers(snapshot: Snapshot, local: Node | None) -> list[str]:
    """`GET /v1/status/peers`: Consul's servers; where there are none, the agent's own node stands for one.

    A server registers itself, with the name as its id. A container that is
    named so is not one, whoever registered it.
    """
    named = snapshot.services.get(SERVERS)
    servers = [e for e in named.entries if e.instance.id == SERVERS and not e.instance.owner] if named else []
    if servers:
        return [join_host_port(entry.address, entry.instance.port) for entry in servers]
    return [join_host_port(local.address, SERVER_PORT)] if local else []


def agent_self(snapshot: Snapshot, local: Node, version: str) -> Json:
    """`GET /v1/agent/self`: the part of it by which clients learn the datacenter and the node."""
    return {
        "Config": {
            "Datacenter": snapshot.datacenter,
            "NodeName": local.name,
            "NodeID": local.id,
            "Revision": "",
            "Server": False,
            "Version": version,
        },
        "Member": {"Name": local.name, "Addr": local.address, "Status": 1},
        "Meta": dict(local.meta),
    }


def check(entry: Entry, result: CheckResult, index: int) -> Json:
    """An element of `GET /v1/health/checks/<name>`, `/node/<name>` and `/state/<state>`."""
    return {
        "Node": entry.node.name,
        "CheckID": result.id,
        "Name": result.name,
        "Status": result.status,
        "Notes": result.notes,
        "Output": result.output,
        "ServiceID": result.service_id,
        "ServiceName": result.service,
        "ServiceTags": list(entry.instance.tags) if result.service_id else [],
        "Type": result.kind,
        "Definition": {},
        "CreateIndex": index,
        "ModifyIndex": index,
    }


def _weights(instance: Instance) -> Json:
    return {"Passing": instance.weights.passing, "Warning": instance.weights.warning}


def _no_proxy() -> Json:
    """What Consul 1.8 writes for a service that is no Connect proxy."""
    return {"MeshGateway": {}, "Expose": {}}
