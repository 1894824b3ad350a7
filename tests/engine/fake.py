"""A server on a unix socket that answers as no Docker engine should: for failures only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

HANG = b"hang"  # instead of an answer

Answer = bytes | Callable[[], bytes]


def http(body: str, status: str = "200 OK", headers: str = "") -> bytes:
    """A whole HTTP answer."""
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}"
        f"Content-Length: {len(body.encode())}\r\n\r\n{body}"
    ).encode()


PING = http("OK", headers="Api-Version: 1.41\r\nDate: Fri, 20 Nov 2026 19:05:57 GMT\r\n")


class FakeEngine:
    """Answers by the end of the path: `answers` maps it to bytes, HANG, or b"" (close at once).

    `requests` are the paths that were asked for.
    """

    def __init__(self, answers: Mapping[str, bytes]) -> None:
        self.answers = {"/_ping": PING, **answers}
        self.requests: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                path = request.split()[1].decode()
                self.requests.append(path)
                answer = next(
                    (a for end, a in self.answers.items() if path.partition("?")[0].endswith(end)), b""
                )
                if answer is HANG:
                    await asyncio.sleep(3600)
                if not answer:
                    break
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def start(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self.handle(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def fake_engine(folder: Path, answers: Mapping[str, bytes]) -> AsyncIterator[tuple[str, FakeEngine]]:
    """A `FakeEngine` on a socket in `folder`; yields its URL and itself."""
    fake = FakeEngine(answers)
    path = folder / "docker.sock"
    server = await asyncio.start_unix_server(fake.start, path)
    try:
        yield f"unix://{path}", fake
    finally:
        server.close()
        await fake.stop()
        path.unlink(missing_ok=True)
