"""The recursor and upstream servers that are slow, dead, wrong or hostile."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import dns.message
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registrator.lookup import recursor, recursor_exchange
from registrator.lookup.records import Rcode, Type
from registrator.lookup.recursor import Recursor
from registrator.lookup.recursor_cache import Cache, Room
from registrator.lookup.recursor_exchange import MAX_STRAYS
from registrator.lookup.recursor_message import FAILURE, Inquiry, Reply
from registrator.lookup.recursor_servers import SystemServers, Upstreams, is_own, nameservers
from registrator.settings import Listen
from registrator.stats import Stats
from tests.lookup.upstream import TCP, address, response, truncated, upstream, wire

Message = dns.message.Message


def inquiry(name: str = "www.example.org", kind: Type = Type.A) -> Inquiry:
    return Inquiry.of(tuple(part.encode() for part in name.split(".")), kind)


@asynccontextmanager
async def asking(*servers: Listen, stats: Stats | None = None) -> AsyncIterator[Recursor]:
    found = Recursor(lambda: servers, stats or Stats())
    try:
        yield found
    finally:
        await found.close()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A try is over after half a second."""
    monkeypatch.setattr(recursor_exchange, "TRY", 0.5)


def ips(reply: Reply) -> list[str]:
    return [".".join(map(str, record.data)) for record in reply.addresses(0)]


async def nobody() -> Listen:
    """A loopback address with nobody behind it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return Listen(*sock.getsockname())


def silent(query: Message, transport: str) -> list[bytes]:
    return []


def good(query: Message, transport: str) -> list[bytes]:
    return address(query)


# Asking -----------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_reply_over_udp(host: str) -> None:
    async with upstream(good, host) as server, asking(server.at) as asked:
        assert ips(await asked.ask(inquiry())) == ["192.0.2.7"]
        assert server.transports == ["udp"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_reply_that_is_cut_is_asked_for_over_tcp(host: str) -> None:
    """The whole comes, of any length."""
    many = [f"10.0.{n // 250}.{n % 250}" for n in range(1000)]

    def answers(query: Message, transport: str) -> list[bytes]:
        return address(query, *many) if transport == TCP else truncated(query)

    async with upstream(answers, host) as server, asking(server.at) as asked:
        assert len(ips(await asked.ask(inquiry()))) == 1000
        assert server.transports == ["udp", "tcp"]


async def test_ids_and_source_ports_are_random() -> None:
    """RFC 5452, 9: neither is told by the one before."""
    async with upstream(good) as server, asking(server.at) as asked:
        for number in range(40):
            await asked.ask(inquiry(f"n{number}.example.org"))
    ids = [query.id for query, _, _ in server.asked]
    ports = [port for _, _, port in server.asked]
    assert len(set(ids)) > 35
    assert len(set(ports)) > 35
    assert len({b - a for a, b in itertools.pairwise(ports)}) > 20


async def test_a_server_without_edns_is_asked_without() -> None:
    def answers(query: Message, transport: str) -> list[bytes]:
        return wire(query, rcode=1) if query.edns >= 0 else address(query)

    async with upstream(answers) as server, asking(server.at) as asked:
        assert ips(await asked.ask(inquiry())) == ["192.0.2.7"]
        assert [query.edns for query, _, _ in server.asked] == [0, -1]


def forged(query: Message) -> Iterable[bytes]:
    """Replies that somebody might send who does not know what was asked."""
    right = address(query, "203.0.113.66")[0]
    yield bytes((right[0] ^ 1,)) + right[1:]
    yield right.replace(b"example", b"exemple")
    yield right[:2] + bytes((right[2] & 0x7F,)) + right[3:]
    yield b""
    yield os.urandom(40)


async def test_forged_replies_are_passed_over_and_the_true_one_waited_for() -> None:
    """Wrong id, wrong question, a query, nothing, noise."""

    def answers(query: Message, transport: str) -> Iterable[bytes]:
        return [*forged(query), *address(query)]

    async with upstream(answers) as server, asking(server.at) as asked:
        assert ips(await asked.ask(inquiry())) == ["192.0.2.7"]
        assert len(server.asked) == 1


async def test_replies_from_another_address_are_not_heard() -> None:
    """The right id and question from the wrong socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as spoofer:
        spoofer.bind(("127.0.0.2", 0))

        def answers(query: Message, transport: str) -> Iterable[bytes]:
            port = server.asked[-1][2]
            spoofer.sendto(address(query, "203.0.113.66")[0], ("127.0.0.1", port))
            return address(query)

        async with upstream(answers) as server, asking(server.at) as asked:
            assert ips(await asked.ask(inquiry())) == ["192.0.2.7"]


# Failing ----------------------------------------------------------------------


def strays(query: Message, transport: str) -> Iterable[bytes]:
    return [next(iter(forged(query)))] * (MAX_STRAYS + 1)


def senseless(query: Message, transport: str) -> Iterable[bytes]:
    return [packet[:-3] for packet in address(query)]


def cut_everywhere(query: Message, transport: str) -> Iterable[bytes]:
    return truncated(query)


def cut_then_closed(query: Message, transport: str) -> Iterable[bytes]:
    return [] if transport == TCP else truncated(query)


def failing(query: Message, transport: str) -> Iterable[bytes]:
    return wire(query, rcode=2)


def refusing(query: Message, transport: str) -> Iterable[bytes]:
    return wire(query, rcode=5)


def refusing_bare(query: Message, transport: str) -> Iterable[bytes]:
    return [response(query).to_wire()[:2] + b"\x81\x85" + bytes(8)]


FAULTS = [silent, strays, senseless, cut_everywhere, cut_then_closed, failing, refusing, refusing_bare]


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("fault", FAULTS)
async def test_the_next_server_is_asked_where_one_fails(fault: Callable[[Message, str], list[bytes]]) -> None:
    async with upstream(fault) as bad, upstream(good) as fine, asking(bad.at, fine.at) as asked:
        assert ips(await asked.ask(inquiry())) == ["192.0.2.7"]
        assert bad.asked


async def test_a_server_that_is_not_there_costs_no_time() -> None:
    """The kernel says so (ICMP), and the next is asked at once."""
    async with upstream(good) as fine, asking(await nobody(), fine.at) as asked:
        begin = time.monotonic()
        assert ips(await asked.ask(inquiry())) == ["192.0.2.7"]
        assert time.monotonic() - begin < 1


async def test_a_try_takes_two_seconds() -> None:
    async with upstream(silent) as slow, upstream(good) as fine, asking(slow.at, fine.at) as asked:
        begin = time.monotonic()
        assert ips(await asked.ask(inquiry())) == ["192.0.2.7"]
        assert 1.9 < time.monotonic() - begin < 4


@pytest.mark.usefixtures("soon")
async def test_a_silent_server_is_asked_last_for_a_while() -> None:
    """And first again once it has answered."""
    broken = True

    def answers(query: Message, transport: str) -> list[bytes]:
        return [] if broken else address(query)

    async with upstream(answers) as first, upstream(good) as second, asking(first.at, second.at) as asked:
        await asked.ask(inquiry("a.example.org"))
        await asked.ask(inquiry("b.example.org"))
        assert (len(first.asked), len(second.asked)) == (1, 2)
    upstreams = Upstreams(lambda: (first.at, second.at))
    upstreams.failed(first.at)
    assert upstreams.order() == [second.at, first.at]
    upstreams.failed(second.at)
    assert upstreams.order() == [first.at, second.at]
    upstreams.failed(first.at)
    upstreams.worked(second.at)
    assert upstreams.order() == [second.at, first.at]


async def test_servfail_for_one_name_does_not_make_a_server_bad() -> None:
    def answers(query: Message, transport: str) -> list[bytes]:
        return wire(query, rcode=2) if "bogus" in str(query.question[0].name) else address(query)

    async with upstream(answers) as first, upstream(good) as second, asking(first.at, second.at) as asked:
        await asked.ask(inquiry("bogus.example.org"))
        await asked.ask(inquiry("fine.example.org"))
        assert (len(first.asked), len(second.asked)) == (2, 1)


@pytest.mark.usefixtures("soon")
async def test_when_all_fail_it_is_said_once_and_then_every_tenth_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The line names each server and what is wrong with it; the first answer afterwards has a line too."""
    caplog.set_level(logging.INFO)
    dead, stats = await nobody(), Stats()
    broken = True

    def answers(query: Message, transport: str) -> list[bytes]:
        return wire(query, rcode=5) if broken else address(query)

    async with upstream(answers) as server, asking(dead, server.at, stats=stats) as asked:
        for number in range(11):
            assert await asked.ask(inquiry(f"n{number}.example.org")) == FAILURE
        broken = False
        await asked.ask(inquiry())
    first, eleventh, over = caplog.messages
    assert first == (
        f"no recursor answers ({dead}: Connection refused; {server.at}: REFUSED): names outside the zone "
        "fail; check --recursor and the servers"
    )
    assert eleventh.endswith("(11 times by now)")
    assert over == "a recursor answers again"
    assert stats.recursions == {"failed": 11, "answered": 1}


async def test_servfail_from_all_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever asks for a name with broken signatures must not fill the log."""
    async with upstream(failing) as server, asking(server.at) as asked:
        assert await asked.ask(inquiry()) == FAILURE
    assert not caplog.messages


async def test_without_any_server() -> None:
    async with asking() as asked:
        assert await asked.ask(inquiry()) == FAILURE


# The cache, and questions under way ----------------------------------------------


async def test_what_is_known_is_not_asked_again() -> None:
    stats = Stats()
    async with upstream(good) as server, asking(server.at, stats=stats) as asked:
        assert asked.known(inquiry()) is None
        reply = await asked.ask(inquiry())
        assert asked.known(inquiry()) == (reply, 0)
        assert asked.known(inquiry(kind=Type.AAAA)) is None
    assert len(server.asked) == 1
    assert (stats.recursions, stats.recursor_hits, stats.recursor_cached) == ({"answered": 1}, 1, 1)
    assert stats.recursor_octets > len(reply.body)


async def test_a_failure_is_known_for_a_second() -> None:
    """RFC 9520: a name that fails is not asked for again and again."""
    async with upstream(failing) as server, asking(server.at) as asked:
        await asked.ask(inquiry())
        assert asked.known(inquiry()) == (FAILURE, 0)


async def test_what_is_under_way_ends_with_the_recursor() -> None:
    async with upstream(silent) as server, asking(server.at) as asked:
        tasks = [asyncio.create_task(asked.ask(inquiry())) for _ in range(5)]
        while not server.asked:
            await asyncio.sleep(0.001)
        await asked.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)


async def test_equal_questions_under_way_are_one() -> None:
    """All get the reply; and it goes on for the others when one who asked goes away."""
    async with upstream(good) as server, asking(server.at) as asked:
        first = asyncio.create_task(asked.ask(inquiry()))
        await asyncio.sleep(0)
        others = [asyncio.create_task(asked.ask(inquiry())) for _ in range(20)]
        await asyncio.sleep(0)
        first.cancel()
        replies = await asyncio.gather(*others)
    assert [ips(reply) for reply in replies] == [["192.0.2.7"]] * 20
    assert len(server.asked) == 1


async def test_only_so_many_questions_and_askers_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond that there is no answer, at once."""
    monkeypatch.setattr(recursor, "MAX_FLIGHTS", 2)
    monkeypatch.setattr(recursor, "MAX_WAITING", 4)
    stats = Stats()
    async with upstream(silent) as server, asking(server.at, stats=stats) as asked:
        names = ["a.org", "b.org", "a.org", "a.org"]
        tasks = [asyncio.create_task(asked.ask(inquiry(name))) for name in names[:2]]
        await asyncio.sleep(0)
        assert await asked.ask(inquiry("c.org")) == FAILURE
        tasks += [asyncio.create_task(asked.ask(inquiry(name))) for name in names[2:]]
        await asyncio.sleep(0)
        assert await asked.ask(inquiry("a.org")) == FAILURE
        assert stats.recursions == {"crowded": 2}
        await asked.close()
        await asyncio.gather(*tasks, return_exceptions=True)


def found(octets: int = 10, ttl: int = 60, rcode: Rcode = Rcode.NOERROR) -> Reply:
    return Reply(rcode, b"q", bytes(octets), (), (1, 0, 0), ttl)


def test_the_cache_forgets_by_ttl() -> None:
    cache = Cache()
    cache.keep(inquiry(), found(ttl=60), 100.0)
    assert cache.find(inquiry(), 107.5) == (found(ttl=60), 7)
    assert cache.find(inquiry(), 160.0) is None
    cache.keep(inquiry(), found(ttl=0), 161.0)
    assert (len(cache), cache.octets) == (0, 0)


def test_the_cache_is_bounded_and_drops_what_is_used_least() -> None:
    cache = Cache()
    cache._found, cache._missing = Room(3, 10_000), Room(2, 10_000)
    for number in range(3):
        cache.keep(inquiry(f"n{number}"), found(), 0.0)
    assert cache.find(inquiry("n0"), 1.0)
    cache.keep(inquiry("n3"), found(), 0.0)
    assert [cache.find(inquiry(f"n{n}"), 1.0) is not None for n in range(4)] == [True, False, True, True]
    for number in range(100):
        cache.keep(inquiry(f"missing{number}"), found(rcode=Rcode.NXDOMAIN), 0.0)
    assert len(cache) == 5
    cache.keep(inquiry("large"), found(octets=9_200), 0.0)
    assert cache.octets < 20_000
    assert cache.find(inquiry("n0"), 1.0) is None


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.booleans()), max_size=40))
def test_the_cache_counts_its_octets_right(steps: Sequence[tuple[int, int, bool]]) -> None:
    cache = Cache()
    cache._found, cache._missing = Room(3, 5_000), Room(2, 2_000)
    for name, ttl, exists in steps:
        rcode = Rcode.NOERROR if exists else Rcode.NXDOMAIN
        cache.keep(inquiry(f"n{name}"), found(octets=name * 300, ttl=ttl, rcode=rcode), 0.0)
        cache.find(inquiry("n1"), 0.0)
    rooms = (cache._found, cache._missing)
    assert cache.octets == sum(kept.size for room in rooms for kept in room._kept.values())
    assert len(cache._found) <= 3
    assert cache._found.octets <= 5_000


# The servers --------------------------------------------------------------------

OWN = (Listen("127.0.0.1", 53), Listen("169.254.53.53", 53))


def test_nameservers_of_a_resolv_conf() -> None:
    text = "# x\nsearch a b\nnameserver 10.0.0.2\nnameserver\t::1 # x\nnameserver fe80::1%eth0\n"
    text += "nameserver example.org\nnameserver\nnameserver 10.0.0.2\noptions ndots:2\n"
    assert nameservers(text) == [Listen("10.0.0.2", 53), Listen("::1", 53), Listen("fe80::1%eth0", 53)]


@pytest.mark.parametrize(
    ("server", "own", "is_ours"),
    [
        (Listen("127.0.0.1", 53), OWN, True),
        (Listen("169.254.53.53", 53), OWN, True),
        (Listen("127.0.0.1", 5353), OWN, False),
        (Listen("127.0.0.53", 53), OWN, False),
        (Listen("127.0.0.53", 53), (Listen("0.0.0.0", 53),), True),
        (Listen("192.0.2.1", 53), (Listen("0.0.0.0", 53),), False),
        (Listen("::1", 53), (Listen("0.0.0.0", 53),), False),
        (Listen("::1", 53), (Listen("::", 53),), True),
        (Listen("2001:db8::1", 53), (Listen("::", 53),), False),
    ],
)
def test_our_own_addresses_are_known(server: Listen, own: Sequence[Listen], *, is_ours: bool) -> None:
    assert is_own(server, own) == is_ours


def test_resolv_conf_is_read_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when it is replaced, as most programs do; while it is missing, what it said holds."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("registrator.lookup.recursor_servers.LOOK", 0.0)
    path = tmp_path / "resolv.conf"
    servers = SystemServers(OWN, path)
    assert servers() == ()
    path.write_text("nameserver 127.0.0.1\nnameserver 10.0.0.2\n")
    assert servers() == (Listen("10.0.0.2", 53),)
    new = tmp_path / "new"
    new.write_text("nameserver 10.0.0.3\nnameserver 10.0.0.4\n")
    new.replace(path)
    assert servers() == (Listen("10.0.0.3", 53), Listen("10.0.0.4", 53))
    path.unlink()
    assert servers() == (Listen("10.0.0.3", 53), Listen("10.0.0.4", 53))
    path.write_text("nameserver 169.254.53.53\n")
    assert servers() == ()
    assert [message.rpartition(": ")[2] for message in caplog.messages] == [
        "10.0.0.2:53",
        "10.0.0.3:53, 10.0.0.4:53",
        "none but this agent",
    ]


def test_the_file_is_looked_at_once_a_second_at_most(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 10.0.0.2\n")
    servers = SystemServers(OWN, path)
    first = servers()
    path.write_text("nameserver 10.0.0.33\n")
    assert servers() is first
