"""The recursor and upstream servers that are slow, dead, wrong or hostile."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import dns.message
import pytest

from registrator import complaint
from registrator.limits import RECURSIONS, RECURSIONS_TCP, Limit
from registrator.lookup import recursor, recursor_exchange
from registrator.lookup.records import Type
from registrator.lookup.recursor import QUIET, Recursor
from registrator.lookup.recursor_exchange import MAX_STRAYS
from registrator.lookup.recursor_message import FAILURE, Inquiry, Reply
from registrator.lookup.recursor_servers import Upstreams
from registrator.lookup.shares import Asker, asker_of
from registrator.settings import Listen
from registrator.stats import Stats
from tests.lookup.upstream import HANGING, TCP, UDP, Upstream, address, response, truncated, upstream, wire

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
async def test_a_reply_that_is_cut_is_asked_for_over_tcp(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole comes, of any length."""
    monkeypatch.setattr(recursor_exchange, "TRY", 20.0)  # dnspython needs its time for it
    monkeypatch.setattr(recursor, "DEADLINE", 60.0)
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
    now = time.monotonic()
    upstreams.failed(first.at, now)
    assert upstreams.order() == [second.at, first.at]
    upstreams.failed(second.at, now)
    assert upstreams.order() == [first.at, second.at]
    upstreams.failed(first.at, now)
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
async def test_when_all_fail_it_is_said_once_in_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names each server and what is wrong with it; the first answer afterwards has a line too."""
    now = 1000.0
    monkeypatch.setattr(complaint, "time", SimpleNamespace(monotonic=lambda: now))
    caplog.set_level(logging.INFO)
    dead, stats = await nobody(), Stats()
    broken = True

    def answers(query: Message, transport: str) -> list[bytes]:
        return wire(query, rcode=5) if broken else address(query)

    async with upstream(answers) as server, asking(dead, server.at, stats=stats) as asked:
        for number in range(31):
            now += QUIET / 30
            assert await asked.ask(inquiry(f"n{number}.example.org")) == FAILURE
        broken = False
        await asked.ask(inquiry("between.example.org"))  # may be luck
        now += complaint.SETTLED
        await asked.ask(inquiry())
    first, later, over = caplog.messages
    assert first == (
        f"no recursor answers ({dead}: Connection refused; {server.at}: REFUSED): names outside the zone "
        "fail; check --recursor and the servers"
    )
    assert later.endswith("(31 times by now)")
    assert over == "a recursor answers again"
    assert stats.recursions == {"failed": 31, "answered": 2}


async def test_a_dead_domain_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """As long as the server answers others: whoever asks for dead names must not fill the log."""
    async with upstream(dead) as server, asking(server.at) as asked:
        waiting = asyncio.create_task(asked.ask(inquiry("n.dead")))
        while not server.asked:
            await asyncio.sleep(0.001)
        await asked.ask(inquiry("n.alive"))
        assert await waiting == FAILURE
    assert not caplog.messages


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


async def test_a_dead_domain_does_not_make_a_server_bad_that_answers_others() -> None:
    """Only its own names go to the next server, which may not know those of the others."""

    def answers(query: Message, transport: str) -> list[bytes]:
        return [] if "dead" in str(query.question[0].name) else address(query)

    async with upstream(answers) as first, upstream(good) as second, asking(first.at, second.at) as asked:
        dead = asyncio.create_task(asked.ask(inquiry("dead.example.org")))
        while not first.asked:
            await asyncio.sleep(0.001)
        await asked.ask(inquiry("fine.example.org"))
        await dead
        await asked.ask(inquiry("another.example.org"))
        assert [str(query.question[0].name) for query, _, _ in second.asked] == ["dead.example.org."]


# Askers, and their shares -------------------------------------------------------


CONTAINERS = [Asker(known=True, origin=f"172.17.0.{n}") for n in range(2, 6)]


def dead(query: Message, transport: str) -> list[bytes]:
    """Nothing about the domain dead, the truth about all others."""
    return [] if "dead" in str(query.question[0].name) else address(query)


def cut(query: Message, transport: str) -> list[bytes]:
    """Nothing over TCP about the domain dead; everybody has to come over TCP."""
    return truncated(query) if transport == UDP else dead(query, transport) or HANGING


async def fill(
    server: Upstream, asked: Recursor, askers: list[Asker], limit: Limit, stats: Stats
) -> list[asyncio.Task[Reply]]:
    """Have the askers ask for dead names until one was too many; no packet is lost on the way."""
    tasks: list[asyncio.Task[Reply]] = []
    async with asyncio.timeout(30):
        while stats.limited[limit.name] < len(askers[:10]):
            number = len(tasks)
            tasks.append(
                asyncio.create_task(asked.ask(inquiry(f"n{number}.dead"), askers[number % len(askers)]))
            )
            while len(server.asked) + stats.limited[limit.name] <= number:
                await asyncio.sleep(0.001)
    return tasks


@pytest.mark.parametrize(
    ("hostile", "asker"),
    [
        (CONTAINERS[:1], CONTAINERS[3]),
        (CONTAINERS[:3], CONTAINERS[3]),
        ([asker_of(f"10.9.{n >> 8}.{n & 255}", known=False) for n in range(1000)], CONTAINERS[3]),
        ([asker_of(f"fd00::{n:x}", known=False) for n in range(1000)], asker_of("fd00:1::1", known=False)),
        (CONTAINERS, asker_of("127.0.0.1", known=False)),
    ],
    ids=["a container", "three containers", "forged sources", "addresses of one host", "all containers"],
)
async def test_an_asker_of_dead_names_fails_nobody_else(hostile: list[Asker], asker: Asker) -> None:
    """With all places taken, each question of another asker is answered, and at once."""
    stats = Stats()
    async with upstream(dead) as server, asking(server.at, stats=stats) as asked:
        tasks = await fill(server, asked, hostile, RECURSIONS, stats)
        async with asyncio.timeout(recursor_exchange.TRY * 0.9):  # not because the dead ones were given up
            replies = [await asked.ask(inquiry(f"n{number}.alive"), asker) for number in range(40)]
        assert [ips(reply) for reply in replies] == [["192.0.2.7"]] * 40
        assert len(asked._flights) <= 2 * RECURSIONS.value
        await asked.close()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert stats.recursions["crowded"] == stats.limited[RECURSIONS.name]


async def test_invented_sources_end_no_question_of_a_container() -> None:
    """Each is an asker of its own, with no place yet: they push out the oldest of one another."""
    stats = Stats()
    invented = [asker_of(f"10.9.{n >> 8}.{n & 255}", known=False) for n in range(1000)]

    async with upstream(silent) as server, asking(server.at, stats=stats) as asked:
        waiting = asyncio.create_task(asked.ask(inquiry("slow.org"), CONTAINERS[0]))
        while not server.asked:
            await asyncio.sleep(0.001)
        tasks = await fill(server, asked, invented, RECURSIONS, stats)
        assert not waiting.done()
        server.send(address(server.asked[0][0])[0], server.asked[0][2])
        assert ips(await waiting) == ["192.0.2.7"]
        await asked.close()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_dead_domain_over_tcp_fails_nobody_else() -> None:
    """Truncated replies need connections, of which there are few: the asker of dead ones gives one up."""
    stats = Stats()
    async with upstream(cut) as server, asking(server.at, stats=stats) as asked:
        tasks = await fill(server, asked, CONTAINERS[:1], RECURSIONS_TCP, stats)
        async with asyncio.timeout(recursor_exchange.TRY * 0.9):
            replies = [await asked.ask(inquiry(f"n{number}.alive"), CONTAINERS[1]) for number in range(20)]
        assert [ips(reply) for reply in replies] == [["192.0.2.7"]] * 20
        assert server.transports.count(TCP) < RECURSIONS_TCP.value + 30
        await asked.close()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_an_asker_without_places_does_not_make_a_server_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for want of connections nor of descriptors: the server is asked first afterwards, too."""
    by_udp = recursor_exchange._by_udp

    async def out_of_descriptors(address: Any, inquiry: Inquiry, *, edns: bool) -> Reply:
        if address[1][1] == first.at.port:
            raise OSError(errno.EMFILE, "Too many open files")
        return await by_udp(address, inquiry, edns=edns)

    async with upstream(good) as first, upstream(good) as second, asking(first.at, second.at) as asked:
        with monkeypatch.context() as patch:
            patch.setattr(recursor_exchange, "_by_udp", out_of_descriptors)
            await asked.ask(inquiry("a.example.org"))
        await asked.ask(inquiry("b.example.org"))
        assert (len(first.asked), len(second.asked)) == (1, 1)


async def test_who_asked_the_same_first_does_not_decide_for_the_others() -> None:
    """The one with the most loses its place in a question that another waits for, too: that one's comes."""
    answer = asyncio.Event()
    stats = Stats()

    def slow(query: Message, transport: str) -> list[bytes]:
        return address(query) if answer.is_set() else []

    async with upstream(slow) as server, asking(server.at, stats=stats) as asked:
        hostile, other = CONTAINERS[:2]
        shared = [asyncio.create_task(asked.ask(inquiry("shared.org"), each)) for each in (hostile, other)]
        await asyncio.sleep(0)
        tasks = await fill(server, asked, [hostile], RECURSIONS, stats)
        extra = asyncio.create_task(asked.ask(inquiry("extra.org"), other))
        assert await shared[0] == FAILURE
        answer.set()
        query, _, port = next(each for each in server.asked if "shared" in str(each[0].question[0].name))
        server.send(address(query)[0], port)
        assert ips(await shared[1]) == ["192.0.2.7"]
        await asked.close()
        await asyncio.gather(*tasks, extra, return_exceptions=True)


async def test_what_nobody_waits_for_is_ended() -> None:
    """The socket of a question is closed when the last asker is gone."""
    async with upstream(silent) as server, asking(server.at) as asked:
        tasks = [asyncio.create_task(asked.ask(inquiry())) for _ in range(3)]
        while not server.asked:
            await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not asked._flights
        assert not len(asked._places)
