"""The HTTP front on a free port, and a client for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import Message
from typing import Any

from aiohttp import ClientSession

from registrator.catalog import Directory
from registrator.lookup.http import HttpFront
from registrator.lookup.http_server import HttpServer
from registrator.model import OUTSIDE, View
from registrator.settings import Listen
from registrator.stats import Stats

LOOPBACK = Listen("127.0.0.1", 0)


@dataclass(frozen=True)
class Reply:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str] | Message
    text: str

    def json(self) -> Any:
        assert self.headers["Content-Type"].startswith("application/json"), self.headers
        return json.loads(self.text)


@dataclass(frozen=True)
class Web:
    """A running server and a client for it."""

    server: HttpServer
    client: ClientSession
    stats: Stats

    @property
    def url(self) -> str:
        return f"http://{self.server.addresses[0]}"

    async def get(self, path: str, **options: Any) -> Reply:
        return await self.ask("GET", path, **options)

    async def ask(self, method: str, path: str, **options: Any) -> Reply:
        async with self.client.request(method, self.url + path, allow_redirects=False, **options) as response:
            return Reply(response.status, response.headers, await response.text())

    async def json(self, path: str) -> Any:
        reply = await self.get(path)
        assert reply.status == 200, reply
        return reply.json()


@asynccontextmanager
async def serve(directory: Directory, view: View = OUTSIDE, **options: Any) -> AsyncIterator[Web]:
    """Serve a directory to askers that can all reach `view`; `options` are the front's own."""
    stats = Stats(ready=True)
    front = HttpFront(directory, stats=stats, view_of=lambda _: view, domain="consul", **options)
    server = HttpServer(front, [LOOPBACK])
    await server.start()
    try:
        async with ClientSession() as client:
            yield Web(server, client, stats)
    finally:
        await server.close()
