"""Messages to and from upstream resolvers, of which a forwarder reads as little as it can. Pure.

A reply's records are handed on as the octets that they came as, so that types
unknown here pass too. Read are the header, the question, where each record
ends, its type and its TTL: about a microsecond a record. (Of the libraries,
dnspython takes 0.1 ms for a reply of two addresses, 0.7 ms for one of thirty
and 86 ms for the longest, dnslib half of that; both would unpack, for the loop
to wait, what is packed again unchanged.)

Pointers in a reply (RFC 1035, 4.1.4) count from its first octet. They stay
right because what stands before the records, header and question, is as long
in the reply to the asker; the OPT record, which is for one hop alone
(RFC 6891, 6.1.1), is cut off together with what follows it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from registrator.lookup import wire
from registrator.lookup.answers import Answer
from registrator.lookup.records import MAX_NAME, Name, Rcode, Record, Type, uncompressed
from registrator.lookup.wire import CD, HEADER, QR, RD, RECORD, TC, Query

MAX_TTL = 86_400  # seconds for which an answer is kept at the most
MAX_NEGATIVE_TTL = 3600  # the same of "there is none" (RFC 2308, 5)
MAX_KEPT_RECORDS = 1000  # in a reply that is kept: counting down that many TTLs takes half a millisecond
FAILURE_TTL = 1  # seconds: RFC 9520 wants failures kept, and no shorter

POINTER = 0xC0
TTL_TO_DATA = 6  # octets from a record's TTL to its data
SOA_NUMBERS = 20  # octets behind an SOA record's names, the last four of them its MINIMUM
FOLLOWED = (Type.A, Type.AAAA, Type.CNAME)


class Unsound(ValueError):
    """The reply's octets make no sense; `str()` says what is wrong with them."""


class Unrelated(ValueError):
    """The packet is no reply to what was asked: late, or forged."""


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What is asked upstream; equal ones have the same reply.

    `question` is the section's octets with the name in lower case, `dnssec_ok`
    the DO and `unchecked` the CD flag of the asker.
    """

    question: bytes
    dnssec_ok: bool = False
    unchecked: bool = False

    @classmethod
    def of(cls, name: Name, qtype: int) -> Inquiry:
        """An inquiry of our own."""
        return cls(uncompressed(name).lower() + struct.pack("!HH", qtype, wire.IN))

    @property
    def qtype(self) -> int:
        """The type asked."""
        return int.from_bytes(self.question[-4:-2], "big")

    def packet(self, ident: int, *, edns: bool) -> bytes:
        """The query's octets; with EDNS, replies up to 1232 octets come over UDP."""
        flags = RD | (CD if self.unchecked else 0)
        dnssec_ok = wire.DNSSEC_OK if self.dnssec_ok else 0
        opt = wire.OPT.pack(0, Type.OPT, wire.OWN_UDP, 0, 0, dnssec_ok, 0) if edns else b""
        return HEADER.pack(ident, flags, 1, 0, 0, int(edns)) + self.question + opt


class Place(NamedTuple):
    """A record in a reply's body: its type, TTL in seconds, and where its data begin and end."""

    kind: int
    ttl: int
    data: int
    end: int


@dataclass(frozen=True, slots=True)
class Reply:
    """An upstream's reply.

    `body` is its records without OPT, `places` are those in order, `counts`
    how many are answers, authority and additional. `ttl` is for how many
    seconds it may be kept, 0 for not at all. `truncated`: ask again over TCP,
    the rest was not read.
    """

    rcode: int
    question: bytes = b""
    body: bytes = b""
    places: tuple[Place, ...] = ()
    counts: tuple[int, int, int] = (0, 0, 0)
    ttl: int = 0
    truncated: bool = False

    @property
    def is_final(self) -> bool:
        """Whether it says what there is, or that there is nothing; else another server may know."""
        return self.rcode in (Rcode.NOERROR, Rcode.NXDOMAIN)

    def render(self, query: Query, size: int, age: int) -> tuple[bytes, bytes]:
        """The reply to an asker after `age` seconds, in at most `size` octets.

        Returns its header behind the id, and what follows the question.
        Additional records go together where not all fit; answers and authority
        go one by one from the end, which sets TC. AA and AD are clear: we are
        no authority for it, and have validated nothing.
        """
        opt = wire.opt(query, Answer(Rcode(self.rcode)))
        keep = self._fitting(size - HEADER.size - len(query.question) - len(opt))
        counts = self._first(keep)
        flags = QR | query.flags & (RD | CD) | self.rcode
        flags |= TC if keep < self.counts[0] + self.counts[1] else 0
        head = HEADER.pack(query.id, flags, 1, counts[0], counts[1], counts[2] + bool(opt))
        return head[2:], self._aged(keep, age) + opt

    def addresses(self, age: int) -> tuple[Record, ...]:
        """The answers that are addresses or CNAMEs, `age` seconds old; nothing where they make no sense."""
        try:
            return tuple(self._addresses(age))
        except Unsound:
            return ()

    def _fitting(self, room: int) -> int:
        """How many records go into so many octets."""
        if len(self.body) <= room:
            return len(self.places)
        needed = self.counts[0] + self.counts[1]
        return next((n for n, place in enumerate(self.places[:needed]) if place.end > room), needed)

    def _first(self, keep: int) -> tuple[int, int, int]:
        """How the first `keep` records are spread over the sections."""
        answers = min(keep, self.counts[0])
        authority = min(keep - answers, self.counts[1])
        return answers, authority, keep - answers - authority

    def _aged(self, keep: int, age: int) -> bytes:
        """The first `keep` records with `age` seconds taken off their TTLs."""
        body = self.body[: self.places[keep - 1].end] if keep else b""
        if not age:
            return body
        data = bytearray(body)
        for place in self.places[:keep]:
            struct.pack_into("!I", data, place.data - TTL_TO_DATA, max(0, place.ttl - age))
        return bytes(data)

    def _addresses(self, age: int) -> Iterator[Record]:
        packet = bytes(HEADER.size) + self.question + self.body
        origin = HEADER.size + len(self.question)
        start = 0
        for place in self.places[: self.counts[0]]:
            if place.kind in FOLLOWED:
                name = _expand(packet, origin + start)
                data, target = self.body[place.data : place.end], None
                if place.kind == Type.CNAME:
                    data, target = b"", _expand(packet, origin + place.data)
                yield Record(name, Type(place.kind), max(0, place.ttl - age), data, target)
            start = place.end


FAILURE = Reply(Rcode.SERVFAIL, ttl=FAILURE_TTL)


def read(packet: bytes, ident: int, inquiry: Inquiry) -> Reply:
    """Read a reply to an inquiry that was sent with this id. Raises Unrelated or Unsound."""
    if len(packet) < HEADER.size:
        raise Unrelated("too short")
    found, flags, questions, *counts = HEADER.unpack_from(packet)
    if found != ident or not flags & QR or flags & wire.OPCODE:
        raise Unrelated("another id, or no reply")
    rcode, origin = flags & 0xF, HEADER.size + len(inquiry.question)
    if not questions and rcode not in (Rcode.NOERROR, Rcode.NXDOMAIN):
        return Reply(rcode)  # many a server says so where it did not understand
    if questions != 1 or not _is_same(packet[HEADER.size : origin], inquiry.question):
        raise Unrelated("another question")
    if flags & TC:
        return Reply(rcode, truncated=True)
    places, kept, upper = _walk(packet, origin, counts)
    body = packet[origin : origin + (places[-1].end if places else 0)]
    ttl = _lifetime(rcode, inquiry.qtype, body, places, kept)
    return Reply(upper << 4 | rcode, inquiry.question, body, tuple(places), kept, ttl)


def _is_same(octets: bytes, question: bytes) -> bool:
    return octets[:-4].lower() == question[:-4] and octets[-4:] == question[-4:]


def _walk(packet: bytes, origin: int, counts: list[int]) -> tuple[list[Place], tuple[int, int, int], int]:
    """The records up to the OPT record, how many of them are in each section, and the upper RCODE bits."""
    places: list[Place] = []
    kept, upper, at = [0, 0, 0], 0, origin
    for section, count in enumerate(counts):
        for _ in range(count):
            at = _behind_name(packet, at)
            if at + RECORD.size > len(packet):
                raise Unsound("a record ends early")
            kind, _, ttl, length = RECORD.unpack_from(packet, at)
            if kind == Type.OPT:
                return places, (kept[0], kept[1], kept[2]), ttl >> 24
            at += RECORD.size
            if at + length > len(packet) or not _is_sized(kind, length):
                raise Unsound("a record's data are too short")
            places.append(Place(kind, _sane(ttl), at - origin, at + length - origin))
            kept[section] += 1
            at += length
    return places, (kept[0], kept[1], kept[2]), upper


def _is_sized(kind: int, length: int) -> bool:
    """Whether the data of a type that is read here can be so long."""
    return length == {Type.A: 4, Type.AAAA: 16}.get(Type(kind), length) if kind in FOLLOWED else True


def _sane(ttl: int) -> int:
    """A TTL, which is 0 where its highest bit is set (RFC 2181, 8)."""
    return 0 if ttl >> 31 else ttl


def _behind_name(packet: bytes, at: int) -> int:
    """The offset behind the name that begins here."""
    start = at
    while at < len(packet) and at - start < MAX_NAME:
        length = packet[at]
        if not length:
            return at + 1
        if length >= POINTER:
            return at + 2
        if length > 63:
            raise Unsound("an unknown kind of label")
        at += 1 + length
    raise Unsound("a name does not end")


def _expand(packet: bytes, at: int) -> Name:
    """The labels of a name; its pointers lead back, each farther than the last. Raises Unsound."""
    labels: list[bytes] = []
    octets, limit = 1, at
    while at < len(packet):
        length = packet[at]
        if not length:
            return tuple(labels)
        if length >= POINTER:
            at = int.from_bytes(packet[at : at + 2], "big") & wire.LAST_POINTER
            if not HEADER.size <= at < limit:
                raise Unsound("a pointer that does not lead back")
            limit = at
            continue
        octets += 1 + length
        if length > 63 or octets > MAX_NAME:
            raise Unsound("a name that is too long")
        labels.append(packet[at + 1 : at + 1 + length])
        at += 1 + length
    raise Unsound("a name does not end")


def _lifetime(rcode: int, qtype: int, body: bytes, places: list[Place], counts: tuple[int, int, int]) -> int:
    """For how long a reply may be kept: as its shortest TTL says, or its SOA where nothing was found."""
    if not places or len(places) > MAX_KEPT_RECORDS:
        return 0
    shortest = min(place.ttl for place in places)
    answers = places[: counts[0]]
    if rcode == Rcode.NOERROR and any(qtype in (place.kind, Type.ANY) for place in answers):
        return min(shortest, MAX_TTL)
    authority = places[counts[0] : counts[0] + counts[1]]
    soa = next((p for p in authority if p.kind == Type.SOA and p.end - p.data > SOA_NUMBERS), None)
    if soa is None:  # RFC 2308, 5: then it must not be kept
        return 0
    minimum = int.from_bytes(body[soa.end - 4 : soa.end], "big")
    return min(shortest, _sane(minimum), MAX_NEGATIVE_TTL)
