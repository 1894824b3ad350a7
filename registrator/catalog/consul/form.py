"""The pure translation between the model and the JSON of Consul's HTTP API.

What comes back must equal what was sent, or the bridge's plan never gets
empty. Consul 1.8 keeps nearly all of a service definition as it was. It adds
`lan_ipv4`, `wan_ipv4` (and `_ipv6`) to the tagged addresses and reports them
as a map without order, so that an `Instance` must hold:

- `addresses` sorted by `Address.key`, at most one for each key, with Docker's
  short network id (12 characters);
- `weights.passing` of at least 1 (Consul refuses 0);
- `health.output` of at most 4096 bytes (Consul cuts what is longer).

API: /v1/agent/service/register, /v1/agent/services, /v1/agent/checks,
/v1/health/service/:service, /v1/catalog/nodes, /v1/agent/self.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from registrator.documents import Element
from registrator.duration import parse_duration
from registrator.model import (
    META_CHECKS,
    Address,
    Check,
    CheckResult,
    Entry,
    Health,
    Instance,
    Node,
    Selected,
    Weights,
    health_check_id,
)
from registrator.shapes import (
    Malformed,
    as_integer,
    as_list,
    as_mapping,
    as_port_number,
    as_text,
    as_text_list,
    as_texts,
)

JSON = Mapping[str, Any]

# A mark in Meta: checks were left out that this Consul does not run. With it a registration is not
# what the bridge wants, so that it is tried again when Consul may have another mind.
META_LEFT_OUT = "registrator-left-out"
MAX_META_VALUE = 512  # Consul's limit
MAX_DURATION = 64  # characters
COMMANDS = frozenset(("script", "docker"))

# `Address.key`; the id is "" for the node's own address. Docker's ids are hexadecimal, a Swarm's base 36.
ADDRESS_KEY = re.compile(r"(?P<network>.*)/(?P<id>[0-9a-z]{12}|)/ipv[46]", re.DOTALL)


# An id as gliderlabs/registrator writes it: `<host>:<container>:<port>`, with `:udp` where it is that.
OLD_ID = re.compile(r"[^:]+:[^:]+:[0-9]+(:udp)?")


# To Consul ------------------------------------------------------------------


def definition(instance: Instance) -> dict[str, Any]:
    """The body of PUT /v1/agent/service/register: service and checks in one document."""
    return {
        "ID": instance.id,
        "Name": instance.service,
        "Address": instance.address,
        "Port": instance.port,
        "Tags": list(instance.tags),
        "Meta": dict(instance.meta),
        "TaggedAddresses": {
            address.key: {"Address": address.ip, "Port": address.port} for address in instance.addresses
        },
        "Weights": {"Passing": instance.weights.passing, "Warning": instance.weights.warning},
        "EnableTagOverride": instance.enable_tag_override,
        "Checks": [check_definition(check, instance) for check in instance.checks],
    }


def check_definition(check: Check, instance: Instance) -> dict[str, Any]:
    """One check of the definition; the agent's own TTL check starts with the instance's health."""
    status = check.status
    if instance.health is not None and check.id == health_check_id(instance.id):
        status = instance.health.status
    common = {"CheckID": check.id, "Name": check.name, "Status": status}
    return common | _KINDS[check.kind](check) | _thresholds(check)


def duration(seconds: float) -> str:
    """A duration as Go parses it: "10s", or milliseconds where it is no whole number."""
    return f"{seconds:.0f}s" if seconds == round(seconds) else f"{seconds * 1000:.0f}ms"


def _thresholds(check: Check) -> dict[str, Any]:
    """The fields that any kind may have, without those left at Consul's default."""
    fields = {
        "SuccessBeforePassing": check.success_before_passing,
        "FailuresBeforeCritical": check.failures_before_critical,
        "DeregisterCriticalServiceAfter": check.deregister_after and duration(check.deregister_after),
    }
    return {key: value for key, value in fields.items() if value}


def _probed(check: Check) -> dict[str, Any]:
    """The fields of every check that Consul runs itself."""
    timing = {"Interval": duration(check.interval)}
    return timing | ({"Timeout": duration(check.timeout)} if check.timeout else {})


def _http(check: Check) -> dict[str, Any]:
    """An HTTP check; where Consul may be led elsewhere it keeps one octet of what comes back, its least.

    Consul inflates what is compressed unless the request says that nothing
    may be. `DisableRedirects` is known from 1.15 on, and ignored before.
    """
    confined = {"DisableRedirects": True} if not check.redirects else {}
    terse = {"OutputMaxSize": 1} if check.foreign or not check.redirects else {}
    return (
        _probed(check)
        | confined
        | terse
        | {
            "HTTP": check.target,
            "Method": check.method,
            "Header": {"Accept-Encoding": ["identity"]}
            | {name: list(values) for name, values in check.header},
            "Body": check.body,
            "TLSSkipVerify": check.tls_skip_verify,
        }
    )


def _tcp(check: Check) -> dict[str, Any]:
    return _probed(check) | {"TCP": check.target}


def _grpc(check: Check) -> dict[str, Any]:
    return _probed(check) | {
        "GRPC": check.target,
        "GRPCUseTLS": check.grpc_use_tls,
        "TLSSkipVerify": check.tls_skip_verify,
    }


def _docker(check: Check) -> dict[str, Any]:
    return _probed(check) | {
        "DockerContainerID": check.target,
        "Shell": check.shell,
        "Args": list(check.args),
    }


def _script(check: Check) -> dict[str, Any]:
    return _probed(check) | {"Args": list(check.args)}


def _ttl(check: Check) -> dict[str, Any]:
    return {"TTL": duration(check.ttl)}


_KINDS = {
    "http": _http,
    "tcp": _tcp,
    "grpc": _grpc,
    "docker": _docker,
    "script": _script,
    "ttl": _ttl,
}


def without_commands(instance: Instance) -> Instance:
    """An instance without the checks that run a command, marked as such."""
    left_out = sorted(check.id for check in instance.checks if check.kind in COMMANDS)
    checks = tuple(check for check in instance.checks if check.kind not in COMMANDS)
    return replace(
        instance, checks=checks, meta={**instance.meta, META_LEFT_OUT: " ".join(left_out)[:MAX_META_VALUE]}
    )


def unfinished(instance: Instance) -> Instance:
    """An instance marked as not yet having the checks that it is to have."""
    return replace(instance, meta={**instance.meta, META_CHECKS: "changing"})


# From Consul ----------------------------------------------------------------
#
# Whatever a document holds, these return or raise `Malformed`: see `shapes`.


def instance(document: object, health: Health | None = None) -> Instance:
    """A service as /v1/agent/services or /v1/health/service reports it; its checks are reported elsewhere."""
    service = as_mapping(document)
    identity, name = as_text(service.get("ID")), as_text(service.get("Service"))
    if not identity or not name:
        raise Malformed("is a service without an ID or a name")
    weights = as_mapping(service.get("Weights"))
    return Instance(
        id=identity,
        service=name,
        address=as_text(service.get("Address")),
        port=as_port_number(service.get("Port")),
        tags=as_text_list(service.get("Tags")),
        meta=as_texts(service.get("Meta")),
        addresses=addresses(as_mapping(service.get("TaggedAddresses"))),
        weights=Weights(_weight(weights.get("Passing")), _weight(weights.get("Warning"))),
        health=health,
        enable_tag_override=service.get("EnableTagOverride") is True,
    )


def _weight(value: object) -> int:
    number = as_integer(value)
    return 1 if number is None else number


def addresses(tagged: JSON) -> tuple[Address, ...]:
    """The addresses among a service's tagged addresses, in the model's order; other keys are ignored."""
    found = []
    for key, value in tagged.items():
        match, place = ADDRESS_KEY.fullmatch(as_text(key)), as_mapping(value)
        ip = as_text(place.get("Address"))
        if match and ip:
            found.append(Address(match["network"], match["id"], ip, as_port_number(place.get("Port"))))
    return tuple(sorted(found, key=lambda address: address.key))


def agent_service(element: Element) -> tuple[str, JSON]:
    """One member of /v1/agent/services: its id and its document, with an ID, a name and a Meta of texts.

    One that cannot be used has none but its ID: it is somebody's, and stands there.
    """
    service = as_mapping(element.value)
    sound = {
        "ID": element.key,
        "Service": as_text(service.get("Service")),
        "Meta": as_texts(service.get("Meta")),
    }
    return element.key, {**service, **sound}


def agent_check(element: Element) -> tuple[str, JSON]:
    """One member of /v1/agent/checks: its id, and its members that are texts."""
    return element.key, as_texts(element.value)


def health_of(instance_id: str, checks: Mapping[str, JSON]) -> Health | None:
    """What the agent last reported of an instance, from its own TTL check among `checks` (by id)."""
    check = checks.get(health_check_id(instance_id))
    return None if check is None else Health(as_text(check.get("Status")), as_text(check.get("Output")))


def unmarked(service: JSON) -> JSON:
    """A service without the mark of `without_commands`."""
    return {**service, "Meta": {k: v for k, v in (service.get("Meta") or {}).items() if k != META_LEFT_OUT}}


def maintenance_check_id(service_id: str) -> str:
    """The id under which Consul keeps a service's maintenance."""
    return f"_service_maintenance:{service_id}"


def node(document: object) -> Node:
    """A node as /v1/catalog/nodes and the "Node" of /v1/health/service report it."""
    facts = as_mapping(document)
    name = as_text(facts.get("Node"))
    if not name:
        raise Malformed("is a node without a name")
    return Node(
        name=name,
        address=as_text(facts.get("Address")),
        datacenter=as_text(facts.get("Datacenter")),
        id=as_text(facts.get("ID")),
        meta=as_texts(facts.get("Meta")),
        tagged_addresses=as_texts(facts.get("TaggedAddresses")),
    )


def own_node(document: JSON) -> Node:
    """The agent's own node from /v1/agent/self."""
    config, member = as_mapping(document.get("Config")), as_mapping(document.get("Member"))
    name = as_text(config.get("NodeName"))
    if not name:
        raise Malformed("its Config has no NodeName")
    return Node(
        name=name,
        address=as_text(member.get("Addr")),
        datacenter=as_text(config.get("Datacenter")),
        id=as_text(config.get("NodeID")),
        meta=as_texts(document.get("Meta")),
        tagged_addresses=as_texts(as_mapping(document.get("DebugConfig")).get("TaggedAddresses")),
    )


def check_result(document: object) -> CheckResult:
    """A check as /v1/health/service reports it; a status that is not a text is "", which is critical."""
    check = as_mapping(document)
    return CheckResult(
        id=as_text(check.get("CheckID")),
        name=as_text(check.get("Name")),
        status=as_text(check.get("Status")),
        output=as_text(check.get("Output")),
        notes=as_text(check.get("Notes")),
        service_id=as_text(check.get("ServiceID")),
        service=as_text(check.get("ServiceName")),
        kind=as_text(check.get("Type")),
    )


def entry(document: object) -> Entry:
    """One element of /v1/health/service/:service; health is told by its checks alone."""
    item = as_mapping(document)
    checks = [check for check in as_list(item.get("Checks")) if isinstance(check, Mapping)]
    return Entry(
        node=node(item.get("Node")),
        instance=instance(item.get("Service")),
        checks=tuple(map(check_result, checks)),
    )


def node_part(element: Element) -> Node | Instance | None:
    """One member of /v1/catalog/node/:node, or one of its Services."""
    if element.within == "Services":
        return instance(element.value)
    return node(element.value) if element.key == "Node" else None


def query_part(element: Element) -> Entry | tuple[str, Any]:
    """One member of /v1/query/:query/execute, or one of its Nodes."""
    return entry(element.value) if element.within == "Nodes" else (element.key, element.value)


def query_result(document: JSON, entries: tuple[Entry, ...]) -> Selected:
    """What a prepared query found; its other members are in `document`."""
    ttl = parse_duration(as_text(as_mapping(document.get("DNS")).get("TTL"))[:MAX_DURATION])
    return Selected(entries, service=as_text(document.get("Service")), ttl=None if ttl is None else int(ttl))


def named(element: Element) -> tuple[str, tuple[str, ...]]:
    """One member of /v1/catalog/services: the lower-cased name and its tags, sorted."""
    if not element.key:
        raise Malformed("is a service without a name")
    return element.key.lower(), tuple(sorted(as_text_list(element.value)))


def names(pairs: list[tuple[str, tuple[str, ...]]]) -> dict[str, tuple[str, ...]]:
    """Tags by name; services whose names differ in case alone are one, as in DNS."""
    found = dict(pairs)
    if len(found) < len(pairs):
        merged: dict[str, set[str]] = {}
        for name, tags in pairs:
            merged.setdefault(name, set()).update(tags)
        found = {name: tuple(sorted(tags)) for name, tags in merged.items()}
    return found
