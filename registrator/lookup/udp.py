"""DNS over UDP: a non-blocking socket, read in bounded bursts.

Each wake-up of the loop reads at most BURST packets and goes back, so that a
flood cannot keep other work from running. Replies that are there are sent at
once. Those that have to be made come after them, a SLICE of them in a turn:
what is new to one asker is not to be felt by the others. A query that needs a
service to be loaded is answered by a task of its own, at most MAX_WAITING of
them, MAX_WAITING_EACH for one client; beyond that it gets SERVFAIL and its
asker may try again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections import Counter, deque
from functools import partial
from typing import Any

from registrator import limits
from registrator.lookup import sharing
from registrator.lookup.ask import NotLoaded
from registrator.lookup.askers import client_of, peer_of
from registrator.lookup.limit import RateLimit, Verdict
from registrator.lookup.maker import UDP
from registrator.lookup.resolver import Resolver

BURST = 64  # packets a wake-up
SLICE = 0.00025  # seconds of making replies after which others on the loop have their turn
MAX_WAITING = limits.DNS_WAITING.value
MAX_WAITING_EACH = limits.DNS_WAITING_EACH.value
MAX_QUERY = 4096  # octets read of a packet; a sound query has a few hundred at most
IP_PKTINFO = 8  # linux/in.h; the socket module lacks it before Python 3.14
IPV6_HOST = struct.Struct("=16sI")  # struct in6_pktinfo: address, interface
ANCILLARY = socket.CMSG_SPACE(IPV6_HOST.size)  # octets of room for either
IPV4_HOST = struct.Struct("=I4s4s")  # struct in_pktinfo: interface, local address, destination

REPLY = Verdict.REPLY

Peer = tuple[Any, ...]  # a socket address: host and port, for IPv6 also flow and scope
Ancillary = list[tuple[int, int, bytes]]
Unmade = tuple[float, bytes, str, Peer, Ancillary]  # since when, packet, source and how to reach it


class UdpServer:
    """Answers DNS queries on a bound UDP socket, which it owns from then on.

    A reply leaves from the address that the query was sent to, on a socket
    bound to all addresses too (IP_PKTINFO, RFC 3542): else the kernel would
    choose one by its routes, and the asker would not know it.
    """

    def __init__(self, resolver: Resolver, sock: socket.socket, limit: RateLimit) -> None:
        self._resolver = resolver
        self._limit = limit
        self._socket = sock
        self._waiting: set[asyncio.Task[None]] = set()
        self._askers = Counter[str]()  # how many of those each client has
        self._behind: deque[Unmade] = deque()  # to be made, less than two bursts
        self._catching_up: asyncio.Handle | None = None
        self._six = sock.family == socket.AF_INET6
        self._read = self._drain
        if sock.getsockname()[0] in ("0.0.0.0", "::"):
            self._read = self._drain_wildcard
            if self._six:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)

    def start(self) -> None:
        """Begin to answer, on the running loop."""
        asyncio.get_running_loop().add_reader(self._socket, self._wake)

    @property
    def busy(self) -> bool:
        """Whether an answer is still to be sent."""
        return bool(self._waiting or self._behind)

    def retire(self) -> None:
        """Let another agent's socket get what arrives from now on; go on answering what is here."""
        sharing.turn_away(self._socket)

    async def close(self) -> None:
        """Stop answering and close the socket."""
        asyncio.get_running_loop().remove_reader(self._socket)
        if self._catching_up is not None:
            self._catching_up.cancel()
        for task in self._waiting:
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)
        self._socket.close()

    def _wake(self) -> None:
        """Answer what waits, and count how long that took: each reply was sent within it."""
        now = time.monotonic()
        if len(self._behind) < BURST:
            answered = self._read(now)
            if answered:
                self._resolver.took(time.monotonic() - now, answered)
        if self._behind and self._catching_up is None:
            self._catch_up()

    def _catch_up(self) -> None:
        """Make the replies that were not there; the loop comes back for those that take too long."""
        self._catching_up = None
        begin = time.monotonic()
        while self._behind:
            since, packet, source, peer, ancillary = self._behind.popleft()
            answered = self._answer(packet, source, peer, ancillary)
            now = time.monotonic()
            if answered:
                self._resolver.took(now - since, 1)
            if now - begin >= SLICE:
                break
        if self._behind:
            self._catching_up = asyncio.get_running_loop().call_soon(self._catch_up)

    def _drain(self, now: float) -> int:
        """Answer up to a burst. This is the fast path: what it does, it does for each query."""
        resolver, quick, judge = self._resolver, self._resolver.quick, self._limit.judge
        receive, send, six = self._socket.recvfrom, self._socket.sendto, self._six
        snapshot, answered = resolver.snapshot, 0
        for _ in range(BURST):
            try:
                packet, peer = receive(MAX_QUERY)
            except OSError:  # nothing more, or an error that belongs to an earlier reply
                break
            source = peer[0].partition("%")[0] if six else peer[0]  # a link-local one names its interface
            client = client_of(source)
            if client is not None and (verdict := judge(client, now)) is not REPLY:
                self._hold_back(verdict, packet, peer, [])
                continue
            reply = quick(packet, source, snapshot, now)
            if reply is None:
                self._behind.append((now, packet, source, peer, []))
                continue
            answered += 1
            try:
                send(reply, peer)
            except OSError:
                continue  # see `_send`
        return answered

    def _drain_wildcard(self, now: float) -> int:
        """The same where each reply must leave from the address that was asked."""
        resolver, answered = self._resolver, 0
        snapshot = resolver.snapshot
        for _ in range(BURST):
            try:
                packet, told, _, peer = self._socket.recvmsg(MAX_QUERY, ANCILLARY)
            except OSError:
                break
            ancillary = [_source(*item) for item in told]
            source = peer[0].partition("%")[0]
            client = client_of(source)
            if client is not None and (verdict := self._limit.judge(client, now)) is not REPLY:
                self._hold_back(verdict, packet, peer, ancillary)
                continue
            reply = resolver.quick(packet, source, snapshot, now)
            if reply is None:
                self._behind.append((now, packet, source, peer, ancillary))
            else:
                answered += 1
                self._send(reply, peer, ancillary)
        return answered

    def _hold_back(self, verdict: Verdict, packet: bytes, peer: Peer, ancillary: Ancillary) -> None:
        """Give a query beyond the rate limit what it gets: little or nothing."""
        reply = self._resolver.limited(verdict, packet)
        if reply is not None:
            self._send(reply, peer, ancillary)

    def _answer(self, packet: bytes, source: str, peer: Peer, ancillary: Ancillary) -> bool:
        """Answer a query that was not seen before; False where that has to wait."""
        try:
            reply = self._resolver.respond(packet, source, UDP)
        except NotLoaded:
            self._answer_later(packet, source, peer, ancillary)
            return False
        if reply is not None:
            self._send(reply, peer, ancillary)
        return True

    def _answer_later(self, packet: bytes, source: str, peer: Peer, ancillary: Ancillary) -> None:
        client = peer_of(source)
        each = self._askers[client] >= MAX_WAITING_EACH
        if each or len(self._waiting) >= MAX_WAITING:
            self._resolver.stats.limited[(limits.DNS_WAITING_EACH if each else limits.DNS_WAITING).name] += 1
            self._send(self._resolver.servfail(packet, source, UDP), peer, ancillary)
            return
        task = asyncio.create_task(self._resolve(packet, source, peer, ancillary))
        self._waiting.add(task)
        self._askers[client] += 1
        task.add_done_callback(partial(self._waited, client))

    def _waited(self, client: str, task: asyncio.Task[None]) -> None:
        self._waiting.discard(task)
        self._askers[client] -= 1
        if not self._askers[client]:
            del self._askers[client]

    async def _resolve(self, packet: bytes, source: str, peer: Peer, ancillary: Ancillary) -> None:
        reply = await self._resolver.resolve(packet, source, UDP)
        if reply is not None:
            self._send(reply, peer, ancillary)

    def _send(self, reply: bytes, peer: Peer, ancillary: Ancillary) -> None:
        """Send, and forget: UDP's askers ask again, and one that cannot be reached is no fault of ours."""
        with contextlib.suppress(OSError):
            if ancillary:
                self._socket.sendmsg([reply], ancillary, 0, peer)
            else:
                self._socket.sendto(reply, peer)


def _source(level: int, kind: int, data: bytes) -> tuple[int, int, bytes]:
    """Turn "it came to this address" into "send from it", over whatever interface the routes say."""
    if level == socket.IPPROTO_IP:
        _, _, destination = IPV4_HOST.unpack(data)
        return level, kind, IPV4_HOST.pack(0, destination, destination)
    return level, kind, data  # IPv6 needs the interface for link-local addresses
