"""A proxy in front of an engine or a Consul that counts requests and fails as it is told.

It understands as much of HTTP/1.1 as it must: where a request begins and ends.
Answers are passed on as they come, so that event streams and blocking queries
go through it. It lives in a thread with a loop of its own; all methods may be
called from a test that blocks.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from weakref import WeakSet

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Fault:
    """What happens to a request: it waits `delay` seconds, then it is answered by `answer` (raw HTTP).

    `answer` "" passes the request on; None lets it hang for ever. After an
    answer of its own the proxy closes the connection.
    """

    answer: str | None = ""
    delay: float = 0.0


HANG = Fault(answer=None)
CUT_OFF = Fault("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n[{")
NO_JSON = Fault("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n[{]}, \n")
EMPTY = Fault("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n")


def status(code: int, body: str = "") -> Fault:
    """An answer with another status than the one that is hoped for."""
    return Fault(f"HTTP/1.1 {code} Told\r\nContent-Length: {len(body)}\r\n\r\n{body}")


class Proxy:
    """Listens on a unix socket or on a free port of loopback; `requests` are "METHOD /path?query"."""

    def __init__(self, upstream: str, listen: Path | None = None) -> None:
        """`upstream` is a URL (unix:// or http://); with `listen` the proxy is a unix socket there."""
        self.url = f"unix://{listen}" if listen else ""
        self.requests: list[str] = []
        self._upstream = urlsplit(upstream)
        self._listen = listen
        self._faults: dict[re.Pattern[str], Fault] = {}
        self._open: dict[asyncio.StreamWriter, str] = {}  # to the client, with its latest request
        self._writers: WeakSet[asyncio.StreamWriter] = WeakSet()  # all that may still be open
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))
        self._thread.start()
        self._started.wait()

    @contextmanager
    def failing(self, pattern: str, fault: Fault) -> Iterator[None]:
        """Let requests whose "METHOD /path?query" holds `pattern` suffer a fault."""
        compiled = re.compile(pattern)
        self._faults[compiled] = fault
        try:
            yield
        finally:
            del self._faults[compiled]

    def cut(self, pattern: str) -> int:
        """Reset the connections whose latest request holds `pattern`; return how many there were."""
        found = [writer for writer, request in tuple(self._open.items()) if re.search(pattern, request)]
        for writer in found:
            self._loop.call_soon_threadsafe(writer.transport.abort)
        return len(found)

    def count(self, pattern: str) -> int:
        """How many requests so far held `pattern`."""
        return sum(bool(re.search(pattern, request)) for request in self.requests)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._loop.close()

    async def _run(self) -> None:
        self._over = asyncio.Event()
        if self._listen:
            server = await asyncio.start_unix_server(self._accept, self._listen)
        else:
            server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._started.set()
        await self._over.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for writer in tuple(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)  # a transport lets go of its socket in the loop's next turn

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take note of a connection at once: the task that serves it may be cancelled before it begins."""
        self._writers.add(writer)
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client."""
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                async with self._connected(writer) as upstream:
                    await self._pass_on(reader, writer, upstream)
        finally:
            self._open.pop(writer, None)
            writer.close()

    @asynccontextmanager
    async def _connected(self, client: asyncio.StreamWriter) -> AsyncIterator[asyncio.StreamWriter]:
        """A connection of its own to the server, whose answers flow to the client."""
        if self._upstream.scheme == "unix":
            reader, writer = await asyncio.open_unix_connection(self._upstream.path)
        else:
            reader, writer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        self._writers.add(writer)
        answers = asyncio.create_task(_relay(reader, client))
        try:
            yield writer
        finally:
            writer.close()  # first, for the proxy's end may cut the rest short
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)

    async def _pass_on(
        self, reader: asyncio.StreamReader, client: asyncio.StreamWriter, upstream: asyncio.StreamWriter
    ) -> None:
        """Pass on request after request, as long as none is answered by a fault."""
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
            request = b" ".join(head.split(b" ", 2)[:2]).decode()
            self._open[client] = request
            self.requests.append(request)
            fault = next((f for p, f in tuple(self._faults.items()) if p.search(request)), Fault())
            await asyncio.sleep(fault.delay)
            if fault.answer is None:
                await self._over.wait()
            elif fault.answer:
                client.write(fault.answer.encode())
                await client.drain()
                return
            upstream.write(head + body)
            await upstream.drain()


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Bytes from one to the other until either ends."""
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()
