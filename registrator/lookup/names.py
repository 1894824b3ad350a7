"""From a DNS name to what it means, by Consul's grammar. Pure.

The labels left of the zone are read from the right for the first that says a
kind (service, node, addr, ...): left of it stands the name, right of it the
datacenter. Comparison ignores case; a label that holds a dot names nothing
here, so that names joined by dots are never ambiguous.
"""

from __future__ import annotations

from dataclasses import dataclass

from registrator.lookup.records import Name, Type, lowered

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
class NodeName:
    """A node of the catalog."""

    node: str
    datacenter: str = ""


@dataclass(frozen=True, slots=True)
class AddressName:
    """An IP address written in hexadecimal: 4 or 16 octets."""

    octets: bytes


Subject = Outside | Nothing | Transfer | Authority | ServiceName | NodeName | AddressName


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: the name as it was written, the type's number, and what the name means."""

    name: Name
    qtype: int
    subject: Subject


def parse(name: Name, qtype: int, domain: Name) -> Question:
    """Understand a name of any octets; `domain` is the zone's, lower-cased. Never raises."""
    return Question(name, qtype, _subject(name, qtype, domain))


def _subject(name: Name, qtype: int, domain: Name) -> Subject:
    left = len(name) - len(domain)
    if left < 0 or lowered(name[left:]) != domain:
        return Outside()
    if qtype == Type.AXFR:
        return Transfer()
    if qtype in (Type.SOA, Type.NS):
        return Authority()
    labels = [label.decode("utf-8", "surrogateescape").lower() for label in name[:left]]
    if any("." in label for label in labels):
        return Nothing()
    return _by_label(labels, qtype)


def _by_label(labels: list[str], qtype: int) -> Subject:
    """Find the label that says the kind, from the right."""
    for at in reversed(range(len(labels))):
        if labels[at] in KINDS:
            return _by_kind(labels[at], labels[:at], labels[at + 1 :])
        if qtype == Type.SRV and labels[at].startswith("_"):  # RFC 2782 names need no "service"
            return _service(labels[: at + 1], _datacenter(labels[at + 1 :]))
    return Nothing()


def _by_kind(kind: str, parts: list[str], locality: list[str]) -> Subject:
    if not parts:
        return Nothing()
    if kind == "addr":  # it holds all of its answer, so Consul lets any locality pass
        return _address(parts)
    datacenter = _datacenter(locality)
    if kind == "service":
        return _service(parts, datacenter)
    if kind == "node" and datacenter is not None:
        return NodeName(".".join(parts), datacenter)
    return Nothing()


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
    """8 or 32 hexadecimal digits in one label."""
    digits = parts[0]
    if len(parts) != 1 or len(digits) not in (8, 32) or not set(digits) <= set("0123456789abcdef"):
        return Nothing()
    return AddressName(bytes.fromhex(digits))
