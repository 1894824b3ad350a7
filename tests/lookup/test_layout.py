"""SRV replies in another order: which of them can be, and that they say the same as before."""

from __future__ import annotations

import random
from dataclasses import replace

import dns.message
import pytest

from registrator.lookup import answers, names, wire
from registrator.lookup.ask import Known, Terms
from registrator.lookup.layout import Layout, layout_of
from registrator.lookup.records import MAX_MESSAGE, Rcode, address, srv, to_name, txt
from registrator.model import META_OWNER, OUTSIDE, Address, Entry, Node, Weights
from tests.lookup.fakes import NODE, entry, snapshot_of
from tests.lookup.messages import NOW, ZONE, query, text

BARE = Node("n1", "192.0.2.1")
OTHER = Node("n2", "192.0.2.2", meta={"rack": "b", "zone": "eu"})
MINE = {META_OWNER: "me"}


def dual(number: int) -> Entry:
    """An instance of both families."""
    ips = f"10.1.0.{number}", f"fd00::{number}"
    return entry("web", address=ips[0], addresses=tuple(Address("a", "x", ip, 80) for ip in ips), node=BARE)


def asked(*entries: Entry, near: str = "") -> tuple[wire.Query, answers.Answer]:
    """A query for the SRV records of these instances, and the answer in their own order."""
    asked = wire.parse(query("web.service.consul", "SRV", 4096))
    question = names.parse(asked.name, asked.qtype, ZONE.domains)
    known = Known(snapshot_of(*entries), lambda _: None)
    terms = Terms(NOW, lambda _: None, near, MAX_MESSAGE)
    return asked, answers.answer(question, known, OUTSIDE, ZONE, terms)


LAID_OUT = [
    ([entry("web", n, node=BARE) for n in (1, 2, 3)], "", (3, 0, (16,)), "one address each"),
    ([entry("web", n) for n in (1, 2)], "", (2, 0, (16,)), "their node's meta stays behind them"),
    ([entry("web", 1), entry("web", 2, node=OTHER)], "", (2, 0, (16,)), "and so does that of two nodes"),
    ([dual(n) for n in (1, 2, 3)], "", (3, 0, (16, 28)), "an address of each family"),
    ([entry("web", 1, node=BARE, meta=MINE), entry("web", 2, node=BARE)], "me", (2, 1, (16,)),
     "near ones first"),
    ([entry("web", address=f"www{n}.example.org", node=BARE) for n in (1, 2)], "", (2, 0, ()),
     "host names of one length of which no address is known"),
]  # fmt: skip

OF_THEIR_OWN = [
    ([entry("web", 1, node=BARE), dual(2)], "targets of two lengths"),
    ([entry("web", address=name, node=BARE) for name in ("a.example.org", "b.example.com")],
     "targets that end in two ways"),
    ([entry("web", port=80, address="", node=BARE), entry("web", port=81, address="", node=BARE)],
     "two ports of one target, whose address stands there once"),
    ([entry("web", address="", node=NODE), entry("web", address="", node=OTHER)],
     "nodes' meta points at the targets"),
]  # fmt: skip


@pytest.mark.parametrize(("entries", "near", "expected", "law"), LAID_OUT)
def test_laid_out(
    entries: list[Entry], near: str, expected: tuple[int, int, tuple[int, ...]], law: str
) -> None:
    """In every order the reply reads the same, record for record, and each address is its target's."""
    weighed = [
        replace(one, instance=replace(one.instance, weights=Weights(passing=n + 1)))
        for n, one in enumerate(entries)
    ]
    asked_for, answer = asked(*weighed, near=near)
    layout = layout_of(asked_for, answer)
    assert layout is not None, law
    assert (layout.count, layout.near, layout.glue) == expected, law
    packet = wire.render(asked_for, answer, MAX_MESSAGE)
    end = 12 + len(asked_for.question)
    original = dns.message.from_wire(packet)
    first = set()
    for _ in range(20):
        for tail in layout.shuffled(packet[end:], 3, random.shuffle):
            other = dns.message.from_wire(packet[:end] + tail)
            for section, same in zip(other.sections, original.sections, strict=True):
                assert sorted(text(section)) == sorted(text(same)), law
            order = text(other.answer)
            assert set(order[: layout.near]) == set(text(original.answer)[: layout.near]), law
            first.add(order[layout.near])
    assert len(first) == layout.count - layout.near, law


@pytest.mark.parametrize(("entries", "law"), OF_THEIR_OWN)
def test_written_anew(entries: list[Entry], law: str) -> None:
    """What does not fit the layout has none: its orders are made one by one."""
    asked_for, answer = asked(*entries)
    assert len(answer.answers) == 2, law
    assert layout_of(asked_for, answer) is None, law


def test_nothing_else_may_point_at_a_target() -> None:
    """A record of a target's name behind the addresses would point at where another target stands then."""
    asked_for, answer = asked(*(entry("web", n, node=BARE) for n in (1, 2)))
    target = answer.answers[1].target
    assert target is not None
    for name in (target, (b"below", *target)):
        pointing = replace(answer, additional=(*answer.additional, txt(name, 0, "x")))
        assert layout_of(asked_for, pointing) is None
    beside = replace(answer, additional=(*answer.additional, txt(asked_for.name, 0, "x")))
    assert layout_of(asked_for, beside) is not None


def test_addresses_in_another_order_than_their_targets_have_no_layout() -> None:
    """Each address must stand where its target's turn is."""
    asked_for, answer = asked(*(entry("web", n, node=BARE) for n in (1, 2)))
    assert layout_of(asked_for, replace(answer, additional=answer.additional[::-1])) is None


def test_every_record_comes_first_equally_often() -> None:
    """Over all turns of one shuffle, where there are as many turns as records."""
    name, parent = to_name("web.service.consul"), to_name("addr.dc1.consul")
    assert name is not None
    assert parent is not None
    targets = [(b"0a00000%d" % n, *parent) for n in range(5)]
    answer = answers.Answer(
        Rcode.NOERROR,
        tuple(srv(name, 0, 1, 80, target) for target in targets),
        (),
        tuple(address(target, 0, bytes((10, 0, 0, n))) for n, target in enumerate(targets)),
        alike=True,
    )
    asked_for = wire.parse(query("web.service.consul", "SRV", 4096))
    layout = layout_of(asked_for, answer)
    assert layout == Layout(5, 0, 12 + 6 + 9 + 5 + 4 + 7 + 1, (16,), 5)
    tail = wire.render(asked_for, answer, MAX_MESSAGE)[12 + len(asked_for.question) :]
    given = layout.shuffled(tail, 5, random.shuffle)
    assert {turn[18:27] for turn in given} == {b"\x080a00000%d" % n for n in range(5)}
