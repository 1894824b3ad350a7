"""Servers that mean harm to whoever checks them, each connection in a thread of its own.

A thread's work does not count as the event loop's own CPU time, which is what
tests measure.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar

from registrator.settings import join_host_port

Result = TypeVar("Result")


@dataclass(slots=True)
class Hostile:
    """A server as its test sees it."""

    at: str  # host:port
    asked: list[bytes] = field(default_factory=list)  # the beginning of each request


@contextmanager
def hostile(
    behave: Callable[[socket.socket], None], host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> Iterator[Hostile]:
    """Call `behave` with each connection after its request's first octets; an end of it is silent."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        server = Hostile(join_host_port(host, listener.getsockname()[1]))
        threads: list[threading.Thread] = []

        def serve(connection: socket.socket) -> None:
            connection.settimeout(20)
            with (
                suppress(OSError),
                tls.wrap_socket(connection, server_side=True) if tls else connection as own,
            ):
                server.asked.append(own.recv(65536))
                behave(own)
            connection.close()

        def accept() -> None:
            with suppress(OSError):
                while True:
                    thread = threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True)
                    thread.start()
                    threads.append(thread)

        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()
            for thread in threads:
                thread.join()


def repeating(begin: bytes, again: bytes, times: int = 10**9) -> Callable[[socket.socket], None]:
    """Say `begin`, then `again` without end, many at a time."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(begin)
        block = again * max(1, 60_000 // len(again))
        for _ in range(times):
            connection.sendall(block)

    return behave


def dripping(octets: bytes, again: bytes) -> Callable[[socket.socket], None]:
    """Say `octets`, then `again`, one octet in each packet, without end."""

    def behave(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in octets:
            connection.sendall(bytes([octet]))
        while True:
            for octet in again:
                connection.sendall(bytes([octet]))
                time.sleep(0)

    return behave


@dataclass(slots=True)
class Turns:
    """How the event loop fared: how often it came round, and its longest turn in seconds of its own CPU."""

    count: int = 0
    longest: float = 0.0


async def watched(work: Awaitable[Result]) -> tuple[Result, Turns]:
    """What `work` gives, and how the loop fared in the meantime."""
    turns = Turns()

    async def watch() -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            turns.longest = max(turns.longest, now - before)
            turns.count += 1
            before = now

    watching = asyncio.create_task(watch())
    try:
        return await work, turns
    finally:
        watching.cancel()
        await asyncio.wait([watching])
