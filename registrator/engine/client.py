"""Reading from the engine's HTTP API on the event loop: a time limit, a cap, one kind of error."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

import aiohttp

from registrator.engine.endpoint import Endpoint
from registrator.engine.errors import Refused, explain, not_an_engine
from registrator.engine.slices import decoded

TIMEOUT = 10.0  # seconds for a whole request
# Requests at a time. An inspect waits while the engine starts its container, so there must be some to spare.
CONNECTIONS = 32
NEWEST = (1, 52)  # the newest API version whose documents are known here


class Client:
    """GET requests to one engine, in an API version that both sides know.

    Every method raises `EngineError`: `Refused` for an answer with another
    status than 200, `Unreachable` where there was none.
    """

    def __init__(self, endpoint: Endpoint, timeout: float = TIMEOUT) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._ssl = endpoint.ssl_context()
        # Before aiohttp's own queue, where a request that waits takes far more memory.
        self._turns = asyncio.Semaphore(CONNECTIONS)
        self.version = ""

    async def __aenter__(self) -> Self:
        limit = CONNECTIONS + 1  # with that of a stream
        connector = (
            aiohttp.UnixConnector(self._endpoint.socket, limit=limit)
            if self._endpoint.socket
            else aiohttp.TCPConnector(limit=limit, ssl=self._ssl or True)
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None),  # see _fetch, where waiting for a turn counts too
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def negotiate(self) -> int:
        """Agree on an API version (`GET /_ping`, header Api-Version); return the engine's own time.

        That time is in whole seconds since the epoch, rounded down (header Date).
        """
        _, headers = await self._fetch("/_ping")
        try:
            newest = tuple(int(part) for part in headers["Api-Version"].split("."))
            now = int(parsedate_to_datetime(headers["Date"]).timestamp())
        except (KeyError, ValueError):
            raise not_an_engine(self._endpoint, "its /_ping tells no Docker API version") from None
        self.version = ".".join(map(str, min(newest, NEWEST)))
        return now

    async def text(self, path: str) -> str:
        """The body of the answer to `GET path`, where `path` starts after the API version."""
        if not self.version:
            await self.negotiate()
        body, _ = await self._fetch(f"/v{self.version}{path}")
        return body

    async def json(self, path: str) -> Any:  # noqa: ANN401 - JSON is anything
        """The JSON document with which the engine answers `GET path`."""
        try:
            return await decoded(await self.text(path))
        except (ValueError, RecursionError):
            raise not_an_engine(self._endpoint, f"its answer to {path} is no JSON") from None

    async def stream(self, path: str, params: Mapping[str, str]) -> aiohttp.ClientResponse:
        """An answer that goes on and on, as soon as it begins; whoever reads it closes it."""
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._session.get(
                    f"{self._endpoint.base}/v{self.version}{path}", params=params, allow_redirects=False
                )
                if response.status != 200:
                    raise Refused(self._endpoint, path, response.status, await response.text("utf-8"))
        except (aiohttp.ClientError, OSError, ValueError) as error:  # a TimeoutError is an OSError
            raise explain(self._endpoint, error, self._timeout) from error
        return response

    async def _fetch(self, path: str) -> tuple[str, Mapping[str, str]]:
        """The body and the headers of a successful answer."""
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._turns,
                self._session.get(self._endpoint.base + path, allow_redirects=False) as response,
            ):
                body = await response.text("utf-8")
        except (aiohttp.ClientError, OSError, ValueError) as error:  # a TimeoutError is an OSError
            raise explain(self._endpoint, error, self._timeout) from error
        if response.status != 200:
            raise Refused(self._endpoint, path, response.status, body)
        return body, response.headers
