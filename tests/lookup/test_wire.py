"""Octets to queries and answers to octets: what is refused, what is cut, and that nothing breaks it."""

from __future__ import annotations

import struct
from collections.abc import Callable

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import pytest

from registrator.lookup import records, wire
from registrator.lookup.answers import Answer
from registrator.lookup.records import Rcode, Record
from tests.lookup.messages import query, text

NAME = (b"web", b"service", b"consul")
QUESTION = query("web.service.consul", "A")


def header(flags: int = 0x0100, counts: tuple[int, int, int, int] = (1, 0, 0, 0)) -> bytes:
    return struct.pack("!HHHHHH", 0xABCD, flags, *counts)


@pytest.mark.parametrize(
    ("packet", "verdict", "why"),
    [
        (QUESTION, Rcode.NOERROR, "one question"),
        (query("web.service.consul", "A", size=1232), Rcode.NOERROR, "one question and an OPT record"),
        (QUESTION[:11], None, "shorter than a header: there is not even an id to answer to"),
        (b"", None, "nothing at all"),
        (header(0x8100) + QUESTION[12:], None, "a response must not be answered"),
        (header(counts=(0, 0, 0, 0)), Rcode.FORMERR, "no question"),
        (header(counts=(2, 0, 0, 0)) + QUESTION[12:] * 2, Rcode.FORMERR, "two questions"),
        (header(counts=(1000, 0, 0, 0)) + QUESTION[12:] + b"\xc0\x0c\0\1\0\1" * 999, Rcode.FORMERR,
         "a thousand questions"),
        (header(counts=(1, 1, 0, 0)), Rcode.FORMERR, "an answer in a query"),
        (header(counts=(1, 0, 1, 0)), Rcode.FORMERR, "an authority in a query"),
        (header(counts=(1, 0, 0, 2)), Rcode.FORMERR, "more than EDNS needs"),
        (header(0x2800), Rcode.NOTIMP, "an update"),
        (header(0x2000), Rcode.NOTIMP, "a notification"),
        (header(0x7800), Rcode.NOTIMP, "an opcode that nobody has defined"),
    ],
)  # fmt: skip
def test_screen(packet: bytes, verdict: Rcode | None, why: str) -> None:
    """The header alone decides what is read any further."""
    assert wire.screen(packet) == verdict, why


@pytest.mark.parametrize(
    ("rest", "additional", "why"),
    [
        (b"", 0, "no question behind the header"),
        (b"\3web", 0, "a name without its end"),
        (b"\3we", 0, "a label without its end"),
        (b"\3web\0", 0, "no type"),
        (b"\3web\0\0\1\0", 0, "half a class"),
        (b"\xc0\x0c\0\1\0\1", 0, "a pointer to itself"),
        (b"\3web\xc0\x0c\0\1\0\1", 0, "a loop through a pointer"),
        (b"\x40" + b"a" * 64 + b"\0\0\1\0\1", 0, "a label of 64 octets"),
        ((b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1", 0, "a name of 257 octets"),
        ((b"\x3f" + b"a" * 63) * 3 + b"\x3e" + b"a" * 62 + b"\0\0\1\0\1", 0, "a name of 256 octets"),
        (b"\3web\0\0\1\0\1", 1, "a record promised and not there"),
        (b"\3web\0\0\1\0\1\0\0\x29\4\xd0\0\0", 1, "half an OPT record"),
        (b"\3web\0\0\1\0\1\0\0\x29\4\xd0\0\0\0\0\0\4\0", 1, "EDNS options that end early"),
        (b"\3web\0\0\1\0\1\1x\0\0\x29\4\xd0\0\0\0\0\0\0", 1, "an OPT record with a name"),
        (b"\3web\0\0\1\0\1\xc0\x0c\0\1\0\1\0\0\0\0\0\5abc", 1, "a record longer than the packet"),
        (b"\3web\0\0\1\0\1\xc0\x16\0\1\0\1\0\0\0\0\0\4abcd", 1, "a record whose name points at itself"),
    ],
)
def test_malformed(rest: bytes, additional: int, why: str) -> None:
    """What cannot be read as one question is malformed."""
    packet = header(counts=(1, 0, 0, additional)) + rest
    assert wire.screen(packet) == Rcode.NOERROR
    try:
        parsed = wire.parse(packet)
    except wire.Malformed:
        return
    pytest.fail(f"{why} was read as {parsed}")


@pytest.mark.parametrize(
    ("label", "why"),
    [
        (b"we.b", "a dot"),
        (b"we\0b", "a NUL"),
        ("wéb☃".encode(), "UTF-8"),
        (b"\xff\xfe", "octets that are no text"),
        (b"a" * 63, "63 octets"),
    ],
)
def test_a_label_may_hold_anything(label: bytes, why: str) -> None:
    """Labels are octets, and come through unchanged."""
    packet = query(dns.name.Name((label, b"consul", b"")), "A")
    parsed = wire.parse(packet)
    assert (parsed.name, parsed.question) == ((label, b"consul"), packet[12:]), why


def test_the_longest_name() -> None:
    """A name of 255 octets is read, and its reply fits."""
    labels = [b"a" * 63] * 3 + [b"a" * 54, b"consul"]
    packet = query(dns.name.Name((*labels, b"")), "A")
    assert len(packet) == 12 + 255 + 4
    assert wire.parse(packet).name == tuple(labels)


@pytest.mark.parametrize(
    ("offered", "size", "proven"),
    [(None, 512, 512), (0, 512, 512), (512, 512, 512), (1232, 1232, 1232), (1400, 1232, 1400),
     (65535, 1232, 4096)],
)  # fmt: skip
def test_udp_size(offered: int | None, size: int, proven: int) -> None:
    """A UDP reply has 512 octets without EDNS, else up to 1232, or 4096 for who has proved its address."""
    asked = wire.parse(query("web.service.consul", "A", size=offered))
    assert (asked.udp_size(proven=False), asked.udp_size(proven=True)) == (size, proven)


def test_edns_options_are_skipped() -> None:
    """Cookies and client subnets do not disturb."""
    message = dns.message.make_query("web.service.consul", "A", use_edns=0, payload=1232, want_dnssec=True)
    message.use_edns(
        0, dns.flags.DO, 1232, options=[dns.edns.ECSOption("10.0.0.0", 24), dns.edns.NSIDOption(b"")]
    )
    assert wire.parse(message.to_wire()).edns == wire.Edns(0, 1232, dnssec_ok=True)


def test_another_additional_record_is_not_edns() -> None:
    """A sound record of another type is ignored."""
    record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x0a\0\0\1"
    assert wire.parse(header(counts=(1, 0, 0, 1)) + QUESTION[12:] + record).edns is None


def test_bare_replies_have_the_id_and_no_sections() -> None:
    """A refusal from the header alone carries id, opcode, RD, CD (RFC 4035, 3.2.2) and the code."""
    reply = dns.message.from_wire(wire.bare(header(0x2F10), Rcode.NOTIMP))
    assert (reply.id, reply.opcode(), reply.rcode()) == (0xABCD, 5, dns.rcode.NOTIMP)
    assert dns.flags.to_text(reply.flags) == "QR RD CD"


# Rendering ------------------------------------------------------------------


def srv_answer(count: int) -> Answer:
    targets = [(b"%08x" % n, b"addr", b"dc1", b"consul") for n in range(count)]
    meta = records.txt((b"n1", b"node", b"dc1", b"consul"), 0, "os=linux")
    return Answer(
        Rcode.NOERROR,
        tuple(records.srv(NAME, 0, 1, 80, target) for target in targets),
        additional=(meta, *(records.address(target, 0, target[0][:4]) for target in targets)),
    )


def a_answer(count: int) -> Answer:
    return Answer(Rcode.NOERROR, tuple(records.address(NAME, 0, struct.pack("!I", n)) for n in range(count)))


@pytest.mark.parametrize("size", [512, 1232, 4096, 65535])
@pytest.mark.parametrize("count", [0, 1, 3, 30, 300, 2000])
@pytest.mark.parametrize("make", [a_answer, srv_answer])
def test_replies_fit(make: Callable[[int], Answer], count: int, size: int) -> None:
    """A reply is never too long, says TC if and only if answers are missing, and wastes little room."""
    full = make(count)
    packet = wire.render(wire.parse(query("web.service.consul", "SRV", size=size)), full, size)
    reply = dns.message.from_wire(packet)
    given = len(text(reply.answer))
    assert len(packet) <= size
    assert bool(reply.flags & dns.flags.TC) == (given < count)
    if given < count:
        assert size - len(packet) < max(2 * len(packet) // max(given, 1), size // 16)
    if make is srv_answer and given:
        targets = {line.split()[-1] for line in text(reply.answer)}
        assert {line.split()[0] for line in text(reply.additional)} - {"n1.node.dc1.consul."} == targets


def test_at_most_so_many_answers() -> None:
    """Three answers where three are wanted, with their targets' addresses alone, and TC for the others."""
    packet = wire.render(wire.parse(QUESTION), srv_answer(5), 512, most=3)
    reply = dns.message.from_wire(packet)
    assert len(text(reply.answer)) == len(text(reply.additional)) == 3
    assert reply.flags & dns.flags.TC


def test_additional_records_alone_are_dropped_without_tc() -> None:
    """Additional records that no answer points at make no reply truncated (RFC 2181, 9)."""
    meta = tuple(records.txt(NAME, 0, f"{n}={'x' * 200}") for n in range(3))
    full = Answer(Rcode.NOERROR, a_answer(1).answers, additional=meta)
    reply = dns.message.from_wire(wire.render(wire.parse(QUESTION), full, 512))
    assert (len(text(reply.answer)), text(reply.additional)) == (1, [])
    assert not reply.flags & dns.flags.TC


def test_names_are_compressed_but_not_in_srv() -> None:
    """An owner name is a pointer; an SRV target stands in full, and later names point at it (RFC 2782)."""
    packet = wire.render(wire.parse(QUESTION), srv_answer(1), 512)
    assert packet.count(b"\3web") == 1
    assert packet.count(b"\4addr\3dc1\6consul\0") == 1


def test_pointers_reach_no_further_than_they_can() -> None:
    """Names behind octet 16383 are not pointed at: a large TCP reply reads back right."""
    full = srv_answer(900)
    packet = wire.render(wire.parse(QUESTION), full, 65535)
    reply = dns.message.from_wire(packet)
    assert len(packet) > 3 * 16384
    assert len(text(reply.answer)) == 900
    assert {line.split()[0] for line in text(reply.additional)} >= {
        f"{n:08x}.addr.dc1.consul." for n in range(900)
    }


def test_the_question_comes_back_as_it_was_sent() -> None:
    """Id, RD, CD and the name's case are the asker's."""
    message = dns.message.make_query("wEb.SerVice.consul", "A")
    message.flags |= dns.flags.CD
    reply = dns.message.from_wire(wire.render(wire.parse(message.to_wire()), a_answer(1), 512))
    assert (reply.id, str(reply.question[0].name)) == (message.id, "wEb.SerVice.consul.")
    assert dns.flags.to_text(reply.flags) == "QR AA RD CD"


def test_edns_comes_back() -> None:
    """Whoever sends an OPT record gets one, with its DO flag; nobody else does."""
    message = dns.message.make_query("web.service.consul", "A", use_edns=0, want_dnssec=True)
    reply = dns.message.from_wire(wire.render(wire.parse(message.to_wire()), a_answer(1), 512))
    assert (reply.edns, reply.payload, reply.ednsflags) == (0, 1232, dns.flags.DO)
    assert dns.message.from_wire(wire.render(wire.parse(QUESTION), a_answer(1), 512)).edns == -1


def test_long_host_names_and_texts_read_back() -> None:
    """A CNAME to a name of 255 octets and a text of 600 come back whole."""
    target = (b"a" * 63, b"b" * 63, b"c" * 63, b"d" * 61)
    full = Answer(Rcode.NOERROR, (Record(NAME, records.Type.CNAME, 0, b"", target),))
    reply = dns.message.from_wire(wire.render(wire.parse(QUESTION), full, 4096))
    assert reply.answer[0][0].target == dns.name.Name((*target, b""))
    full = Answer(Rcode.NOERROR, (records.txt(NAME, 0, "x" * 600),))
    reply = dns.message.from_wire(wire.render(wire.parse(QUESTION), full, 4096))
    assert b"".join(reply.answer[0][0].strings) == b"x" * 600
