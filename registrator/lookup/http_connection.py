"""One HTTP connection: aiohttp's, but for what it is given to parse and when.

aiohttp bounds each header, but not all of them together, parses up to 32
requests ahead and has no time limit for half a request or for a reply that
nobody takes. So a connection keeps what comes until the server lets it start
its next request (`HttpServer` does so for few in each turn of the event loop),
parses no further than that request's head, and parses no more until it is
answered. A request's body is thrown away, and its connection ends.
"""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_server import Server

from registrator import limits
from registrator.lookup.http_places import client_of
from registrator.lookup.http_reply import HEADERS

if TYPE_CHECKING:
    from registrator.lookup.http_floor import Floor

HEAD, BODY = limits.HTTP_HEAD.value, limits.HTTP_BODY.value  # octets
HEAD_TIME, IDLE = float(limits.HTTP_HEAD_TIME.value), float(limits.HTTP_IDLE.value)  # seconds
SEND_TIME, SEND_STEP = float(limits.HTTP_SEND_TIME.value), 65_536  # seconds for so many octets of a reply
PARSER: dict[str, Any] = {
    "max_line_size": limits.HTTP_LINE.value,
    "max_field_size": limits.HTTP_LINE.value,
    "max_headers": limits.HTTP_HEADERS.value,
    "lingering_time": 0,  # nobody need send a body
    "auto_decompress": False,
    "access_log": None,
}
END_OF_HEAD = b"\r\n\r\n"
BUSY = "the agent has too many HTTP connections; close some"


def refusal(status: HTTPStatus, line: str) -> bytes:
    """A whole reply as octets, after which the connection ends."""
    retry = "Retry-After: 1\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else ""
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\n{retry}Connection: close\r\n"
    return (
        f"{head}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(line) + 1}\r\n\r\n{line}\n"
    ).encode()


TOO_BUSY = refusal(HTTPStatus.SERVICE_UNAVAILABLE, BUSY)
BAD = "bad HTTP request"
NOT_HTTP = refusal(HTTPStatus.BAD_REQUEST, BAD)
TOO_LARGE = refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the agent reads at most {HEAD} octets of headers"
)


class Connection(web.RequestHandler):
    """A client's connection; `spare` where it is beyond the limits and has a place for health alone.

    `floor` is what it shares with the others: their places, who starts next.
    """

    __slots__ = (
        "_body",
        "_busy",
        "_floor",
        "_head",
        "_held",
        "_last",
        "_to_send",
        "_wire",
        "begun",
        "client",
        "send_by",
        "spare",
    )

    def __init__(self, floor: Floor, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server, loop=loop, keepalive_timeout=IDLE, **PARSER)
        self._floor = floor
        self._held = bytearray()  # came, and is not parsed yet
        self._head = 0  # octets of the present request's head that are parsed
        self._last = b""  # the last of them: the end of a head may come in pieces
        self._busy = False  # a request is being answered
        self._body = 0  # octets that came of its body, and 1 more; 0 where it has none
        self._wire: asyncio.Transport | None = None  # aiohttp forgets it before all is sent
        self.client = ""
        self.spare = False
        self.begun = 0.0  # when the present request's head began (monotonic); 0 between requests
        self.send_by = 0.0  # when more of the present reply must be taken (monotonic); 0 without one
        self._to_send = 0  # octets of it when that was set

    @property
    def unfinished(self) -> int:
        """Octets of a request that is not complete, or not started yet."""
        return self._head + len(self._held)

    @property
    def unsent(self) -> int:
        """Octets of the present reply that the kernel has not taken."""
        return self._wire.get_write_buffer_size() if self._wire is not None else 0

    @property
    def idle(self) -> bool:
        """Whether it waits for (the rest of) a request."""
        return not self._busy

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place among the others, and begin."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  (tells the type checker)
        peer = transport.get_extra_info("peername")
        self.client = client_of(peer[0] if peer else "")
        self._wire = transport
        transport.set_write_buffer_limits(0)  # a reply is sent when the kernel has all of it
        super().connection_made(transport)
        self._floor.come(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Leave the place to others."""
        self._forget()
        self._floor.go(self)
        self._wire = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Keep what comes until it is this connection's turn."""
        if self._force_close or self._close or not data:
            return
        if self._body:
            self._body += len(data)
            if self._body > BODY:
                self.cut(limits.HTTP_BODY)
            return
        self._held += data
        self._floor.grown(self, len(data))
        if not self._busy:
            self.begun = self.begun or time.monotonic()
            self._floor.wants_start(self)
        elif len(self._held) > HEAD and self.transport is not None:
            self.transport.pause_reading()

    def start_request(self) -> None:
        """Parse what is held, up to the end of one request's head."""
        if self._busy or self._force_close or self._close:
            return
        before = self.unfinished
        if not self._head:
            del self._held[: len(self._held) - len(self._held.lstrip(b"\r\n"))]  # RFC 9112, 2.2
        piece = self._next_piece()
        if piece:
            super().data_received(piece)
        elif not self._head:
            self.begun = 0.0
        if self._messages:
            self._busy, self._head, self._last, self.begun = True, 0, b"", 0.0
            if any(payload is not EMPTY_PAYLOAD for _, payload in self._messages):
                self._body = 1 + len(self._held)
                self._held.clear()
        self._floor.grown(self, self.unfinished - before)
        if self._messages:
            return
        if self._head >= HEAD:
            self.refuse(TOO_LARGE, limits.HTTP_HEAD)
        elif self._held:  # what ends like a head and is none
            self.refuse(NOT_HTTP)

    def _next_piece(self) -> bytes:
        """Take of what is held as much as may belong to the present head."""
        piece = bytes(self._held[: HEAD - self._head])
        end = (self._last + piece).find(END_OF_HEAD)
        if end >= 0:
            piece = piece[: end + len(END_OF_HEAD) - len(self._last)]
        del self._held[: len(piece)]
        self._head += len(piece)
        self._last = (self._last + piece)[-3:]
        return piece

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send a reply, which the client must take in time; then the next request may start."""
        body = resp.body if isinstance(resp, web.Response) else None
        octets = len(body) if isinstance(body, bytes) else 0
        self.send_by, self._to_send = time.monotonic() + SEND_TIME, octets
        try:
            with self._floor.gate.sending(self.client, octets):
                return await super().finish_response(request, resp, start_time)
        finally:
            self.send_by = 0.0
            self._busy = bool(self._messages)
            self._floor.answered(self)
            if self._held and not self._busy:
                self.begun = time.monotonic()
                self._floor.wants_start(self)
            if self.transport is not None and not self._body:
                self.transport.resume_reading()

    def is_stuck(self, now: float) -> bool:
        """Whether the client does not take its reply."""
        if not self.send_by or self._wire is None:
            return False
        left = self.unsent
        if left <= self._to_send - SEND_STEP:
            self.send_by, self._to_send = now + SEND_TIME, left
        return now > self.send_by

    def refuse(self, reply: bytes, limit: limits.Limit | None = None) -> None:
        """Answer without a request, and hang up; `limit` is what was hit, if it was one."""
        if limit:
            self._floor.stats.limited[limit.name] += 1
        self._forget()
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(reply)
        self.force_close()

    def cut(self, limit: limits.Limit) -> None:
        """End it at once, with all that was still to be sent."""
        self._floor.stats.limited[limit.name] += 1
        self._forget()
        self.force_close()
        if self._wire is not None:
            self._wire.abort()

    def _forget(self) -> None:
        """Let go of what is not parsed."""
        self._floor.grown(self, -self.unfinished)
        self._held.clear()
        self._head = 0

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
        response = web.Response(status=status, text=f"{BAD}\n", headers=HEADERS)
        response.force_close()
        return response
