"""Whatever is sent gets a sound reply or none, over UDP never a longer one than the asker takes.

`make fuzz` does the same for as long as is wanted.
"""

from __future__ import annotations

import os
import time
from random import Random

import dns.message
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from registrator.lookup.ask import Zone
from registrator.lookup.resolver import Resolver
from registrator.model import META_OWNER, OUTSIDE, Address, Node
from registrator.stats import Stats
from tests.lookup import fuzzing
from tests.lookup.fakes import FakeDirectory, entry, snapshot_of
from tests.lookup.messages import query, text

EXAMPLES = 12_000 if os.environ.get("CI") else 1_000  # of octets, and of damage
PACKETS = fuzzing.sound_packets()
RESOLVER = fuzzing.front()
fuzz = settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)


async def ask(packet: bytes) -> None:
    """Ask over both transports, over UDP twice: the second time the fast path may have it."""
    for _ in range(2):
        reply = await fuzzing.ask_over_udp(RESOLVER, packet, time.monotonic())
        fuzzing.check(packet, reply, "udp")
    fuzzing.check(packet, await RESOLVER.resolve(packet, fuzzing.ASKER, "tcp"), "tcp")
    assert RESOLVER._failures == 0


async def test_sound_queries_keep_the_laws() -> None:
    """What is compared with Consul's answers elsewhere: what follows is not made of junk alone."""
    for packet in PACKETS[::3]:
        await ask(packet)


@fuzz
@given(st.binary(max_size=600))
@example(b"\0" * 12)
async def test_any_octets_are_answered_or_dropped(packet: bytes) -> None:
    """Random octets never make the front fail."""
    await ask(packet)


@fuzz
@given(st.sampled_from(PACKETS), st.sampled_from(PACKETS), st.integers(0, 2**32))
async def test_damaged_queries_are_answered_or_dropped(packet: bytes, other: bytes, seed: int) -> None:
    """Nor do queries that are nearly right."""
    await ask(fuzzing.damaged(packet, other, Random(seed)))


# Amplification ------------------------------------------------------------------

LABEL = st.from_regex(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
PLACES = st.one_of(
    st.just(""),
    st.ip_addresses().map(str),
    st.lists(LABEL, min_size=1, max_size=3).map(".".join),
)
NODES = st.builds(
    Node,
    LABEL,
    st.ip_addresses().map(str),
    meta=st.dictionaries(LABEL, st.text(max_size=300), max_size=3),
)


@settings(max_examples=EXAMPLES // 20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    places=st.lists(PLACES, max_size=12),
    nodes=st.lists(NODES, min_size=1, max_size=3),
    times=st.sampled_from([1, 5, 20]),
    size=st.one_of(st.none(), st.integers(0, 65535), st.sampled_from([0, 511, 512, 513, 1232, 4096, 4097])),
    qtype=st.sampled_from(["A", "AAAA", "SRV", "ANY", "TXT", "NS", "SOA", "MX"]),
    most=st.integers(1, 8),
    near=st.sampled_from(["", "me"]),
)
def test_no_reply_is_longer_than_the_asker_takes(
    places: list[str], nodes: list[Node], times: int, size: int | None, qtype: str, most: int, near: str
) -> None:
    """Whatever instances there are, and whatever size is offered; TC if and only if some lack."""
    entries = [
        entry(
            "web",
            number,
            address=place,
            port=number % 65536,
            node=nodes[number % len(nodes)],
            addresses=(Address("net", "id", f"10.7.{number // 250}.{number % 250}", number % 65536),)
            if number % 5 == 0
            else (),
            meta={META_OWNER: "me" if number % 2 else "other"},
        )
        for number, place in enumerate(places * times)
    ]
    resolver = Resolver(
        FakeDirectory(snapshot_of(*entries)),
        Zone.named("consul"),
        view_of=lambda _: OUTSIDE,
        stats=Stats(),
        most=most,
        near=lambda: near,
    )
    for name in ("web.service.consul", f"{nodes[0].name}.node.consul", "consul"):
        packet = query(name, qtype, size)
        whole = resolver.respond(packet, fuzzing.ASKER, "tcp")
        assert whole
        for _ in range(4):  # the first order, another, and from the fast path
            reply = resolver.quick(packet, fuzzing.ASKER, resolver.snapshot, time.monotonic())
            reply = reply or resolver.respond(packet, fuzzing.ASKER, "udp")
            assert reply
            assert len(reply) <= min(max(size or 0, 512), 1232)
            message, complete = dns.message.from_wire(reply), dns.message.from_wire(whole)
            assert bool(message.flags & 0x0200) == (len(text(message.answer)) < len(text(complete.answer)))


@pytest.mark.parametrize("size", [0, 100, 511])
def test_a_size_below_512_means_512(size: int) -> None:
    """RFC 6891, 6.2.3; the reply says so by its length, as there is nothing below 512."""
    reply = RESOLVER.respond(query("many.service.consul", "TXT", size), fuzzing.ASKER, "udp")
    assert reply
    assert len(reply) <= 512
    assert reply[2] & 0x02
