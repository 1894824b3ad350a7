"""Our own `/lookup/<name>` as pure functions: what a name means, how an instance is shown, who may ask."""

from __future__ import annotations

import ipaddress
import json
import re

from registrator.lookup.names import ServiceName, parse
from registrator.lookup.reach import reach
from registrator.lookup.records import Name, Type, to_name
from registrator.model import Address, Entry, Snapshot, View
from registrator.printable import printable
from registrator.settings import join_host_port

LONGEST_NAME = 256  # characters: DNS has no longer name, and this many with a final dot
LONGEST_HOST = 300  # characters of a Host header: a name and a port
HOST = re.compile(r"(?:\[(?P<bracketed>[^\[\]]+)\]|(?P<plain>[^\[\]:]*))(?::[0-9]*)?")


def find_service(text: str, snapshot: Snapshot, domain: Name) -> ServiceName | None:
    """The known service that a name means: plain (`redis`), or as in DNS (`[tag.]redis.service.consul`).

    A service whose own name is the whole text comes first: it may hold dots.
    """
    if text.lower() in snapshot.names:
        return ServiceName(text.lower())
    name = to_name(text) if len(text) <= LONGEST_NAME else None
    subject = parse(name, Type.A, [domain]).subject if name else None
    if not isinstance(subject, ServiceName) or subject.datacenter not in ("", snapshot.datacenter.lower()):
        return None
    return subject if subject.service in snapshot.names else None


def line(entry: Entry, view: View) -> str | None:
    """An instance in `/lookup`'s text form; None where it has no address at all."""
    address = _address(entry, view)
    return f"{printable(join_host_port(address.ip, address.port))}\n" if address else None


def document(entry: Entry, view: View) -> str | None:
    """An instance in `/lookup`'s JSON form; None where it has no address at all."""
    instance, address = entry.instance, _address(entry, view)
    if not address:
        return None
    return json.dumps(
        {
            "id": instance.id,
            "address": address.ip,
            "port": address.port,
            "network": address.network,
            "node": entry.node.name,
            "status": entry.status,
            "tags": list(instance.tags),
            "meta": dict(instance.meta),
        }
    )


def _address(entry: Entry, view: View) -> Address | None:
    """The address that this asker prefers."""
    return next(iter(reach(entry, view)), None)


def named_host(header: str) -> str | None:
    """The name in a Host header, lower-cased, without port and final dot; None for an IP address or nothing.

    What is not a host and a port (RFC 9110, 7.2) is a name that nobody has.
    """
    found = HOST.fullmatch(header) if len(header) <= LONGEST_HOST else None
    if found is None:
        return "."
    name = (found["bracketed"] or found["plain"]).removesuffix(".").lower()
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name or None
    return None


def node_names(node: str, domain: str, datacenter: str) -> frozenset[str]:
    """The DNS names of a node, lower-cased: only the node itself has them, no container can register one."""
    return frozenset(
        name.lower() for name in (node, f"{node}.node.{domain}", f"{node}.node.{datacenter}.{domain}")
    )
