"""The fast path: rendered replies are the same as fresh ones, hold as long as they may, and stay bounded."""

from __future__ import annotations

import asyncio
import gc
import math
import random
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registrator.lookup import maker, rendered, replies, wire
from registrator.lookup.ask import Zone
from registrator.lookup.resolver import Resolver
from registrator.model import META_OWNER, OUTSIDE, Address, Node, Snapshot, View
from registrator.stats import Stats
from tests.lookup.fakes import FakeDirectory, entry, snapshot_of
from tests.lookup.messages import query, text

ASKER = "192.0.2.7"
NODE = Node("n1", "192.0.2.1")  # without meta, which SRV would add
SNAPSHOT = snapshot_of(
    entry("solo", node=NODE),
    *(entry("three", n, node=NODE) for n in range(1, 4)),
    *(entry("thirty", n, node=NODE) for n in range(1, 31)),
    *(entry("many", n, address=f"10.0.{n // 250}.{n % 250}", node=NODE) for n in range(300)),
    entry(
        "dual",
        address="10.1.0.1",
        addresses=(Address("a", "x", "10.1.0.1", 80), Address("a", "x", "fd00::1", 80)),
    ),
    entry("alias", address="three.service.consul"),
    entry("outer", address="www.example.org"),
)
NAMES = ["solo", "three", "thirty", "many", "dual", "alias", "outer", "nobody"]


class Front:
    """A resolver with what the UDP server does: the fast path first, then the other."""

    def __init__(self, snapshot: Snapshot = SNAPSHOT, **options: Any) -> None:
        self.directory = FakeDirectory(snapshot)
        self.stats = Stats()
        options = {"view_of": lambda _: OUTSIDE, "zone": Zone.named("consul"), **options}
        self.resolver = Resolver(self.directory, stats=self.stats, **options)
        self.now = 0.0
        self.quick = 0

    def ask(self, packet: bytes, source: str = ASKER) -> bytes:
        reply = self.resolver.quick(packet, source, self.directory.snapshot, self.now)
        self.quick += reply is not None
        if reply is None:
            reply = self.resolver.respond(packet, source, "udp")
        assert reply is not None
        return reply


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Front, float], None]:
    """Set the time for a front and for what it calls."""

    def set_to(front: Front, now: float) -> None:
        front.now = now
        monkeypatch.setattr("time.monotonic", lambda: now)

    return set_to


@pytest.fixture(autouse=True)
def _time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply's life is in the tests' hands."""
    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    monkeypatch.setattr("time.time", lambda: 1.7e9)


def read(packet: bytes) -> dns.message.Message:
    return dns.message.from_wire(packet)


def records(message: dns.message.Message) -> list[list[str]]:
    return [sorted(text(section)) for section in (message.answer, message.authority, message.additional)]


QUESTIONS = st.tuples(
    st.sampled_from([f"{name}.service.consul" for name in NAMES] + ["n1.node.consul", "x.consul"]),
    st.sampled_from(["A", "AAAA", "SRV", "ANY", "TXT", "MX", "SOA", "NS"]),
    st.sampled_from([None, 512, 1232, 4096]),
)


@cache
def asked_fresh(question: tuple[str, str, int | None]) -> tuple[bytes, dns.message.Message, list[list[str]]]:
    """A query, what a resolver that is new replies, and the records in it."""
    packet = query(*question)
    message = read(Front().ask(packet))
    return packet, message, records(message)


@settings(max_examples=100, deadline=None)
@given(st.lists(QUESTIONS, min_size=1, max_size=12))
def test_a_kept_reply_is_like_a_fresh_one(questions: list[tuple[str, str, int | None]]) -> None:
    """Whatever was asked before: code, flags and records are those of a resolver that is new."""
    front = Front()
    for question in questions * 3:
        packet, other, fresh = asked_fresh(question)
        mine = read(front.ask(packet))
        kept = records(mine)
        assert (mine.id, mine.flags, mine.question) == (other.id, other.flags, other.question)
        assert [len(section) for section in kept] == [len(section) for section in fresh]
        if not mine.flags & 0x0200:
            assert kept[0::2] == fresh[0::2]
        assert len(mine.wire or b"") == len(other.wire or b"") > 0


def test_the_same_packet_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """After all orders are rendered, the same octets with another id are answered without a parser."""
    front = Front()
    for _ in range(12):
        front.ask(query("three.service.consul", "SRV"))
    monkeypatch.setattr("registrator.lookup.wire.parse", None)
    front.quick = 0
    for _ in range(10):
        packet = query("three.service.consul", "SRV")
        assert read(front.ask(packet)).id == read(packet).id
    assert front.quick == 10
    assert front.stats.dns_queries == {("SRV", "NOERROR", "udp", "outside"): 22}


@pytest.mark.parametrize("qtype", ["A", "SRV"])
def test_random_case_is_answered_in_its_own_case(qtype: str) -> None:
    """0x20: each asker gets its own spelling back; the table of exact packets does not fill with them."""
    front = Front()
    rng = random.Random(1)
    for _ in range(200):
        name = "".join(rng.choice([c.lower(), c.upper()]) for c in "three.service.consul")
        reply = read(front.ask(query(dns.name.from_text(name), qtype)))
        assert str(reply.question[0].name) == f"{name}."
        assert {str(rrset.name) for rrset in reply.answer} == {f"{name}."}
        assert sum(len(rrset) for rrset in reply.answer) == 3
    assert len(front.resolver._replies) == 1
    assert len(front.resolver._replies.exact) <= 1


def test_cookies_do_not_fill_the_table() -> None:
    """EDNS options that are new each time are passed over."""
    front = Front()
    for number in range(100):
        message = dns.message.make_query("three.service.consul", "A")
        option = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, number.to_bytes(8, "big"))
        message.use_edns(0, payload=1232, options=[option])
        assert len(text(read(front.ask(message.to_wire())).answer)) == 3
    assert front.resolver._replies.exact == {}
    assert len(front.resolver._replies) == 1


@pytest.mark.parametrize("qtype", ["A", "SRV"])
def test_a_bare_name_is_kept_too(qtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its records are owned by the name asked, in the asker's case, from the cache as well."""
    front = Front(zone=Zone.named("consul", bare_names=True))
    for name in ["three", "Three"] * 6:
        reply = read(front.ask(query(name, qtype)))
        assert {str(rrset.name) for rrset in reply.answer} == {f"{name}."}
        assert sum(len(rrset) for rrset in reply.answer) == 3
    monkeypatch.setattr("registrator.lookup.wire.parse", None)
    front.quick = 0
    front.ask(query("three", qtype))
    assert front.quick == 1


def test_a_bare_name_follows_its_service() -> None:
    """It is refused until there is such a service, and again when that is gone; a refusal is not kept."""
    front = Front(snapshot_of(), zone=Zone.named("consul", bare_names=True))
    for snapshot, rcode in [(snapshot_of(), "REFUSED"), (SNAPSHOT, "NOERROR"), (snapshot_of(), "REFUSED")]:
        front.directory.publish(snapshot)
        for _ in range(4):
            assert dns.rcode.to_text(read(front.ask(query("solo", "A"))).rcode()) == rcode
    assert front.quick


# What a reply stands on --------------------------------------------------------


def warm(front: Front, *names: str) -> None:
    for name in names:
        for _ in range(3):
            front.ask(query(f"{name}.service.consul", "A"))


def test_a_change_of_one_service_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The changed service is made anew, at once; what is about others goes on without a parser."""
    front = Front()
    warm(front, "solo", "three", "nobody")
    other = snapshot_of(entry("three", 9), index=11).services["three"]
    services = {**SNAPSHOT.services, "three": other}
    front.directory.publish(replace(SNAPSHOT, services=services, names=dict(SNAPSHOT.names)))
    front.quick = 0
    for name in ("solo", "nobody"):
        front.ask(query(f"{name}.service.consul", "A"))
    assert front.quick == 2
    assert text(read(front.ask(query("three.service.consul", "A"))).answer) == [
        "three.service.consul. A 10.0.0.9"
    ]
    assert front.quick == 2


def test_a_name_that_comes_and_goes() -> None:
    """NXDOMAIN ends with the first instance, and is back with the end of the last."""
    front = Front()
    packet = query("nobody.service.consul", "A")
    codes = []
    for snapshot in (SNAPSHOT, snapshot_of(entry("nobody")), SNAPSHOT):
        front.directory.publish(snapshot)
        codes += [read(front.ask(packet)).rcode() for _ in range(4)]
    assert codes == [3, 3, 3, 3, 0, 0, 0, 0, 3, 3, 3, 3]


def test_what_hangs_on_another_service() -> None:
    """A CNAME into the zone follows a change of the service it leads to."""
    front = Front()
    packet = query("alias.service.consul", "A", 1232)
    for _ in range(4):
        assert len(text(read(front.ask(packet)).answer)) == 4
    services = {**SNAPSHOT.services, "three": SNAPSHOT.services["solo"]}
    front.directory.publish(replace(SNAPSHOT, services=services))
    assert len(text(read(front.ask(packet)).answer)) == 2


def test_what_hangs_on_the_nodes() -> None:
    """A node's address follows the nodes; equal nodes in another mapping are no change."""
    front = Front()
    packet = query("n1.node.consul", "A")
    for _ in range(4):
        front.ask(packet)
    front.directory.publish(replace(SNAPSHOT, nodes=dict(SNAPSHOT.nodes)))
    front.quick = 0
    front.ask(packet)
    assert front.quick == 1
    front.directory.publish(replace(SNAPSHOT, nodes={"n1": Node("n1", "192.0.2.99")}))
    assert "192.0.2.99" in str(read(front.ask(packet)))


def test_each_view_has_its_own() -> None:
    """Two askers on different networks get different addresses from the fast path, too."""
    both = (Address("red", "aaa", "10.0.0.1", 80), Address("", "", "192.0.2.1", 32768))
    views = {"10.0.0.9": View(frozenset(["aaa"])), "10.9.9.9": View(frozenset(["bbb"]))}
    front = Front(
        snapshot_of(entry("web", address="192.0.2.1", addresses=both)),
        view_of=lambda ip: views.get(ip, OUTSIDE),
    )
    packet = query("web.service.consul", "A")
    for _ in range(4):
        for source, address in (("10.0.0.9", "10.0.0.1"), ("10.9.9.9", "192.0.2.1"), (ASKER, "192.0.2.1")):
            assert text(read(front.ask(packet, source)).answer) == [f"web.service.consul. A {address}"]
    assert front.quick == 6


def test_flags_and_edns_are_told_apart() -> None:
    """RD, CD, DO and the size class make different replies; AD does not show."""
    front = Front()
    for _ in range(4):
        for flags in (0, 0x0100, 0x0110, 0x0120):
            packet = bytearray(query("three.service.consul", "A", 1232))
            packet[2:4] = flags.to_bytes(2, "big")
            reply = front.ask(bytes(packet))
            assert int.from_bytes(reply[2:4], "big") == 0x8400 | flags & 0x0110
        message = dns.message.make_query("three.service.consul", "A", want_dnssec=True)
        assert read(front.ask(message.to_wire())).ednsflags == 0x8000
    assert front.quick > 0


def test_a_reply_ends_with_its_time(
    clock: Callable[[Front, float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its life it leaves the fast path once: the SOA's serial goes on, orders change."""
    monkeypatch.setattr(rendered.rng, "uniform", lambda _, most: most)
    front = Front()
    lives = {"nobody": (1.0, 59.9, 60.9), "three": (60.0,), "solo": ()}
    for name in lives:
        for _ in range(2):
            front.ask(query(f"{name}.service.consul", "A"))
    for now in (0.99, 1.0, 59.9, 60.0, 60.89, 60.9):
        clock(front, now)
        for name, ended in lives.items():
            front.quick = 0
            for _ in range(3):
                front.ask(query(f"{name}.service.consul", "A"))
            assert (front.quick < 3) is (now in ended), (name, now)


@pytest.fixture
def _any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies of 4096 octets, for which an asker has to prove its address otherwise."""
    monkeypatch.setattr(wire, "UNPROVEN_UDP", 4096)


@pytest.mark.usefixtures("_any_size")
@pytest.mark.parametrize(("name", "qtype"), [("thirty", "A"), ("thirty", "SRV"), ("three", "SRV")])
def test_a_reply_is_put_into_another_order_without_being_made(
    name: str, qtype: str, clock: Callable[[Front, float], None]
) -> None:
    """That takes a twentieth of the time; and it is as good as one that was made."""
    front, packet = Front(), query(f"{name}.service.consul", qtype, 4096)
    fresh, orders = records(read(front.ask(packet))), set[tuple[str, ...]]()
    for life in range(40):
        clock(front, life * maker.LIFETIME)
        for _ in range(3):
            reply = front.ask(packet)
            assert records(read(reply)) == fresh
            orders.add(tuple(answers(reply)))
    assert front.stats.dns_renders == 1
    assert len(orders) > (4 if name == "three" else 30)  # of six, and of very many


@pytest.mark.parametrize("size", [None, 512, 1200, 1232])
def test_some_of_the_records_are_put_into_another_order_too(
    size: int | None, clock: Callable[[Front, float], None]
) -> None:
    """A reply that has room for some of thirty SRV records shows all of them in time, rendered once."""
    front, packet = Front(), query("thirty.service.consul", "SRV", size)
    counts, first = Counter[str](), Counter[str]()
    for life in range(600):
        clock(front, life * maker.ORDER_LIFETIME)
        for _ in range(2):
            reply = read(front.ask(packet))
            assert reply.flags & dns.flags.TC
            targets = [str(record.target) for record in reply.answer[0]]
            assert [line.split()[0] for line in text(reply.additional)] == targets
            assert [line.split()[2] for line in text(reply.additional)] == [
                f"10.0.0.{int(target[:8], 16) & 255}" for target in targets
            ]
            assert len(reply.wire or b"") <= (size or 512)
            assert len(targets) == (3 if size in (None, 512) else {1200: 19, 1232: 19}[size or 0])
            counts.update(targets)
        first[targets[0]] += 1
    assert len(counts) == len(first) == 30
    assert is_even(list(first.values()))
    assert front.stats.dns_renders == 1


def test_a_renewed_reply_ends_with_what_it_was_made_of(clock: Callable[[Front, float], None]) -> None:
    """Its life over and its service changed: it is made anew."""
    front, packet = Front(), query("three.service.consul", "SRV", 1232)
    front.ask(packet)
    clock(front, maker.LIFETIME)
    front.directory.snapshot = snapshot_of(entry("three", 7, node=NODE))
    assert answers(front.ask(packet)) == ["0a000007.addr.dc1.consul."]


def test_a_renewed_reply_is_not_the_first_to_be_driven_out(
    clock: Callable[[Front, float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room is made by those that nobody has asked for in the longest time."""
    front = Front(snapshot_of(*(entry(f"s{n}", i, node=NODE) for n in range(100) for i in (1, 2))))
    for number in range(10):
        front.ask(query(f"s{number}.service.consul", "A"))
    monkeypatch.setattr(replies, "OCTETS_LIMIT", front.resolver._replies.octets)
    clock(front, maker.LIFETIME)
    front.ask(query("s0.service.consul", "A"))
    front.ask(query("s10.service.consul", "A"))
    made = front.stats.dns_renders
    front.ask(query("s0.service.consul", "A"))
    assert front.stats.dns_renders == made
    front.ask(query("s1.service.consul", "A"))
    assert front.stats.dns_renders == made + 1


def test_what_was_loaded_for_one_answer_is_not_kept() -> None:
    """An answer of another datacenter or a prepared query is asked for as often as the catalog says."""
    front = Front()
    for _ in range(3):
        asyncio.run(front.resolver.resolve(query("any.query.consul", "A"), ASKER, "udp"))
    assert len(front.resolver._replies) == 0


# Bounds ------------------------------------------------------------------------


def test_a_flood_of_names_drives_out_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that do not exist have a room of their own, which does not grow."""
    monkeypatch.setattr(replies, "MISSING_LIMIT", 50)
    front = Front()
    warm(front, "three")
    for number in range(1000):
        packet = query(f"flood-{number}.service.consul", "A")
        front.ask(packet)
        front.ask(packet)
    assert len(front.resolver._replies) == 51
    front.quick = 0
    front.ask(query("three.service.consul", "A"))
    assert front.quick == 1


@pytest.mark.parametrize("again", [1, 2, 5])
def test_what_is_asked_for_all_the_time_stays(monkeypatch: pytest.MonkeyPatch, again: int) -> None:
    """Floods of all kinds of question, each as often as is wanted, drive out no reply that others ask for."""
    monkeypatch.setattr(replies, "OCTETS_LIMIT", 150_000)
    monkeypatch.setattr(replies, "MISSING_LIMIT", 20)
    monkeypatch.setattr(replies, "EXACT_LIMIT", 150)
    front = Front(snapshot_of(entry("hot"), *(entry(f"s{n}", tags=("a", "b")) for n in range(100))))
    hot = [
        query("hot.service.consul", qtype, size) for qtype in ("A", "AAAA", "SRV") for size in (None, 1232)
    ]
    for packet in hot * 3:
        front.ask(packet)
    front.quick = 0
    cache, rng, rounds = front.resolver._replies, random.Random(1), 300
    for number in range(rounds):
        name = f"s{number % 100}.service.consul"
        flood = [
            query(f"{number}.service.consul", "A"),
            query(f"{number}.hot.service.consul", "A"),
            query(f"_hot._{number}.service.consul", "SRV"),
            query(f"{number}.consul", "SOA"),
            query(f"{number:08x}.addr.consul", "A"),
            query(f"hot.service.{number}.consul", "A"),
            query("hot.service.consul", f"TYPE{1000 + number}"),
            query("hot.service.consul", "A", 600 + number),
            query(name, rng.choice(["A", "AAAA", "SRV", "TXT", "MX"]), rng.choice([None, 600, 1232])),
            query(f"{rng.choice('ab')}.{name}", rng.choice(["A", "AAAA", "SRV"]), 1232),
        ]
        for packet in flood * again:
            front.ask(packet)
        before = front.quick
        for packet in hot:
            front.ask(packet)
        assert front.quick == before + len(hot), number
    assert len(cache.exact) <= 150
    assert len(cache._missing) <= 20
    assert cache.octets <= 150_000
    assert sum(len(slot.packets) for slot in {id(s): s for s in cache.exact.values()}.values()) == len(
        cache.exact
    )


def test_types_that_nothing_has_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of question types costs one reply of each name, and is answered with the type asked."""
    front = Front()
    for number in range(500):
        reply = read(front.ask(query("three.service.consul", f"TYPE{1000 + number}")))
        assert (reply.rcode(), reply.answer, reply.question[0].rdtype) == (0, [], 1000 + number)
    assert front.stats.dns_renders == 1
    assert front.resolver._replies.exact == {}


def test_packets_and_octets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are driven out, and asked for again they are made anew."""
    monkeypatch.setattr(replies, "EXACT_LIMIT", 20)
    monkeypatch.setattr(replies, "OCTETS_LIMIT", 30_000)
    front = Front(snapshot_of(*(entry(f"s{n}") for n in range(100))))
    for _ in range(3):
        for number in range(100):
            warm(front, f"s{number}")
    cache = front.resolver._replies
    assert len(cache.exact) == 20
    assert len(cache) < 30
    assert cache.octets <= 30_000
    assert sum(1 for slot in cache.exact.values() if slot.ready) == 20


@pytest.mark.parametrize(("qtype", "instances"), [("A", 1), ("A", 3), ("SRV", 1), ("SRV", 3), ("AAAA", 3)])
def test_memory_of_a_rendered_name(qtype: str, instances: int) -> None:
    """At most 2 kB for each name and view, all that belongs to it included; and what we reckon is near it."""
    count = 500
    front = Front(
        snapshot_of(*(entry(f"s{n}", i, node=NODE) for n in range(count) for i in range(1, instances + 1)))
    )
    packets = [query(f"s{n}.service.consul", qtype, 1232) for n in range(count)]
    for packet in [query("s0.service.consul", qtype, 512)] * 20:
        front.ask(packet)
    gc.collect()
    tracemalloc.start()
    for _ in range(10):
        for packet in packets:
            front.ask(packet)
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] / count
    tracemalloc.stop()
    front.quick = 0
    for packet in packets:
        front.ask(packet)
    assert front.quick == count
    assert used <= 2048
    reckoned = front.resolver._replies.octets / count if qtype != "AAAA" else used
    assert reckoned / 1.6 < used < reckoned * 1.6


# Order -------------------------------------------------------------------------


def is_even(counts: Sequence[int]) -> bool:
    """Chi-square test of a uniform distribution, with one false alarm in a million (Wilson and Hilferty)."""
    expected = sum(counts) / len(counts)
    statistic = sum((count - expected) ** 2 / expected for count in counts)
    freedom = len(counts) - 1
    limit = freedom * (1 - 2 / (9 * freedom) + 4.75 * math.sqrt(2 / (9 * freedom))) ** 3
    return statistic < limit


def answers(packet: bytes) -> list[str]:
    """The addresses, or SRV records' targets, in order; addresses by hand, as thousands are read."""
    start = packet.index(0, 12) + 5
    count = int.from_bytes(packet[6:8], "big")
    if packet[start - 4 : start - 2] != b"\0\1":
        return [line.split()[-1] for line in text(read(packet).answer)]
    assert packet[start : start + 16 * count].count(b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4") == count
    octets = (packet[at - 4 : at] for at in range(start + 16, start + 16 * count + 1, 16))
    return [".".join(map(str, four)) for four in octets]


@pytest.mark.parametrize(
    ("name", "qtype", "size", "kept"),
    [
        ("three", "A", None, 3),
        ("thirty", "A", None, 3),
        ("thirty", "A", 1232, 30),
        ("many", "A", 1232, 74),
        ("three", "SRV", None, 3),
        ("three", "SRV", 1232, 3),
    ],
)
def test_instances_take_turns_evenly(name: str, qtype: str, size: int | None, kept: int) -> None:
    """In the first place, in the last, and among those that an answer with TC has room for."""
    front = Front()
    packet = query(f"{name}.service.consul", qtype, size)
    for _ in range(10):
        front.ask(packet)
    given = [answers(front.ask(packet)) for _ in range(6000 if qtype == "A" else 600)]
    everyone = len(SNAPSHOT.services[name].entries)
    for place in (0, -1):
        counts = Counter(answer[place] for answer in given)
        assert len(counts) == everyone
        assert is_even(list(counts.values()))
    assert {len(answer) for answer in given} == {kept}
    assert len(Counter(instance for answer in given for instance in answer)) == everyone


@pytest.mark.usefixtures("_any_size")
def test_many_srv_records_take_turns_over_time(clock: Callable[[Front, float], None]) -> None:
    """More instances than orders are kept: each comes first equally often, as the orders change."""
    front = Front()
    packet = query("thirty.service.consul", "SRV", 4096)
    first = slice(len(packet) - 11 + 19, len(packet) - 11 + 27)  # the first target's first label, without OPT
    counts: Counter[bytes] = Counter()
    for life in range(900):
        clock(front, life * maker.ORDER_LIFETIME)
        counts[front.ask(packet)[first]] += 1
    assert set(counts) == {b"0a0000%02x" % number for number in range(1, 31)}
    assert is_even(list(counts.values()))
    assert front.stats.dns_renders == 1


def is_near(instance: str) -> bool:
    return int(instance.rpartition(".")[2]) % 3 == 0


@pytest.mark.parametrize(("size", "kept"), [(None, 3), (1232, 30)])
def test_near_instances_come_first(size: int | None, kept: int) -> None:
    """With `near`, this node's own come first, evenly; the others after them, as far as there is room."""
    owners = {n: "me" if n % 3 == 0 else "another" for n in range(1, 31)}
    snapshot = snapshot_of(*(entry("web", n, node=NODE, meta={META_OWNER: owners[n]}) for n in owners))
    front = Front(snapshot, near=lambda: "me")
    packet = query("web.service.consul", "A", size)
    given = [answers(front.ask(packet)) for _ in range(6000)]
    for answer in given:
        assert len(answer) == kept
        assert [is_near(instance) for instance in answer] == sorted(map(is_near, answer), reverse=True)
    counts = Counter(answer[0] for answer in given)
    assert len(counts) == 10
    assert all(map(is_near, counts))
    assert is_even(list(counts.values()))
    if size:
        assert is_even(list(Counter(answer[10] for answer in given).values()))


def test_near_is_in_srv_too() -> None:
    """The order of SRV records follows as well."""
    snapshot = snapshot_of(
        entry("web", 1, node=NODE),
        entry("web", 2, node=NODE, meta={META_OWNER: "me"}),
        entry("web", 3, node=NODE),
    )
    front = Front(snapshot, near=lambda: "me")
    packet = query("web.service.consul", "SRV", 1232)
    assert {answers(front.ask(packet))[0] for _ in range(50)} == {"0a000002.addr.dc1.consul."}


def test_all_near_or_none_is_no_order() -> None:
    """Where every instance is near, or none, they take turns as ever."""
    for owner in ("me", "another"):
        snapshot = snapshot_of(*(entry("web", n, node=NODE, meta={META_OWNER: owner}) for n in range(1, 5)))
        front = Front(snapshot, near=lambda: "me")
        packet = query("web.service.consul", "A", 1232)
        given = [answers(front.ask(packet)) for _ in range(2000)]
        assert {len(answer) for answer in given} == {4}
        assert is_even(list(Counter(answer[0] for answer in given).values()))


# Large answers -------------------------------------------------------------------


async def test_a_large_answer_is_made_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over TCP 300 SRV records are made in a thread, once; then they are kept like others."""
    front = Front()
    packet = query("many.service.consul", "SRV")
    made = 0

    async def to_thread(work: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal made
        made += 1
        return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)

    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    for _ in range(3):
        reply = await front.resolver.resolve(packet, ASKER, "tcp")
        assert reply is not None
        assert len(answers(reply)) == 300
    assert made == 1


def test_replies_made_together_do_not_end_together(clock: Callable[[Front, float], None]) -> None:
    """A thousand names rendered in the same second would else stall every lookup when that is over."""
    packets = [query(f"s{number}.service.consul", "A") for number in range(200)]
    front = Front(snapshot_of(*(entry(f"s{n}", i, node=NODE) for n in range(200) for i in (1, 2))))
    for packet in packets * 2:
        front.ask(packet)
    ended = []
    for second in range(61):
        clock(front, float(second))
        front.quick = 0
        for packet in packets:
            front.ask(packet)
        ended.append(len(packets) - front.quick)
    assert sum(ended) >= 200
    assert max(ended) < 30


@pytest.mark.usefixtures("_any_size")
def test_all_instances_are_seen_where_few_fit(clock: Callable[[Front, float], None]) -> None:
    """A reply that shows 67 of 300 is renewed more often: all come up, half of the time within 81 s.

    They are drawn anew each time, so that one in thirty runs needs more than two minutes, and none ten.
    """
    front, seen, second = Front(), set[str](), 0.0
    while len(seen) < 300:
        second += 2
        assert second < 600
        clock(front, second)
        for _ in range(3):
            reply = read(front.ask(query("many.service.consul", "SRV", 4096)))
            assert reply.flags & dns.flags.TC
            seen.update(str(record.target) for rrset in reply.answer for record in rrset)


@pytest.mark.usefixtures("_any_size")
def test_every_instance_comes_first_in_its_time(clock: Callable[[Front, float], None]) -> None:
    """Of a large SRV reply few orders are kept: they are renewed, so that who takes the first has others."""
    front, first = Front(), Counter[str]()
    for second in range(0, 2400, 4):
        clock(front, float(second))
        for _ in range(3):
            reply = read(front.ask(query("thirty.service.consul", "SRV", 4096)))
            assert not reply.flags & dns.flags.TC
            first[str(reply.answer[0][0].target)] += 1
    assert len(first) == 30
    assert max(first.values()) < 1800 / 30 * 4
