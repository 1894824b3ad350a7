"""Two agents on one address: who gets what arrives, and what becomes of what one of them has begun."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager

import dns.asyncquery
import dns.message
import pytest
from aiohttp import ClientSession

from registrator.descriptors import Allowance
from registrator.lookup import sharing
from registrator.lookup.acceptor import Shortage
from registrator.lookup.ask import Zone
from registrator.lookup.fronts import Fronts
from registrator.lookup.http import HttpFront
from registrator.lookup.resolver import Resolver
from registrator.lookup.sharing import Seat, listeners
from registrator.model import OUTSIDE, Snapshot
from registrator.settings import Listen
from registrator.stats import Stats
from tests.lookup.fakes import FakeDirectory, entry, snapshot_of
from tests.lookup.messages import query, text
from tests.support.consul import free_ports

SOME = 40  # that the kernel's own choice gives all of them to one of two happens once in 10^12 times
ADDRESSES = pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def bound(stack: ExitStack, kind: socket.SocketKind, host: str, port: int = 0) -> socket.socket:
    """A shared socket; one for TCP listens."""
    sock = stack.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind))
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sharing.share(sock)
    sock.bind((host, port))
    sock.settimeout(0)
    if kind == socket.SOCK_STREAM:
        sock.listen()
    return sock


def to(sock: socket.socket) -> tuple[str, int]:
    """Where a client on this machine reaches it."""
    host, port = sock.getsockname()[:2]
    return sharing.UNROUTED.get(host, host), port


def connections(*socks: socket.socket) -> list[int]:
    """How many of some new connections each of the listening sockets gets."""
    with ExitStack() as stack:
        for _ in range(SOME):
            stack.enter_context(socket.create_connection(to(socks[0])))
        return [received(sock, lambda sock=sock: sock.accept()[0].close()) for sock in socks]


def packets(stack: ExitStack, target: tuple[str, int]) -> None:
    """Send some, each from a port of its own."""
    for _ in range(SOME):
        family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)).sendto(b"x", target)


def received(sock: socket.socket, take: object = None) -> int:
    """How much waits on a socket."""
    count = 0
    while True:
        try:
            take() if callable(take) else sock.recv(1)
        except BlockingIOError:
            return count
        count += 1


@ADDRESSES
def test_packets_go_to_the_other_one_and_what_is_there_stays(stack: ExitStack, host: str) -> None:
    old = bound(stack, socket.SOCK_DGRAM, host)
    target = to(old)
    new = bound(stack, socket.SOCK_DGRAM, host, target[1])
    packets(stack, target)
    sharing.turn_away(old)
    packets(stack, target)
    kept, taken = received(old), received(new)
    assert 0 < kept < SOME
    assert kept + taken == 2 * SOME
    with stack.enter_context(socket.socket(old.family, socket.SOCK_DGRAM)) as asker:
        asker.bind((target[0], 0))
        asker.settimeout(5)
        old.sendto(b"reply", asker.getsockname())
        assert asker.recvfrom(9)[1][:2] == target


@ADDRESSES
def test_new_connections_go_to_the_other_one_whoever_goes(stack: ExitStack, host: str) -> None:
    """The older leaves, the younger leaves, and so on: the group's numbering follows."""
    first = bound(stack, socket.SOCK_STREAM, host)
    port = first.getsockname()[1]
    first_seat = Seat(first)
    assert not first_seat.turn_away()
    second = bound(stack, socket.SOCK_STREAM, host, port)
    second_seat = Seat(second)
    assert all(connections(first, second))
    assert first_seat.turn_away()
    assert connections(first, second) == [0, SOME]
    first.close()
    assert connections(second) == [SOME]
    third = bound(stack, socket.SOCK_STREAM, host, port)
    third_seat = Seat(third)
    assert all(connections(second, third))
    assert third_seat.turn_away()
    assert connections(second, third) == [SOME, 0]
    third.close()
    fourth = bound(stack, socket.SOCK_STREAM, host, port)
    assert Seat(fourth).others()
    assert all(connections(second, fourth))
    assert second_seat.turn_away()
    assert connections(second, fourth) == [0, SOME]


@ADDRESSES
def test_who_listens_on_an_address_is_found_by_it_alone(stack: ExitStack, host: str) -> None:
    sock = bound(stack, socket.SOCK_STREAM, host)
    port = sock.getsockname()[1]
    assert len(listeners(host, port)) == 1
    assert not any(listeners(other, port) for other in ("127.0.0.2", "fd00::1", "::ffff:127.0.0.1"))
    sock.close()
    assert not listeners(host, port)


def test_who_does_not_share_gets_nothing_from_those_who_do(stack: ExitStack) -> None:
    shared = bound(stack, socket.SOCK_DGRAM, "127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other, pytest.raises(OSError, match="in use"):
        other.bind(shared.getsockname())


# Whole fronts -----------------------------------------------------------------


class Slow(FakeDirectory):
    """Knows "slow", and loads it when `gate` is opened."""

    def __init__(self) -> None:
        web = snapshot_of(entry("web"))
        slow = snapshot_of(entry("slow"))
        super().__init__(Snapshot(1, {**web.names, "slow": ()}, web.services, web.nodes))
        self.to_load = dict(slow.services)
        self.gate, self.asked = asyncio.Event(), asyncio.Event()

    async def load(self, service: str) -> Snapshot:
        self.asked.set()
        await self.gate.wait()
        return await super().load(service)


def fronts(directory: FakeDirectory, dns_port: int, http_port: int) -> Fronts:
    resolver = Resolver(directory, Zone.named("consul"), view_of=lambda _: OUTSIDE, stats=Stats())
    front = HttpFront(directory, stats=Stats(), view_of=lambda _: OUTSIDE, domain="consul")
    dns_at, http_at = Listen("127.0.0.1", dns_port), Listen("127.0.0.1", http_port)
    return Fronts(
        resolver,
        front,
        dns=[dns_at],
        link_local="",
        http=[http_at],
        share=True,
        allowance=Allowance(64, 64, 64),
        shortage=Shortage(Stats()),
    )


@asynccontextmanager
async def two(old: FakeDirectory) -> AsyncIterator[tuple[Fronts, int]]:
    """An agent's front on two ports, and another one on the same; the first, and its DNS port."""
    ports = free_ports(2)
    async with AsyncExitStack() as stack:
        first, second = fronts(old, *ports), fronts(Slow(), *ports)
        stack.push_async_callback(first.close)
        await first.start()
        stack.push_async_callback(second.close)
        task = asyncio.create_task(second.run(lambda: True, no_load))
        await both_listen(*ports)
        yield first, ports[0]
        task.cancel()


async def no_load() -> None:
    """Nothing is to be loaded."""


async def both_listen(*ports: int) -> None:
    """Wait until there are two at each port."""
    while not all(len(listeners("127.0.0.1", port)) == 2 for port in ports):
        await asyncio.sleep(0.01)


async def test_what_has_begun_is_answered_before_the_end() -> None:
    """A query that waits for the catalog, over UDP and TCP, and a blocking one over HTTP."""
    directory = Slow()
    ports = free_ports(2)
    old, new = fronts(directory, *ports), fronts(Slow(), *ports)
    slow = dns.message.make_query("slow.service.consul", "A")
    await old.start()
    async with AsyncExitStack() as stack, asyncio.timeout(10):
        client = await stack.enter_async_context(ClientSession())
        ask = (dns.asyncquery.udp, dns.asyncquery.tcp)
        waiting = [asyncio.create_task(how(slow, "127.0.0.1", 5, ports[0])) for how in ask]
        url = f"http://127.0.0.1:{ports[1]}/v1/catalog/services?index=1&wait=60s"
        blocking = asyncio.create_task(client.get(url))
        await directory.asked.wait()
        task = asyncio.create_task(new.run(lambda: True, no_load))
        await both_listen(*ports)
        leaving = asyncio.create_task(old.retire())
        asyncio.get_running_loop().call_later(0.5, directory.gate.set)
        assert await leaving
        await old.close()
        assert [text((await reply).answer) for reply in waiting] == [["slow.service.consul. A 10.0.0.1"]] * 2
        reply = await blocking
        assert (reply.status, reply.headers["Connection"]) == (200, "close")
        task.cancel()
        await new.close()


async def test_a_connection_without_a_query_is_ended() -> None:
    web = query("web.service.consul", "A")
    async with two(Slow()) as (old, port), asyncio.timeout(10):
        # Some of them are the old one's.
        streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        began = time.monotonic()
        assert await old.retire()
        await old.close()
        assert time.monotonic() - began < 1.5
        answered = 0
        for reader, writer in streams:
            writer.write(len(web).to_bytes(2, "big") + web)
            try:
                answered += bool(await reader.read(2))
            except ConnectionError:
                continue
            finally:
                writer.transport.abort()
        assert 0 < answered < len(streams)


async def test_nothing_is_left_to_nobody() -> None:
    """An agent that is alone opens at once, and has nobody to leave its addresses to."""
    ports = free_ports(2)
    alone = fronts(Slow(), *ports)
    await alone.start()
    try:
        assert len(listeners("127.0.0.1", ports[0])) == 1
        assert not await alone.retire()
    finally:
        await alone.close()


async def test_a_new_one_waits_until_it_is_ready_or_the_old_one_is_gone() -> None:
    async with asyncio.timeout(10):
        for ready in (False, True):
            ports = free_ports(2)
            old, new = fronts(Slow(), *ports), fronts(Slow(), *ports)
            state = {"ready": False}
            await old.start()
            await new.start()
            task = asyncio.create_task(new.run(lambda state=state: state["ready"], no_load))  # type: ignore[misc]
            await asyncio.sleep(0.2)
            assert len(listeners("127.0.0.1", ports[0])) == 1
            if ready:
                state["ready"] = True
            else:
                await old.close()
            while len(listeners("127.0.0.1", ports[1])) != 1 + ready:
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait([task])
            await old.close()
            await new.close()


@pytest.mark.parametrize("turns", range(12))
async def test_a_start_that_is_cancelled_leaves_nothing_open(turns: int) -> None:
    """Wherever it is cut off: `close` closes all that it has opened."""
    ports = free_ports(2)
    opening = fronts(Slow(), *ports)
    task = asyncio.create_task(opening.start())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await opening.close()
    assert not [*listeners("127.0.0.1", ports[0]), *listeners("127.0.0.1", ports[1])]


async def test_services_are_loaded_before_a_new_one_opens_but_not_for_ever() -> None:
    async with asyncio.timeout(10):
        ports = free_ports(2)
        old, new = fronts(Slow(), *ports), fronts(Slow(), *ports)
        listening: list[int] = []

        async def load() -> None:
            listening.append(len(listeners("127.0.0.1", ports[0])))
            await asyncio.Event().wait()

        await old.start()
        await new.start()
        task = asyncio.create_task(new.run(lambda: True, load))
        await both_listen(*ports)
        assert listening == [1]
        task.cancel()
        await asyncio.wait([task])
        await old.close()
        await new.close()
