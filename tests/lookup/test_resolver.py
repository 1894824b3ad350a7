"""One packet in, one reply out: loading, faults, EDNS versions, classes, rotation and counting."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import replace

import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import pytest

from registrator.catalog import Unavailable
from registrator.lookup import resolver as resolver_module
from registrator.lookup.ask import NotLoaded, Zone
from registrator.lookup.resolver import Resolver
from registrator.model import OUTSIDE, Address, Snapshot, View
from registrator.stats import Stats
from tests.lookup.fakes import FakeDirectory, entry, snapshot_of
from tests.lookup.messages import query, text

SNAPSHOT = snapshot_of(*(entry("web", n) for n in range(1, 6)), entry("alias", address="web.service.consul"))
ASKER = "192.0.2.7"


def front(directory: FakeDirectory, stats: Stats | None = None) -> Resolver:
    return Resolver(directory, Zone.named("consul"), view_of=lambda _: OUTSIDE, stats=stats or Stats())


def unloaded(*names: str) -> FakeDirectory:
    """A directory that knows these services by name alone, until they are loaded."""
    services = {key: service for key, service in SNAPSHOT.services.items() if key not in names}
    directory = FakeDirectory(replace(SNAPSHOT, services=services))
    directory.to_load = {name: SNAPSHOT.services[name] for name in names}
    return directory


def read(packet: bytes | None) -> dns.message.Message:
    assert packet is not None
    return dns.message.from_wire(packet)


async def test_a_service_is_loaded_when_it_is_asked_for() -> None:
    """A known name whose instances are not there is loaded, then answered."""
    resolver = front(unloaded("web"))
    with pytest.raises(NotLoaded, match="web"):
        resolver.respond(query("web.service.consul", "A"), ASKER, "udp")
    reply = read(await resolver.resolve(query("web.service.consul", "A"), ASKER, "tcp"))
    assert len(text(reply.answer)) == 5


async def test_what_a_cname_leads_to_is_loaded_too() -> None:
    """Both names of a CNAME's chain are loaded for one answer."""
    reply = read(
        await front(unloaded("web", "alias")).resolve(query("alias.service.consul", "A"), ASKER, "tcp")
    )
    assert len(text(reply.answer)) == 6


async def test_an_unknown_name_loads_nothing() -> None:
    """NXDOMAIN needs no request to the catalog."""
    directory = unloaded("web")
    directory.broken = Unavailable("asked")
    reply = read(await front(directory).resolve(query("none.service.consul", "A"), ASKER, "udp"))
    assert reply.rcode() == dns.rcode.NXDOMAIN


async def test_servfail_when_a_service_cannot_be_loaded() -> None:
    """The catalog is gone and nothing is known of the instances: SERVFAIL, never NXDOMAIN."""
    directory = unloaded("web")
    directory.broken = Unavailable("Consul is gone")
    stats = Stats()
    reply = read(await front(directory, stats).resolve(query("web.service.consul", "A"), ASKER, "udp"))
    assert reply.rcode() == dns.rcode.SERVFAIL
    assert str(reply.question[0].name) == "web.service.consul."
    assert stats.dns_queries == {("A", "SERVFAIL", "udp", "outside"): 1}


async def test_servfail_when_loading_changes_nothing() -> None:
    """A directory that never has the instances is not asked for ever."""
    directory = unloaded("web")
    directory.to_load = {}
    reply = read(await front(directory).resolve(query("web.service.consul", "A"), ASKER, "udp"))
    assert reply.rcode() == dns.rcode.SERVFAIL


async def test_servfail_when_loading_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """An asker is not kept waiting beyond its own patience."""

    class Slow(FakeDirectory):
        async def load(self, service: str) -> Snapshot:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr(resolver_module, "LOAD_TIMEOUT", 0.01)
    directory = Slow(unloaded("web").snapshot)
    reply = read(await front(directory).resolve(query("web.service.consul", "A"), ASKER, "udp"))
    assert reply.rcode() == dns.rcode.SERVFAIL


def test_a_fault_of_our_own_is_told_once_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    """A fault while answering is SERVFAIL to the asker and one entry in the log, with the packet."""

    def broken(_: str) -> View:
        raise KeyError("a fault")

    resolver = Resolver(FakeDirectory(SNAPSHOT), Zone.named("consul"), view_of=broken, stats=Stats())
    packet = query("web.service.consul", "A")
    with caplog.at_level(logging.ERROR):
        replies = [read(resolver.respond(packet, ASKER, "udp")) for _ in range(9)]
    assert {reply.rcode() for reply in replies} == {dns.rcode.SERVFAIL}
    assert len(caplog.records) == 1
    assert packet.hex() in caplog.text


async def test_a_fault_while_loading_is_told_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    """A directory that fails in an unforeseen way is SERVFAIL to the asker."""

    class Faulty(FakeDirectory):
        async def load(self, service: str) -> Snapshot:
            raise RuntimeError(service)

    resolver = front(Faulty(unloaded("web").snapshot))
    reply = read(await resolver.resolve(query("web.service.consul", "A"), ASKER, "udp"))
    assert reply.rcode() == dns.rcode.SERVFAIL
    assert "name='web'" in caplog.text


@pytest.mark.parametrize(
    ("packet", "reply"),
    [
        (query("web.service.consul", "A", size=1232, version=1), ("BADVERS", "QR RD", 0)),
        (dns.message.make_query("web.service.consul", "A", "CH").to_wire(), ("REFUSED", "QR RD", -1)),
        *(
            (dns.message.make_query(name, "TXT", "CH").to_wire(), ("REFUSED", "QR RD", -1))
            for name in ("version.bind", "hostname.bind", "id.server", "version.server", "authors.bind")
        ),
        (dns.message.make_query("web.service.consul", "A", "ANY").to_wire(), ("NOERROR", "QR AA TC RD", -1)),
    ],
)
def test_versions_and_classes(packet: bytes, reply: tuple[str, str, int]) -> None:
    """An EDNS version to come is BADVERS; classes other than IN and ANY are refused."""
    message = read(front(FakeDirectory(SNAPSHOT)).respond(packet, ASKER, "udp"))
    assert (dns.rcode.to_text(message.rcode()), dns.flags.to_text(message.flags), message.edns) == reply


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize(
    ("name", "qtype", "version", "rcode"),
    [
        ("wEb.SeRvIcE.cOnSuL", "A", 0, "NOERROR"),
        ("AlIaS.service.Consul", "SRV", 0, "NOERROR"),
        ("wEb.SeRvIcE.cOnSuL", "MX", 0, "NOERROR"),
        ("NoBoDy.service.Consul", "A", 0, "NXDOMAIN"),
        ("ExAmPlE.Org", "A", 0, "REFUSED"),
        ("CONSUL", "AXFR", 0, "NOTIMP"),
        ("COLD.sERVICE.Consul", "A", 0, "SERVFAIL"),
        ("wEb.SeRvIcE.cOnSuL", "A", 1, "BADVERS"),
    ],
)
async def test_the_askers_case_comes_back_with_every_code(
    name: str, qtype: str, version: int, rcode: str, transport: str
) -> None:
    """0x20 holds for errors, too, and for replies that were made for another spelling."""
    resolver = front(FakeDirectory(replace(SNAPSHOT, names={**SNAPSHOT.names, "cold": ()})))
    for spelling in (name.lower(), name, name.swapcase()):
        packet = query(spelling, qtype, 1232, version)
        reply = await resolver.resolve(packet, ASKER, transport)
        assert dns.rcode.to_text(read(reply).rcode()) == rcode
        assert str(read(reply).question[0].name) == f"{spelling}."


@pytest.mark.parametrize(
    ("size", "transport", "answers", "flags"),
    [(None, "udp", 3, "QR AA TC RD"), (1232, "udp", 5, "QR AA RD"), (None, "tcp", 5, "QR AA RD")],
)
def test_three_answers_without_edns(size: int | None, transport: str, answers: int, flags: str) -> None:
    """Over UDP and without EDNS three instances are given, with TC; else all."""
    resolver = front(FakeDirectory(SNAPSHOT))
    message = read(resolver.respond(query("web.service.consul", "A", size), ASKER, transport))
    assert len(text(message.answer)) == answers
    assert dns.flags.to_text(message.flags) == flags


def test_every_instance_comes_first_at_times() -> None:
    """The order changes from answer to answer, so that askers spread over the instances."""
    resolver = front(FakeDirectory(SNAPSHOT))
    packet = query("web.service.consul", "A", size=1232)
    first = Counter(text(read(resolver.respond(packet, ASKER, "udp")).answer)[0] for _ in range(500))
    assert len(first) == 5
    assert min(first.values()) > 50  # expected 100, standard deviation 9


def test_the_askers_address_decides_its_view() -> None:
    """`view_of` is asked with the source address."""
    both = (Address("red", "aaa", "10.0.0.1", 80), Address("", "", "192.0.2.1", 32768))
    directory = FakeDirectory(snapshot_of(entry("web", address="192.0.2.1", addresses=both)))
    views = {"10.0.0.9": View(frozenset(["aaa"]))}
    resolver = Resolver(
        directory, Zone.named("consul"), view_of=lambda ip: views.get(ip, OUTSIDE), stats=Stats()
    )
    for source, address in (("10.0.0.9", "10.0.0.1"), (ASKER, "192.0.2.1")):
        reply = read(resolver.respond(query("web.service.consul", "A"), source, "udp"))
        assert text(reply.answer) == [f"web.service.consul. A {address}"]


def test_queries_are_counted_within_bounds() -> None:
    """By type, code and transport; types without a name of their own are one, as is what has none."""
    stats = Stats()
    resolver = front(FakeDirectory(SNAPSHOT), stats)
    resolver.respond(query("web.service.consul", "A"), ASKER, "udp")
    resolver.respond(query("none.service.consul", "SRV"), ASKER, "tcp")
    for number in range(60000, 60009):
        resolver.respond(query("web.service.consul", f"TYPE{number}"), ASKER, "udp")
    resolver.respond(b"\0" * 12, ASKER, "udp")
    resolver.respond(b"\0" * 11, ASKER, "udp")
    assert stats.dns_queries == {
        ("A", "NOERROR", "udp", "outside"): 1,
        ("SRV", "NXDOMAIN", "tcp", "outside"): 1,
        ("other", "NOERROR", "udp", "outside"): 9,
        ("other", "FORMERR", "udp", "outside"): 1,
    }


def test_a_domain_that_is_none() -> None:
    """A zone that DNS cannot hold is refused when the resolver is built."""
    with pytest.raises(ValueError, match="no DNS zone"):
        Resolver(FakeDirectory(), Zone.named("a..b"), view_of=lambda _: OUTSIDE, stats=Stats())


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
def test_lookups_are_logged_only_for_who_asks(level: int, caplog: pytest.LogCaptureFixture) -> None:
    """Each of them at the level debug, also those that would take the fast path; none at info."""
    caplog.set_level(level, "registrator.lookup.resolver")
    resolver = front(FakeDirectory(SNAPSHOT))
    packet = query("web.service.consul", "A")
    for _ in range(5):
        if resolver.quick(packet, ASKER, resolver.snapshot, 0.0) is None:
            resolver.respond(packet, ASKER, "udp")
    asyncio.run(resolver.resolve(query("none.service.consul", "TYPE999"), ASKER, "tcp"))
    told = [f"{ASKER} asked web.service.consul A over udp: NOERROR, 3 answers"] * 5
    told.append(f"{ASKER} asked none.service.consul TYPE999 over tcp: NXDOMAIN, 0 answers")
    assert caplog.messages == (told if level == logging.DEBUG else [])


class Late:
    """A container of which it is known only after a moment on which network it is."""

    def __init__(self) -> None:
        self.view = OUTSIDE

    def may_be(self, source: str) -> bool:
        return source == ASKER and self.view is OUTSIDE

    async def wait(self, source: str) -> None:
        assert source == ASKER
        self.view = View(frozenset(["aaaaaaaaaaaa"]))


async def test_who_may_be_a_new_container_waits_until_it_is_known() -> None:
    """Its first answer is the one for its network already, also where others had theirs rendered before."""
    places = (Address("app", "aaaaaaaaaaaa", "10.9.0.1", 80), Address("", "", "192.0.2.1", 32768))
    snapshot = snapshot_of(entry("app", address="192.0.2.1", addresses=places))
    late = Late()
    resolver = Resolver(
        FakeDirectory(snapshot),
        Zone.named("consul"),
        view_of=lambda source: late.view if source == ASKER else OUTSIDE,
        stats=Stats(),
        newcomers=late,
    )
    packet = query("app.service.consul", "A")
    for _ in range(3):
        host = resolver.quick(packet, "192.0.2.9", resolver.snapshot, 0.0)
        host = host or resolver.respond(packet, "192.0.2.9", "udp")
    assert text(read(host).answer) == ["app.service.consul. A 192.0.2.1"]
    assert resolver.quick(packet, ASKER, resolver.snapshot, 0.0) is None
    with pytest.raises(NotLoaded):
        resolver.respond(packet, ASKER, "udp")
    reply = await resolver.resolve(packet, ASKER, "udp")
    assert text(read(reply).answer) == ["app.service.consul. A 10.9.0.1"]
