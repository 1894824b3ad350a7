"""Sockets bound to an address, for UDP or TCP."""

from __future__ import annotations

import socket

from registrator.lookup import sharing
from registrator.lookup.acceptor import BACKLOG
from registrator.settings import Listen


def bind(listen: Listen, kind: socket.SocketKind, *, share: bool) -> socket.socket:
    """A non-blocking socket on an address, which begins to listen for TCP. Raises OSError with errno.

    An IPv6 address is for IPv6 only. With `share` other sockets of this user may be bound there too.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in listen.host else socket.AF_INET, kind)
    try:
        if share:
            sharing.share(sock)
        sock.settimeout(0)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((listen.host, listen.port))
        if kind == socket.SOCK_STREAM:
            sock.listen(BACKLOG)  # binding alone does not show that another one listens there
    except BaseException:
        sock.close()
        raise
    return sock
