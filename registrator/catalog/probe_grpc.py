"""How a gRPC check is run: one call of the standard health protocol, judged as Consul judges it.

The protocol is one unary call, grpc.health.v1.Health/Check
(https://github.com/grpc/grpc/blob/master/doc/health-checking.md), over HTTP/2
(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md). Its two
messages have one field each, so they are written and read here by hand; what
is below, h2 does. A module of its own so that h2 costs only who has such a
check: `probes` imports it when the first one is about to run.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import unquote

from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hpack import Decoder, HeaderTuple, HPACKDecodingError

from registrator import __version__
from registrator.catalog.probe_wire import (
    Allowance,
    Wire,
    dial,
    host_and_port,
    os_reason,
    shown,
    tls_context,
    tls_reason,
)
from registrator.limits import ANSWER_FRAMES, ANSWER_HEAD
from registrator.model import CRITICAL, PASSING, Check

PATH = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"  # field 1, a varint: ServingStatus.SERVING; it stands first, being the only one
PREFIX = 5  # octets before a message: compressed or not, and its length in four
ANSWER_LIMIT = 4096  # octets; the answer has seven
FRAME_HEADER = 9  # octets: the payload's length in three, type, flags, stream
LONGEST_FRAME = 16384  # octets of payload, the least that an HTTP/2 client must take
HEADER_FRAMES = frozenset((1, 5, 9))  # HEADERS, PUSH_PROMISE and CONTINUATION
HEADER_LIST = 8192  # octets that a header may have when it is decompressed
SETTINGS_FRAME, SETTING = 4, 6  # its type, and the octets of one setting in it
TABLE_UPDATES = 2  # changes of the table's size that a header may begin with (RFC 7541, 4.2)
FRAMES_A_TURN = 4
LONGEST_TIMEOUT = 99_999_999  # milliseconds: a grpc-timeout has eight digits
MESSAGE_LIMIT = 1000  # characters of a server's own words

# grpc-status by number, as Go's gRPC, and so Consul, names them.
CODES = (
    *("OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists"),
    *("PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange"),
    *("Unimplemented", "Internal", "Unavailable", "DataLoss", "Unauthenticated"),
)


class _CallError(Exception):
    """A call without an answer of status OK; `str()` is Go's text for it."""

    def __init__(self, code: str, description: str, *, of_server: bool = False) -> None:
        super().__init__(f"rpc error: code = {code} desc = {description}")
        self._code, self._of_server = code, of_server

    def terse(self) -> _CallError:
        """The same without a server's own words."""
        return _CallError(self._code, "(not shown)") if self._of_server else self


@dataclass(slots=True)
class _Answer:
    """What has come back so far on the call's stream."""

    headers: dict[str, str] = field(default_factory=dict)  # trailers included
    body: bytearray = field(default_factory=bytearray)
    over: bool = False

    def take(self, events: Iterable[Event]) -> None:
        """Take in what came. Raises _CallError for a stream that the server gave up."""
        for event in events:
            match event:
                case ResponseReceived() | TrailersReceived():
                    self.headers.update(_text(event.headers))
                case DataReceived():
                    self.body += event.data or b""
                case StreamReset():
                    raise _CallError("Unavailable", f"call reset (HTTP/2 error {event.error_code})")
                case StreamEnded():
                    self.over = True
        if len(self.body) > ANSWER_LIMIT:
            raise _CallError("ResourceExhausted", "the answer is too long for one of the health protocol")

    def message(self) -> bytes:
        """The message of a call that went well. Raises _CallError for any other."""
        status = self.headers.get("grpc-status", "")
        if not status:
            http = self.headers.get(":status", "none")
            raise _CallError("Unknown", f"no gRPC answer (HTTP status {http[:10]}): is this a gRPC port?")
        if status != "0":
            known = status.isascii() and status.isdigit() and len(status) < 3 and int(status) < len(CODES)
            words = shown(
                unquote(self.headers.get("grpc-message", ""))[:MESSAGE_LIMIT].encode(errors="replace")
            )
            code = CODES[int(status)] if known else f"Code({shown(status[:10].encode(errors='replace'))})"
            raise _CallError(code, words, of_server=True)
        return bytes(self.body[PREFIX:])


async def probe(check: Check, timeout: float, allowance: Allowance) -> tuple[str, str]:
    """Ask once; (status, output). SERVING is passing, all else and no answer critical.

    The check's target is "host:port" (IPv6 in brackets), where the server is
    asked after its health as a whole, or "host:port/service". Raises OverLimit.
    """
    server, _, service = check.target.partition("/")
    try:
        async with asyncio.timeout(timeout):
            message = await _call(server, service, await _tls(check), timeout, allowance)
    except TimeoutError:
        return CRITICAL, str(_CallError("DeadlineExceeded", "context deadline exceeded"))
    except _CallError as error:
        return CRITICAL, str(error.terse() if check.foreign else error)
    except (OSError, ProtocolError):  # the connection broke, or it never spoke HTTP/2
        return CRITICAL, str(_CallError("Unavailable", "connection closed"))
    if not message.startswith(SERVING):
        return CRITICAL, "gRPC application didn't report service healthy"
    return PASSING, f"gRPC check {check.target}: success"


async def _call(
    server: str, service: str, tls: ssl.SSLContext | None, timeout: float, allowance: Allowance
) -> bytes:
    """Connect, call once, and give the answer's message.

    Raises _CallError, OSError, ProtocolError and OverLimit.
    """
    wire = await _dial(server, tls, allowance)
    try:
        connection = H2Connection()
        connection.local_settings = Settings(
            client=True,
            initial_values={SettingCodes.MAX_HEADER_LIST_SIZE: HEADER_LIST, SettingCodes.ENABLE_PUSH: 0},
        )
        connection.initiate_connection()
        connection.decoder = _HeaderDecoder(HEADER_LIST)
        stream = connection.get_next_available_stream_id()
        connection.send_headers(stream, _headers(server, timeout, encrypted=tls is not None))
        connection.send_data(stream, _request(service), end_stream=True)
        await wire.send(connection.data_to_send())
        answer, frames = _Answer(), _Frames(wire, allowance)
        while not answer.over:
            answer.take(connection.receive_data(await frames.next()))
            with suppress(ConnectionError):  # what has come already counts
                await wire.send(connection.data_to_send())
        return answer.message()
    finally:
        wire.close()


class _HeaderDecoder(Decoder):
    """hpack's own, for headers that do not begin with thousands of changes of the table's size."""

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:  # noqa: FBT001, FBT002 - hpack's own
        """Decode a header. Raises HPACKError."""
        at = count = 0
        while at < len(data) and data[at] & 0xE0 == 0x20:  # RFC 7541, 6.3
            more = data[at] & 0x1F == 0x1F
            at, count = at + 1, count + 1
            while more and at < len(data):
                more, at = data[at] & 0x80 != 0, at + 1
            if count > TABLE_UPDATES:
                raise HPACKDecodingError("the table's size changes too often")
        return super().decode(data, raw)


class _Frames:
    """Cuts what comes into frames, so that each is counted before h2 has any work with it."""

    def __init__(self, wire: Wire, allowance: Allowance) -> None:
        self._wire = wire
        self._allowance = allowance
        self._buffer = b""
        self._count = 0

    async def next(self) -> bytes:
        """The next frame. Raises _CallError at the end, ProtocolError for one that is too long, OverLimit."""
        self._count += 1
        if not self._count % FRAMES_A_TURN:
            await self._allowance.turns.take()
        self._allowance.spend(ANSWER_FRAMES)
        await self._fill(FRAME_HEADER)
        length = int.from_bytes(self._buffer[:3], "big")
        if length > LONGEST_FRAME:
            raise ProtocolError
        if self._buffer[3] in HEADER_FRAMES:
            self._allowance.spend(ANSWER_HEAD, length)
        elif self._buffer[3] == SETTINGS_FRAME:
            self._allowance.spend(ANSWER_FRAMES, length // SETTING)
        await self._fill(FRAME_HEADER + length)
        end = FRAME_HEADER + length
        frame, self._buffer = self._buffer[:end], self._buffer[end:]
        return frame

    async def _fill(self, length: int) -> None:
        while len(self._buffer) < length:
            data = await self._wire.read()
            if not data:
                raise _CallError("Unavailable", "connection closed")
            self._buffer += data


async def _dial(server: str, tls: ssl.SSLContext | None, allowance: Allowance) -> Wire:
    """Connect to "host:port". Raises _CallError, which says at what it failed, and OverLimit."""
    address = host_and_port(server)
    if address is None:
        raise _dial_error(f"dial tcp: address {server}: missing port in address")
    try:
        wire = await dial(*address, allowance)
    except (OSError, ValueError, OverflowError) as error:
        raise _dial_error(f"dial tcp {server}: connect: {os_reason(error)}") from None
    if tls is None:
        return wire
    try:
        await wire.secure(tls, address[0])
    except BaseException as error:
        wire.close()
        if isinstance(error, ssl.SSLError):
            raise _connection_error(f"authentication handshake failed: {tls_reason(error)}") from None
        raise
    return wire


def _dial_error(reason: str) -> _CallError:
    return _connection_error(f"Error while dialing {reason}")


def _connection_error(reason: str) -> _CallError:
    return _CallError("Unavailable", f'connection error: desc = "transport: {reason}"')


def _headers(server: str, timeout: float, *, encrypted: bool) -> list[tuple[str, str]]:
    """The request's headers, in the order that gRPC's protocol demands."""
    return [
        (":method", "POST"),
        (":scheme", "https" if encrypted else "http"),
        (":path", PATH),
        (":authority", server),
        ("te", "trailers"),
        ("grpc-timeout", f"{min(LONGEST_TIMEOUT, round(timeout * 1000))}m"),
        ("content-type", "application/grpc"),
        ("user-agent", f"registrator/{__version__} (health check)"),
    ]


def _request(service: str) -> bytes:
    """A HealthCheckRequest (field 1: the service's name) as one uncompressed message."""
    name = service.encode(errors="replace")
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    return b"\0" + len(message).to_bytes(PREFIX - 1, "big") + message


def _varint(number: int) -> bytes:
    """Protocol Buffers' variable-length integer: seven bits an octet, the lowest first."""
    octets = bytearray()
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*octets, number])


async def _tls(check: Check) -> ssl.SSLContext | None:
    if not check.grpc_use_tls:
        return None
    return await tls_context(verify=not check.tls_skip_verify, protocol="h2")


def _text(headers: Iterable[tuple[str | bytes, str | bytes]] | None) -> Iterator[tuple[str, str]]:
    """Headers as text; h2 leaves them as the octets that came."""
    for name, value in headers or ():
        yield _decoded(name), _decoded(value)


def _decoded(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
