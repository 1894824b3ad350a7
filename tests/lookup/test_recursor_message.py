"""What a forwarder reads of its upstream's messages, made by dnspython; and any octets instead of them."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.lookup import wire
from registrator.lookup.records import MAX_MESSAGE, Type, to_name
from registrator.lookup.recursor_message import (
    MAX_KEPT_RECORDS,
    MAX_NEGATIVE_TTL,
    MAX_TTL,
    Inquiry,
    Reply,
    Unrelated,
    Unsound,
    read,
)
from tests.lookup.messages import query, text
from tests.lookup.upstream import response

NAME = "www.example.org."
SOA = "example.org. {ttl} SOA ns.example.org. root.example.org. 1 2 3 4 {minimum}"
ID = 4711


def inquiry(kind: str = "A", name: str = NAME) -> Inquiry:
    labels = to_name(name)
    assert labels
    return Inquiry.of(labels, Type[kind])


def asked(kind: str = "A") -> dns.message.Message:
    """What an upstream gets, as dnspython reads it."""
    return dns.message.from_wire(inquiry(kind).packet(ID, edns=True))


def reply(
    *records: str,
    kind: str = "A",
    rcode: int = 0,
    authority: Sequence[str] = (),
    additional: Sequence[str] = (),
) -> Reply:
    message = response(asked(kind), *records, rcode=rcode, authority=authority, additional=additional)
    return read(message.to_wire(), ID, inquiry(kind))


def given_to(packet: bytes, found: Reply, age: int = 0, size: int = MAX_MESSAGE) -> dns.message.Message:
    """The reply that an asker gets, as dnspython reads it."""
    parsed = wire.parse(packet)
    head, tail = found.render(parsed, size, age)
    return dns.message.from_wire(packet[:2] + head + parsed.question + tail)


def test_the_query_that_is_sent() -> None:
    """RD, the asker's DO and CD, our own size; nothing else of the asker."""
    message = dns.message.from_wire(
        Inquiry(inquiry().question, dnssec_ok=True, unchecked=True).packet(ID, edns=True)
    )
    assert (message.id, message.payload) == (ID, 1232)
    assert message.flags == dns.flags.RD | dns.flags.CD
    assert message.ednsflags == dns.flags.DO
    plain = dns.message.from_wire(inquiry().packet(ID, edns=False))
    assert (plain.edns, plain.flags) == (-1, dns.flags.RD)


def test_a_reply_is_handed_on_with_the_askers_own_id_case_and_edns() -> None:
    """Names that point at the question come out in the asker's case; OPT is ours, AA and AD are not set."""
    message = response(asked(), f"{NAME} 60 CNAME a.example.org.", "a.example.org. 50 A 192.0.2.1")
    message.flags |= dns.flags.AA | dns.flags.AD
    found = read(message.to_wire(), ID, inquiry())
    mine = query("wWw.eXample.oRg", "A")
    answer = given_to(mine, found)
    assert answer.id == int.from_bytes(mine[:2], "big")
    assert text(answer.answer) == ["wWw.eXample.oRg. CNAME a.eXample.oRg.", "a.eXample.oRg. A 192.0.2.1"]
    assert answer.edns == -1
    assert answer.flags == dns.flags.QR | dns.flags.RD
    assert given_to(query(NAME, "A", 1232), found).payload == 1232


def test_ttls_are_counted_down_and_not_below_zero() -> None:
    found = reply(f"{NAME} 60 A 192.0.2.1", authority=["example.org. 5 NS ns.example.org."])
    answer = given_to(query(NAME, "A"), found, age=7)
    assert [rrset.ttl for rrset in (*answer.answer, *answer.authority)] == [53, 0]


@pytest.mark.parametrize(
    ("found", "ttl"),
    [
        (lambda: reply(f"{NAME} 60 A 192.0.2.1"), 60),
        (lambda: reply(f"{NAME} 60 CNAME a.example.org.", "a.example.org. 50 A 192.0.2.1"), 50),
        (lambda: reply(f"{NAME} 0 A 192.0.2.1"), 0),
        (lambda: reply(f"{NAME} 2147483647 A 192.0.2.1"), MAX_TTL),
        # RFC 2308: the lesser of the SOA's own TTL and its MINIMUM; without SOA not at all.
        (lambda: reply(rcode=3, authority=[SOA.format(ttl=60, minimum=9)]), 9),
        (lambda: reply(rcode=3, authority=[SOA.format(ttl=8, minimum=9)]), 8),
        (lambda: reply(rcode=3, authority=[SOA.format(ttl=90000, minimum=90000)]), MAX_NEGATIVE_TTL),
        (lambda: reply(rcode=3), 0),
        (lambda: reply(authority=[SOA.format(ttl=60, minimum=9)]), 9),
        (lambda: reply(authority=["example.org. 60 NS ns.example.org."]), 0),
        # NODATA behind a CNAME
        (lambda: reply(f"{NAME} 60 CNAME a.example.org.", authority=[SOA.format(ttl=60, minimum=9)]), 9),
        (lambda: reply(f"{NAME} 60 CNAME a.example.org."), 0),
        (lambda: reply(f"{NAME} 60 CNAME a.example.org.", kind="CNAME"), 60),
        (lambda: reply(f"{NAME} 60 A 192.0.2.1", kind="ANY"), 60),
    ],
)
def test_for_how_long_a_reply_is_kept(found: object, ttl: int) -> None:
    assert callable(found)
    assert found().ttl == ttl


def test_a_ttl_with_its_highest_bit_set_is_none() -> None:
    """RFC 2181, 8."""
    packet = response(asked(), f"{NAME} 1 A 192.0.2.1").to_wire()
    at = packet.index(b"\0\0\0\1\0\4")
    assert read(packet[:at] + b"\x80" + packet[at + 1 :], ID, inquiry()).ttl == 0


def test_types_unknown_here_pass_as_they_are() -> None:
    found = reply(f"{NAME} 60 TYPE65400 \\# 3 c00c00", kind="A")
    assert text(given_to(query(NAME, "A"), found).answer) == [f"{NAME} TYPE65400 \\# 3 c00c00"]


def many(count: int) -> Reply:
    records = dns.rrset.from_text_list(
        NAME, 60, "IN", "A", [f"10.0.{n // 250}.{n % 250}" for n in range(count)]
    )
    message = response(asked(), additional=["ns.example.org. 60 A 192.0.2.9"])
    message.answer = [records]
    return read(message.to_wire(max_size=MAX_MESSAGE), ID, inquiry())


@pytest.mark.parametrize(("size", "answers", "cut"), [(512, 29, True), (1232, 74, True), (4096, 100, False)])
def test_what_does_not_fit_is_cut_and_says_so(size: int, answers: int, *, cut: bool) -> None:
    found = many(100)
    mine = query(NAME, "A", size)
    answer = given_to(mine, found, size=size)
    assert len(answer.answer[0]) == answers
    assert bool(answer.flags & dns.flags.TC) == cut
    assert bool(answer.additional) != cut
    parsed = wire.parse(mine)
    assert sum(map(len, found.render(parsed, size, 0))) + 2 + len(parsed.question) <= size


def test_additional_records_alone_are_left_out_without_a_word() -> None:
    found = many(29)
    answer = given_to(query(NAME, "A"), found, size=512)
    assert (len(answer.answer[0]), answer.additional, answer.flags & dns.flags.TC) == (29, [], 0)


def test_addresses_for_those_who_follow_a_name() -> None:
    found = reply(
        f"{NAME} 60 CNAME a.example.org.",
        "a.example.org. 50 A 192.0.2.1",
        "a.example.org. 40 TXT x",
        additional=["b.example.org. 60 A 192.0.2.2"],
    )
    cname, a = found.addresses(age=10)
    assert (cname.name, cname.ttl, cname.target) == (to_name(NAME), 50, to_name("a.example.org"))
    assert (a.name, a.ttl, a.data) == (to_name("a.example.org"), 40, bytes((192, 0, 2, 1)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda packet: b"",
        lambda packet: packet[:11],
        lambda packet: b"\0\0" + packet[2:],  # another id
        lambda packet: packet[:2] + b"\1" + packet[3:],  # a query
        lambda packet: packet[:2] + b"\xa9" + packet[3:],  # another opcode
        lambda packet: packet.replace(b"example", b"exemple"),
        lambda packet: packet[:4] + b"\0\2" + packet[6:],  # two questions
        lambda packet: packet[:29] + b"\0\x1c" + packet[31:],  # another type asked
    ],
)
def test_what_is_no_reply_to_the_question_is_told_from_it(spoil: object) -> None:
    assert callable(spoil)
    with pytest.raises(Unrelated):
        read(spoil(response(asked(), f"{NAME} 60 A 192.0.2.1").to_wire()), ID, inquiry())


@pytest.mark.parametrize("cut", range(34, 49))
def test_a_reply_that_ends_early_makes_no_sense(cut: int) -> None:
    with pytest.raises(Unsound):
        read(response(asked(), f"{NAME} 60 A 192.0.2.1").to_wire()[:cut], ID, inquiry())


@pytest.mark.parametrize("pointer", [33, 100, 0x3FFF, 2])
def test_names_that_lead_nowhere_are_not_followed(pointer: int) -> None:
    """To itself, ahead, past the end, into the header: a target gives no address, and no endless loop."""
    at = inquiry("CNAME").packet(ID, edns=False)
    record = struct.pack("!HHHIH", 0xC000 | pointer, Type.CNAME, 1, 60, 2) + struct.pack(
        "!H", 0xC000 | pointer
    )
    packet = at[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0) + at[12:] + record
    assert read(packet, ID, inquiry("CNAME")).addresses(0) == ()


@given(
    st.binary(max_size=300), st.tuples(*[st.integers(0, 4)] * 3), st.sampled_from([0x8180, 0x8380, 0x8183])
)
def test_any_octets_from_upstream(body: bytes, counts: tuple[int, int, int], flags: int) -> None:
    """They are read or refused; and what is read can be given to any asker in his size."""
    start = struct.pack("!6H", ID, flags, 1, *counts) + inquiry().question
    _read_and_give(start + body)


@given(st.data())
def test_sound_replies_with_octets_changed(data: st.DataObject) -> None:
    packet = bytearray(
        response(
            asked(),
            f"{NAME} 60 CNAME a.example.org.",
            "a.example.org. 50 A 192.0.2.1",
            authority=[SOA.format(ttl=60, minimum=9)],
            additional=["b.example.org. 60 AAAA fd00::1"],
        ).to_wire()
    )
    for _ in range(data.draw(st.integers(1, 4))):
        packet[data.draw(st.integers(2, len(packet) - 1))] = data.draw(st.integers(0, 255))
    _read_and_give(bytes(packet))


def _read_and_give(packet: bytes) -> None:
    try:
        found = read(packet, ID, inquiry())
    except (Unrelated, Unsound):
        return
    found.addresses(3)
    if not found.is_final:
        return
    for size in (512, MAX_MESSAGE):
        mine = query(NAME, "A", size)
        parsed = wire.parse(mine)
        head, tail = found.render(parsed, size, 3)
        assert len(head) == 10
        assert 2 + len(head) + len(parsed.question) + len(tail) <= size


def test_the_longest_reply_is_not_kept_and_costs_no_turn_of_the_loop() -> None:
    """Some 4,000 records are read in a thread; to give them takes no longer than a millisecond."""
    found = many(4000)
    assert len(found.places) > MAX_KEPT_RECORDS
    assert found.ttl == 0
    mine = wire.parse(query(NAME, "A", 4096))
    best = min(_timed(found, mine, age=0) for _ in range(5))
    assert best < 0.001
    kept = many(MAX_KEPT_RECORDS - 1)
    assert kept.ttl
    assert min(_timed(kept, mine, age=1) for _ in range(5)) < 0.001


def _timed(found: Reply, mine: wire.Query, age: int) -> float:
    begin = time.perf_counter()
    found.render(mine, MAX_MESSAGE, age)
    return time.perf_counter() - begin
