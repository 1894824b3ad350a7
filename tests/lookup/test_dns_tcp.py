"""DNS over TCP when clients pipeline, crawl, stay, or come in crowds."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace

import dns.message
import pytest

from registrator.lookup import pace, tcp
from registrator.lookup.ask import Zone
from registrator.lookup.dns import DnsServer
from registrator.lookup.resolver import Resolver
from registrator.lookup.tcp import TcpServer
from registrator.lookup.turns import Turnstile
from registrator.model import OUTSIDE
from registrator.settings import Listen
from registrator.stats import Stats
from tests.lookup.fakes import FakeDirectory, entry, snapshot_of
from tests.lookup.messages import query, text

SNAPSHOT = snapshot_of(
    *(entry("many", n, address=f"10.0.{n // 250}.{n % 250}") for n in range(300)), entry("web")
)
WEB = query("web.service.consul", "A")


@asynccontextmanager
async def serving(listen: Listen) -> AsyncIterator[Listen]:
    resolver = Resolver(
        FakeDirectory(SNAPSHOT), Zone.named("consul"), view_of=lambda _: OUTSIDE, stats=Stats()
    )
    server = DnsServer(resolver, [listen])
    await server.start()
    try:
        yield server.addresses[0]
    finally:
        await server.close()


@pytest.fixture
async def address() -> AsyncIterator[Listen]:
    async with serving(Listen("0.0.0.0", 0)) as wildcard:
        yield Listen("127.0.0.1", wildcard.port)


class Client:
    """One connection, spoken to in octets."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *packets: bytes) -> None:
        self.writer.write(b"".join(len(packet).to_bytes(2, "big") + packet for packet in packets))

    async def receive(self) -> dns.message.Message:
        length = int.from_bytes(await self.reader.readexactly(2), "big")
        return dns.message.from_wire(await self.reader.readexactly(length))

    async def ask(self) -> list[str]:
        self.send(WEB)
        return text((await self.receive()).answer)

    async def is_closed(self) -> bool:
        """Wait until the server ends the connection; what it sends before is an error."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True


@asynccontextmanager
async def connected(address: Listen, source: str = "127.0.0.1") -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(address.host, address.port, local_addr=(source, 0))
    try:
        async with asyncio.timeout(10):
            yield Client(reader, writer)
    finally:
        writer.transport.abort()


async def test_queries_in_a_pipeline_are_answered_in_order(address: Listen) -> None:
    """Many queries in one write get as many replies, in their order (RFC 7766, 6.2.1.1)."""
    async with connected(address) as client:
        client.send(*(number.to_bytes(2, "big") + WEB[2:] for number in range(200)))
        assert [(await client.receive()).id for _ in range(200)] == list(range(200))


async def test_a_query_may_come_octet_by_octet(address: Listen) -> None:
    """A slow client is understood, as long as its message is whole in time."""
    async with connected(address) as client:
        client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in len(WEB).to_bytes(2, "big") + WEB:
            client.writer.write(bytes((octet,)))
            await client.writer.drain()
        assert text((await client.receive()).answer) == ["web.service.consul. A 10.0.0.1"]


async def test_a_half_sent_message_does_not_hold_its_place(
    address: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Octets that trickle in do not put off the end."""
    monkeypatch.setattr(tcp, "IDLE", 0.2)
    async with connected(address) as client:
        started = time.monotonic()
        closed = asyncio.create_task(client.is_closed())
        client.writer.write(b"\x02\x00")
        while not closed.done():
            client.writer.write(b"x")
            await asyncio.sleep(0.01)
        assert await closed
        assert time.monotonic() - started < 2


async def test_a_silent_client_is_let_go(address: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without a query is closed after the idle time, which each query starts anew."""
    monkeypatch.setattr(tcp, "IDLE", 0.5)
    async with connected(address) as client:
        for _ in range(3):
            await asyncio.sleep(0.2)
            await client.ask()
        assert await client.is_closed()


async def test_a_client_that_does_not_read_is_let_go(
    address: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replies that nobody takes do not pile up: the connection is closed after the idle time."""
    monkeypatch.setattr(tcp, "IDLE", 0.3)
    async with asyncio.timeout(10):
        with pytest.raises(ConnectionError):
            await ask_without_reading(address, query("many.service.consul", "SRV"))


async def ask_without_reading(address: Listen, packet: bytes) -> None:
    """Send queries for ever, with little room for replies."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(0)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (address.host, address.port))
        while True:
            await loop.sock_sendall(sock, len(packet).to_bytes(2, "big") + packet)


# Many who ask for much --------------------------------------------------------


class Counting(Resolver):
    """Counts the replies over TCP, and the queries over UDP."""

    replies = 0

    async def resolve(self, packet: bytes, source: str, transport: str) -> bytes | None:
        self.replies += transport == "tcp"
        return await super().resolve(packet, source, transport)


@asynccontextmanager
async def counting(*hosts: str) -> AsyncIterator[tuple[Counting, list[Listen]]]:
    resolver = Counting(
        FakeDirectory(SNAPSHOT), Zone.named("consul"), view_of=lambda _: OUTSIDE, stats=Stats()
    )
    server = DnsServer(resolver, [Listen(host, 0) for host in hosts])
    await server.start()
    try:
        yield resolver, server.addresses
    finally:
        await server.close()


async def test_udp_is_answered_between_a_few_replies_over_tcp() -> None:
    """However many connections have queries under way: 16 of each of 8 clients, with 300 queries each."""
    async with counting("0.0.0.0") as (resolver, addresses), AsyncExitStack() as stack:
        port = addresses[0].port
        for number in range(128):
            source = f"127.0.1.{1 + number // 16}"
            client = await stack.enter_async_context(connected(Listen("127.0.0.1", port), source))
            client.send(*[WEB] * 300)
        loop, between = asyncio.get_running_loop(), []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0)
            sock.connect(("127.0.0.1", port))
            while not resolver.replies:
                await asyncio.sleep(0)
            for _ in range(100):
                before = resolver.replies
                sock.send(WEB)
                await loop.sock_recv(sock, 4096)
                between.append(resolver.replies - before)
        assert sum(between) > 100  # there was something to be held up by
        assert sorted(between)[90] <= 16 * tcp.REPLIES


async def test_a_client_with_one_query_waits_for_one_reply_of_each_other() -> None:
    """Sixteen busy connections of one client are one client."""
    async with counting("0.0.0.0") as (resolver, addresses), AsyncExitStack() as stack:
        at = Listen("127.0.0.1", addresses[0].port)
        for _ in range(16):
            client = await stack.enter_async_context(connected(at, "127.0.1.1"))
            client.send(*[WEB] * 500)
        modest = await stack.enter_async_context(connected(at, "127.0.1.2"))
        while not resolver.replies:
            await asyncio.sleep(0)
        between = []
        for _ in range(50):
            before = resolver.replies
            await modest.ask()
            between.append(resolver.replies - before)
        assert sorted(between)[45] <= 16 * tcp.REPLIES


async def test_turns_go_round_by_client() -> None:
    """So many in each turn of the loop, one of each client after the other; who gives up takes nobody's."""
    turnstile, order = Turnstile(2), list[str]()

    async def enter(client: str) -> None:
        await turnstile.enter(client)
        order.append(client)

    tasks = [asyncio.create_task(enter(client)) for client in "aaaaaabbc"]
    await asyncio.sleep(0)
    tasks[3].cancel()
    turns = [len(order)]
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        turns.append(len(order))
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == list("aaabcaba")
    steps = [after - before for before, after in zip([0, *turns], turns, strict=False)]
    assert max(steps) <= 2


async def test_unread_replies_are_bounded_together(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond a number of octets on all connections, the one that was not read for the longest is closed.

    What it has sent before is not answered any more, and no line in the log tells of it.
    """
    monkeypatch.setattr(tcp, "MAX_UNREAD", 30_000)
    async with asyncio.timeout(20), counting("127.0.0.1") as (resolver, addresses):
        async with AsyncExitStack() as stack:
            crowd = [
                asyncio.create_task(ask_without_reading(addresses[0], query("many.service.consul", "SRV")))
                for _ in range(6)
            ]
            with pytest.raises(ConnectionError):
                await next(asyncio.as_completed(crowd))
            (polite,) = [await stack.enter_async_context(connected(addresses[0], "127.0.0.9"))]
            assert await polite.ask()
            for task in crowd:
                task.cancel()
            await asyncio.gather(*crowd, return_exceptions=True)
        assert resolver.stats.limited["dns_unread"] >= 1
    assert not caplog.records


async def test_a_crowd_that_connects_is_accepted_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that come and go by the hundred leave UDP its turns."""
    accepted, gone, per_turn = [0], [0], list[int]()
    real = TcpServer._serve

    async def serve(self: TcpServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted[0] += 1
        await real(self, reader, writer)
        gone[0] += 1

    monkeypatch.setattr(TcpServer, "_serve", serve)
    async with asyncio.timeout(20), counting("127.0.0.1") as (_, addresses):
        socks = [socket.socket() for _ in range(100)]
        for sock in socks:
            sock.settimeout(0)
            sock.connect_ex((addresses[0].host, addresses[0].port))
        while accepted[0] < len(socks):
            before = accepted[0]
            await asyncio.sleep(0)
            per_turn.append(accepted[0] - before)
        for sock in socks:
            sock.close()
        while gone[0] < len(socks):
            await asyncio.sleep(0)
    assert max(per_turn) <= 2 * tcp.ACCEPTED


async def test_a_large_reply_is_made_once_for_all_who_ask_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """And large ones are made one at a time, however many are asked for."""
    running, most, made = 0, 0, 0
    real = asyncio.to_thread

    async def to_thread(*arguments: object) -> object:
        nonlocal running, most, made
        running, made = running + 1, made + 1
        most = max(most, running)
        try:
            return await real(*arguments)  # type: ignore[arg-type]
        finally:
            running -= 1

    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    async with counting("127.0.0.1") as (resolver, _):
        packets = [query("many.service.consul", qtype) for qtype in ("SRV", "ANY")] * 20
        replies = await asyncio.gather(
            *(resolver.resolve(p, f"127.0.0.{n}", "tcp") for n, p in enumerate(packets))
        )
        assert {len(text(dns.message.from_wire(reply or b"").answer)) for reply in replies} == {300}
    assert (made, most) == (2, 1)


async def test_work_in_a_thread_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a large reply is made in a thread, the loop gets Python's lock again and again."""
    rests = list[float]()
    monkeypatch.setattr(pace, "SLICE", -1.0)
    monkeypatch.setattr(pace, "time", SimpleNamespace(sleep=rests.append, perf_counter=time.perf_counter))
    async with counting("127.0.0.1") as (resolver, _):
        await resolver.resolve(query("many.service.consul", "SRV"), "127.0.0.1", "tcp")
    assert len(rests) >= 300


@pytest.mark.parametrize("junk", [b"", b"x" * 11, WEB[:2] + b"\x81" + WEB[3:]])
async def test_what_is_no_query_ends_the_connection(address: Listen, junk: bytes) -> None:
    """There is no reply to a message without a header or to a response, and no more patience."""
    async with connected(address) as client:
        client.send(junk)
        assert await client.is_closed()


async def test_a_malformed_query_is_answered_and_the_next_one_too(address: Listen) -> None:
    """FORMERR leaves the connection as it is, for a message of 65,535 octets too."""
    async with connected(address) as client:
        client.send(WEB[:12] + b"\xff" * (65535 - 12), WEB)
        assert (await client.receive()).rcode() == 1
        assert (await client.receive()).rcode() == 0


async def test_the_last_query_before_the_end_is_answered(address: Listen) -> None:
    """A client may say at once that it will ask no more."""
    async with connected(address) as client:
        client.send(query("many.service.consul", "SRV"))
        client.writer.write_eof()
        assert len(text((await client.receive()).answer)) == 300
        assert await client.is_closed()


@pytest.mark.parametrize("announced", [len(WEB) + 1, 65535])
async def test_an_end_within_a_message_ends_the_connection(address: Listen, announced: int) -> None:
    """A length that promises more than comes is not waited for once the client has said that it ends."""
    async with connected(address) as client:
        client.writer.write(announced.to_bytes(2, "big") + WEB)
        client.writer.write_eof()
        started = time.monotonic()
        assert await client.is_closed()
        assert time.monotonic() - started < tcp.IDLE / 2


@pytest.mark.parametrize("announced", [len(WEB) - 1, len(WEB) - 5, 12])
async def test_a_length_that_is_too_small_spoils_its_own_connection(address: Listen, announced: int) -> None:
    """What was cut is FORMERR, what is left over is no message; others do not notice."""
    async with connected(address) as client, connected(address) as other:
        client.writer.write(announced.to_bytes(2, "big") + WEB)
        client.writer.write_eof()
        reply = await client.receive()
        assert (reply.id, reply.rcode()) == (int.from_bytes(WEB[:2], "big"), 1)
        assert await client.is_closed()
        assert await other.ask()


async def crowd(stack: AsyncExitStack, address: Listen, sources: list[str]) -> list[Client]:
    """A connection from each source, in this order, each having asked once."""
    clients = []
    for source in sources:
        clients.append(await stack.enter_async_context(connected(address, source)))
        await clients[-1].ask()
    return clients


def of_one_address(number: int) -> str:
    return "127.0.0.1"


def of_many_addresses(number: int) -> str:
    return f"127.0.1.{number + 1}"


@pytest.mark.parametrize(
    ("cap", "source"), [("MAX_PER_CLIENT", of_one_address), ("MAX_CONNECTIONS", of_many_addresses)]
)
async def test_the_one_idle_longest_makes_room(
    address: Listen, monkeypatch: pytest.MonkeyPatch, cap: str, source: Callable[[int], str]
) -> None:
    """Beyond a cap, of one client's connections or of all, the longest idle one is closed."""
    monkeypatch.setattr(tcp, cap, 3)
    async with AsyncExitStack() as stack:
        first, second, third = await crowd(stack, address, [source(n) for n in range(3)])
        await first.ask()  # now the second has been idle longest
        (newcomer,) = await crowd(stack, address, [source(3)])
        assert await second.is_closed()
        for client in (first, third, newcomer):
            assert await client.ask()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_half_sent_messages_keep_nobody_out(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Connections that trickle, as many as there may be, make room for one that asks, in both families."""
    monkeypatch.setattr(tcp, "MAX_PER_CLIENT", 3)
    async with serving(Listen(host, 0)) as address, AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(connected(address, host)) for _ in range(3)]
        for client in slow:
            await client.ask()
            client.writer.write(b"\xff\xff\0")
        (newcomer,) = await crowd(stack, address, [host])
        assert await slow[0].is_closed()
        assert await newcomer.ask()


async def test_one_clients_many_addresses_share_its_cap(
    address: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is the client that an address is of."""
    monkeypatch.setattr(tcp, "MAX_PER_CLIENT", 2)
    monkeypatch.setattr(tcp, "peer_of", lambda source: source.rpartition(".")[0])
    async with AsyncExitStack() as stack:
        first, *_ = await crowd(stack, address, [of_many_addresses(n) for n in range(3)])
        assert await first.is_closed()


async def test_one_clients_crowd_does_not_drive_out_others(
    address: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cap for one address costs that address alone."""
    monkeypatch.setattr(tcp, "MAX_PER_CLIENT", 2)
    async with AsyncExitStack() as stack:
        (other,) = await crowd(stack, address, ["127.0.0.9"])
        await crowd(stack, address, ["127.0.0.1"] * 5)
        assert await other.ask()


async def test_a_newcomer_is_refused_where_all_are_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection whose query is being answered is not closed for another; closing the server ends it."""
    monkeypatch.setattr(tcp, "MAX_PER_CLIENT", 1)
    busy = asyncio.Event()

    class Waiting(Resolver):
        async def resolve(self, packet: bytes, source: str, transport: str) -> bytes | None:
            busy.set()
            await asyncio.Event().wait()
            return None

    resolver = Waiting(
        FakeDirectory(SNAPSHOT), Zone.named("consul"), view_of=lambda _: OUTSIDE, stats=Stats()
    )
    server = DnsServer(resolver, [Listen("127.0.0.1", 0)])
    await server.start()
    async with connected(server.addresses[0]) as first:
        first.send(WEB)
        await busy.wait()
        async with connected(server.addresses[0]) as second:
            assert await second.is_closed()
        await server.close()
        assert await first.is_closed()
