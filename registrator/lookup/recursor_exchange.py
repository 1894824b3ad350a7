"""One inquiry to one upstream server: over UDP, and over TCP where that was cut.

Against forged replies (RFC 5452): each inquiry has a random id and a socket of
its own, whose port the kernel chooses at random, connected, so that only the
server's packets come in; id and question are compared. A packet that is no
reply to the inquiry is passed over, MAX_STRAYS of them end the try.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

from registrator.lookup.records import Rcode
from registrator.lookup.recursor_message import Inquiry, Reply, Unrelated, Unsound, read
from registrator.lookup.shares import Crowded
from registrator.settings import Listen

TRY = 2.0  # seconds, as in Consul
MAX_STRAYS = 16
MAX_UDP = 4096  # octets read of a packet; 1232 were offered
LARGE = 2048  # octets of a reply that may take a millisecond to read

OWN_WANTS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
Place = Callable[[], AbstractAsyncContextManager[None]]
Address = tuple[socket.AddressFamily, Any]  # with the socket address


class NoReply(Exception):
    """The server did not answer, or not with sense; `str()` says why, in a few words."""


class NoMeans(NoReply):
    """It could not be asked for want of something of our own: that is no fault of the server."""


async def exchange(server: Listen, inquiry: Inquiry, connection: Place = nullcontext) -> Reply:
    """The server's reply, of any RCODE, never truncated. Raises NoReply.

    `connection` gives the place that a TCP connection needs, or raises Crowded.
    """
    try:
        address = _address(server)
        reply = await _try(_by_udp(address, inquiry, edns=True))
        if reply.rcode in (Rcode.FORMERR, Rcode.NOTIMP):  # it may not know EDNS (RFC 6891, 6.2.2)
            reply = await _try(_by_udp(address, inquiry, edns=False))
        if reply.truncated:
            async with connection():
                reply = await _try(_by_tcp(address, inquiry))
    except Crowded:
        raise NoMeans("too many connections for this asker's truncated replies") from None
    except TimeoutError:
        raise NoReply(f"no reply within {TRY:g} s") from None
    except asyncio.IncompleteReadError:
        raise NoReply("the connection was ended early") from None
    except (Unrelated, Unsound) as error:
        raise NoReply(f"a reply without sense ({error})") from None
    except OSError as error:
        kind = NoMeans if error.errno in OWN_WANTS else NoReply
        raise kind(error.strerror or os.strerror(error.errno or 0)) from None
    if reply.truncated:
        raise NoReply("a reply that is cut over TCP too")
    return reply


async def _try(work: Awaitable[Reply]) -> Reply:
    async with asyncio.timeout(TRY):
        return await work


def _address(server: Listen) -> Address:
    """The socket address, with the interface of a link-local one. Raises OSError."""
    found = socket.getaddrinfo(
        server.host, server.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    )
    return found[0][0], found[0][4]


async def _by_udp(address: Address, inquiry: Inquiry, *, edns: bool) -> Reply:
    loop, ident = asyncio.get_running_loop(), secrets.randbits(16)
    with socket.socket(address[0], socket.SOCK_DGRAM) as sock:
        sock.settimeout(0)
        sock.connect(address[1])
        await loop.sock_sendall(sock, inquiry.packet(ident, edns=edns))
        for _ in range(MAX_STRAYS):
            packet = await loop.sock_recv(sock, MAX_UDP)
            try:
                return await _read(packet, ident, inquiry)
            except Unrelated:
                continue
    raise Unrelated("none to what was asked")


async def _by_tcp(address: Address, inquiry: Inquiry) -> Reply:
    loop, ident = asyncio.get_running_loop(), secrets.randbits(16)
    query = inquiry.packet(ident, edns=True)
    with socket.socket(address[0], socket.SOCK_STREAM) as sock:
        sock.settimeout(0)
        await loop.sock_connect(sock, address[1])
        await loop.sock_sendall(sock, len(query).to_bytes(2, "big") + query)
        length = int.from_bytes(await _receive(sock, 2), "big")
        return await _read(await _receive(sock, length), ident, inquiry)


async def _receive(sock: socket.socket, length: int) -> bytes:
    """Exactly so many octets of a connection. Raises IncompleteReadError."""
    loop, data = asyncio.get_running_loop(), bytearray()
    while len(data) < length:
        piece = await loop.sock_recv(sock, length - len(data))
        if not piece:
            raise asyncio.IncompleteReadError(bytes(data), length)
        data += piece
    return bytes(data)


async def _read(packet: bytes, ident: int, inquiry: Inquiry) -> Reply:
    """Read a reply, a long one in a thread."""
    if len(packet) > LARGE:
        return await asyncio.to_thread(read, packet, ident, inquiry)
    return read(packet, ident, inquiry)
