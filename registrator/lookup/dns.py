"""The DNS server: binds its addresses, each for UDP and TCP, and owns what answers there."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import Sequence

from registrator.lookup import sharing
from registrator.lookup.limit import RateLimit
from registrator.lookup.resolver import Resolver
from registrator.lookup.tcp import BACKLOG, REPLIES, TcpServer, bounded
from registrator.lookup.turns import Turnstile
from registrator.lookup.udp import UdpServer
from registrator.model import Failure
from registrator.settings import Listen

log = logging.getLogger(__name__)

HURRY = 0.3  # seconds before a server that retires has to be gone
LOOK = 0.02  # seconds between two looks at what a server that retires still has to do
EPHEMERAL_TRIES = 16  # how often port 0 may find its port taken for the other transport


class DnsBindError(Failure):
    """An address cannot be listened on; `str()` is one line to act on."""


class DnsServer:
    """DNS on every address given, over UDP and TCP.

    An IPv6 address serves IPv6 alone, "::" too. Port 0 takes a free port, the
    same for both transports. `rate_limit` is how many UDP replies a second
    one client network outside gets (see `limit`), 0 for any number. With
    `share` another agent of the same user may be bound there, too.
    """

    def __init__(
        self, resolver: Resolver, listens: Sequence[Listen], *, rate_limit: int = 0, share: bool = False
    ) -> None:
        self._limit = RateLimit(rate_limit)
        self._resolver = resolver
        self._listens = tuple(listens)
        self._share = share
        self._servers: list[UdpServer | TcpServer] = []
        self.addresses: list[Listen] = []

    async def start(self) -> None:
        """Bind all addresses, then answer on them. Raises DnsBindError, and then holds none."""
        pairs: list[tuple[socket.socket, socket.socket]] = []
        try:
            pairs.extend(_bind_pair(listen, share=self._share) for listen in self._listens)
        except DnsBindError:
            for sock in (sock for pair in pairs for sock in pair):
                sock.close()
            raise
        turns = Turnstile(REPLIES)
        servers = [
            (
                UdpServer(self._resolver, udp, self._limit),
                TcpServer(self._resolver, tcp, turns, self._resolver.stats),
            )
            for udp, tcp in pairs
        ]
        # All of them before the first `await`: `close` finds them, should this be cancelled there.
        self._servers += (server for pair in servers for server in pair)
        self.addresses += (Listen(*udp.getsockname()[:2]) for udp, _ in pairs)
        for (udp_server, tcp_server), address in zip(servers, self.addresses, strict=True):
            udp_server.start()
            await tcp_server.start()
            log.info("DNS is answered on %s (UDP and TCP)", address)

    async def retire(self, settled: float, deadline: float) -> None:
        """Leave what comes from now on to the other agent on the addresses, and answer what is here.

        `settled` is when nothing more can arrive, `deadline` when to return at
        the latest (monotonic seconds). `close` comes next.
        """
        for server in self._servers:
            server.retire()
        await asyncio.sleep(settled - time.monotonic())
        while any(server.busy for server in self._servers) and time.monotonic() < deadline:
            for server in self._servers:
                if isinstance(server, TcpServer):
                    server.end_quiet(hurried=time.monotonic() > deadline - HURRY)
            await asyncio.sleep(LOOK)

    async def close(self) -> None:
        """Stop answering and give the addresses back."""
        for server in self._servers:
            await server.close()
        self._servers.clear()
        self.addresses.clear()


def _bind_pair(listen: Listen, *, share: bool) -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket on the same address and port. Raises DnsBindError."""
    for attempt in range(EPHEMERAL_TRIES):
        udp = _bind(listen, socket.SOCK_DGRAM, share=share)
        try:
            same = Listen(listen.host, udp.getsockname()[1])
            return udp, _bind(same, socket.SOCK_STREAM, share=share)
        except DnsBindError:
            udp.close()
            if listen.port or attempt == EPHEMERAL_TRIES - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def _bind(listen: Listen, kind: socket.SocketKind, *, share: bool) -> socket.socket:
    try:
        sock = socket.socket(socket.AF_INET6 if ":" in listen.host else socket.AF_INET, kind)
    except OSError as error:
        raise DnsBindError(_explain(listen, kind, error)) from error
    try:
        if share:
            sharing.share(sock)
        sock.settimeout(0)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bounded(sock)
        sock.bind((listen.host, listen.port))
        if kind == socket.SOCK_STREAM:
            sock.listen(BACKLOG)  # binding alone does not show that another one listens there
    except OSError as error:
        sock.close()
        raise DnsBindError(_explain(listen, kind, error)) from error
    return sock


def _explain(listen: Listen, kind: socket.SocketKind, error: OSError) -> str:
    """One line that says what failed, where, why it may be so and what to do."""
    tcp = kind == socket.SOCK_STREAM
    what = f"cannot answer DNS on {listen} ({'TCP' if tcp else 'UDP'})"
    match error.errno:
        case errno.EADDRINUSE:
            show = f"ss -{'t' if tcp else 'u'}lnp 'sport = :{listen.port}'"
            return (
                f"{what}: another program has that port (often systemd-resolved, dnsmasq, unbound or another "
                f"registrator; `{show}` tells which); stop it, or give another address with --dns; two "
                "registrators of one user share it when both have --reuse-port"
            )
        case errno.EACCES | errno.EPERM:
            return (
                f"{what}: ports below 1024 need the capability CAP_NET_BIND_SERVICE; "
                "run with it, or give a higher port with --dns"
            )
        case errno.EADDRNOTAVAIL:
            return f"{what}: no interface here has that address; give one that `ip addr` shows, with --dns"
        case errno.EAFNOSUPPORT:
            return f"{what}: this host has no IPv6; give an IPv4 address with --dns"
    return f"{what}: {error.strerror or os.strerror(error.errno or 0)}; give another address with --dns"
