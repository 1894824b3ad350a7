"""Reading from the engine's HTTP API on the event loop: a time limit, a cap, one kind of error."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

import aiohttp

from registrator import bodies
from registrator.documents import Element, Elements, Kind
from registrator.engine.endpoint import Endpoint
from registrator.engine.errors import EngineError, Refused, TooLong, explain, not_an_engine
from registrator.engine.slices import decoded
from registrator.limits import ENGINE_DOCUMENT, ENGINE_ELEMENT, ENGINE_ERROR, ENGINE_LISTING

TIMEOUT = 10.0  # seconds for a whole request; in a listing, from one piece of it to the next
LISTING_TIMEOUT = 60.0  # seconds for a whole listing
SLICE = 8  # elements of a listing that are taken before others on the loop have their turn
# Requests at a time. An inspect waits while the engine starts its container, so there must be some to spare.
CONNECTIONS = 32
NEWEST = (1, 52)  # the newest API version whose documents are known here
_VERSION = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})")


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
        self._decoding = asyncio.Lock()  # a long document takes many times its length while it is decoded
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
            timeout=aiohttp.ClientTimeout(total=None),  # see _answer, where waiting for a turn counts too
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
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
        async with self._answer("/_ping") as (response, _):
            version = _VERSION.fullmatch(response.headers.get("Api-Version", ""))
            date = response.headers.get("Date", "")
        try:
            now = int(parsedate_to_datetime(date).timestamp())
        except (ValueError, TypeError, LookupError, ArithmeticError):
            version = None
        if version is None:
            raise not_an_engine(self._endpoint, "its /_ping tells no Docker API version") from None
        self.version = ".".join(map(str, min((int(version[1]), int(version[2])), NEWEST)))
        return now

    async def json(self, path: str, most: int = ENGINE_DOCUMENT.value) -> Any:  # noqa: ANN401 - JSON is anything
        """The JSON document of at most so many octets with which the engine answers `GET path`."""
        async with self._answer(await self._versioned(path)) as (response, _):
            try:
                octets = await bodies.whole(response, most)
            except bodies.TooLong:
                raise TooLong(self._endpoint, path, most) from None
        try:
            async with self._decoding:
                return await decoded(octets)
        except ValueError:
            raise not_an_engine(self._endpoint, f"its answer to {path} is no JSON") from None

    async def listing(self, path: str, take: Callable[[Element], None]) -> None:
        """Hand to `take` each element of the array with which the engine answers `GET path`, in slices."""
        elements = Elements(Kind.ARRAY, ENGINE_ELEMENT.value, ENGINE_LISTING.value)
        count = 0
        now = asyncio.get_running_loop().time
        end = now() + LISTING_TIMEOUT
        async with self._answer(await self._versioned(path)) as (response, limit):
            async for octets in bodies.pieces(response):
                for element in elements.feed(octets):
                    count += 1
                    if element is not None:
                        take(element)
                    if element is None or count % SLICE == 0:
                        await asyncio.sleep(0)
                limit.reschedule(min(end, now() + self._timeout))
            for element in elements.finish():
                if element is not None:
                    take(element)

    async def stream(self, path: str, params: Mapping[str, str]) -> aiohttp.ClientResponse:
        """An answer that goes on and on, as soon as it begins; whoever reads it closes it."""
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._session.get(
                    f"{self._endpoint.base}/v{self.version}{path}", params=params, allow_redirects=False
                )
                await self._insist(response, path)
        except EngineError:
            raise
        except Exception as error:
            raise explain(self._endpoint, error, self._timeout) from error
        return response

    @asynccontextmanager
    async def _answer(self, path: str) -> AsyncGenerator[tuple[aiohttp.ClientResponse, asyncio.Timeout]]:
        """A successful answer, and the time limit under which it is read; what fails is an EngineError."""
        try:
            async with (
                asyncio.timeout(self._timeout) as limit,
                self._turns,
                self._session.get(self._endpoint.base + path, allow_redirects=False) as response,
            ):
                await self._insist(response, path)
                yield response, limit
        except EngineError:
            raise
        except Exception as error:
            raise explain(self._endpoint, error, self._timeout) from error

    async def _insist(self, response: aiohttp.ClientResponse, path: str) -> None:
        """Raise `Refused` for another status than 200."""
        if response.status != 200:
            said = await bodies.beginning(response, ENGINE_ERROR.value)
            response.close()
            raise Refused(self._endpoint, path, response.status, said)

    async def _versioned(self, path: str) -> str:
        if not self.version:
            await self.negotiate()
        return f"/v{self.version}{path}"
