"""From a DNS name to what it means, by Consul's grammar, and back. Pure.

The labels left of the zone are read from the right for the first that says a
kind (service, node, addr, ...): left of it stands the name, right of it the
datacenter. Comparison ignores case; a label that holds a dot names nothing
here, so that names joined by dots are never ambiguous. Outside the zone only
reverse names (in-addr.arpa, ip6.arpa) mean something and, where the operator
wants bare names, one label alone: it may be a service's name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from registrator.lookup.records import MAX_NAME, Name, Type, lowered, to_name, wire_length

HEXADECIMAL = frozenset(bytes((digit,)) for digit in b"0123456789abcdef")
KINDS = frozenset({"service", "connect", "ingress", "virtual", "node", "query", "addr"})


@dataclass(frozen=True, slots=True)
class Outside:
    """A name that is not in our zone."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """A name in the zone that cannot exist."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A zone transfer (AXFR)."""


@dataclass(frozen=True, slots=True)
class Authority:
    """SOA or NS, which Consul answers for any name in its zone."""


@dataclass(frozen=True, slots=True)
class ServiceName:
    """A service, narrowed to a tag unless `tag` is ""; all lower-cased, as is `datacenter`.

    `datacenter` is "" for the one that unqualified names mean.
    """

    service: str
    tag: str = ""
    datacenter: str = ""


@dataclass(frozen=True, slots=True)
class MeshName:
    """A service as the mesh reaches it: `kind` is "connect" (its proxies) or "ingress" (gateways to it)."""

    kind: str
    service: str
    datacenter: str = ""


@dataclass(frozen=True, slots=True)
class QueryName:
    """A prepared query, by its name (which may hold dots) or id."""

    query: str
    datacenter: str = ""


@dataclass(frozen=True, slots=True)
class ReverseName:
    """An IP address, in canonical form, whose name is asked."""

    ip: str


@dataclass(frozen=True, slots=True)
class NodeName:
    """A node of the catalog."""

    node: str
    datacenter: str = ""


@dataclass(frozen=True, slots=True)
class AddressName:
    """IP addresses written in hexadecimal, 4 or 16 octets each: one, or the two of a dual-stack instance."""

    addresses: tuple[bytes, ...]


Subject = (
    Outside
    | Nothing
    | Transfer
    | Authority
    | ServiceName
    | MeshName
    | QueryName
    | NodeName
    | AddressName
    | ReverseName
)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: the name as it was written, the type's number, and what the name means.

    `domain` is the zone that the name is in, lower-cased: of those that are
    ours the one that it ends with, and the first for a name outside.
    """

    name: Name
    qtype: int
    subject: Subject
    domain: Name

    @property
    def is_bare(self) -> bool:
        """Whether the name is one label, to be read as a service's if there is one of that name."""
        return len(self.name) == 1 and isinstance(self.subject, ServiceName)


def parse(name: Name, qtype: int, domains: Sequence[Name], *, bare: bool = False) -> Question:
    """Understand a name of any octets; `domains` are our zones, lower-cased, at least one. Never raises.

    `bare` lets one label alone be a service's name.
    """
    domain = max((d for d in domains if _ends(name, d)), key=len, default=None)
    if domain is None:
        subject = _bare(name[0], qtype) if bare and len(name) == 1 else _outside(lowered(name))
        return Question(name, qtype, subject, domains[0])
    return Question(name, qtype, _inside(name[: len(name) - len(domain)], qtype), domain)


def _ends(name: Name, domain: Name) -> bool:
    left = len(name) - len(domain)
    return left >= 0 and lowered(name[left:]) == domain


def _bare(label: bytes, qtype: int) -> Subject:
    """A service, without tag: two labels would be a name of somebody else's domain."""
    return Outside() if b"." in label or qtype == Type.AXFR else ServiceName(_text(label))


def _outside(name: Name) -> Subject:
    """An address, where a name outside the zone is one written in reverse (RFC 1035, 3.5; RFC 3596, 2.5)."""
    match name:
        case (*labels, b"in-addr", b"arpa") if len(labels) == 4:
            text = b".".join(reversed(labels))
        case (*labels, b"ip6", b"arpa") if len(labels) == 32 and all(
            label in HEXADECIMAL for label in labels
        ):
            digits = b"".join(reversed(labels))
            return ReverseName(str(ipaddress.IPv6Address(bytes.fromhex(digits.decode()))))
        case _:
            return Outside()
    try:
        return ReverseName(str(ipaddress.IPv4Address(text.decode("ascii"))))
    except ValueError:
        return Outside()


def _inside(left: Name, qtype: int) -> Subject:
    if qtype == Type.AXFR:
        return Transfer()
    if qtype in (Type.SOA, Type.NS):
        return Authority()
    octets = b".".join(left)
    if octets.count(b".") >= max(1, len(left)):
        return Nothing()  # a label holds a dot
    # Not in one piece where it is no ASCII: how some letters are lowered depends on those around them.
    labels = octets.decode().lower().split(".") if octets.isascii() else [_text(label) for label in left]
    return _by_label(labels, qtype)


def _text(label: bytes) -> str:
    return label.decode("utf-8", "surrogateescape").lower()


def _by_label(labels: list[str], qtype: int) -> Subject:
    """Find the label that says the kind, from the right."""
    for at in reversed(range(len(labels))):
        if labels[at] in KINDS:
            return _by_kind(labels[at], labels[:at], labels[at + 1 :])
        if qtype == Type.SRV and labels[at].startswith("_"):  # RFC 2782 names need no "service"
            return _service(labels[: at + 1], _datacenter(labels[at + 1 :]))
    return Nothing()


def _by_kind(kind: str, parts: list[str], locality: list[str]) -> Subject:
    datacenter = _datacenter(locality)
    match kind:
        case _ if not parts:
            return Nothing()
        case "addr":  # it holds all of its answer, so Consul lets any locality pass
            return _address(parts)
        case "service":
            return _service(parts, datacenter)
        case _ if datacenter is None:
            return Nothing()
        case "connect" | "ingress":  # what is left of the service is passed over, as Consul does
            return MeshName(kind, parts[-1], datacenter)
    return _joined(kind, ".".join(parts), datacenter)


def _joined(kind: str, name: str, datacenter: str) -> Subject:
    """Names that may hold dots."""
    if kind == "query":
        return QueryName(name, datacenter)
    return NodeName(name, datacenter) if kind == "node" else Nothing()


def _datacenter(locality: list[str]) -> str | None:
    """The datacenter in "", "<dc>" or "<dc>.dc"; None for anything else."""
    if len(locality) == 2 and locality[1] == "dc":
        return locality[0]
    if len(locality) < 2:
        return "".join(locality)
    return None


def _service(parts: list[str], datacenter: str | None) -> Subject:
    """`[tag.]name`, or RFC 2782's `_name._tag`, where "_tcp" means any tag."""
    if datacenter is None:
        return Nothing()
    if len(parts) == 2 and all(part.startswith("_") for part in parts):
        service, tag = (part[1:] for part in parts)
        return ServiceName(service, "" if tag == "tcp" else tag, datacenter)
    return ServiceName(parts[-1], ".".join(parts[:-1]), datacenter)


def _address(parts: list[str]) -> Subject:
    """One label of 8 or 32 hexadecimal digits, as in Consul; or of 40, an IPv4 address and an IPv6 one."""
    digits = parts[0]
    if len(parts) != 1 or len(digits) not in (8, 32, 40) or not set(digits) <= set("0123456789abcdef"):
        return Nothing()
    octets = bytes.fromhex(digits)
    return AddressName((octets[:4], octets[4:]) if len(octets) == 20 else (octets,))


# And back -----------------------------------------------------------------


def of_node(domain: Name, node: str, datacenter: str) -> Name | None:
    """`<node>.node.<dc>.<zone>`, or None where that cannot be a name of DNS."""
    return _below(domain, to_name(f"{node}.node.{datacenter}"))


def of_service(domain: Name, service: str, datacenter: str) -> Name | None:
    """`<service>.service.<dc>.<zone>`, or None where that cannot be a name of DNS."""
    return _below(domain, to_name(f"{service}.service.{datacenter}"))


def of_addresses(domain: Name, addresses: Sequence[bytes], datacenter: str) -> Name | None:
    """`<hexadecimal>.addr.<dc>.<zone>` as `AddressName` has it: at most one address of each family."""
    parent = _addresses_parent(domain, datacenter)
    ordered = list(addresses)
    ordered.sort(key=len)
    return _below(parent, (b"".join(ordered).hex().encode(),)) if parent else None


@lru_cache(maxsize=64)
def _addresses_parent(domain: Name, datacenter: str) -> Name | None:
    """What the names of all addresses end with: they are made by the thousand."""
    return _below(domain, to_name(f"addr.{datacenter}"))


def _below(parent: Name, labels: Name | None) -> Name | None:
    """A name below another; None where it would be too long, or there is none to put there."""
    if labels is None:
        return None
    name = labels + parent
    return name if wire_length(name) <= MAX_NAME else None
