"""How the HTTP front replies: headers, one-line errors, gzip."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from aiohttp import web
from aiohttp.web import ContentCoding

from registrator.printable import printable

WORTH_GZIP = 1400  # octets: what is less fits into one packet anyway

RETRY = {"Retry-After": "1"}
HEADERS = {
    "Server": "registrator",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Unserved(Exception):
    """A request that cannot be served: `status`, one line that says why, and more about it for programs."""

    def __init__(
        self,
        status: int,
        line: str,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(line)
        self.status = status
        self.headers = headers or {}
        self.details = details or {}


def json_reply(text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON document that is already rendered."""
    return list_reply(text, (), "", headers)


def list_reply(
    begin: str, parts: Iterable[str], end: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A JSON document of which the parts are rendered, without the commas between them.

    They may be long, and each copy of them takes time and memory: they are put together once.
    """
    texts = list(parts) or [""]
    texts[0] = begin + texts[0]
    texts[-1] += f"{end}\n"
    return web.Response(body=",".join(texts).encode(), content_type="application/json", headers=headers)


def error_reply(request: web.Request, failure: Unserved) -> web.Response:
    """One line: text, or {"error": ...} where the answer would have been JSON.

    What a request or a catalog put into the line may hold anything.
    """
    if wants_text(request):
        response = web.Response(text=f"{printable(str(failure))}\n", status=failure.status)
    else:
        body = f"{json.dumps({'error': str(failure), **failure.details})}\n"
        response = web.Response(text=body, status=failure.status, content_type="application/json")
    response.headers.update(failure.headers)
    return response


def wants_text(request: web.Request) -> bool:
    """Whether the reply is lines of text; Consul's own API always tells errors so."""
    return request.query.get("format") == "text" or not request.path.startswith(("/lookup/", "/explain/"))


def compress(request: web.Request, response: web.StreamResponse) -> None:
    """Have a long reply gzipped for a client that takes it; aiohttp uses a thread for it from 4 KB on."""
    if not isinstance(response, web.Response) or not isinstance(response.body, bytes):
        return
    if len(response.body) < WORTH_GZIP:
        return
    response.headers["Vary"] = "Accept-Encoding"
    if accepts_gzip(request.headers.get("Accept-Encoding", "")):
        response.enable_compression(ContentCoding.gzip)


def accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding names gzip, or any coding, not with a weight of 0 (RFC 9110, 12.5.3)."""
    for coding in header.lower().split(","):
        name, _, weight = coding.replace(" ", "").partition(";q=")
        if name in ("gzip", "*"):
            return weight.strip("0.") != "" or not weight
    return False
