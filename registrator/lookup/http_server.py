"""The HTTP front on the network: sockets, an orderly end.

aiohttp serves; what it does not bound by itself is in `http_connection` (one
connection) and `http_floor` (all of them).
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Sequence

from aiohttp import web

from registrator.limits import HTTP_CONNECTIONS
from registrator.lookup.acceptor import Acceptor, Shortage
from registrator.lookup.http import HttpFront
from registrator.lookup.http_connection import Connection
from registrator.lookup.http_floor import Floor
from registrator.lookup.sharing import Seat
from registrator.lookup.sockets import bind
from registrator.model import Failure
from registrator.settings import Listen
from registrator.stats import Stats

GRACE = 0.3  # seconds that replies under way have when the server closes
# Octets that the kernel keeps for a connection (it doubles them, socket(7)): left to itself, it takes
# megabytes for a client that does not read, and for one that sends more than it should.
SEND_BUFFER, RECEIVE_BUFFER = 65_536, 32_768


class HttpBindError(Failure):
    """An address cannot be listened on."""


class HttpServer:
    """Serves a front on all of `listens`; port 0 takes a free one.

    With `share` another agent of the same user may listen there, too.
    `connections` is how many there may be, where descriptors are few.
    """

    def __init__(
        self,
        front: HttpFront,
        listens: Sequence[Listen],
        *,
        share: bool = False,
        connections: int = HTTP_CONNECTIONS.value,
        shortage: Shortage | None = None,
    ) -> None:
        self._front = front
        self._share = share
        self._connections = connections
        self._shortage = shortage or Shortage(Stats())
        self._seats: list[Seat] = []
        self._listens = listens
        self._runner: web.AppRunner | None = None
        self._floor: Floor | None = None
        self._acceptors: list[Acceptor] = []

    @property
    def addresses(self) -> tuple[Listen, ...]:
        """Where it listens, in the order of `listens`, with the real ports."""
        return tuple(acceptor.address for acceptor in self._acceptors)

    async def start(self) -> None:
        """Listen on every address, or on none. Raises HttpBindError."""
        runner = web.AppRunner(
            self._front.application(),
            handler_cancellation=True,  # a client that goes takes its blocking query along
            shutdown_timeout=GRACE,
        )
        await runner.setup()
        self._runner, self._floor = runner, Floor(self._front.stats, self._front.gate, self._connections)
        try:
            for listen in self._listens:
                self._listen(listen)
        except HttpBindError:
            await self.close()
            raise

    async def retire(self, settled: float) -> None:
        """Leave new connections to the other agent on the addresses, and answer what is here.

        Whoever asks on an open connection is told to come anew, and blocking
        queries are answered. `settled` (monotonic seconds) is when nothing
        more can arrive. `close` comes next.
        """
        for seat in self._seats:
            seat.turn_away()
        self._front.end_waits()
        await asyncio.sleep(settled - time.monotonic())

    async def close(self) -> None:
        """Stop listening, answer the blocking queries, end all connections; under 1 s."""
        for acceptor in self._acceptors:
            acceptor.close()
        self._acceptors.clear()
        self._seats.clear()
        self._front.end_waits()
        if self._runner:
            await self._runner.cleanup()
            self._runner = None
        if self._floor:
            self._floor.close()
            self._floor = None

    def _listen(self, listen: Listen) -> None:
        try:
            sock = bind(listen, socket.SOCK_STREAM, share=self._share)
        except OSError as error:
            raise HttpBindError(f"cannot serve HTTP on {listen}: {_remedy(error)}") from None
        # Connections have what their listener had.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        acceptor = Acceptor(sock, self._connection, self._shortage)
        self._acceptors.append(acceptor)
        acceptor.start()
        self._seats.append(Seat(sock))

    def _connection(self) -> asyncio.BaseProtocol:
        """The protocol for a new connection."""
        assert self._runner is not None  # noqa: S101  (sockets are closed before it goes)
        assert self._floor is not None  # noqa: S101
        assert self._runner.server is not None  # noqa: S101
        return Connection(self._floor, self._runner.server, asyncio.get_running_loop())


def _remedy(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return (
                "another program has that port; stop it, or choose another with --http; two registrators "
                "of one user share it when both have --reuse-port"
            )
        case errno.EACCES | errno.EPERM:
            return "not permitted; choose a port above 1023 with --http, or grant CAP_NET_BIND_SERVICE"
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return "this node does not have that address; choose one of its own with --http"
        case _:
            return f"{error.strerror or error}; choose another address with --http"
