"""The words of DNS that the front needs: types, response codes, records.

A record's data is kept as octets, but for a name at its end, which the packet
may compress. So each type's format stands here once, beside its constructor,
and rendering needs to know none of them.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

# A domain name: its labels without the root. Labels may hold any octet, dots too.
Name = tuple[bytes, ...]

MAX_LABEL = 63
MAX_MESSAGE = 65535  # octets, the length prefix of TCP allows no more (RFC 1035, 4.2.2)
POINTED_SIZE = 12  # octets of a record, its name a pointer, without its data
SRV = struct.Struct("!HHH")  # priority, weight, port; the target follows
SRV_SIZE = 18  # octets of an SRV record, its name a pointer, without its target
MAX_NAME = 255  # octets on the wire, lengths and the root included (RFC 1035, 2.3.4)


class Type(IntEnum):
    """Record and question types (IANA's DNS parameters)."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    MX = 15
    TXT = 16
    AAAA = 28
    SRV = 33
    OPT = 41
    HTTPS = 65
    IXFR = 251
    AXFR = 252
    ANY = 255


class Rcode(IntEnum):
    """Response codes; BADVERS needs EDNS' upper bits (RFC 6891, 6.1.3)."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class Record(NamedTuple):
    """A resource record of class IN; `target` is the name that ends its data, if one does."""

    name: Name
    type: Type
    ttl: int  # seconds
    data: bytes
    target: Name | None = None


@lru_cache(maxsize=1024)
def to_name(text: str) -> Name | None:
    """A host name as labels, or None where it cannot be one (empty or long labels)."""
    labels = tuple(part.encode("utf-8", "surrogateescape") for part in text.removesuffix(".").split("."))
    fits = all(0 < len(label) <= MAX_LABEL for label in labels)
    return labels if fits and wire_length(labels) <= MAX_NAME else None


def wire_length(name: Name) -> int:
    """Octets of an uncompressed name, the root included."""
    return sum(map(len, name)) + len(name) + 1


def lowered(name: Name) -> Name:
    """The name in lower case, ASCII only (RFC 4343)."""
    return tuple(label.lower() for label in name)


@lru_cache(maxsize=16384)  # an instance's address is read several times in each reply
def packed(host: str) -> bytes | None:
    """An IP address as 4 or 16 octets, or None for what is a host name."""
    try:
        return ipaddress.ip_address(host).packed
    except ValueError:
        return None


def address(name: Name, ttl: int, octets: bytes) -> Record:
    """An A or AAAA record by the length of `octets` (RFC 1035, 3.4.1; RFC 3596, 2.2)."""
    return Record(name, Type.A if len(octets) == 4 else Type.AAAA, ttl, octets)


def srv(name: Name, ttl: int, weight: int, port: int, target: Name) -> Record:
    """An SRV record of priority 1, as Consul gives it (RFC 2782)."""
    weight = min(max(weight, 0), 0xFFFF)
    return Record(name, Type.SRV, ttl, SRV.pack(1, weight, port & 0xFFFF), target)


def cname(name: Name, ttl: int, target: Name) -> Record:
    """A CNAME record (RFC 1035, 3.3.1)."""
    return Record(name, Type.CNAME, ttl, b"", target)


def ns(name: Name, ttl: int, target: Name) -> Record:
    """An NS record (RFC 1035, 3.3.11)."""
    return Record(name, Type.NS, ttl, b"", target)


def ptr(name: Name, ttl: int, target: Name) -> Record:
    """A PTR record (RFC 1035, 3.3.12)."""
    return Record(name, Type.PTR, ttl, b"", target)


def txt(name: Name, ttl: int, text: str) -> Record:
    """A TXT record; text beyond 255 octets goes into several strings (RFC 1035, 3.3.14)."""
    return Record(name, Type.TXT, ttl, b"".join(_strings(text.encode("utf-8", "surrogateescape"))))


@lru_cache(maxsize=16)
def soa(domain: Name, serial: int) -> Record:
    """The zone's SOA record with Consul's timers (RFC 1035, 3.3.13); its negative TTL is 0."""
    names = uncompressed((b"ns", *domain)) + uncompressed((b"hostmaster", *domain))
    return Record(
        domain, Type.SOA, 0, names + struct.pack("!IIIII", serial & 0xFFFFFFFF, 3600, 600, 86400, 0)
    )


def uncompressed(name: Name) -> bytes:
    """The name's octets on the wire."""
    return b"".join(bytes((len(label),)) + label for label in name) + b"\0"


def _strings(octets: bytes) -> Iterator[bytes]:
    """`<character-string>`s: a length and up to 255 octets; at least one, be it empty."""
    for start in range(0, len(octets) or 1, 255):
        piece = octets[start : start + 255]
        yield bytes((len(piece),)) + piece
