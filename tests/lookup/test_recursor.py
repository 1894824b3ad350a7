"""The recursor and upstream servers that are slow, dead, wrong or hostile."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import dns.message
import pytest

from registrator.lookup import recursor, recursor_exchange
from registrator.lookup.records import Type
from registrator.lookup.recursor import Recursor
from registrator.lookup.recursor_exchange import MAX_STRAYS
from registrator.lookup.recursor_message import FAILURE, Inquiry, Reply
from registrator.lookup.recursor_servers import Upstreams
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
