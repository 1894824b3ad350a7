"""What one client, or all of them, may hold of the HTTP server: connections, octets, places, turns."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp.web import RequestHandler

from registrator import limits
from registrator.lookup import (
    http_connection,
    http_events,
    http_floor,
    http_gate,
    http_reads,
)
from registrator.lookup.http_floor import Floor
from registrator.lookup.http_gate import Gate
from registrator.lookup.http_places import NoPlace, Places, client_of
from registrator.model import Snapshot
from registrator.stats import Stats
from tests.lookup.fakes import FakeDirectory, entry, snapshot_of
from tests.lookup.web import Web, serve

SNAPSHOT = snapshot_of(entry("web"))
MANY = snapshot_of(*(entry("web", n, meta={"k": "x" * 300}) for n in range(1, 1500)))
A, B, C, D = "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"
BLOCKING = "/v1/health/service/web?index=10&wait=5m"

Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Clients:
    """Connections from several addresses, closed together."""

    def __init__(self, web: Web) -> None:
        self._listen = web.server.addresses[0]
        self._open: list[asyncio.StreamWriter] = []

    async def connect(self, source: str = A) -> Pipe:
        pipe = await asyncio.open_connection(
            self._listen.host, self._listen.port, local_addr=(source, 0), limit=4096
        )
        self._open.append(pipe[1])
        return pipe

    async def send(self, octets: bytes, source: str = A) -> Pipe:
        pipe = await self.connect(source)
        pipe[1].write(octets)
        return pipe

    async def ask(self, path: str, source: str = A) -> Pipe:
        return await self.send(request(path), source)

    async def get(self, path: str, source: str = A) -> bytes:
        """The whole answer to a request on a connection of its own."""
        reader, writer = await self.send(request(path, "Connection: close\r\n"), source)
        async with asyncio.timeout(300):
            answer = await reader.read()
        writer.close()
        return answer

    async def status(self, path: str, source: str = A) -> int:
        return int((await self.get(path, source))[9:12])

    def close(self) -> None:
        for writer in self._open:
            writer.transport.abort()


def request(path: str, headers: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode()


@contextlib.asynccontextmanager
async def clients(directory: FakeDirectory) -> AsyncIterator[tuple[Web, Clients]]:
    async with serve(directory) as web:
        them = Clients(web)
        try:
            yield web, them
        finally:
            them.close()


async def until(condition: Any, within: float = 10.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.002)


def floor(web: Web) -> Floor:
    found = web.server._floor
    assert found is not None
    return found


async def heads(readers: Iterable[Pipe]) -> list[int]:
    """The status that each connection is answered with."""
    return [int((await asyncio.wait_for(reader.readline(), 10))[9:12]) for reader, _ in readers]


# Heads of requests ----------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"GET /livez HTTP/1.1\r\n" + b"".join(b"X-%d: %b\r\n" % (n, b"y" * 4000) for n in range(10)), 431),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\r\n\r\nmore", 400),
    ],
    ids=["too long", "HTTP/2", "TLS"],
)
async def test_what_is_refused_is_counted_as_unfinished_no_more(octets: bytes, status: int) -> None:
    """Neither more nor less than it was: else the limit of all together would wear off."""
    async with clients(FakeDirectory(SNAPSHOT)) as (web, them):
        reader, _ = await them.send(octets)
        assert int((await asyncio.wait_for(reader.readline(), 10))[9:12]) == status
        await until(lambda: len(floor(web)._all) == 0)
        assert floor(web)._unfinished == 0


async def test_more_than_16_kb_of_headers_are_answered_431_and_the_connection_ends() -> None:
    """Each header is within its own limit, and their number too."""
    lines = b"".join(b"X-%d: %b\r\n" % (n, b"y" * 4000) for n in range(10))
    async with clients(FakeDirectory(SNAPSHOT)) as (web, them):
        reader, _ = await them.send(b"GET /livez HTTP/1.1\r\nHost: a\r\n" + lines)  # and no end
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert web.stats.limited[limits.HTTP_HEAD.name] == 1
        fits = request("/livez", f"X: {'y' * 7000}\r\nY: {'y' * 7000}\r\nConnection: close\r\n")
        reader, _ = await them.send(fits)
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 200 ")


async def test_512_unfinished_requests_hold_two_megabytes_at_most() -> None:
    """What a request holds before it is whole is counted over all connections."""
    half = b"GET /livez HTTP/1.1\r\nHost: a\r\n" + b"".join(
        b"X-%d: %b\r\n" % (n, b"y" * 5000) for n in range(3)
    )
    highest = 0
    async with clients(FakeDirectory(SNAPSHOT)) as (web, them):
        for number in range(512):
            await them.send(half, (A, B, C, D)[number % 4])
            if number % 16 == 0:
                await asyncio.sleep(0)
                highest = max(highest, sum(one.unfinished for one in floor(web)._all))
        await until(lambda: web.stats.limited[limits.HTTP_UNFINISHED.name])
        assert await them.status("/livez") == 200
        highest = max(highest, sum(one.unfinished for one in floor(web)._all))
        assert highest <= limits.HTTP_UNFINISHED.value
        assert floor(web)._unfinished == sum(one.unfinished for one in floor(web)._all)


async def test_half_a_request_is_waited_for_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it comes octet by octet, so that the connection is never silent."""
    monkeypatch.setattr(http_floor, "HEAD_TIME", 0.3)
    monkeypatch.setattr(http_floor, "TICK", 0.05)
    async with clients(FakeDirectory(SNAPSHOT)) as (web, them):
        reader, writer = await them.send(b"GET /livez HTTP/1.1\r\nX: ")
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                while not reader.at_eof():
                    writer.write(b"y")
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(reader.read(1), 0.02)
        assert web.stats.limited[limits.HTTP_HEAD_TIME.name] == 1


async def test_a_head_may_come_octet_by_octet_and_with_empty_lines_before_it() -> None:
    async with clients(FakeDirectory(SNAPSHOT)) as (_, them):
        reader, writer = await them.connect()
        for octet in b"\r\n\r\n" + request("/livez") * 2:
            writer.write(bytes((octet,)))
            await writer.drain()
            await asyncio.sleep(0)
        assert await heads([(reader, writer)]) == [200]
        assert (await asyncio.wait_for(reader.readuntil(b"HTTP/1.1 200"), 10)).endswith(b"200")


# Pipelining and bodies --------------------------------------------------------


async def test_pipelined_requests_are_answered_in_order_and_parsed_one_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    longest = 0
    parse = RequestHandler.data_received

    def watched(self: Any, data: bytes) -> None:
        nonlocal longest
        parse(self, data)
        longest = max(longest, len(self._messages))

    monkeypatch.setattr(RequestHandler, "data_received", watched)
    async with clients(FakeDirectory(SNAPSHOT)) as (_, them):
        paths = [f"/lookup/nobody-{n}?format=text" for n in range(50)]
        last = request("/livez", "Connection: close\r\n")
        reader, _ = await them.send(b"".join(map(request, paths)) + last)
        answer = (await asyncio.wait_for(reader.read(), 10)).decode()
    assert [int(part.split("'")[0]) for part in answer.split("nobody-")[1:]] == list(range(50))
    assert longest == 1


async def test_what_comes_behind_a_blocking_query_is_held_back() -> None:
    """The rest stays with the kernel and its sender, and is answered in the end."""
    directory = FakeDirectory(SNAPSHOT)
    behind = request("/livez", f"X: {'y' * 1000}\r\n") * 1000 + request("/livez", "Connection: close\r\n")
    async with clients(directory) as (web, them):
        reader, writer = await them.ask(BLOCKING)
        await until(lambda: directory.waiters)
        writer.write(behind)
        await asyncio.sleep(0)
        await until(lambda: any(one.unfinished > http_connection.HEAD for one in floor(web)._all))
        await asyncio.sleep(0.05)
        held = max(one.unfinished for one in floor(web)._all)
        assert held < len(behind) / 2
        directory.publish(snapshot_of(entry("web", 2), indexes={"web": 11}))
        answer = await asyncio.wait_for(reader.read(), 30)
        assert answer.count(b" 200 OK\r\n") == 1002


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n", 405),
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n", 200),
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n", 200),
        ("PUT /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n", 405),
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n", 200),
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\nContent-Length: 50\r\n", 200),
        ("CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n", 405),
    ],
)
async def test_a_body_is_not_waited_for_and_ends_its_connection(head: str, expected: int) -> None:
    """Whether it comes in one piece, in chunks, never, or is only announced."""
    async with clients(FakeDirectory(SNAPSHOT)) as (_, them):
        reader, _ = await them.send(f"{head}\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 10)
        assert int(answer[9:12]) == expected, answer
        assert b"100 Continue" not in answer
        assert b"\r\nConnection: close\r\n" in answer


async def test_a_body_behind_a_blocking_query_is_thrown_away_and_cut_in_the_end() -> None:
    directory = FakeDirectory(SNAPSHOT)
    async with clients(directory) as (web, them):
        head = request(BLOCKING, "Content-Length: 100000000\r\n")
        _, writer = await them.send(head)
        await until(lambda: directory.waiters)
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                writer.write(b"x" * 10_000)
                assert max((one.unfinished for one in floor(web)._all), default=0) == 0
                await writer.drain()
                await asyncio.sleep(0)
        await until(lambda: web.stats.limited[limits.HTTP_BODY.name])
        await until(lambda: not directory.waiters)


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2, 2),
        (b"HEAD /v1/health/service/web HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3, 3),
        (b"GET /v1/health/service/web HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-1\r\n\r\n" * 2, 2),
        (
            b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            * 2,
            2,
        ),
    ],
)
async def test_other_requests_are_answered_and_their_connection_stays(octets: bytes, expected: int) -> None:
    """HTTP/1.0 with keep-alive, HEAD, ranges (which nobody need heed), an upgrade that is declined."""
    async with clients(FakeDirectory(SNAPSHOT)) as (_, them):
        reader, writer = await them.send(octets + request("/readyz", "Connection: close\r\n"))
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer.count(b" 200 OK\r\n") == expected + 1
        writer.close()


async def test_a_client_that_half_closes_leaves_its_place() -> None:
    directory = FakeDirectory(SNAPSHOT)
    async with clients(directory) as (web, them):
        _, writer = await them.ask(BLOCKING)
        await until(lambda: directory.waiters)
        writer.write_eof()
        await until(lambda: not directory.waiters and not floor(web)._all)


async def test_what_the_parser_did_not_foresee_ends_its_connection_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parse = RequestHandler.data_received

    def broken(self: Any, data: bytes) -> None:
        if b"odd" in data:
            raise ValueError(data)
        parse(self, data)

    monkeypatch.setattr(RequestHandler, "data_received", broken)
    async with clients(FakeDirectory(SNAPSHOT)) as (_, them):
        odd = [await them.ask("/odd") for _ in range(10)]
        others = [await them.ask("/livez") for _ in range(10)]
        assert set(await heads(odd)) == {400}
        assert set(await heads(others)) == {200}


# Connections --------------------------------------------------------------------


async def test_512_idle_connections_of_one_client_are_in_nobodys_way() -> None:
    """Its own further requests are answered too: what was idle for the longest makes room."""
    async with clients(FakeDirectory(SNAPSHOT)) as (web, them):
        for _ in range(limits.HTTP_CONNECTIONS.value):
            await them.connect()
        for source in (A, B):
            for path in ("/livez", "/readyz", "/lookup/web"):
                assert await them.status(path, source) == 200
        assert len(floor(web)._all) <= limits.HTTP_CLIENT_CONNECTIONS.value


async def test_health_is_answered_when_a_client_has_used_up_its_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of its connections are at work; everything else that it asks is 503, and others are served."""
    monkeypatch.setattr(http_floor, "MAX_OF_CLIENT", 5)
    directory = FakeDirectory(SNAPSHOT)
    async with clients(directory) as (web, them):
        for _ in range(5):
            await them.ask(BLOCKING)
        await until(lambda: directory.waiters == 5)
        for path in ("/livez", "/readyz"):
            assert await them.status(path) == 200
        refused = await them.get("/lookup/web")
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 1\r\n" in refused
        assert await them.status("/lookup/web", B) == 200
        assert web.stats.limited[limits.HTTP_CLIENT_CONNECTIONS.name] == 3
        assert directory.waiters == 5


async def test_health_is_answered_and_newcomers_are_served_when_many_clients_took_all_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_floor, "MAX_CONNECTIONS", 9)
    directory = FakeDirectory(SNAPSHOT)
    async with clients(directory) as (_, them):
        for source in (A, B, C) * 3:
            await them.ask(BLOCKING, source)
        await until(lambda: directory.waiters == 9)
        for path in ("/livez", "/readyz"):
            assert await them.status(path, A) == 200
        assert await them.status("/lookup/web", A) == 503
        assert directory.waiters == 9
        assert await them.status("/lookup/web", D) == 200
        await until(lambda: directory.waiters == 8)


async def test_health_is_answered_though_the_places_for_it_are_taken_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_floor, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(http_floor, "MAX_SPARE", 3)
    directory = FakeDirectory(SNAPSHOT)
    async with clients(directory) as (web, them):
        for source in (A, B):
            await them.ask(BLOCKING, source)
        await until(lambda: directory.waiters == 2)
        silent = [await them.connect(A) for _ in range(10)]
        await until(lambda: web.stats.limited[limits.HTTP_HEALTH_CONNECTIONS.name] == 7)
        assert set(await heads(silent[:7])) == {503}
        for source in (A, B):
            assert await them.status("/livez", source) == 200


async def test_a_place_for_health_is_not_kept_by_one_who_asks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_floor, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(http_floor, "SPARE_TIME", 0.1)
    monkeypatch.setattr(http_floor, "TICK", 0.02)
    directory = FakeDirectory(SNAPSHOT)
    async with clients(directory) as (_, them):
        await them.ask(BLOCKING)
        await until(lambda: directory.waiters)
        reader, _ = await them.connect()
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fd00::1", "fd00::ffff:1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_one_client_is_an_ipv4_address_or_an_ipv6_network(one: str, other: str, *, same: bool) -> None:
    assert (client_of(one) == client_of(other)) is same


def test_places_go_from_the_heaviest_client_to_a_lighter_one_and_never_the_other_way() -> None:
    places: Places[str] = Places(4, 3)
    for holder in ("a1", "a2", "a3"):
        assert places.take("a", holder) is None
    with pytest.raises(NoPlace):
        places.take("a", "a4")
    assert places.take("b", "b1") is None
    assert places.take("c", "c1") == "a1", "all places are taken, and this client has most of them"
    with pytest.raises(NoPlace):
        places.take("b", "b2")
    assert places.take("b", "b2", lambda holder: holder == "a3") == "a3"
    assert len(places) == 4
    assert sorted(places.holders()) == ["a2", "b1", "b2", "c1"]


# Blocking queries and streams -------------------------------------------------------


async def test_384_blocking_queries_of_one_client_leave_places_for_others() -> None:
    directory = FakeDirectory(SNAPSHOT)
    async with clients(directory) as (web, them):
        asked = [await them.ask(BLOCKING, A) for _ in range(limits.HTTP_CLIENT_WAITS.value)]
        await until(lambda: directory.waiters == len(asked))
        assert await them.status("/livez", A) == 200
        assert await them.status("/lookup/web", A) == 200
        assert await them.status(BLOCKING, A) == 503
        await them.ask(BLOCKING, B)
        await until(lambda: directory.waiters == len(asked) + 1)
        assert web.stats.limited[limits.HTTP_WAITS.name] == 0


async def test_when_all_blocking_queries_are_taken_the_heaviest_clients_oldest_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_reads, "MAX_WAITING", 4)
    monkeypatch.setattr(http_reads, "MAX_OF_CLIENT", 3)
    directory = FakeDirectory(SNAPSHOT)
    async with clients(directory) as (web, them):
        asked = []
        for count, source in enumerate((A, A, A, B), 1):
            asked.append(await them.ask(BLOCKING, source))
            await until(lambda count=count: directory.waiters == count)
        assert await them.status(BLOCKING, A) == 503
        await them.ask(BLOCKING, C)
        assert await heads(asked[:1]) == [200]
        assert web.stats.limited[limits.HTTP_CLIENT_WAITS.name] == 1
        assert web.stats.limited[limits.HTTP_WAITS.name] >= 1


async def test_64_streams_of_one_client_leave_places_for_others() -> None:
    async with clients(FakeDirectory(SNAPSHOT)) as (_, them):
        streams = [await them.ask("/events", A) for _ in range(limits.HTTP_STREAMS.value)]
        statuses = await heads(streams)
        assert statuses.count(200) == limits.HTTP_CLIENT_STREAMS.value
        assert set(statuses) == {200, 503}
        assert await heads([await them.ask("/events", B)]) == [200]


async def test_when_all_streams_are_taken_the_heaviest_clients_oldest_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_events, "MAX_READERS", 3)
    async with clients(FakeDirectory(SNAPSHOT)) as (_, them):
        streams = [await them.ask("/events", source) for source in (A, A, B)]
        assert await heads(streams) == [200, 200, 200]
        newcomer = await them.ask("/events", C)
        assert await heads([newcomer]) == [200]
        await asyncio.wait_for(streams[0][0].readuntil(b"\r\n0\r\n\r\n"), 10)


# Turns ----------------------------------------------------------------------------


async def test_who_does_not_read_is_given_no_more_and_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 readers of large replies hold one client's share of memory; others go on, and it is taken back."""
    share = 3_000_000
    monkeypatch.setattr(http_gate, "CLIENT_UNSENT", share)
    monkeypatch.setattr(http_gate, "PATIENCE", 300.0)
    monkeypatch.setattr(http_connection, "SEND_TIME", 300.0)
    monkeypatch.setattr(http_floor, "TICK", 0.05)
    async with clients(FakeDirectory(MANY)) as (web, them):
        gate, size = floor(web).gate, len(await them.get("/v1/health/service/web", B))
        for _ in range(100):
            reader, _ = await them.ask("/v1/health/service/web", A)
            reader._transport.pause_reading()  # type: ignore[attr-defined]
        await until(lambda: gate._unsent[A] >= share and not gate._rendering, 60)
        assert gate._queues, "some wait, and nobody renders"
        assert gate._all_unsent <= share + limits.HTTP_RENDERS.value * size
        assert await asyncio.wait_for(them.status("/lookup/web/one", B), 60) == 200
        for one in floor(web)._all:
            one.send_by = min(one.send_by, 1.0)  # the time is over
        await until(lambda: web.stats.limited[limits.HTTP_SEND_TIME.name])


async def test_who_reads_slowly_is_cut_off_only_when_he_takes_too_little() -> None:
    """64 KB that were taken give the client another ten seconds."""
    async with clients(FakeDirectory(MANY)) as (web, them):
        reader, _ = await them.ask("/v1/health/service/web")
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await until(lambda: any(one.send_by for one in floor(web)._all))
        (one,) = floor(web)._all
        await until(lambda: one._wire and one._wire.get_write_buffer_size())
        assert one._wire
        left, later = one._wire.get_write_buffer_size(), one.send_by + 1
        one._to_send = left + http_connection.SEND_STEP
        assert not one.is_stuck(later)
        assert not one.is_stuck(later + http_connection.SEND_TIME)
        assert one.is_stuck(later + http_connection.SEND_TIME + 1)


async def test_who_waits_for_its_own_replies_to_be_taken_holds_up_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_gate, "PATIENCE", 300.0)
    gate = Gate(Stats())
    with gate.sending("a", limits.HTTP_CLIENT_UNSENT.value):
        waiting = asyncio.create_task(gate.enter("a"))
        await asyncio.sleep(0)
        await asyncio.wait_for(gate.enter("b"), 5)
        assert not waiting.done()
    await asyncio.wait_for(waiting, 5)


async def test_clients_that_read_slowly_do_not_keep_others_from_their_replies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All together they hold as much as there may be, none of them too much, and each takes some in time."""
    monkeypatch.setattr(http_gate, "PATIENCE", 300.0)
    monkeypatch.setattr(http_gate, "UNSENT", 1_200_000)
    monkeypatch.setattr(http_floor, "TICK", 0.05)
    async with clients(FakeDirectory(MANY)) as (web, them):
        gate = floor(web).gate
        for source in (A, B, C):
            (await them.ask("/v1/health/service/web", source))[0]._transport.pause_reading()  # type: ignore[attr-defined]
        await until(lambda: gate._all_unsent >= 1_200_000)
        assert await asyncio.wait_for(them.status("/lookup/web", D), 30) == 200
        assert web.stats.limited[limits.HTTP_UNSENT.name] >= 1
        assert web.stats.limited[limits.HTTP_SEND_TIME.name] == 0


@pytest.mark.parametrize(
    "path",
    [
        "/v1/health/service/web",
        "/v1/catalog/service/web",
        "/v1/catalog/node/n1",
        "/v1/agent/services",
        "/v1/health/state/any",
        "/lookup/web",
        "/lookup/web?format=text",
        "/explain/web",
    ],
)
async def test_a_reply_has_an_end(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a list would be longer than is not made; who asks for less gets it."""
    monkeypatch.setattr(http_gate, "REPLY", 3000)
    async with clients(FakeDirectory(MANY)) as (web, them):
        answer = await them.get(path)
        assert answer.startswith(b"HTTP/1.1 503 "), answer[:100]
        assert b"longer than 3000 characters" in answer
        assert web.stats.limited[limits.HTTP_REPLY.name] == 1
        assert await them.status("/v1/health/service/web?filter=Service.ID==web-7") == 200
        assert await them.status("/lookup/web/one") == 200


async def test_a_slow_reader_gets_all_of_its_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer than the limit for the whole, but always some."""
    monkeypatch.setattr(http_connection, "SEND_TIME", 0.5)
    monkeypatch.setattr(http_connection, "SEND_STEP", 10_000)
    monkeypatch.setattr(http_floor, "TICK", 0.05)
    async with clients(FakeDirectory(MANY)) as (_, them):
        reader, _ = await them.send(request("/v1/health/service/web", "Connection: close\r\n"))
        answer = b""
        while piece := await asyncio.wait_for(reader.read(40_000), 10):
            answer += piece
            await asyncio.sleep(0.01)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head


async def test_of_many_costly_requests_few_are_rendered_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in each turn of the loop; all are answered, and another client's is not behind all of them."""
    monkeypatch.setattr(http_gate, "PATIENCE", 300.0)
    async with clients(FakeDirectory(MANY)) as (web, them):
        gate = floor(web).gate
        highest = 0
        asked = [asyncio.create_task(them.status("/explain/web", A)) for _ in range(60)]
        await until(lambda: gate._queues.get(client_of(A)))
        other = asyncio.create_task(them.status("/explain/web", B))
        while not other.done():
            await asyncio.sleep(0)
            highest = max(highest, gate._rendering)
        unanswered = sum(not task.done() for task in asked)
        assert set(await asyncio.gather(*asked, other)) == {200}
        assert 0 < highest <= limits.HTTP_RENDERS.value
        assert unanswered > 30, "it went before those that were there first"
        assert (gate._rendering, gate._queues, gate._all_unsent) == (0, {}, 0)


async def test_who_waits_too_long_for_a_turn_is_answered_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_gate, "PATIENCE", 0.05)
    async with clients(FakeDirectory(SNAPSHOT)) as (web, them):
        gate = floor(web).gate
        for _ in range(limits.HTTP_RENDERS.value):
            await gate.enter("x")
        answer = await them.get("/explain/web")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 1\r\n" in answer
        assert await them.status("/livez") == 200
        gate.leave()
        assert await them.status("/explain/web") == 200
        assert web.stats.limited[limits.HTTP_QUEUE_TIME.name] == 1


async def test_turns_that_are_given_up_are_not_lost() -> None:
    """Cancelled while waiting, at the moment of being given, and timed out at that moment."""
    gate = Gate(Stats())
    for _ in range(limits.HTTP_RENDERS.value):
        await gate.enter("x")
    waiting = [asyncio.create_task(gate.enter(client)) for client in "abab"]
    await asyncio.sleep(0)
    gate.leave()  # to the first of them
    await asyncio.sleep(0)
    waiting[0].cancel()
    waiting[1].cancel()
    waiting[3].cancel()
    gate.leave()
    await asyncio.gather(*waiting, return_exceptions=True)
    while gate._rendering:
        gate.leave()
    await asyncio.wait_for(gate.enter("y"), 5)
    assert gate._queues == {}


async def test_a_turn_that_was_given_up_this_moment_is_not_given() -> None:
    """It still waits in the queue when a reply that was taken lets others in."""
    gate = Gate(Stats())
    for _ in range(limits.HTTP_RENDERS.value):
        await gate.enter("x")
    waiting = asyncio.create_task(gate.enter("a"))
    await asyncio.sleep(0)
    with gate.sending("x", 1):
        gate.leave()
        waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    await asyncio.wait_for(gate.enter("y"), 5)


async def test_few_requests_begin_in_one_turn_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a burst of cheap ones does not hold up DNS either; counted by a callback of each turn."""
    begun, counts = 0, [0]
    start = http_connection.Connection.start_request

    def counted(self: http_connection.Connection) -> None:
        nonlocal begun
        before = self.idle
        start(self)
        begun += before and not self.idle

    monkeypatch.setattr(http_connection.Connection, "start_request", counted)
    async with clients(FakeDirectory(SNAPSHOT)) as (_, them):
        pipes = [await them.connect() for _ in range(100)]
        for _, writer in pipes:
            writer.write(request("/livez"))
        while sum(counts) < len(pipes):
            begun = 0
            await asyncio.sleep(0)
            counts.append(begun)
        assert set(await heads(pipes)) == {200}
        assert max(counts) <= limits.HTTP_STARTS.value


async def test_a_list_of_names_that_changed_is_made_once_for_all_readers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A node that changes concerns every name: with many of each, a list for each reader would take long."""
    made = 0
    compare = http_events.changed_services

    def counted(old: Snapshot | None, new: Snapshot | None) -> set[str]:
        nonlocal made
        made += 1
        return compare(old, new)

    monkeypatch.setattr(http_events, "changed_services", counted)
    directory = FakeDirectory(SNAPSHOT)
    async with clients(directory) as (_, them):
        streams = [await them.ask("/events", source) for source in (A, B, C, D) for _ in range(5)]
        for reader, _ in streams:
            await asyncio.wait_for(reader.readuntil(b"retry: 1000\n\n"), 10)
        await asyncio.sleep(0.1)
        directory.publish(snapshot_of(entry("web"), entry("db")))
        for reader, _ in streams:
            await asyncio.wait_for(reader.readuntil(b'["db", "web"]'), 10)
    assert made == 1


async def test_requests_for_everything_share_one_reading_of_the_catalog() -> None:
    """Else each would hold every service of the catalog in memory of its own."""
    directory = FakeDirectory(SNAPSHOT)
    names = {f"s{n}": () for n in range(20)}
    assert directory.snapshot
    directory.publish(replace(directory.snapshot, names={**directory.snapshot.names, **names}))
    loads, load = 0, directory.load

    async def slow(service: str) -> Snapshot:
        nonlocal loads
        loads += 1
        await asyncio.sleep(0.01)
        return await load(service)

    directory.load = slow  # type: ignore[method-assign]
    async with clients(directory) as (web, them):
        asked = [asyncio.create_task(them.status("/v1/health/state/any", source)) for source in (A, B) * 20]
        assert set(await asyncio.gather(*asked)) == {200}
        assert web.stats.http_requests["/v1/health/state/{name}", 200] == len(asked)
    assert loads <= 3 * len(names), "at most a few readings, of the names that were missing"
