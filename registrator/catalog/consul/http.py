"""The HTTP below python-consul2's endpoints: one session, real timeouts, TLS, sockets, plain errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partialmethod
from typing import Any
from urllib.parse import urlencode

import aiohttp
import yarl

from registrator import bodies
from registrator.catalog import CatalogError
from registrator.catalog.consul import errors
from registrator.catalog.consul.library import load_base
from registrator.limits import CONSUL_REPLY
from registrator.settings import ConsulAddress, tls_context

base: Any = load_base()

# Consul drops connections past 200 per client address without a word; others on the node need some too.
MAX_CONNECTIONS = 100
REQUEST_TIMEOUT = 10.0  # seconds, for what does not block, and from one piece of a body to the next
BODY_TIMEOUT = 60.0  # seconds for a whole body, and for making sense of it
# A blocking query of `wait` may take wait + wait/16 (Consul's own jitter) until its answer begins.
MARGIN = 2.0
MAX_INDEX_DIGITS = 20  # of 64 bits

Params = Sequence[tuple[str, str | int]]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of 2xx: its X-Consul-Index (0 where it has none), and its body.

    That of a GET comes by `pieces`, which must be iterated to let go of the
    connection; any other is in `text`.
    """

    index: int
    text: str = ""
    response: aiohttp.ClientResponse | None = None

    async def pieces(self) -> AsyncGenerator[bytes]:
        """The body as it comes. Raises `Malformed`, and aiohttp's own errors."""
        if self.response is None:
            yield self.text.encode()
            return
        try:
            async for octets in bodies.pieces(self.response):
                yield octets
        finally:
            self.response.release()

    def close(self) -> None:
        """Let go of the connection, where nobody reads the body."""
        if self.response is not None:
            self.response.release()


class Adapter(base.HTTPClient):  # type: ignore[misc]  # python-consul2 has no types
    """The HTTP below python-consul2's endpoints: every call gives a `Reply` or raises `CatalogError`.

    The library's `callback`s are not called: they parse a body in one piece,
    which for a large catalog holds up the loop, and have errors of their own.
    """

    def __init__(self, address: ConsulAddress) -> None:
        # Not the base's constructor: all it does is build this base from host and port.
        self.base_uri = address.base
        self._address = address
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        """Hold the one session open. Raises SettingError for TLS files that cannot be used."""
        if self._address.socket:
            connector: aiohttp.BaseConnector = aiohttp.UnixConnector(
                self._address.socket, limit=MAX_CONNECTIONS
            )
        else:
            context = tls_context(self._address)
            connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=True if context is None else context)
        # Compression costs both sides more than the loopback or a LAN does.
        headers = {"Accept-Encoding": "identity"}
        if self._address.token:
            headers["X-Consul-Token"] = self._address.token
        try:
            async with aiohttp.ClientSession(
                connector=connector,
                headers=headers,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),  # see `_send` and `reading`
            ) as self._session:
                yield
        finally:
            self._session = None

    async def _send(
        self,
        method: str,
        _callback: object,
        path: str,
        params: Params = (),
        data: str = "",
        **_headers: object,
    ) -> Reply:
        """Send one request; `_headers` hold nothing but the token, which the session sends already."""
        if self._session is None:
            raise RuntimeError("the Consul catalog is used outside of its `async with`")
        request, seconds = f"{method} {path}", timeout_for(params)
        try:
            async with asyncio.timeout(seconds):
                response = await self._session.request(
                    method,
                    yarl.URL(self.uri(path, by_any_server(params)), encoded=True),
                    data=data or None,
                    allow_redirects=False,  # the token is not for others
                )
                return await self._answer(method, request, response)
        except CatalogError:
            raise
        except Exception as error:  # whatever is outside, it is a failure of this request
            raise errors.from_exception(self._address, request, seconds, error) from error

    async def _answer(self, method: str, request: str, response: aiohttp.ClientResponse) -> Reply:
        """What a response says; it is let go of unless its body is to be read."""
        try:
            reply = await self._understood(method, request, response)
        except BaseException:
            response.release()
            raise
        if reply.response is None:
            response.release()
        return reply

    async def _understood(self, method: str, request: str, response: aiohttp.ClientResponse) -> Reply:
        index = _index(response.headers.get("X-Consul-Index"))
        if response.status >= 300:
            body = await bodies.beginning(response, CONSUL_REPLY.value)
            # That no key has a prefix is told by a 404 with an index, which blocking queries go on from.
            if response.status == 404 and not body and index:
                return Reply(index, "null")
            raise errors.from_answer(self._address, request, response.status, body)
        if response.headers.get("X-Consul-KnownLeader") == "false":
            raise errors.from_follower(self._address, request)
        if method == "GET":
            return Reply(index, response=response)
        return Reply(index, (await bodies.whole(response, CONSUL_REPLY.value)).decode("utf-8", "replace"))

    def uri(self, path: str, params: Params | None = None) -> str:
        """The URL of a path whose names are `quoted`; the library would leave their slashes as they are."""
        query = f"?{urlencode(params)}" if params else ""
        return f"{self.base_uri}{path}{query}"

    get = partialmethod(_send, "GET")
    put = partialmethod(_send, "PUT")
    post = partialmethod(_send, "POST")
    delete = partialmethod(_send, "DELETE")


def _index(header: str | None) -> int:
    """An index as Consul writes it; 0 for anything else."""
    text = header or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_INDEX_DIGITS else 0


def timeout_for(params: Params) -> float:
    """Seconds within which an answer must begin: a blocking query's wait and what Consul adds to it."""
    wait = dict(params).get("wait")
    if wait is None:
        return REQUEST_TIMEOUT
    seconds = float(str(wait).removesuffix("s"))
    return seconds + seconds / 16 + MARGIN


def by_any_server(params: Params) -> Params:
    """The options of a request; a blocking query that goes on from an index may be answered by any server.

    Otherwise a server hands it to its leader, and a leader whose host is gone
    is noticed after some 40 s (seen on 1.8.7): until then nothing would be
    heard of what the others know, with a leader of their own. A server that is
    behind the index waits until it is not; one that knows no leader is no
    authority, which `Adapter` sees to. What asks from index 0 asks the leader.
    """
    names = dict(params)
    return [*params, ("stale", "1")] if "index" in names and "consistent" not in names else params
