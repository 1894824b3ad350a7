"""What is outside the zone, asked of our DNS server by dig and dnspython, with upstream servers behind it."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import dns.asyncquery
import dns.flags
import dns.message
import pytest

from registrator.lookup import recursor, recursor_exchange, udp
from registrator.lookup.ask import Ttls, Zone
from registrator.lookup.dns import DnsServer
from registrator.lookup.linklocal import LinkLocal, LinkLocalError
from registrator.lookup.recursor import Recursor
from registrator.lookup.recursor_resolver import MAX_FETCHED, Clients, RecursiveResolver
from registrator.model import OUTSIDE, Snapshot
from registrator.settings import Listen
from registrator.stats import Stats
from tests.lookup.fakes import FakeDirectory, entry, snapshot_of
from tests.lookup.messages import text
from tests.lookup.test_dns import dig
from tests.lookup.upstream import TCP, Upstream, address, truncated, upstream, wire
from tests.support import unavailable

Message = dns.message.Message
V4, V6 = Listen("127.0.0.1", 0), Listen("::1", 0)
STRANGER = "198.51.100.53"  # TEST-NET-2 (RFC 5737): nobody's neighbour
REVERSE = ("9.9.9.10.in-addr.arpa", "1." + "0." * 31 + "ip6.arpa")
SOA = "example.org. 60 SOA ns.example.org. root.example.org. 1 2 3 4 30"
KNOWN = {
    ("www.example.org.", "A"): ("www.example.org. 60 CNAME a.example.org.", "a.example.org. 50 A 192.0.2.7"),
    ("six.example.org.", "AAAA"): ("six.example.org. 60 AAAA 2001:db8::6",),
    (REVERSE[0] + ".", "PTR"): (f"{REVERSE[0]}. 60 PTR host.example.org.",),
    (REVERSE[1] + ".", "PTR"): (f"{REVERSE[1]}. 60 PTR host.example.org.",),
}
SNAPSHOT = snapshot_of(
    entry("web"),
    entry("alias", address="www.example.org"),
    entry("chain", address="alias.service.consul"),
    entry("six", address="six.example.org"),
    entry("gone", address="missing.example.org"),
    *(entry("crowd", n, address=f"n{n}.example.org") for n in range(30)),
)


def world(query: Message, transport: str) -> list[bytes]:
    """What upstream knows."""
    question = query.question[0]
    name, kind = str(question.name), dns.rdatatype.to_text(question.rdtype)
    if name == "long.example.org.":
        ips = [f"10.0.{n // 250}.{n % 250}" for n in range(300)]
        return address(query, *ips) if transport == TCP else truncated(query)
    found = KNOWN.get((name, kind), ())
    if kind == "A" and not found and name != "missing.example.org.":
        return address(query)
    rcode = 3 if name == "missing.example.org." else 0
    return wire(query, *found, rcode=rcode, authority=() if found else [SOA])


@asynccontextmanager
async def serving(
    *servers: Upstream,
    snapshot: Snapshot | None = SNAPSHOT,
    allowed: tuple[str, ...] = (),
    listen: Listen = V4,
    stats: Stats | None = None,
    **rules: Any,
) -> AsyncIterator[Listen]:
    """Our DNS server with these upstream servers; gives its address."""
    stats = stats or Stats()
    asked = Recursor(lambda: [server.at for server in servers], stats)
    resolver = RecursiveResolver(
        asked,
        Clients(allowed),
        FakeDirectory(snapshot),
        Zone.named("consul", **rules),
        view_of=lambda _: OUTSIDE,
        stats=stats,
    )
    server = DnsServer(resolver, [listen])
    await server.start()
    try:
        yield server.addresses[0]
    finally:
        await server.close()
        await asked.close()


async def ask(at: Listen, name: str, kind: str = "A", *, source: str | None = None, **query: Any) -> Message:
    """The reply over UDP to one query, with RD."""
    message = dns.message.make_query(name, kind, **query)
    return await dns.asyncquery.udp(message, at.host, 5, at.port, source=source)


def flags(message: Message) -> str:
    return dns.flags.to_text(message.flags)


@pytest.fixture
def stranger() -> Iterator[str]:
    """An address on this machine that is nobody's neighbour."""
    try:
        with LinkLocal(STRANGER):
            yield STRANGER
    except LinkLocalError as error:
        unavailable(f"no address can be put on lo ({error}); run as root")


# Forwarding -------------------------------------------------------------------


@pytest.mark.parametrize("listen", [V4, V6])
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
async def test_dig_gets_what_is_outside(listen: Listen, transport: str) -> None:
    """Over both families and transports: a chain, nothing, and what does not exist; RA is set, AA not."""
    async with upstream(world, listen.host) as server, serving(server, listen=listen) as at:
        found = await dig(at, transport, "WWW.Example.org")
        assert "status: NOERROR" in found
        assert "flags: qr rd ra;" in found
        assert re.search(r"WWW\.Example\.org\.\s+60\s+IN\s+CNAME\s+a\.(?i:example)\.org\.", found)
        assert re.search(r"(?i:a\.example\.org)\.\s+50\s+IN\s+A\s+192\.0\.2\.7", found)
        assert "status: NXDOMAIN" in (missing := await dig(at, transport, "missing.example.org"))
        assert "SOA" in missing
        assert "ANSWER: 0" in await dig(at, transport, "www.example.org", "MX")
        assert "recursion requested but not available" not in found


async def test_the_zone_is_answered_as_before_but_with_ra() -> None:
    """The first time, from the cache of replies, and where nothing is found; upstream hears of none."""
    async with upstream(world) as server, serving(server) as at:
        for _ in range(3):
            reply = await ask(at, "web.service.consul")
            assert text(reply.answer) == ["web.service.consul. A 10.0.0.1"]
            assert flags(reply) == "QR AA RD RA"
        assert flags(await ask(at, "none.service.consul")) == "QR AA RD RA"
        assert server.asked == []


async def test_id_and_case_are_the_askers_own_from_the_cache_too() -> None:
    async with upstream(world) as server, serving(server) as at:
        for name in ("wWw.exAmple.orG", "www.example.org", "WWW.EXAMPLE.ORG"):
            reply = await ask(at, name)  # dnspython compares the id
            assert str(reply.question[0].name) == f"{name}."
            assert str(reply.answer[0].name) == f"{name}."
        assert len(server.asked) == 1


async def test_ttls_from_the_cache_are_counted_down_until_it_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(recursor, "time", SimpleNamespace(monotonic=lambda: now))
    async with upstream(world) as server, serving(server) as at:
        ttls = []
        for seconds in (0.0, 7.2, 49.9, 50.1):
            now = 1000.0 + seconds
            ttls.append([rrset.ttl for rrset in (await ask(at, "www.example.org")).answer])
        assert ttls == [[60, 50], [53, 43], [11, 1], [60, 50]]
        assert len(server.asked) == 2
        negative = []
        for seconds in (100.0, 129.0, 131.0):  # the SOA's MINIMUM is 30
            now = 1000.0 + seconds
            negative.append((await ask(at, "missing.example.org")).authority[0].ttl)
        assert negative == [60, 31, 60]
        assert len(server.asked) == 4


async def test_edns_is_the_askers_own_affair() -> None:
    """OPT only to those who sent one; with DO the question is another one, and upstream gets it with DO."""
    async with upstream(world) as server, serving(server) as at:
        assert (await ask(at, "www.example.org")).edns == -1
        assert (await ask(at, "www.example.org", use_edns=0, payload=4096)).edns == 0
        secure = await ask(at, "www.example.org", want_dnssec=True)
        assert secure.ednsflags == dns.flags.DO
        assert [query.ednsflags for query, _, _ in server.asked] == [0, dns.flags.DO]
        await dig(at, "+cdflag", "www.example.org")
        assert [bool(query.flags & dns.flags.CD) for query, _, _ in server.asked] == [False, False, True]


async def test_replies_are_no_longer_than_the_asker_takes() -> None:
    """Cut with TC; dig goes on over TCP and gets all, from the cache."""
    async with upstream(world) as server, serving(server) as at:
        for size, limit in ((None, 512), (1232, 1232)):
            edns: dict[str, Any] = {"use_edns": 0, "payload": size} if size else {}
            reply = await ask(at, "long.example.org", **edns)
            assert "TC" in flags(reply)
            assert limit - 16 < len(reply.to_wire()) <= limit
        found = await dig(at, "+noedns", "long.example.org")
        assert found.count("\tA\t") == 300
        assert server.transports == ["udp", "tcp"]


async def test_reverse_names_go_upstream_unless_they_are_ours() -> None:
    async with upstream(world) as server, serving(server) as at:
        ours = await ask(at, "1.2.0.192.in-addr.arpa", "PTR")
        assert text(ours.answer) == ["1.2.0.192.in-addr.arpa. PTR n1.node.dc1.consul."]
        assert server.asked == []
        for name in REVERSE:
            assert text((await ask(at, name, "PTR")).answer) == [f"{name}. PTR host.example.org."]


async def test_without_rd_nothing_is_forwarded_but_what_is_kept_is_given() -> None:
    async with upstream(world) as server, serving(server) as at:
        refused = await dig(at, "+norecurse", "www.example.org")
        assert "status: REFUSED" in refused
        assert "flags: qr ra;" in refused
        assert "ANSWER: 1," in await dig(at, "+norecurse", "alias.service.consul")
        assert server.asked == []
        await ask(at, "www.example.org")
        assert "ANSWER: 2," in await dig(at, "+norecurse", "www.example.org")
        assert "ANSWER: 3," in await dig(at, "+norecurse", "alias.service.consul")
        assert len(server.asked) == 1


async def test_what_is_not_forwarded() -> None:
    """Transfers, meta types, other classes, EDNS versions to come."""
    async with upstream(world) as server, serving(server) as at:
        assert "Transfer failed" in await dig(at, "example.org", "AXFR")
        for kind in ("AXFR", "IXFR", "TYPE249"):
            assert (await ask(at, "example.org", kind)).rcode() == dns.rcode.REFUSED
        assert "status: REFUSED" in await dig(at, "example.org", "CH", "TXT")
        assert "status: BADVERS" in await dig(at, "+edns=1", "+noednsnegotiation", "example.org")
        assert server.asked == []


async def test_names_outside_are_known_before_the_catalog_is() -> None:
    async with upstream(world) as server, serving(server, snapshot=None) as at:
        assert text((await ask(at, "x.example.org")).answer) == ["x.example.org. A 192.0.2.7"]
        assert (await ask(at, "web.service.consul")).rcode() == dns.rcode.SERVFAIL


async def test_bare_names_that_are_no_services_go_upstream() -> None:
    async with upstream(world) as server, serving(server, bare_names=True) as at:
        assert text((await ask(at, "web")).answer) == ["web. A 10.0.0.1"]
        assert text((await ask(at, "printer")).answer) == ["printer. A 192.0.2.7"]
        assert len(server.asked) == 1


async def test_when_nobody_upstream_answers_it_is_servfail() -> None:
    stats = Stats()
    async with upstream(lambda query, _: wire(query, rcode=5)) as server, serving(server, stats=stats) as at:
        reply = await ask(at, "www.example.org")
        assert (reply.rcode(), flags(reply)) == (dns.rcode.SERVFAIL, "QR RD RA")
    assert stats.recursions == {"failed": 1}
    assert stats.dns_queries["A", "SERVFAIL", "udp", "outside"] == 1


async def test_a_loop_of_recursors_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that ask each other: the question that comes back waits for itself, and is given up."""
    monkeypatch.setattr(recursor_exchange, "TRY", 0.5)
    stats = Stats()
    there, here = Upstream(V4), Upstream(V4)
    async with serving(there, stats=stats) as first, serving(here, stats=stats) as second:
        there.at, here.at = second, first
        assert (await ask(first, "www.example.org")).rcode() == dns.rcode.SERVFAIL
        async with asyncio.timeout(5):
            while stats.recursions.total() < 2:
                await asyncio.sleep(0.001)
    assert stats.recursions == {"failed": 2}


async def test_a_crowd_is_told_servfail_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With RA even where the front itself has no room for one that waits."""
    monkeypatch.setattr(udp, "MAX_WAITING", 1)
    async with upstream(lambda *_: []) as server, serving(server) as at, asyncio.timeout(5):
        waiting = asyncio.create_task(ask(at, "slow.example.org"))
        while not server.asked:
            await asyncio.sleep(0.001)
        reply = await ask(at, "other.example.org")
        assert (reply.rcode(), flags(reply)) == (dns.rcode.SERVFAIL, "QR RD RA")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_noise_from_upstream_is_survived() -> None:
    """Octets of all kinds behind the right id and question: an answer or SERVFAIL, and we go on."""

    def noise(query: Message, transport: str) -> list[bytes]:
        sound = address(query)[0]
        return [sound[: 12 + len(b"nnn.example.org") + 1 + 5] + os.urandom(60)]

    async with upstream(noise) as server, serving(server) as at:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0)
            sock.connect((at.host, at.port))
            codes = set()
            for number in range(100, 200):
                sock.send(dns.message.make_query(f"{number}.example.org", "A").to_wire())
                reply = await asyncio.get_running_loop().sock_recv(sock, 4096)
                codes.add(reply[3] & 0xF)
        assert codes <= {dns.rcode.SERVFAIL, dns.rcode.NOERROR}
        assert text((await ask(at, "web.service.consul")).answer) == ["web.service.consul. A 10.0.0.1"]


# Who may ----------------------------------------------------------------------


async def test_strangers_are_refused_and_are_not_offered_recursion(stranger: str) -> None:
    """Neighbours in turn with them get RA, also with replies that are kept for both."""
    async with upstream(world) as server, serving(server) as at:
        for _ in range(3):
            reply = await ask(at, "web.service.consul", source=stranger)
            assert (text(reply.answer), flags(reply)) == (["web.service.consul. A 10.0.0.1"], "QR AA RD")
            assert flags(await ask(at, "web.service.consul")) == "QR AA RD RA"
        await ask(at, "www.example.org")
        for name in ("www.example.org", "other.example.org"):  # one of them is in the cache
            reply = await ask(at, name, source=stranger)
            assert (reply.rcode(), flags(reply)) == (dns.rcode.REFUSED, "QR RD")
        await ask(at, "alias.service.consul")
        alone = await ask(at, "alias.service.consul", source=stranger)
        assert text(alone.answer) == ["alias.service.consul. CNAME www.example.org."]
        over_tcp = await dig(at, "-b", stranger, "+tcp", "www.example.org")
        assert "status: REFUSED" in over_tcp
        assert len(server.asked) == 1


async def test_strangers_who_are_allowed(stranger: str) -> None:
    async with upstream(world) as server, serving(server, allowed=("198.51.100.0/24",)) as at:
        reply = await ask(at, "www.example.org", source=stranger)
        assert (len(reply.answer), flags(reply)) == (2, "QR RD RA")


@pytest.mark.parametrize(
    ("source", "may"),
    [
        ("127.0.0.1", True),
        ("10.9.8.7", True),
        ("172.31.0.1", True),
        ("192.168.1.1", True),
        ("169.254.1.1", True),
        ("::1", True),
        ("fe80::1", True),
        ("fd00::1", True),
        ("172.32.0.1", False),
        ("8.8.8.8", False),
        ("2001:db8:1::1", True),
        ("2001:db8:2::1", False),
        ("", False),
    ],
)
def test_clients(source: str, *, may: bool) -> None:
    clients = Clients(["2001:db8:1::/48"])
    assert [clients.may(source), clients.may(source)] == [may, may]


def test_permissions_remembered_are_bounded() -> None:
    clients = Clients([])
    for number in range(10_000):
        clients.may(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(clients._known) <= 4096


# Names to which the zone leads --------------------------------------------------


async def test_an_alias_to_a_name_outside_is_followed() -> None:
    """With the chain that upstream gives; and an alias to the alias too."""
    async with upstream(world) as server, serving(server) as at:
        assert text((await ask(at, "alias.service.consul")).answer) == [
            "alias.service.consul. CNAME www.example.org.",
            "www.example.org. CNAME a.example.org.",
            "a.example.org. A 192.0.2.7",
        ]
        assert len((await ask(at, "chain.service.consul")).answer) == 4
        assert len(server.asked) == 1


@pytest.mark.parametrize(("kind", "types"), [("A", ["A"]), ("AAAA", ["AAAA"]), ("ANY", ["A", "AAAA"])])
async def test_an_alias_is_followed_for_the_type_asked(kind: str, types: list[str]) -> None:
    """Consul asks for A whatever was asked, which leaves an asker for AAAA without an answer."""
    async with upstream(world) as server, serving(server) as at:
        await dig(at, "+notcp", "six.service.consul", kind)
        assert (
            sorted(dns.rdatatype.to_text(query.question[0].rdtype) for query, _, _ in server.asked) == types
        )
        six = await ask(at, "six.service.consul", "AAAA")
        assert "six.example.org. AAAA 2001:db8::6" in text(six.answer)


async def test_the_ttl_of_what_is_followed_is_never_longer_than_its_own() -> None:
    """Nor than that of the service that leads to it."""
    for ttl, expected in ((0, [0, 0, 0]), (55, [55, 55, 50]), (3600, [3600, 60, 50])):
        async with upstream(world) as server, serving(server, ttls=Ttls(services={"*": ttl})) as at:
            answer = (await ask(at, "alias.service.consul")).answer
            assert [rrset.ttl for rrset in answer] == expected


async def test_an_alias_to_a_name_that_cannot_be_had_is_answered_alone() -> None:
    async with upstream(world) as server, serving(server) as at:
        reply = await ask(at, "gone.service.consul")
        assert text(reply.answer) == ["gone.service.consul. CNAME missing.example.org."]
        assert reply.rcode() == dns.rcode.NOERROR


async def test_targets_of_srv_records_get_their_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both families, in Additional; where there are many names, those of some, and of more each time."""
    monkeypatch.setattr("registrator.lookup.wire.UNPROVEN_UDP", 4096)
    async with upstream(world) as server, serving(server) as at:
        reply = await ask(at, "six.service.consul", "SRV")
        assert "six.example.org. AAAA 2001:db8::6" in text(reply.additional)
        assert "six.example.org. A 192.0.2.7" in text(reply.additional)
        found = []
        for _ in range(5):
            reply = await ask(at, "crowd.service.consul", "SRV", use_edns=0, payload=4096)
            assert len(text(reply.answer)) == 30
            found.append(len([line for line in text(reply.additional) if " A " in line]))
        assert found == [8, 16, 24, 30, 30]
        assert 2 * found[0] == MAX_FETCHED
        assert len(server.asked) == 2 + 60


# The cost of it -----------------------------------------------------------------


def test_nothing_of_it_is_imported_without_the_option() -> None:
    program = "import sys, registrator.agent; sys.exit(any('recursor' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
