"""How an HTTP check is run: one request, judged as Consul judges it.

HTTP/1.1 (RFC 9112) as far as a check needs it, on a connection of its own that
is closed after the answer. Of the head only the status line and the fields
that say how long the body is, or where it redirects to, are looked at. Bodies
are asked for, and taken, as they are: nothing is inflated.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

from registrator import __version__
from registrator.catalog.probe_wire import (
    Allowance,
    OverLimit,
    Wire,
    dial,
    os_reason,
    shown,
    tls_context,
    tls_reason,
)
from registrator.limits import ANSWER_BODY, ANSWER_HEAD, CHECK_OUTPUT
from registrator.model import CRITICAL, PASSING, WARNING
from registrator.settings import join_host_port

if TYPE_CHECKING:
    from registrator.model import Check

MAX_REDIRECTS = 10  # net/http's own, which Consul leaves as it is
MAX_INTERIM = 16  # 1xx answers before the one that counts
REASON_LIMIT = 100  # characters of a reason phrase
TOO_MANY_REQUESTS = 429
REDIRECTS = frozenset((301, 302, 303, 307, 308))
WITHOUT_BODY = frozenset((204, 304))
PORTS = {"http": 80, "https": 443}
AS_IT_IS = "%/?#[]@!$&'()*+,;=:~"  # in a path and query that a server redirects to
UNASKABLE = "not a URL that can be asked; write for instance http://10.0.0.5:8080/health"
NOT_HTTP = "the answer is not HTTP/1.1"
BEGIN = b"HTTP/1."
UNKNOWN = 1 << 62  # octets in a body that does not say how long it is
REST_LIMIT = 1024  # octets in a chunk's size with its extensions
ELSEWHERE = "redirected to another host or port, where no check goes"

STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: ([^\r\n]*))?\r?\n")
END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
CHUNKED = re.compile(rb"(?im)^transfer-encoding:[^\r\n]*\bchunked\b")
LENGTH = re.compile(rb"(?im)^content-length:[ \t]*([0-9]{1,18})[ \t]*\r?$")
LOCATION = re.compile(rb"(?im)^location:[ \t]*([^\r\n]*)")
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[^\r\n]*\r?\n")


class _NoAnswer(Exception):
    """Why there is no answer to judge; `str()` is what the check says."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a request goes; the path has the query with it."""

    scheme: str
    host: str
    port: int
    authority: str  # as it was written
    path: str


@dataclass(slots=True)
class _Answer:
    """What has come back so far; the code is 0 until the head is complete."""

    code: int = 0
    reason: str = ""
    body: bytes = b""


async def probe(check: Check, timeout: float, allowance: Allowance) -> tuple[str, str]:
    """Ask once; (status, output). 2xx is passing, 429 warning, the rest and no answer critical.

    Redirects are followed to the same host and port. An answer whose body ends
    too early, too late or beyond the limit is judged by its status, with what
    came of the body. Raises OverLimit where the head is.
    """
    answer = _Answer()
    try:
        async with asyncio.timeout(timeout):
            await _follow(check, answer, allowance)
    except OverLimit:
        if not answer.code:
            raise
    except (_NoAnswer, OSError) as error:  # TimeoutError and ssl.SSLError are OSErrors
        if not answer.code:
            return CRITICAL, f'{_method(check).title()} "{check.target}": {_why(error, timeout)}'
    said = f"HTTP {_method(check)} {check.target}: {answer.code} {answer.reason}"
    if not check.foreign:
        said += f" Output: {shown(answer.body)}"
    return _judge(answer.code), said


def _method(check: Check) -> str:
    return check.method.upper() or "GET"


def _judge(code: int) -> str:
    """The status of a check whose endpoint answered with this HTTP code."""
    if code // 100 == 2:
        return PASSING
    return WARNING if code == TOO_MANY_REQUESTS else CRITICAL


def _why(error: Exception, timeout: float) -> str:
    """Why there was no answer."""
    match error:
        case TimeoutError():
            return f"no answer within {timeout:g} s"
        case ssl.SSLError():
            return f"TLS: {tls_reason(error)}"
        case OSError():
            return f"the connection failed: {os_reason(error)}"
    return str(error)


async def _follow(check: Check, answer: _Answer, allowance: Allowance) -> None:
    """Ask, and ask again where the answer redirects to the same host and port; fill in the last answer."""
    place = _place(check.target)
    method, body = _method(check), check.body.encode(errors="replace")
    for _ in range(MAX_REDIRECTS):
        wire = await _connect(place, allowance)
        try:
            if place.scheme == "https":
                await wire.secure(await tls_context(verify=not check.tls_skip_verify), place.host)
            await wire.send(_request(place, check, method, body))
            reader = _Reader(wire, allowance)
            code, reason, head = await reader.head()
            location = LOCATION.search(head) if code in REDIRECTS and check.redirects else None
            if location is None:
                answer.code, answer.reason = code, reason
                if method != "HEAD" and code not in WITHOUT_BODY and not check.foreign:
                    await reader.body(head, answer)
                return
        finally:
            wire.close()
        place = _redirected(place, location[1])
        if (code == 303 and method != "HEAD") or (code in (301, 302) and method == "POST"):
            method, body = "GET", b""
    raise _NoAnswer(f"stopped after {MAX_REDIRECTS} redirects")


def _place(url: str) -> _Place:
    """The parts of a check's target. Raises _NoAnswer."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _NoAnswer(UNASKABLE) from None
    if parts.scheme not in PORTS or not parts.hostname or "@" in parts.netloc:
        raise _NoAnswer(UNASKABLE)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Place(parts.scheme, parts.hostname, port or PORTS[parts.scheme], parts.netloc, path)


def _redirected(place: _Place, location: bytes) -> _Place:
    """Where an answer redirects to, on the same host and port. Raises _NoAnswer for any other place."""
    url = f"{place.scheme}://{place.authority}{place.path}"
    try:
        there = _place(urljoin(url, quote(location.decode("latin-1"), safe=AS_IT_IS)))
    except (ValueError, _NoAnswer):
        raise _NoAnswer(ELSEWHERE) from None
    if (there.host, there.port) != (place.host, place.port):
        raise _NoAnswer(ELSEWHERE)
    # Only scheme and path are the server's to choose.
    return replace(place, scheme=there.scheme, path=there.path)


def _request(place: _Place, check: Check, method: str, body: bytes) -> bytes:
    """A request as octets. Raises _NoAnswer for one that is not what it seems."""
    given = [(name, value) for name, values in check.header for value in values]
    overridden = {name.lower() for name, _ in given}
    usual = [
        ("Host", place.authority),
        ("User-Agent", f"registrator/{__version__} (health check)"),
        ("Accept", "text/plain, text/*, */*"),
        ("Accept-Encoding", "identity"),
        ("Connection", "close"),
        *([("Content-Length", str(len(body)))] if body else []),
    ]
    fields = [*((n, v) for n, v in usual if n.lower() not in overridden), *given]
    lines = [f"{method} {place.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    if any(character in line for line in lines for character in "\r\n\0"):
        raise _NoAnswer(UNASKABLE)
    return "\r\n".join((*lines, "", "")).encode(errors="replace") + body


async def _connect(place: _Place, allowance: Allowance) -> Wire:
    """Open a connection. Raises _NoAnswer, which says at what it failed."""
    try:
        return await dial(place.host, place.port, allowance)
    except (OSError, ValueError, OverflowError) as error:
        where = join_host_port(place.host, place.port)
        raise _NoAnswer(f"dial tcp {where}: connect: {os_reason(error)}") from None


class _Reader:
    """Reads an answer from a connection."""

    def __init__(self, wire: Wire, allowance: Allowance) -> None:
        self._wire = wire
        self._allowance = allowance
        self._buffer = b""

    async def head(self) -> tuple[int, str, bytes]:
        """The code, the reason and the head of the answer that counts. Raises OverLimit and _NoAnswer."""
        for _ in range(MAX_INTERIM):
            head = await self._next_head()
            line = STATUS_LINE.match(head)
            if line is None:
                raise _NoAnswer(NOT_HTTP)
            code = int(line[1])
            if code // 100 != 1 or code == 101:
                return code, shown((line[2] or b"")[:REASON_LIMIT]), head
        raise _NoAnswer("too many interim answers")

    async def _next_head(self) -> bytes:
        """A status line with its fields, up to and with the empty line. Raises OverLimit and _NoAnswer."""
        begin = 0
        while (end := END_OF_HEAD.search(self._buffer, begin)) is None:
            begin = max(0, len(self._buffer) - 3)
            if not BEGIN.startswith(self._buffer[: len(BEGIN)]):
                raise _NoAnswer(NOT_HTTP)
            if begin > self._allowance.left(ANSWER_HEAD):
                self._allowance.spend(ANSWER_HEAD, begin)
            if not await self._more():
                raise _NoAnswer("the connection ended before the answer was complete")
        self._allowance.spend(ANSWER_HEAD, end.end())
        head, self._buffer = self._buffer[: end.end()], self._buffer[end.end() :]
        return head

    async def body(self, head: bytes, answer: _Answer) -> None:
        """Read the body; keep its last octets. Raises OverLimit."""
        chunks = _Chunks() if CHUNKED.search(head) else None
        length = LENGTH.search(head) if chunks is None else None
        left = int(length[1]) if length else UNKNOWN
        while left:
            data, self._buffer = self._buffer[:left], b""
            self._allowance.spend(ANSWER_BODY, len(data))
            left -= len(data)
            taken = data if chunks is None else chunks.take(data)
            answer.body = (answer.body + taken)[-CHECK_OUTPUT.value :]
            if (chunks is not None and chunks.over) or (left and not await self._more()):
                return

    async def _more(self) -> bool:
        """Read once; whether anything came."""
        data = await self._wire.read()
        self._buffer += data
        return bool(data)


class _Chunks:
    """The data in a chunked body (RFC 9112, 7.1); `over` at its end, or where it makes no sense."""

    def __init__(self) -> None:
        self.over = False
        self._left = 0  # octets of the chunk that are still to come
        self._rest = b""  # what is not a whole line yet

    def take(self, data: bytes) -> bytes:
        """The data in what came."""
        data, self._rest = self._rest + data, b""
        found = []
        at = 0
        while at < len(data) and not self.over:
            if self._left:
                found.append(data[at : at + self._left])
                at += len(found[-1])
                self._left -= len(found[-1])
                continue
            if data.startswith((b"\r\n", b"\n"), at):  # what ends a chunk's data
                at += 2 if data[at] == 13 else 1
                continue
            size = CHUNK_SIZE.match(data, at)
            if size is None:
                self._rest = data[at:]
                self.over = b"\n" in self._rest or len(self._rest) > REST_LIMIT
                break
            at = size.end()
            self._left = int(size[1], 16)
            self.over = not self._left
        return b"".join(found)
