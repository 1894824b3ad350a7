"""What a front must keep to whatever octets it is sent: a catalog with everything, damage, and the laws.

The hypothesis tests and the long run by hand (`tests/fuzz_dns.py`) share it.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from random import Random

import dns.exception
import dns.message

from registrator.catalog import Unavailable
from registrator.lookup.ask import NotLoaded, Zone
from registrator.lookup.resolver import Resolver
from registrator.model import OUTSIDE, Address, Node, Selected, Selection
from registrator.stats import Stats
from tests.conformance.questions import table
from tests.lookup.fakes import FakeDirectory, entry, snapshot_of

ASKER = "192.0.2.7"
HEADER = 12  # octets
LEAST, MOST = (
    512,
    1232,
)  # octets that a UDP reply may have whatever the asker offers, without a cookie of ours

BARE = Node("Node-1", "10.1.0.1", meta={"os": "linux", "rfc1035-note": "hello"})
BOTH = Node("both", "10.1.0.4", tagged_addresses={"lan_ipv4": "10.1.0.4", "lan_ipv6": "2001:db8::4"})
SNAPSHOT = snapshot_of(
    *(entry("web", n, tags=("Blue", "v1.2")) for n in range(1, 5)),
    *(entry("three", n) for n in range(1, 4)),
    *(entry("thirty", n, address="" if n % 3 else f"10.2.0.{n}") for n in range(1, 31)),
    *(entry("many", n, address=f"10.2.{n // 250}.{n % 250}") for n in range(300)),
    entry("bare", address="", node=Node("ünï", "192.0.2.9", meta={"k": "v" * 400})),
    entry("bare-both", address="", node=BOTH),
    entry("under_score", address="", node=BARE),
    entry("solo", addresses=(Address("a", "x", "10.1.0.9", 80), Address("a", "x", "fd00::9", 80))),
    entry("to-solo", address="solo.service.consul"),
    entry("itself", address="itself.service.consul"),
    entry("ping", address="pong.service.consul"),
    entry("pong", address="ping.service.consul"),
    entry("outer", address="www.example.org"),
    entry("long", address=".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])),
)
COLD = "heavy"  # a service that is known by name alone, and can never be loaded


class Directory(FakeDirectory):
    """The snapshot; other datacenters and prepared queries have nothing, or cannot be asked."""

    def __init__(self) -> None:
        super().__init__(replace(SNAPSHOT, names={**SNAPSHOT.names, COLD: ()}, datacenters=("dc1", "dc2")))

    async def select(self, selection: Selection) -> Selected:
        if len(selection.name) % 2:
            raise Unavailable("Consul is gone")
        return Selected()


def front() -> Resolver:
    """A resolver of everything."""
    return Resolver(Directory(), Zone.named("consul"), view_of=lambda _: OUTSIDE, stats=Stats())


def sound_packets() -> list[bytes]:
    """A packet of each question that is compared with Consul's answers, with ids that are always the same."""
    questions = (question for questions in table().values() for question in questions)
    packets = dict.fromkeys(question.message().to_wire()[2:] for question in questions)
    return [struct.pack("!H", number) + rest for number, rest in enumerate(packets)]


# Asking -------------------------------------------------------------------------


async def ask_over_udp(resolver: Resolver, packet: bytes, now: float) -> bytes | None:
    """What the UDP server does with a packet: the fast path, the other, and the one that waits."""
    reply = resolver.quick(packet, ASKER, resolver.snapshot, now)
    if reply is not None:
        return reply
    try:
        return resolver.respond(packet, ASKER, "udp")
    except NotLoaded:
        check(packet, resolver.servfail(packet, ASKER, "udp"), "udp")  # where too many wait already
        return await resolver.resolve(packet, ASKER, "udp")


def check(packet: bytes, reply: bytes | None, transport: str) -> None:
    """The laws: a reply is about its packet, can be read, and over UDP is no longer than the asker takes."""
    if reply is None:
        assert len(packet) < HEADER or packet[2] & 0x80, "a query without a reply"
        return
    assert reply[:2] == packet[:2], "another id"
    assert reply[2] & 0xF9 == 0x80 | packet[2] & 0x79, "no reply, or another opcode or RD"
    assert reply[3] & 0x10 == packet[3] & 0x10, "another CD"
    message = dns.message.from_wire(reply, one_rr_per_rrset=True)
    assert transport == "tcp" or len(reply) <= LEAST or len(reply) <= allowed(packet), "too long"
    if len(reply) == HEADER:
        assert message.rcode() in (1, 4), "no question, and neither FORMERR nor NOTIMP"
        return
    end = question_end(reply)
    assert reply[4:6] == b"\0\1", "not one question"
    assert reply[HEADER:end] == packet[HEADER:end], "another question, or in another case"


def question_end(packet: bytes) -> int:
    """The offset behind the question of a packet that has one."""
    at = HEADER
    while packet[at]:
        at += 1 + packet[at]
    return at + 5


def allowed(packet: bytes) -> int:
    """Octets of a UDP reply: what dnspython reads of the asker's EDNS, else 512."""
    try:
        size = dns.message.from_wire(packet, ignore_trailing=True).payload
    except (dns.exception.DNSException, ValueError):
        size = offered(packet)
    return min(max(size, LEAST), MOST)


def offered(packet: bytes) -> int:
    """What the OPT record behind the question offers, where dnspython finds fault with its options."""
    try:
        end = question_end(packet)
    except IndexError:
        return 0
    is_opt = packet[end : end + 3] == b"\0\0\x29"
    return int.from_bytes(packet[end + 3 : end + 5], "big") if is_opt else 0


# Damage -------------------------------------------------------------------------

TELLING = (0, 1, 3, 0x29, 0x3F, 0x40, 0x7F, 0x80, 0xBF, 0xC0, 0xFE, 0xFF)  # octets that mean something in DNS


def damaged(packet: bytes, other: bytes, rng: Random) -> bytes:
    """The packet with one to eight faults, some of them taken from another packet."""
    data = bytearray(packet)
    for _ in range(1 + int(rng.random() ** 3 * 8)):
        FAULTS[int(rng.random() * len(FAULTS))](data, other, rng)
    return bytes(data[:65535])


def _set(data: bytearray, _: bytes, rng: Random) -> None:
    if data:
        data[_at(data, rng)] = rng.choice(TELLING) if rng.random() < 0.5 else rng.getrandbits(8)


def _flip(data: bytearray, _: bytes, rng: Random) -> None:
    if data:
        data[_at(data, rng)] ^= 1 << int(rng.random() * 8)


def _header(data: bytearray, _: bytes, rng: Random) -> None:
    if len(data) >= HEADER:
        data[int(rng.random() * HEADER)] = rng.choice(TELLING)


def _case(data: bytearray, _: bytes, rng: Random) -> None:
    for at in range(HEADER, len(data)):
        if chr(data[at]).isascii() and chr(data[at]).isalpha() and rng.random() < 0.5:
            data[at] ^= 0x20


def _letter(data: bytearray, _: bytes, rng: Random) -> None:
    if len(data) > HEADER + 5:
        data[HEADER + 1 + int(rng.random() * (len(data) - HEADER - 5))] = rng.choice(b"abceinorstv0123")


def _cut(data: bytearray, _: bytes, rng: Random) -> None:
    del data[int(rng.random() * (len(data) + 1)) :]


def _insert(data: bytearray, other: bytes, rng: Random) -> None:
    at, start = int(rng.random() * (len(data) + 1)), int(rng.random() * len(other))
    data[at:at] = other[start : start + int(rng.random() * 40)]


def _remove(data: bytearray, _: bytes, rng: Random) -> None:
    at = int(rng.random() * (len(data) + 1))
    del data[at : at + int(rng.random() * 8)]


def _splice(data: bytearray, other: bytes, rng: Random) -> None:
    at = int(rng.random() * (min(len(data), len(other)) + 1))
    data[at:] = other[at:]


def _resize(data: bytearray, _: bytes, rng: Random) -> None:
    """Let the asker take another size, where the packet ends with a plain OPT record."""
    if data[-11:-8] == b"\0\0\x29":
        struct.pack_into("!H", data, len(data) - 8, rng.choice((0, 1, 511, 512, 1232, 4096, 4097, 65535)))


def _append(data: bytearray, _: bytes, rng: Random) -> None:
    data += rng.randbytes(int(rng.random() * 64))


def _at(data: bytearray, rng: Random) -> int:
    return int(rng.random() * len(data))


FAULTS = (
    *(_set, _flip, _header, _cut, _insert, _remove, _splice, _append),
    *(_case, _letter, _resize) * 3,  # which leave a query that goes further
)
