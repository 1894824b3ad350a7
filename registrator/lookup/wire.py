"""DNS messages (RFC 1035): octets to queries, answers to octets.

The header is judged first, from its twelve octets alone: what is not one plain
question never reaches a parser, so a packet of a thousand questions or of
looping names costs nothing. The rest is read by hand, in one pass that looks at
each octet at most once: the question (it holds no pointer, or it is refused),
then the one additional record. An OPT record is read, up to its first options;
any other is stepped over by the length that it states, so that no packet, of
whatever size, costs more than a few plain ones. Replies are written by hand
too, since that is what a query costs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from registrator import limits
from registrator.lookup.answers import Answer
from registrator.lookup.ask import no_pause
from registrator.lookup.records import (
    MAX_LABEL,
    MAX_NAME,
    POINTED_SIZE,
    Name,
    Rcode,
    Record,
    Type,
    uncompressed,
    wire_length,
)

HEADER = struct.Struct("!HHHHHH")
LENGTH = struct.Struct("!H")  # and that of a pointer
RECORD = struct.Struct("!HHIH")  # type, class, TTL, length of data
OPT = struct.Struct("!BHHBBHH")  # root, type, size, upper RCODE, version, flags, length of options

QR, AA, TC, RD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0010
OPCODE = 0x7800
DNSSEC_OK = 0x8000
IN, ANY_CLASS = 1, 255

PLAIN_UDP = 512  # octets without EDNS (RFC 1035, 4.2.1)
PROVEN_UDP = limits.DNS_PROVEN_REPLY.value  # octets of a UDP reply to an asker with a valid cookie
UNPROVEN_UDP = limits.DNS_REPLY.value  # octets of a UDP reply to any other asker
OWN_UDP = 1232  # what our OPT offers: fits every path without fragments
MAX_OPTIONS = limits.DNS_OPTIONS.value
COOKIE = 10  # the option's code (RFC 7873)
CLIENT_COOKIE = 8  # octets
SERVER_COOKIES = range(8, 33)  # octets that one may have (RFC 7873, 4)
OPTION = struct.Struct("!HH")  # code, length of data
FEW = 4  # answers
POINTER = 0xC0  # the two bits that make a length one
LAST_POINTER = 0x3FFF
AT_QUESTION = struct.pack("!H", 0xC000 | HEADER.size)  # a pointer to the question's name


class Malformed(ValueError):
    """The packet is not a query that can be understood (FORMERR)."""


@dataclass(frozen=True, slots=True)
class Edns:
    """The asker's OPT record: its version, the UDP size it takes and its DO flag (RFC 6891).

    `cookie` is the data of its COOKIE option: the client's cookie, then maybe ours; b"" for none.
    """

    version: int
    size: int
    dnssec_ok: bool
    cookie: bytes = b""


@dataclass(frozen=True, slots=True)
class Query:
    """A question as it came; `question` is the section's octets, name in the asker's own case."""

    id: int
    flags: int
    name: Name
    qtype: int
    qclass: int
    question: bytes
    edns: Edns | None

    @property
    def cookie(self) -> bytes:
        """The data of its COOKIE option, b"" for none."""
        return self.edns.cookie if self.edns else b""

    def udp_size(self, *, proven: bool) -> int:
        """Octets that a UDP reply may have; `proven`: the asker has shown that its address is its own."""
        if not self.edns:
            return PLAIN_UDP
        return min(max(self.edns.size, PLAIN_UDP), PROVEN_UDP if proven else UNPROVEN_UDP)


# Reading ------------------------------------------------------------------


def screen(packet: bytes) -> Rcode | None:
    """Judge a packet by its header: NOERROR to go on, another code to refuse it, None to drop it.

    Responses and what is too short to hold a header are dropped in silence:
    an answer to them could start an endless exchange of errors.
    """
    if len(packet) < HEADER.size:
        return None
    _, flags, questions, answers, authority, additional = HEADER.unpack_from(packet)
    if flags & QR:
        return None
    if flags & OPCODE:
        return Rcode.NOTIMP
    if questions != 1 or answers or authority or additional > 1:
        return Rcode.FORMERR
    return Rcode.NOERROR


def parse(packet: bytes) -> Query:
    """Read a packet that `screen` let pass. Raises Malformed."""
    ident, flags, _, _, _, additional = HEADER.unpack_from(packet)
    name, end = _question_name(packet)
    try:
        qtype, qclass = struct.unpack_from("!HH", packet, end)
    except struct.error:
        raise Malformed("the question ends early") from None
    end += 4
    edns = _edns(packet, end) if additional else None
    return Query(ident, flags, name, qtype, qclass, packet[HEADER.size : end], edns)


def _question_name(packet: bytes) -> tuple[Name, int]:
    """The labels of the question's name, and the offset behind it."""
    labels: list[bytes] = []
    at = HEADER.size
    while at < len(packet):
        length = packet[at]
        at += 1
        if not length:
            return tuple(labels), at
        if length > MAX_LABEL:
            raise Malformed("a pointer or an unknown label type in the question")
        if at + length - HEADER.size >= MAX_NAME:
            raise Malformed("a name of more than 255 octets")
        labels.append(packet[at : at + length])
        at += length
    raise Malformed("the name ends early")


def _edns(packet: bytes, at: int) -> Edns | None:
    """The OPT record behind the question; a record of another type is stepped over."""
    if len(packet) < at + OPT.size or packet[at : at + 3] != b"\0\0\x29":
        _step_over(packet, at)
        return None
    _, _, size, _, version, flags, length = OPT.unpack_from(packet, at)
    at += OPT.size
    if at + length > len(packet):
        raise Malformed("the EDNS options end early")
    cookie = _cookie(packet, at, at + length) if length else b""
    return Edns(version, size, bool(flags & DNSSEC_OK), cookie)


def _cookie(packet: bytes, at: int, end: int) -> bytes:
    """The data of the COOKIE option among the first options. Raises Malformed."""
    for _ in range(MAX_OPTIONS):
        if at == end:
            break
        if at + OPTION.size > end:
            raise Malformed("an EDNS option ends early")
        code, length = OPTION.unpack_from(packet, at)
        at += OPTION.size
        if at + length > end:
            raise Malformed("an EDNS option ends early")
        if code == COOKIE:
            if length != CLIENT_COOKIE and length - CLIENT_COOKIE not in SERVER_COOKIES:
                raise Malformed("a cookie of a length that none has")
            return packet[at : at + length]
        at += length
    return b""


def _step_over(packet: bytes, at: int) -> None:
    """Check that a record other than a plain OPT is whole; its data are not looked at. Raises Malformed."""
    start, size = at, len(packet)
    while True:
        if at >= size or at - start >= MAX_NAME:
            raise Malformed("the additional record's name does not end")
        length = packet[at]
        at += 1
        if not length:
            break
        if length >= POINTER:
            if at >= size or not HEADER.size <= (length & 0x3F) << 8 | packet[at] < start:
                raise Malformed("a pointer that does not lead back")
            at += 1
            break
        if length > MAX_LABEL:
            raise Malformed("an unknown label type in the additional record's name")
        at += length
    if at + RECORD.size > size:
        raise Malformed("the additional record ends early")
    kind, _, _, length = RECORD.unpack_from(packet, at)
    if at + RECORD.size + length > size:
        raise Malformed("the additional record ends early")
    if kind == Type.OPT:
        raise Malformed("an OPT record with a name")


# Writing ------------------------------------------------------------------


def bare(packet: bytes, rcode: Rcode) -> bytes:
    """A reply of a header alone, made from the packet's first four octets."""
    ident, flags = struct.unpack_from("!HH", packet)
    return HEADER.pack(ident, QR | flags & (OPCODE | RD | CD) | rcode, 0, 0, 0, 0)


def slipped(packet: bytes) -> bytes | None:
    """An empty reply with TC and the question, no longer than the query; None where that is no query."""
    if screen(packet) != Rcode.NOERROR:
        return None
    try:
        query = parse(packet)
    except Malformed:
        return None
    return HEADER.pack(query.id, QR | TC | query.flags & (RD | CD), 1, 0, 0, 0) + query.question


def render(
    query: Query, answer: Answer, size: int, most: int | None = None, pause: Callable[[], None] = no_pause
) -> bytes:
    """The reply in at most `size` octets and, where `most` is given, with at most so many answers.

    What does not fit is left out: first additional records that are no
    answer's target, then answers, each with its target's addresses. Answers
    left out set TC. `pause` is called between two records.
    """
    total = len(answer.answers)
    keep = min(total if most is None else most, _fitting(query, answer, size))
    if keep == total:
        packet = _pack(query, answer, pause, truncated=False)
        if len(packet) <= size:
            return packet
    while True:
        packet = _pack(query, _cut(answer, keep), pause, truncated=keep < total)
        excess = len(packet) - size
        if excess <= 0 or not keep:
            return packet
        keep -= max(1, excess * keep // len(packet))


def _fitting(query: Query, answer: Answer, size: int) -> int:
    """How many answers fit, each with its target's addresses: exactly, or somewhat fewer.

    Of few it is all: they are tried as they are.
    """
    if len(answer.answers) <= FEW:
        return len(answer.answers)
    glue: dict[Name, int] = {}
    for record in answer.additional:
        glue[record.name] = glue.get(record.name, 0) + POINTED_SIZE + len(record.data)
    left = size - HEADER.size - len(query.question) - (OPT.size if query.edns else 0)
    for count, record in enumerate(answer.answers):
        left -= POINTED_SIZE + len(record.data)
        if record.name != query.name:
            left -= wire_length(record.name)
        if record.target:
            left -= wire_length(record.target) + glue.get(record.target, 0)
        if left < 0:
            return count
    return len(answer.answers)


def _cut(answer: Answer, keep: int) -> Answer:
    """The first answers and the additional records that they point at."""
    answers = answer.answers[:keep]
    targets = {record.target for record in answers}
    additional = tuple(record for record in answer.additional if record.name in targets)
    return replace(answer, answers=answers, authority=(), additional=additional)


def _pack(query: Query, answer: Answer, pause: Callable[[], None], *, truncated: bool) -> bytes:
    if not answer.answers and not answer.additional:
        packet = _negative(query, answer)
        if packet is not None:
            return packet
    packer = _Packer(header(query, answer, truncated=truncated), query)
    for section in (answer.answers, answer.authority, answer.additional):
        for record in section:
            pause()
            packer.record(record)
    packer.data += opt(query, answer)
    return bytes(packer.data)


def _negative(query: Query, answer: Answer) -> bytes | None:
    """A reply without answers, whose authority is nothing or the SOA of the question's zone, else None.

    Most questions of a flood end here, so the names in it are not taken apart.
    """
    packet = header(query, answer, truncated=False) + query.question
    for record in answer.authority:
        above = len(query.name) - len(record.name)
        if record.target or above < 0 or query.name[above:] != record.name:
            return None
        at = HEADER.size + sum(map(len, query.name[:above])) + above
        packet += LENGTH.pack(0xC000 | at) + RECORD.pack(record.type, IN, record.ttl, len(record.data))
        packet += record.data
    return packet + opt(query, answer)


def header(query: Query, answer: Answer, *, truncated: bool) -> bytes:
    """The reply's header, for all of the answer's records and the OPT."""
    flags = QR | query.flags & (RD | CD) | answer.rcode & 0xF
    flags |= (AA if answer.authoritative else 0) | (TC if truncated else 0)
    counts = len(answer.answers), len(answer.authority), len(answer.additional) + bool(query.edns)
    return HEADER.pack(query.id, flags, 1, *counts)


def opt(query: Query, answer: Answer) -> bytes:
    """The reply's OPT record; nothing where the query had none."""
    if not query.edns:
        return b""
    dnssec_ok = DNSSEC_OK if query.edns.dnssec_ok else 0
    return OPT.pack(0, Type.OPT, OWN_UDP, answer.rcode >> 4, 0, dnssec_ok, 0)


def with_cookie(reply: bytes, cookie: bytes) -> bytes:
    """A reply whose last record is an OPT without options, with a COOKIE option in it (RFC 7873, 5.2)."""
    option = OPTION.pack(COOKIE, len(cookie)) + cookie
    return reply[: -LENGTH.size] + LENGTH.pack(len(option)) + option


def pooled_header(query: Query, answer: Answer, count: int, *, truncated: bool) -> bytes:
    """The header of a reply whose answers, so many, come from a pool."""
    flags = QR | query.flags & (RD | CD) | AA | (TC if truncated else 0)
    return HEADER.pack(query.id, flags, 1, count, 0, len(answer.additional) + bool(query.edns))


def pointed(kind: Type, ttl: int, addresses: Iterable[bytes]) -> tuple[bytes, int]:
    """Address records of the question's own name as octets, and the length of each.

    Each points at the question's name and at nothing else, so they may be put
    into any order, and behind any question.
    """
    octets = tuple(addresses)
    head = AT_QUESTION + RECORD.pack(kind, IN, ttl, len(octets[0]))
    return b"".join([head + one for one in octets]), len(head) + len(octets[0])


class _Packer:
    """A message being written; remembers where names stand, to point at them (RFC 1035, 4.1.4)."""

    def __init__(self, header: bytes, query: Query) -> None:
        self.data = bytearray(header + query.question)
        self._offsets: dict[Name, int] = {}
        self._parents: dict[Name, bytes] = {}
        self._stands(query.name, HEADER.size)

    def record(self, record: Record) -> None:
        self._name(record.name)
        data, own, target = self.data, record.data, record.target
        if target is None:
            data += RECORD.pack(record.type, IN, record.ttl, len(own)) + own
        elif record.type == Type.SRV:
            name = self._whole_name(target, len(data) + RECORD.size + len(own))
            data += RECORD.pack(record.type, IN, record.ttl, len(own) + len(name)) + own + name
        else:
            data += RECORD.pack(record.type, IN, record.ttl, 0) + own
            start = len(data) - len(own)
            self._name(target)
            LENGTH.pack_into(data, start - LENGTH.size, len(data) - start)

    def _name(self, name: Name) -> None:
        """Write a name, its end as a pointer to where that stands already."""
        data, offsets = self.data, self._offsets
        for index, label in enumerate(name):
            rest = name[index:]
            at = offsets.get(rest)
            if at is not None:
                data += LENGTH.pack(0xC000 | at)
                return
            if len(data) <= LAST_POINTER:
                offsets[rest] = len(data)
            data.append(len(label))
            data += label
        data.append(0)

    def _whole_name(self, name: Name, at: int) -> bytes:
        """A name without pointers, as SRV has it (RFC 2782), that will stand at this offset."""
        first, parent = name[0], name[1:]
        written = self._parents.get(parent)
        if written is None:  # a reply's targets differ in their first label, most of the time
            written = self._parents[parent] = uncompressed(parent)
            self._stands(parent, at + 1 + len(first))
        if at <= LAST_POINTER:
            self._offsets.setdefault(name, at)
        return b"%c%b%b" % (len(first), first, written)

    def _stands(self, name: Name, at: int) -> None:
        """Remember that a name, and what it ends with, stands at an offset."""
        for index, label in enumerate(name):
            if at <= LAST_POINTER:
                self._offsets.setdefault(name[index:], at)
            at += 1 + len(label)
