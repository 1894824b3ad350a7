"""The connection of a check to a server that may mean harm.

asyncio's own streams take up to 256 KB from a socket at a time and hand all of
it on in one turn of the event loop; what is made of it (TLS messages, frames,
chunks) can take a tenth of a second, in which no lookup is answered. Here
every read is small, counts against an `Allowance`, and waits for its turn, of
which the checks together have one in each turn of the loop.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import socket
import ssl

from registrator.limits import ANSWER_OVERHEAD, ANSWER_READS, Limit

READ = 4096  # octets at a time

# Python's own choice without finite-field Diffie-Hellman: the server sets its cost by the size of its prime.
CIPHERS = "@SECLEVEL=2:ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM"


# Control characters but for tab and line ends, which are usual in what a server says.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class OverLimit(Exception):
    """A server sent more than a check takes; `str()` says of what."""


class Turns:
    """One turn after another, each in a turn of the event loop of its own. For one loop."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self) -> None:
        """Return when it is the caller's turn; what it does before it waits again is its turn."""
        async with self._lock:
            await asyncio.sleep(0)


class Allowance:
    """What one run of a check may still cost, over all of its connections; `hit` is the limit that it hit."""

    __slots__ = ("_left", "hit", "turns")

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.hit: Limit | None = None
        self._left: dict[Limit, int] = {}

    def left(self, limit: Limit) -> int:
        """How much of a limit is left."""
        return self._left.get(limit, limit.value)

    def spend(self, limit: Limit, amount: int = 1) -> None:
        """Count an amount, or give a negative one back. Raises OverLimit when nothing is left."""
        left = self._left[limit] = self.left(limit) - amount
        if left < 0:
            self.hit = limit
            raise OverLimit(f"the answer is over the limit of {limit.value} {limit.unit} ({limit.name})")


class Wire:
    """A connection; made by `dial`. Errors are OSErrors (ssl.SSLError is one) and OverLimit."""

    def __init__(self, connection: socket.socket, allowance: Allowance) -> None:
        self._socket = connection
        self._allowance = allowance
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None

    async def secure(self, context: ssl.SSLContext, host: str) -> None:
        """Begin TLS."""
        tls = self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._fill()
            else:
                await self._flush()
                return

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        if self._tls is None:
            await asyncio.get_running_loop().sock_sendall(self._socket, data)
        elif data:
            self._tls.write(data)
            await self._flush()

    async def read(self) -> bytes:
        """What came, at most `READ` octets; nothing at the end."""
        if self._tls is None:
            return await self._receive()
        while True:
            try:
                data = self._tls.read(READ)
            except ssl.SSLWantReadError:
                await self._fill()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            else:
                self._allowance.spend(ANSWER_OVERHEAD, -len(data))
                return data

    def close(self) -> None:
        """Nothing is left to say."""
        self._socket.close()

    async def _receive(self) -> bytes:
        self._allowance.spend(ANSWER_READS)
        data = await asyncio.get_running_loop().sock_recv(self._socket, READ)
        await self._allowance.turns.take()
        return data

    async def _fill(self) -> None:
        """Send what TLS has to say and hand it what came."""
        await self._flush()
        data = await self._receive()
        if data:
            self._allowance.spend(ANSWER_OVERHEAD, len(data))
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await asyncio.get_running_loop().sock_sendall(self._socket, data)


async def dial(host: str, port: int, allowance: Allowance) -> Wire:
    """Connect to an IP address; names are not looked up. Raises OSError, ValueError and OverflowError."""
    family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)  # noqa: FBT003
        await asyncio.get_running_loop().sock_connect(connection, (host, port))
    except BaseException:
        connection.close()
        raise
    return Wire(connection, allowance)


async def tls_context(*, verify: bool, protocol: str = "") -> ssl.SSLContext:
    """The TLS context for all checks that verify, or that do not.

    Each is made once, the verifying one in a thread: to read the CA files takes 50 ms.
    """
    key = verify, protocol
    if key not in _contexts:
        _contexts[key] = await asyncio.to_thread(_context, *key) if verify else _context(*key)
    return _contexts[key]


_contexts: dict[tuple[bool, str], ssl.SSLContext] = {}


def _context(verify: bool, protocol: str) -> ssl.SSLContext:  # noqa: FBT001 - a key's part
    context = ssl.create_default_context() if verify else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers(CIPHERS)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if protocol:
        context.set_alpn_protocols([protocol])
    return context


def host_and_port(target: str) -> tuple[str, int] | None:
    """The two parts of "host:port", an IPv6 address without its brackets; None where there is no port."""
    host, separator, port = target.rpartition(":")
    if not separator or not port.isascii() or not port.isdecimal() or len(port) > 5:
        return None
    return host.strip("[]"), int(port)


def shown(octets: bytes) -> str:
    """What a server said as text that harms no terminal."""
    return CONTROL.sub("\ufffd", octets.decode(errors="replace"))


def os_reason(error: Exception) -> str:
    """Why a connection failed, as the operating system says it: "connection refused"."""
    code = error.errno if isinstance(error, OSError) else None
    return os.strerror(code).lower() if code else str(error)


def tls_reason(error: ssl.SSLError) -> str:
    """Why TLS failed: "self-signed certificate"."""
    return getattr(error, "verify_message", "") or error.reason or str(error)
