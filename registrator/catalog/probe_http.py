"""How an HTTP check is run: one request, judged as Consul judges it.

A module of its own because aiohttp is heavy: `probes` imports it when the
first http check is about to run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp

from registrator import __version__
from registrator.catalog.probes import os_reason
from registrator.model import CRITICAL, PASSING, WARNING

if TYPE_CHECKING:
    from registrator.model import Check

OUTPUT_LIMIT = 4096  # bytes of the body that are kept, its last ones, as in Consul
MAX_REDIRECTS = 10  # net/http's own, which Consul leaves as it is
TOO_MANY_REQUESTS = 429
HEADERS = {"User-Agent": f"registrator/{__version__} (health check)", "Accept": "text/plain, text/*, */*"}


class HttpClient:
    """One aiohttp session for all http checks: a new connection each time, no cookies, no proxy."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0, use_dns_cache=False),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=HEADERS,
            skip_auto_headers=("Content-Type",),
        )

    async def close(self) -> None:
        """Close the session; probes under way fail."""
        await self._session.close()

    async def probe(self, check: Check, timeout: float) -> tuple[str, str]:
        """Ask once; (status, output). 2xx is passing, 429 warning, the rest and no answer critical.

        Redirects are followed. An answer whose body ends too early or too late
        is judged by its status, with what came of the body.
        """
        method = check.method.upper() or "GET"
        response: aiohttp.ClientResponse | None = None
        body = bytearray()
        try:
            async with self._session.request(
                method,
                check.target,
                headers=[(name, value) for name, values in check.header for value in values],
                data=check.body.encode() or None,
                ssl=not check.tls_skip_verify,
                max_redirects=MAX_REDIRECTS,
                timeout=aiohttp.ClientTimeout(total=timeout),
            ) as response:
                async for chunk in response.content.iter_any():
                    body += chunk
                    del body[:-OUTPUT_LIMIT]
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            if response is None:
                return CRITICAL, f'{method.title()} "{check.target}": {_reason(error, timeout)}'
        output = body.decode(errors="replace")
        answer = f"HTTP {method} {check.target}: {response.status} {response.reason} Output: {output}"
        return _judge(response.status), answer


def _judge(code: int) -> str:
    """The status of a check whose endpoint answered with this HTTP code."""
    if code // 100 == 2:
        return PASSING
    return WARNING if code == TOO_MANY_REQUESTS else CRITICAL


def _reason(error: Exception, timeout: float) -> str:
    """Why there was no answer, in Consul's words where people know them from there."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return f"TLS: {error.certificate_error}"
        case aiohttp.ClientConnectorError():
            return f"dial tcp {error.host}:{error.port}: connect: {os_reason(error.os_error)}"
        case TimeoutError():
            return f"no answer within {timeout:g} s"
        case aiohttp.TooManyRedirects():
            return f"stopped after {MAX_REDIRECTS} redirects"
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return "not a URL that can be asked; write for instance http://10.0.0.5:8080/health"
    return str(error) or type(error).__name__
