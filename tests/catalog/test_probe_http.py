"""Chunked bodies and heads, however they are cut into packets."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from registrator.catalog import probe_http
from registrator.catalog.probe_http import _Chunks
from registrator.catalog.probe_wire import Allowance, OverLimit, Turns
from registrator.model import CRITICAL, PASSING, WARNING, Check

DATA = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
CUTS = st.lists(st.integers(0, 300), max_size=12)
ENDS = st.sampled_from([b"\r\n", b"\n"])


def cut(octets: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(place for place in cuts if place <= len(octets)), len(octets)]
    return [octets[a:b] for a, b in pairwise(places)]


@given(DATA, CUTS, ENDS, st.sampled_from([b"", b";a=b", b"   "]))
def test_chunks_however_they_are_cut(
    data: list[bytes], cuts: list[int], end: bytes, extension: bytes
) -> None:
    """The data come out as they went in, and the last chunk is seen."""
    body = b"".join(b"%x%b%b%b%b" % (len(part), extension, end, part, end) for part in data)
    body += b"0" + end + end
    chunks = _Chunks()
    assert b"".join(chunks.take(part) for part in cut(body, cuts)) == b"".join(data)
    assert chunks.over


@given(st.lists(st.binary(max_size=50)))
def test_any_octets_are_chunks_or_none(parts: list[bytes]) -> None:
    """Nothing raises, and nothing comes out that did not go in."""
    chunks = _Chunks()
    out = b"".join(chunks.take(part) for part in parts)
    assert len(out) <= len(b"".join(parts))


HEADS = [
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 204\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 302 F\r\nLocation: ",
]
FIELDS = [
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"\r\n",
    b"/x\r\n\r\n",
    b"5\r\nhello\r\n",
    b"\n",
]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60) | st.lists(st.sampled_from([*HEADS, *FIELDS]), max_size=8).map(b"".join))
def test_any_octets_are_an_answer_of_some_kind(octets: bytes) -> None:
    """No answer makes the probe raise anything but OverLimit."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(octets)
        await reader.read(1000)
        writer.close()

    async def ask() -> tuple[str, str]:
        server = await asyncio.start_server(speak, "127.0.0.1", 0)
        async with server:
            check = Check("c", "c", "http", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
            try:
                return await probe_http.probe(check, 5.0, Allowance(Turns()))
            except OverLimit as error:
                return CRITICAL, str(error)

    status, output = asyncio.run(ask())
    assert status in (PASSING, WARNING, CRITICAL)
    assert output.isprintable() or "Output: " in output
