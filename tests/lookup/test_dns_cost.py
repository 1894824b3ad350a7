"""What a packet costs: no more than some plain ones, whatever stands in it and however large the service is.

Costs are compared with that of a plain query on the same machine at the same
time, in CPU, and with a wide margin: what these tests are about costs hundreds
to hundreds of thousands of times as much. Where looks at instances can be
counted, they are.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from time import process_time

import dns.name
import dns.reversename
import pytest

from registrator.catalog.embedded import EmbeddedCatalog
from registrator.lookup import basis, crowd, reach, wire
from registrator.lookup.records import Rcode
from registrator.lookup.resolver import Resolver
from registrator.model import META_OWNER, OUTSIDE, Address, Instance, Node, Selected, Snapshot, View
from registrator.stats import Stats
from tests.lookup.fakes import entry, snapshot_of
from tests.lookup.messages import ZONE, query
from tests.lookup.test_fast_path import ASKER, Front

INSTANCES = 1000
MARGIN = 150  # times a query that is answered from the cache, sockets not counted
PLAIN = query("solo.service.consul", "A")
EDNS = b"\0\0\x29\x10\0\0\0\0\0"
LOOP = b"\xc0\x0c"  # a pointer to the question
LONGEST = (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\0"
NARROW = b"\1a" * 127 + b"\0"


def snapshot() -> Snapshot:
    return snapshot_of(
        entry("solo"),
        *(
            entry("many", n, address=f"10.1.{n // 250}.{n % 250}", tags=("Blue", f"t{n}"))
            for n in range(INSTANCES)
        ),
    )


def with_records(*records: bytes, packet: bytes = PLAIN, section: int = 5) -> bytes:
    """A query with these records, all in one section (3 to 5 of the header's words)."""
    words = list(struct.unpack("!6H", packet[:12]))
    words[section] = len(records)
    return struct.pack("!6H", *words) + packet[12:] + b"".join(records)


def record(kind: int, data: bytes, name: bytes = b"\0", kclass: int = 1) -> bytes:
    return name + struct.pack("!HHIH", kind, kclass, 0, len(data)) + data


def opt(data: bytes = b"", name: bytes = b"\0") -> bytes:
    return name + EDNS[1:7] + b"\0\0" + len(data).to_bytes(2, "big") + data


def odd_packets(room: int) -> dict[str, bytes]:
    """Packets of up to so many octets, each odd in another way."""
    bitmaps = b"".join(bytes((n % 256, 32)) + b"\xff" * 32 for n in range(room // 34))
    chain = b"".join(struct.pack("!H", 0xC000 | 12 + at) for at in range(0, min(room, 16000), 2))
    question = NARROW + b"\0\1\0\1"
    return {
        "NSEC bitmaps": with_records(record(47, b"\0" + bitmaps)),
        "TXT of empty strings": with_records(record(16, bytes(room))),
        "HIP, LOC, SVCB, CAA": with_records(record(64, b"\0\1\0" + b"\0\1\0\0" * (room // 4))),
        "an unknown type": with_records(record(65280, bytes(room))),
        "a chain of pointers as data": with_records(record(5, chain)),
        "a record's name that points at itself": with_records(record(1, b"abcd", name=b"\xc0\x25")),
        "a record's name that points on": with_records(record(1, b"abcd", name=b"\xff\xff")),
        "a record's longest name": with_records(record(16, bytes(room), name=LONGEST)),
        "a record's name of 127 labels": with_records(record(16, bytes(room), name=NARROW)),
        "a record's endless name": with_records(b"\1a" * (room // 2)),
        "thousands of options": with_records(opt(b"\0\3\0\0" * (room // 4))),
        "thousands of options, a cookie last": with_records(
            opt(b"\0\3\0\0" * (room // 4) + b"\0\x0a\0\x08" + b"c" * 8)
        ),
        "one long option": with_records(opt(b"\0\3" + (room - 4).to_bytes(2, "big") + bytes(room - 4))),
        "a cookie's server part": with_records(opt(b"\0\x0a\0\x28" + b"c" * 40)),
        "several OPTs": with_records(*[opt()] * (room // 11)),
        "an OPT with a name": with_records(opt(name=LONGEST)),
        "additional records": with_records(*[record(1, b"abcd")] * (room // 15)),
        "answers": with_records(*[record(1, b"abcd", LOOP)] * (room // 16), section=3),
        "authority": with_records(*[record(6, b"\0" * 22, LOOP)] * (room // 34), section=4),
        "questions": with_records(*[LOOP + b"\0\1\0\1"] * (room // 6), section=2),
        "a name of 127 labels": PLAIN[:12] + question,
        "the longest name": PLAIN[:12] + LONGEST + b"\0\1\0\1",
        "127 labels in the zone": query(dns.name.Name([b"a"] * 118 + [b"service", b"consul", b""]), "A"),
        "127 labels as a tag": query(
            dns.name.Name([b"a"] * 115 + [b"solo", b"service", b"consul", b""]), "A"
        ),
        "a name without end": PLAIN[:12] + b"\1a" * (room // 2),
        "a pointer in the question": PLAIN[:12] + LOOP + b"\0\1\0\1" + bytes(room),
        "an odd class": PLAIN[:-2] + b"\x12\x34",
        "an odd opcode": PLAIN[:2] + b"\x78" + PLAIN[3:],
        "an odd version": with_records(b"\0\0\x29\x10\0\0\x09\0\0\0\0"),
        "octets behind the end": PLAIN + bytes(room),
        "nothing but zeros": bytes(room),
        "nothing but ones": b"\xff" * room,
    }  # fmt: skip


def cpu(ask: Callable[[], object], times: int) -> float:
    """The CPU time of one call: the least of several averages."""
    found = []
    for _ in range(5):
        begin = process_time()
        for _ in range(times):
            ask()
        found.append((process_time() - begin) / times)
    return min(found)


@pytest.fixture(scope="module")
def plain() -> float:
    """What a query costs that is answered from the cache."""
    front = Front(snapshot())
    for _ in range(5):
        front.ask(PLAIN)
    return cpu(lambda: front.ask(PLAIN), 2000)


@pytest.mark.parametrize("kind", odd_packets(100))
@pytest.mark.parametrize("room", [1400, 4000])
def test_an_odd_packet_costs_like_some_plain_ones(kind: str, room: int, plain: float) -> None:
    """Over UDP, up to what is read of a packet."""
    front, packet = Front(snapshot()), odd_packets(room)[kind][:4096]

    def ask() -> None:
        if front.resolver.quick(packet, ASKER, front.directory.snapshot, 0.0) is None:
            front.resolver.respond(packet, ASKER, "udp")

    assert cpu(ask, 20) < MARGIN * plain


@pytest.mark.parametrize("kind", odd_packets(100))
def test_an_odd_message_over_tcp_costs_like_some_plain_ones(kind: str, plain: float) -> None:
    """Up to 65,535 octets."""
    front, packet = Front(snapshot()), odd_packets(65_000)[kind]
    assert len(packet) <= 65_535
    assert cpu(lambda: front.resolver.respond(packet, ASKER, "tcp"), 20) < MARGIN * plain


def test_what_is_stepped_over_is_whole() -> None:
    """A record that is cut, or whose name leads nowhere, is still malformed; one of odd data is not."""
    for kind, malformed in [
        ("NSEC bitmaps", False), ("an unknown type", False), ("a record's longest name", False),
        ("thousands of options", False), ("a record's name that points at itself", True),
        ("a record's name that points on", True), ("a record's endless name", True),
        ("an OPT with a name", True),
    ]:  # fmt: skip
        packet = odd_packets(1000)[kind]
        assert wire.screen(packet) == Rcode.NOERROR
        try:
            wire.parse(packet)
        except wire.Malformed:
            assert malformed, kind
        else:
            assert not malformed, kind
            with pytest.raises(wire.Malformed):
                wire.parse(packet[:-1])


# Large services ----------------------------------------------------------------


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often an instance was looked at: its addresses for an asker."""
    count = [0]
    real = reach.reach

    def counted(*arguments: object) -> object:
        count[0] += 1
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(crowd, "reach", counted)
    return count


def made_up(rng: random.Random) -> Iterator[bytes]:
    """Questions about the large service, of which no two are alike."""
    while True:
        word, tag = f"{rng.getrandbits(40):010x}", f"t{rng.randrange(INSTANCES)}"
        yield query("many.service.consul", f"TYPE{rng.randrange(300, 65000)}")
        yield query("many.service.consul", "AAAA", rng.randrange(512, 65535))
        yield query(
            "many.service.consul", rng.choice(["MX", "HTTPS", "PTR", "CNAME"]), rng.randrange(512, 65535)
        )
        yield query(f"{word}.many.service.consul", "A")
        yield query(f"{word}.{word}.many.service.consul", "SRV")
        yield query(f"_many._{word}.service.consul", "SRV")
        yield query(f"many.service.{word}.consul", "A")
        yield query(f"{word}.service.consul", "A")
        yield query(f"{tag}.many.service.consul", "AAAA")
        cased = "".join(rng.choice([c, c.upper()]) for c in "many.service.consul")
        yield query(dns.name.from_text(cased), "AAAA")


def test_made_up_questions_look_at_no_instance(looks: list[int]) -> None:
    """A service's instances are looked at once for each version and view; a tag's own, once more."""
    front, questions = Front(snapshot()), made_up(random.Random(1))
    front.ask(query("many.service.consul", "A"))
    assert looks[0] <= INSTANCES
    asked = 2000
    for _ in range(asked):
        front.ask(next(questions))
    assert looks[0] <= 2 * INSTANCES
    views = [View(frozenset({f"n{number}"})) for number in range(3)]
    other = Front(snapshot(), view_of=lambda source: views[int(source[-1]) % 3])
    for number in range(300):
        other.ask(query("many.service.consul", "A", 512 + number), f"10.0.0.{number % 3}")
    assert looks[0] <= 2 * INSTANCES + 3 * INSTANCES


@pytest.mark.parametrize("qtype", ["A", "SRV", "ANY"])
def test_sizes_flags_and_spellings_look_at_what_fits(looks: list[int], qtype: str) -> None:
    """Each kind of reply costs what it holds, not what the service has."""
    front = Front(snapshot())
    for name in (
        "many.service.consul",
        "many.service.dc1.consul",
        "blue.many.service.consul",
        "_many._blue.service.consul",
    ):
        for size in (None, 512, 1200, 1232):
            for flags in (0x0000, 0x0100, 0x0110):
                packet = bytearray(query(name, qtype, size))
                packet[2:4] = flags.to_bytes(2, "big")
                front.ask(bytes(packet))
    assert looks[0] <= 2 * INSTANCES


def test_a_change_costs_one_look(looks: list[int]) -> None:
    """However many questions come between two changes of the service."""
    front, questions = Front(snapshot()), made_up(random.Random(2))
    for number in range(5):
        entries = (*snapshot().services["many"].entries[1:], entry("many", address=f"10.9.9.{number}"))
        front.directory.publish(snapshot_of(entry("solo"), *entries))
        for _ in range(200):
            front.ask(next(questions))
    assert looks[0] <= 5 * 2 * INSTANCES


def test_made_up_questions_cost_like_some_plain_ones(plain: float) -> None:
    """Whatever is asked of a service with a thousand instances that it does not have."""
    front, questions = Front(snapshot()), made_up(random.Random(3))
    for _ in range(200):
        front.ask(next(questions))
    packets = iter([next(questions) for _ in range(5 * 400)])
    assert cpu(lambda: front.ask(next(packets)), 400) < MARGIN * plain


# Reverse names -----------------------------------------------------------------


async def catalog_of(count: int) -> EmbeddedCatalog:
    catalog = EmbeddedCatalog(Stats())
    catalog.identify(Node("n1", "192.0.2.1"))
    for n in range(count):
        four, six = f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", f"fd00::{n:x}"
        places = (Address("net", "0123456789ab", four, 80), Address("net", "0123456789ab", six, 80))
        await catalog.register(
            Instance(f"many:{n}", "many", four, 80, meta={META_OWNER: "me"}, addresses=places)
        )
    catalog.settled()
    return catalog


async def test_reverse_names_cost_no_look_through_the_instances(plain: float) -> None:
    """Of either family, whether somebody has the address or not."""
    catalog = await catalog_of(2 * INSTANCES)
    resolver = Resolver(catalog, ZONE, view_of=lambda _: OUTSIDE, stats=Stats())
    rng = random.Random(1)
    makers: list[Callable[[], str]] = [
        lambda: f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}",
        lambda: f"10.0.{rng.randrange(7)}.{rng.randrange(256)}",
        lambda: f"fd00::{rng.randrange(65536):x}",
        lambda: f"2001:db8::{rng.getrandbits(16):x}:{rng.getrandbits(16):x}",
    ]
    for make in makers:
        packets = iter([query(dns.reversename.from_address(make()), "PTR") for _ in range(5 * 100)])

        def ask(packets: Iterator[bytes] = packets) -> None:
            resolver.respond(next(packets), ASKER, "udp")

        assert cpu(ask, 100) < MARGIN * plain


def test_nodes_are_put_in_order_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a cluster's nodes an index is made when they change, not for each reverse name."""
    made = [0]
    real = reach.by_address

    def counted(nodes: object) -> object:
        made[0] += 1
        return real(nodes)  # type: ignore[arg-type]

    monkeypatch.setattr(basis, "by_address", counted)
    front = Front(snapshot_of(*(entry("web", n, node=Node(f"n{n}", f"10.7.0.{n}")) for n in range(1, 200))))
    monkeypatch.setattr(front.directory, "selected", lambda _: Selected())
    for number in range(1, 250):
        front.ask(query(f"{number}.0.7.10.in-addr.arpa", "PTR"))
    assert made[0] == 1
