"""Our own `/lookup/<name>` as pure functions: what a name means, how an instance is shown, who may ask."""

from __future__ import annotations

import ipaddress
import json

from registrator.lookup.names import ServiceName, parse
from registrator.lookup.reach import reach
from registrator.lookup.records import Name, Type, to_name
from registrator.model import Address, Entry, Snapshot, View
from registrator.settings import join_host_port

# Names that a public DNS server cannot hand out: RFC 6761, 6.3, and ICANN's private-use top-level domain.
PRIVATE_SUFFIXES = (".localhost", ".internal")


def find_service(text: str, snapshot: Snapshot, domain: Name) -> ServiceName | None:
    """The known service that a name means: plain (`redis`), or as in DNS (`[tag.]redis.service.consul`).

    A service whose own name is the whole text comes first: it may hold dots.
    """
    if text.lower() in snapshot.names:
        return ServiceName(text.lower())
    name = to_name(text)
    subject = parse(name, Type.A, [domain]).subject if name else None
    if not isinstance(subject, ServiceName) or subject.datacenter not in ("", snapshot.datacenter.lower()):
        return None
    return subject if subject.service in snapshot.names else None


def line(entry: Entry, view: View) -> str | None:
    """An instance in `/lookup`'s text form; None where it has no address at all."""
    address = _address(entry, view)
    return f"{join_host_port(address.ip, address.port)}\n" if address else None


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


def host_allowed(header: str, domain: str, hostname: str) -> bool:
    """Whether a Host header can only have been meant for this agent.

    IP addresses, names without a dot, the node's own name and names in zones
    that nobody outside can own are; any other name could be a web page's that
    points its own DNS record at us (DNS rebinding). Browsers always send the
    header, so none is fine.
    """
    name = header[1:].partition("]")[0] if header.startswith("[") else header.partition(":")[0]
    name = name.removesuffix(".").lower()
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in name or name == hostname or name.endswith((f".{domain}", *PRIVATE_SUFFIXES))
    return True
