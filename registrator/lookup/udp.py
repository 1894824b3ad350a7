"""DNS over UDP: a non-blocking socket, read in bounded bursts.

Each wake-up of the loop reads at most BURST packets, answers them at once and
goes back, so that a flood cannot keep other work from running. A query that
needs a service to be loaded is answered by a task of its own, at most
MAX_WAITING of them; beyond that it gets SERVFAIL and its asker may try again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from typing import Any

from registrator.lookup.ask import NotLoaded
from registrator.lookup.maker import UDP
from registrator.lookup.resolver import Resolver

BURST = 64  # packets a wake-up
MAX_WAITING = 256
MAX_QUERY = 4096  # octets read of a packet; a sound query has a few hundred at most
IP_PKTINFO = 8  # linux/in.h; the socket module lacks it before Python 3.14
IPV6_HOST = struct.Struct("=16sI")  # struct in6_pktinfo: address, interface
IPV4_HOST = struct.Struct("=I4s4s")  # struct in_pktinfo: interface, local address, destination

Peer = tuple[Any, ...]  # a socket address: host and port, for IPv6 also flow and scope
Ancillary = list[tuple[int, int, bytes]]


class UdpServer:
    """Answers DNS queries on a bound UDP socket, which it owns from then on.

    A reply leaves from the address that the query was sent to, on a socket
    bound to all addresses too (IP_PKTINFO, RFC 3542): else the kernel would
    choose one by its routes, and the asker would not know it.
    """

    def __init__(self, resolver: Resolver, sock: socket.socket) -> None:
        self._resolver = resolver
        self._socket = sock
        self._waiting: set[asyncio.Task[None]] = set()
        self._wildcard = sock.getsockname()[0] in ("0.0.0.0", "::")
        if self._wildcard and sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        elif self._wildcard:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)

    def start(self) -> None:
        """Begin to answer, on the running loop."""
        asyncio.get_running_loop().add_reader(self._socket, self._drain)

    async def close(self) -> None:
        """Stop answering and close the socket."""
        asyncio.get_running_loop().remove_reader(self._socket)
        for task in self._waiting:
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)
        self._socket.close()

    def _drain(self) -> None:
        resolver = self._resolver
        snapshot, now = resolver.snapshot, time.monotonic()
        for _ in range(BURST):
            try:
                packet, peer, ancillary = self._receive()
            except OSError:  # nothing more, or an error that belongs to an earlier reply
                return
            source = peer[0].partition("%")[0]  # an IPv6 link-local one names its interface too
            reply = resolver.quick(packet, source, snapshot, now)
            if reply is None:
                try:
                    reply = resolver.respond(packet, source, UDP)
                except NotLoaded:
                    self._answer_later(packet, source, peer, ancillary)
            if reply is not None:
                self._send(reply, peer, ancillary)

    def _answer_later(self, packet: bytes, source: str, peer: Peer, ancillary: Ancillary) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._send(self._resolver.servfail(packet, UDP), peer, ancillary)
            return
        task = asyncio.create_task(self._resolve(packet, source, peer, ancillary))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _resolve(self, packet: bytes, source: str, peer: Peer, ancillary: Ancillary) -> None:
        reply = await self._resolver.resolve(packet, source, UDP)
        if reply is not None:
            self._send(reply, peer, ancillary)

    def _receive(self) -> tuple[bytes, Peer, Ancillary]:
        if not self._wildcard:
            return *self._socket.recvfrom(MAX_QUERY), []
        packet, ancillary, _, peer = self._socket.recvmsg(MAX_QUERY, socket.CMSG_SPACE(IPV6_HOST.size))
        return packet, peer, [_source(*item) for item in ancillary]

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
