"""The DNS server on real sockets, asked by dig and by hand."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
import socket
import struct
import subprocess
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest

from registrator.limits import DNS_WAITING
from registrator.lookup import limit, udp, wire
from registrator.lookup.ask import Zone
from registrator.lookup.dns import DnsBindError, DnsServer
from registrator.lookup.resolver import Resolver
from registrator.model import OUTSIDE, Snapshot, View
from registrator.settings import Listen
from registrator.stats import Stats
from tests.lookup.fakes import FakeDirectory, entry, snapshot_of
from tests.lookup.messages import query, text
from tests.support import unavailable

V4, V6 = Listen("127.0.0.1", 0), Listen("::1", 0)
SNAPSHOT = snapshot_of(
    *(entry("many", n, address=f"10.0.{n // 250}.{n % 250}") for n in range(300)),
    *(entry("web", n) for n in (1, 2)),
    entry("six", address="fd00::6"),
)


@asynccontextmanager
async def serving(
    *listens: Listen, directory: FakeDirectory | None = None, stats: Stats | None = None, rate_limit: int = 0
) -> AsyncIterator[DnsServer]:
    resolver = Resolver(
        directory or FakeDirectory(SNAPSHOT),
        Zone.named("consul"),
        view_of=lambda _: OUTSIDE,
        stats=stats or Stats(),
    )
    server = DnsServer(resolver, listens or (V4,), rate_limit=rate_limit)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


async def dig(listen: Listen, *arguments: str) -> str:
    """What dig prints, one try of two seconds; skips where there is no dig."""
    command = ["dig", f"@{listen.host}", "-p", str(listen.port), "+tries=1", "+time=2", *arguments]
    try:
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        unavailable("dig is missing; install Debian's bind9-dnsutils")
    return done.stdout


@pytest.mark.parametrize("listen", [V4, V6])
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
async def test_dig_gets_answers(listen: Listen, transport: str) -> None:
    """Over both families and both transports: addresses, SRV with additional, NXDOMAIN with SOA."""
    async with serving(listen) as server:
        address = server.addresses[0]
        plain = await dig(address, transport, "+short", "web.service.consul", "A")
        assert sorted(plain.split()) == ["10.0.0.1", "10.0.0.2"]
        assert await dig(address, transport, "+short", "six.service.consul", "AAAA") == "fd00::6\n"
        srv = " ".join((await dig(address, transport, "_web._tcp.consul", "SRV")).split())
        assert "0a000001.addr.dc1.consul. 0 IN A 10.0.0.1" in srv
        assert "status: NOERROR" in srv
        assert "recursion requested but not available" in srv
        missing = await dig(address, transport, "none.service.consul")
        assert "status: NXDOMAIN" in missing
        assert "hostmaster.consul." in missing
        assert "status: REFUSED" in await dig(address, transport, "example.org")
        assert "status: NOTIMP" in await dig(address, transport, "+opcode=UPDATE", "consul")


@pytest.mark.parametrize(
    ("options", "answers", "flags"),
    [
        (["+ignore", "+noedns"], 3, "qr aa tc rd"),
        (["+ignore", "+bufsize=512"], 3, "qr aa tc rd"),
        (["+ignore", "+bufsize=1232"], range(65, 76), "qr aa tc rd"),
        (["+ignore", "+bufsize=4096"], range(65, 76), "qr aa tc rd"),
        (["+ignore", "+bufsize=4096", "+nocookie"], range(65, 76), "qr aa tc rd"),
        (["+noedns"], 300, "qr aa rd"),
        (["+bufsize=1232"], 300, "qr aa rd"),
        (["+tcp"], 300, "qr aa rd"),
    ],
)
async def test_what_udp_cannot_hold_comes_over_tcp(
    options: list[str], answers: int | range, flags: str
) -> None:
    """A UDP reply is as long as the asker takes and says TC; dig then gets all 300 instances over TCP."""
    async with serving() as server:
        output = await dig(server.addresses[0], *options, "many.service.consul")
    assert output.count("\tA\t") in (answers if isinstance(answers, range) else [answers])
    assert f"flags: {flags}; QUERY" in output


async def test_300_srv_records_over_tcp() -> None:
    """All instances and all of their addresses, in one message beyond the reach of compression."""
    async with serving() as server:
        address = server.addresses[0]
        question = dns.message.make_query("many.service.consul", "SRV")
        reply = await dns.asyncquery.tcp(question, address.host, 2, address.port)
    assert len(text(reply.answer)) == 300
    assert len([line for line in text(reply.additional) if " A " in line]) == 300


async def test_both_transports_share_a_free_port_and_leave_it() -> None:
    """Port 0 is one free port for UDP and TCP, told by `addresses`, and free again after close."""
    async with serving(V4, V6) as server:
        assert [address.host for address in server.addresses] == ["127.0.0.1", "::1"]
        taken = server.addresses[0]
        assert taken.port
    assert server.addresses == []
    async with serving(taken) as server:
        assert server.addresses == [taken]


async def test_junk_is_survived_in_silence() -> None:
    """Octets that are no query get no answer or FORMERR, and the next query is answered."""
    async with serving() as server:
        address = server.addresses[0]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0)
            sock.connect((address.host, address.port))
            loop = asyncio.get_running_loop()
            reply = query("web.service.consul", "A")
            response = reply[:2] + b"\x81" + reply[3:]
            for junk in (b"", b"x", b"\0" * 11, response):
                sock.send(junk)
            sock.send(reply[:2] + struct.pack("!5H", 0x0100, 1000, 0, 0, 0) + b"\xc0\x0c\0\1\0\1" * 1000)
            sock.send(reply)
            codes = [dns.message.from_wire(await loop.sock_recv(sock, 4096)).rcode() for _ in range(2)]
    assert codes == [dns.rcode.FORMERR, dns.rcode.NOERROR]


async def test_a_burst_is_answered_in_turns() -> None:
    """More packets than one wake-up reads are all answered."""
    async with serving() as server:
        address = server.addresses[0]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0)
            sock.connect((address.host, address.port))
            count = udp.BURST * 2 + 1
            for number in range(count):
                sock.send(number.to_bytes(2, "big") + query("web.service.consul", "A")[2:])
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(5):
                ids = [int.from_bytes((await loop.sock_recv(sock, 4096))[:2], "big") for _ in range(count)]
    assert sorted(ids) == list(range(count))


async def test_replies_that_are_there_go_before_those_to_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is new to one asker is not felt by the others: one reply a turn is made here, behind theirs."""
    monkeypatch.setattr(udp, "SLICE", 0.0)
    made = entry("web"), *(entry(f"new{number}") for number in range(20))
    async with serving(directory=FakeDirectory(snapshot_of(*made))) as server:
        address = server.addresses[0]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0)
            sock.connect((address.host, address.port))
            loop = asyncio.get_running_loop()
            known = query("web.service.consul", "A")
            async with asyncio.timeout(5):
                for _ in range(3):
                    sock.send(known)
                    await loop.sock_recv(sock, 4096)
                for number in range(20):
                    sock.send(query(f"new{number}.service.consul", "A"))
                sock.send(known)
                replies = [await loop.sock_recv(sock, 4096) for _ in range(21)]
    assert replies[0][:2] == known[:2]
    names = [str(dns.message.from_wire(reply).question[0].name) for reply in replies[1:]]
    assert names == [f"new{number}.service.consul." for number in range(20)]


async def test_closing_forgets_what_is_still_to_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was closed meanwhile makes nothing more, and sends nothing."""
    monkeypatch.setattr(udp, "SLICE", 0.0)
    stats = Stats()
    async with serving(stats=stats) as server:
        address = server.addresses[0]
        front = next(one for one in server._servers if isinstance(one, udp.UdpServer))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0)
            for _ in range(2):
                sock.sendto(query("web.service.consul", "A"), (address.host, address.port))
            async with asyncio.timeout(5):
                while not front.busy:
                    await asyncio.sleep(0)
            await server.close()
            for _ in range(3):
                await asyncio.sleep(0)
            assert sum(stats.dns_queries.values()) == 1
            assert sock.recv(4096)
            with pytest.raises(BlockingIOError):
                sock.recv(4096)


class Gated(FakeDirectory):
    """A directory whose loads wait for `gate`."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(snapshot)
        self.gate = asyncio.Event()
        self.loading = 0

    async def load(self, service: str) -> Snapshot:
        self.loading += 1
        await self.gate.wait()
        return await super().load(service)


def gated() -> Gated:
    """The service "slow" is known, and loads when the gate opens."""
    slow = snapshot_of(entry("slow"))
    directory = Gated(Snapshot(1, {**SNAPSHOT.names, "slow": ()}, SNAPSHOT.services, SNAPSHOT.nodes))
    directory.to_load = dict(slow.services)
    return directory


async def test_a_slow_load_holds_up_nobody_else() -> None:
    """While one query waits for the catalog, others are answered; then it is, too."""
    directory = gated()
    async with serving(directory=directory) as server, asyncio.timeout(5):
        address = server.addresses[0]
        slow = asyncio.create_task(
            dns.asyncquery.udp(
                dns.message.make_query("slow.service.consul", "A"), address.host, 4, address.port
            )
        )
        while not directory.loading:
            await asyncio.sleep(0.001)
        assert await dig(address, "+short", "six.service.consul", "AAAA") == "fd00::6\n"
        assert not slow.done()
        directory.gate.set()
        assert text((await slow).answer) == ["slow.service.consul. A 10.0.0.1"]


async def test_only_so_many_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the cap on waiting queries the answer is SERVFAIL at once; closing ends those that wait."""
    monkeypatch.setattr(udp, "DNS_WAITING", dataclasses.replace(DNS_WAITING, value=1))
    directory = gated()
    async with serving(directory=directory) as server:
        address = server.addresses[0]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0)
            sock.connect((address.host, address.port))
            for _ in range(2):
                sock.send(query("slow.service.consul", "A"))
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(5):
                reply = dns.message.from_wire(await loop.sock_recv(sock, 4096))
    assert reply.rcode() == dns.rcode.SERVFAIL
    assert directory.loading == 1


async def test_one_asker_leaves_places_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """When all places are taken, an asker with fewer gets one from the asker with the most."""
    monkeypatch.setattr(udp, "DNS_WAITING", dataclasses.replace(DNS_WAITING, value=2))
    directory, stats = gated(), Stats()
    async with serving(directory=directory, stats=stats) as server, asyncio.timeout(5):
        loop, port = asyncio.get_running_loop(), server.addresses[0].port
        with ExitStack() as stack:
            greedy, modest = (
                stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)
            )
            for sock, source in ((greedy, "127.0.0.1"), (modest, "127.0.0.2")):
                sock.settimeout(0)
                sock.bind((source, 0))
                sock.connect(("127.0.0.1", port))
            for _ in range(5):
                greedy.send(query("slow.service.consul", "A"))
            replies = [dns.message.from_wire(await loop.sock_recv(greedy, 4096)) for _ in range(3)]
            assert {reply.rcode() for reply in replies} == {dns.rcode.SERVFAIL}
            modest.send(query("slow.service.consul", "A"))
            reply = dns.message.from_wire(await loop.sock_recv(greedy, 4096))
            assert reply.rcode() == dns.rcode.SERVFAIL
            directory.gate.set()
            for sock in (greedy, modest):
                assert dns.message.from_wire(await loop.sock_recv(sock, 4096)).rcode() == dns.rcode.NOERROR
            greedy.send(query("slow.service.consul", "A"))  # whose places are free again
            assert dns.message.from_wire(await loop.sock_recv(greedy, 4096)).rcode() == dns.rcode.NOERROR
    assert stats.limited == {"dns_waiting": 4}


@pytest.mark.parametrize(("wildcard", "asked"), [("0.0.0.0", "127.0.0.5"), ("::", "::1")])
async def test_replies_leave_from_the_address_that_was_asked(wildcard: str, asked: str) -> None:
    """On a socket for all addresses the reply's source is the query's destination."""
    async with serving(Listen(wildcard, 0)) as server:
        family = socket.AF_INET6 if ":" in asked else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0)
            loop = asyncio.get_running_loop()
            await loop.sock_sendto(sock, query("web.service.consul", "A"), (asked, server.addresses[0].port))
            async with asyncio.timeout(5):
                _, peer = await loop.sock_recvfrom(sock, 4096)
    assert peer[0] == asked


async def test_the_view_is_of_the_askers_address() -> None:
    """The asker's own address reaches `view_of`, over both transports."""
    seen = []

    def view_of(source: str) -> View:
        seen.append(source)
        return OUTSIDE

    server = DnsServer(
        Resolver(FakeDirectory(SNAPSHOT), Zone.named("consul"), view_of=view_of, stats=Stats()), [V4, V6]
    )
    await server.start()
    for address in server.addresses:
        await dig(address, "web.service.consul")
        await dig(address, "+tcp", "web.service.consul")
    await server.close()
    assert set(seen) == {"127.0.0.1", "::1"}
    assert seen == sorted(seen)


# Failing to bind ------------------------------------------------------------


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_port_in_use(host: str, kind: socket.SocketKind) -> None:
    """One line says which address and transport, how to find the other program, and what to do."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as other:
        other.bind((host, 0))
        if kind == socket.SOCK_STREAM:
            other.listen()
        taken = Listen(host, other.getsockname()[1])
        with pytest.raises(DnsBindError) as caught:
            async with serving(V4, taken):
                pass
    tcp = kind == socket.SOCK_STREAM
    message = str(caught.value)
    assert message.startswith(f"cannot answer DNS on {taken} ({'TCP' if tcp else 'UDP'}): another program")
    assert f"ss -{'t' if tcp else 'u'}lnp 'sport = :{taken.port}'" in message
    assert "--dns" in message
    assert "\n" not in message


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
async def test_an_address_of_another_host(host: str) -> None:
    """An address that no interface has is said to be so."""
    with pytest.raises(
        DnsBindError, match=r"no interface here has that address; give one that `ip addr` shows"
    ):
        async with serving(Listen(host, 0)):
            pass


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("EACCES", "ports below 1024 need the capability CAP_NET_BIND_SERVICE"),
        ("EAFNOSUPPORT", "this host has no IPv6; give an IPv4 address"),
        ("ENOBUFS", "No buffer space available; give another address with --dns"),
    ],
)
async def test_other_reasons(number: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test's machine cannot be made to refuse (it runs as root, it has IPv6) is explained too."""

    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            code = getattr(errno, number)
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(DnsBindError, match=words):
        async with serving(Listen("127.0.0.1", 53)):
            pass


@pytest.mark.parametrize("listen", [V4, V6, Listen("0.0.0.0", 0), Listen("::", 0)])
async def test_an_asker_over_the_rate_limit_is_answered_over_tcp(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the limit every second query gets TC and no records, no reply is longer than its query."""
    monkeypatch.setattr(udp, "client_of", lambda source: f"{source}/24")
    monkeypatch.setattr(limit, "WINDOW", 60.0)
    stats = Stats()
    async with serving(listen, stats=stats, rate_limit=2) as server:
        host = "::1" if ":" in listen.host else "127.0.0.1"
        port = server.addresses[0].port
        packet = query("web.service.consul", "SRV", 1232)
        replies = [await ask_raw(host, port, packet, 0.3) for _ in range(6)]
        assert [reply is not None for reply in replies] == [True, True, True, False, True, False]
        full, slipped = (dns.message.from_wire(replies[n] or b"") for n in (0, 2))
        assert len(full.answer[0]) == 2
        assert not full.flags & dns.flags.TC
        assert slipped.flags & dns.flags.TC
        assert (slipped.answer, slipped.question) == ([], full.question)
        assert len(replies[2] or b"") <= len(packet)
        truth = dns.message.make_query("web.service.consul", "SRV")
        reply, over_tcp = await dns.asyncquery.udp_with_fallback(truth, host, port=port, timeout=5)
        assert over_tcp
        assert len(reply.answer[0]) == 2
    assert stats.dns_limited == {"slipped": 3, "dropped": 2}


async def test_what_is_no_query_never_slips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the limit there is no reply to a packet that is none, or to a reply: no endless exchange."""
    for packet in (b"", b"\0" * 12, query("web.service.consul", "A")[:20], b"\0\0\x80\0" + b"\0" * 20):
        assert wire.slipped(packet) is None


async def test_every_query_is_counted_with_its_time() -> None:
    stats = Stats()
    async with serving(V4, stats=stats) as server:
        host, port = server.addresses[0].host, server.addresses[0].port
        for name in ("web", "web", "none", "many"):
            await dns.asyncquery.udp(
                dns.message.make_query(f"{name}.service.consul", "A"), host, port=port, timeout=5
            )
        await dns.asyncquery.tcp(
            dns.message.make_query("web.service.consul", "A"), host, port=port, timeout=5
        )
    assert sum(stats.dns_seconds.counts) == 5
    assert 0 < stats.dns_seconds.total < 5


async def ask_raw(host: str, port: int, packet: bytes, timeout: float) -> bytes | None:
    """The reply's octets, or None where there is none in time."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0)
        sock.connect((host, port))
        await loop.sock_sendall(sock, packet)
        try:
            return await asyncio.wait_for(loop.sock_recv(sock, 4096), timeout)
        except TimeoutError:
            return None
