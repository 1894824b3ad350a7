"""The body of an HTTP answer of somebody else's, as octets within bounds.

A session for these has `auto_decompress=False`: some kilobytes of a compressed
body may be gigabytes, and neither Consul nor an engine compresses unasked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp

from registrator.shapes import Malformed

PIECE = 2**15  # octets


class TooLong(Malformed):
    """A body of more octets than it may have."""


async def pieces(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The body as it comes, in pieces of at most `PIECE` octets.

    Raises `Malformed` for one that is compressed, and aiohttp's own errors.
    """
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        raise Malformed("its body is compressed, which nobody asked for")
    async for octets in response.content.iter_any():
        for start in range(0, len(octets), PIECE):
            yield octets[start : start + PIECE]


async def whole(response: aiohttp.ClientResponse, most: int) -> bytes:
    """All of the body; raises `TooLong` beyond `most` octets, and what `pieces` raises."""
    body = bytearray()
    async for octets in pieces(response):
        body += octets
        if len(body) > most:
            raise TooLong(f"its body has over {most} octets")
    return bytes(body)


async def beginning(response: aiohttp.ClientResponse, most: int) -> str:
    """The first `most` octets of the body, of an error for instance, as text; raises what `pieces` raises."""
    body = bytearray()
    async for octets in pieces(response):
        body += octets[: most - len(body)]
        if len(body) >= most:
            break
    return body.decode("utf-8", "replace")
