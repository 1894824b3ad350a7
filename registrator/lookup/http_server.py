"""The HTTP front on the network: sockets, the cap on connections, an orderly end.

aiohttp parses and keeps connections alive; it has no cap on their number, so
the protocol factory given to the sockets hands out a refusal beyond it.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web

from registrator.lookup.acceptor import Acceptor, Shortage
from registrator.lookup.http import HttpFront
from registrator.lookup.http_reply import HEADERS
from registrator.lookup.sharing import Seat
from registrator.lookup.sockets import bind
from registrator.model import Failure
from registrator.settings import Listen
from registrator.stats import Stats

MAX_CONNECTIONS = 512
IDLE = 75.0  # seconds that a connection may stay without a whole request
GRACE = 0.3  # seconds that replies under way have when the server closes
LIMITS: dict[str, Any] = {
    "max_line_size": 8190,  # octets of the request line
    "max_field_size": 8190,  # octets of one header
    "max_headers": 64,
    "lingering_time": 0,  # nobody need send a body
    "access_log": None,
}

BUSY = b"the agent has too many HTTP connections; close some\n"
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%b" % (len(BUSY), BUSY)
)


class HttpBindError(Failure):
    """An address cannot be listened on."""


class HttpServer:
    """Serves a front on all of `listens`; port 0 takes a free one.

    With `share` another agent of the same user may listen there, too.
    """

    def __init__(
        self,
        front: HttpFront,
        listens: Sequence[Listen],
        *,
        share: bool = False,
        connections: int = MAX_CONNECTIONS,
        shortage: Shortage | None = None,
    ) -> None:
        self._front = front
        self._share = share
        self._most = min(MAX_CONNECTIONS, connections)
        self._shortage = shortage or Shortage(Stats())
        self._seats: list[Seat] = []
        self._listens = listens
        self._runner: web.AppRunner | None = None
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
        self._runner = runner
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

    def _listen(self, listen: Listen) -> None:
        try:
            sock = bind(listen, socket.SOCK_STREAM, share=self._share)
        except OSError as error:
            raise HttpBindError(f"cannot serve HTTP on {listen}: {_remedy(error)}") from None
        acceptor = Acceptor(sock, self._connection, self._shortage)
        self._acceptors.append(acceptor)
        acceptor.start()
        self._seats.append(Seat(sock))

    def _connection(self) -> asyncio.BaseProtocol:
        """The protocol for a new connection; beyond the cap one that refuses."""
        server = self._runner.server if self._runner else None
        if server is None or len(server.connections) >= self._most:
            return _Refusal()
        return _Connection(server, loop=asyncio.get_running_loop(), keepalive_timeout=IDLE, **LIMITS)


class _Connection(web.RequestHandler):
    """aiohttp's protocol, but for its words to those who do not speak HTTP."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer in one line, where aiohttp would quote the octets and log a traceback."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return super().handle_error(request, status, exc, message)
        response = web.Response(
            status=status, text="the agent does not understand this as HTTP\n", headers=HEADERS
        )
        response.force_close()
        return response


class _Refusal(asyncio.Protocol):
    """Says that there are too many connections, and hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101  (tells the type checker)
        transport.write(REFUSAL)
        transport.close()


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
