"""DNS over TCP (RFC 7766): length-prefixed messages, several on one connection.

A connection that sends no whole message within IDLE seconds, or does not take
its reply within as many, is closed, so neither a half-sent query nor an unread
reply can hold a place. There are at most MAX_CONNECTIONS, and MAX_PER_CLIENT of
one client (see `peer_of`): beyond that the one that has been idle longest makes
room, or the newcomer is refused where all of them are at work. Replies are made
and written in turns (`turns`), one at a time for each connection, the next when
the last was taken; of all that nobody has taken yet no more than MAX_UNREAD is
kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from dataclasses import dataclass, field

from registrator import limits
from registrator.lookup.askers import peer_of
from registrator.lookup.maker import TCP
from registrator.lookup.resolver import Resolver
from registrator.lookup.sharing import Seat
from registrator.lookup.turns import Turnstile
from registrator.stats import Stats

IDLE = 10.0  # seconds for a message to come in, and for its reply to go out
# Seconds without a query, before a server that retires ends a connection; in the end.
QUIET, QUIET_AT_LAST = 0.5, 0.002
MAX_CONNECTIONS = limits.DNS_CONNECTIONS.value
MAX_PER_CLIENT = limits.DNS_CONNECTIONS_EACH.value
MAX_UNREAD = limits.DNS_UNREAD.value
BACKLOG = 128  # connections that may wait to be accepted
ACCEPTED = 8  # connections that are accepted in a turn of the loop
REPLIES = 4  # in a turn of the loop, on all connections together
READ_AHEAD = 4096  # octets a connection may have waiting before it is no longer read
RECEIVED, SENT = 16 * 1024, 64 * 1024  # octets that the kernel may have of a connection's; it doubles them


@dataclass(eq=False, slots=True)
class _Connection:
    """A client's connection; `idle` while no whole query of its is being answered, since `idle_since`."""

    source: str
    client: str
    task: asyncio.Task[None]
    transport: asyncio.WriteTransport
    idle: bool = True
    idle_since: float = field(default_factory=time.monotonic)


def bounded(sock: socket.socket) -> None:
    """Bound what the kernel holds of each connection; call it before `listen`."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT)


class TcpServer:
    """Answers DNS queries on a bound TCP socket, which it owns from then on.

    `turns` is shared by all servers of an agent; `stats` counts what was refused.
    """

    def __init__(self, resolver: Resolver, sock: socket.socket, turns: Turnstile, stats: Stats) -> None:
        self._resolver = resolver
        self._socket = sock
        self._turns = turns
        self._stats = stats
        self._unread: dict[_Connection, int] = {}  # octets that a client has not taken, the longest first
        self._server: asyncio.Server | None = None
        self._connections: dict[_Connection, None] = {}  # the longest unheard of first
        self._seat = Seat(sock)
        self._hurried = False

    @property
    def busy(self) -> bool:
        """Whether there are connections."""
        return bool(self._connections)

    async def start(self) -> None:
        """Begin to accept connections."""
        self._server = await asyncio.start_server(
            self._serve, sock=self._socket, limit=READ_AHEAD, backlog=ACCEPTED, start_serving=False
        )
        await self._server.start_serving()
        self._socket.listen(BACKLOG)  # asyncio takes one number for both

    def retire(self) -> None:
        """Let another agent get new connections; go on serving those that are here, or just coming in."""
        self._seat.turn_away()

    def end_quiet(self, *, hurried: bool) -> None:
        """Stop accepting, and end the connections that have been without a query for a moment.

        When it is `hurried` the busy ones end, too, after an answer of theirs
        which no next query follows at once.
        """
        self._hurried = hurried
        if self._server is not None:
            self._server.close()
        limit = time.monotonic() - QUIET
        for connection in list(self._connections):
            if connection.idle and connection.idle_since < limit:
                self._connections.pop(connection)
                connection.transport.close()

    async def close(self) -> None:
        """Stop accepting, and end every connection."""
        if self._server is not None:
            self._server.close()
        self._socket.close()
        tasks = [connection.task for connection in self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer, task = writer.get_extra_info("peername"), asyncio.current_task()
        source = peer[0].partition("%")[0] if peer else ""
        client = peer_of(source)
        if not source or task is None or not self._make_room(client):
            writer.transport.abort()
            return
        connection = _Connection(source, client, task, writer.transport)
        self._connections[connection] = None
        writer.transport.set_write_buffer_limits(0)  # so that drain() means "all is sent"
        try:
            # Cancelled by `close`: were the task to say so, asyncio would log it as an error.
            ends = OSError, asyncio.IncompleteReadError, TimeoutError, asyncio.CancelledError
            with contextlib.suppress(*ends):
                await self._converse(connection, reader, writer)
        finally:
            self._connections.pop(connection, None)
            writer.transport.abort()

    async def _converse(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer one message after the other until the client ends, is silent, or sends no query."""
        while True:
            async with asyncio.timeout(QUIET_AT_LAST if self._hurried else IDLE):
                length = int.from_bytes(await reader.readexactly(2), "big")
                packet = await reader.readexactly(length)
            connection.idle = False
            await self._turns.enter(connection.client)
            reply = await self._resolver.resolve(packet, connection.source, TCP)
            if reply is None:
                return
            await self._send(connection, writer, reply)
            connection.idle, connection.idle_since = True, time.monotonic()
            self._connections.pop(connection, None)
            self._connections[connection] = None

    async def _send(self, connection: _Connection, writer: asyncio.StreamWriter, reply: bytes) -> None:
        """Write a reply, and wait until the client's side has taken it."""
        writer.write(len(reply).to_bytes(2, "big") + reply)
        left = connection.transport.get_write_buffer_size()
        if not left:
            if connection.transport.is_closing():
                raise ConnectionResetError  # what it has sent before is not worth an answer
            return
        self._unread[connection] = left
        try:
            while sum(self._unread.values()) > MAX_UNREAD:
                slowest = next(iter(self._unread))
                del self._unread[slowest]
                slowest.transport.abort()
                self._stats.limited[limits.DNS_UNREAD.name] += 1
            async with asyncio.timeout(IDLE):
                await writer.drain()
        finally:
            self._unread.pop(connection, None)

    def _make_room(self, client: str) -> bool:
        """Whether a connection of this client may come in; ends an idle one where it must."""
        crowd = [connection for connection in self._connections if connection.client == client]
        if len(crowd) < MAX_PER_CLIENT:
            crowd = list(self._connections)
            if len(crowd) < MAX_CONNECTIONS:
                return True
        each = len(crowd) < MAX_CONNECTIONS
        self._stats.limited[(limits.DNS_CONNECTIONS_EACH if each else limits.DNS_CONNECTIONS).name] += 1
        oldest = next((connection for connection in crowd if connection.idle), None)
        if oldest is None:
            return False
        del self._connections[oldest]
        oldest.transport.abort()
        return True
