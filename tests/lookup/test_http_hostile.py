"""The HTTP front under bytes that no honest client sends: an answer below 500, and it goes on."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from urllib.parse import unquote

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from registrator.model import Snapshot
from tests.lookup.fakes import FakeDirectory, entry, snapshot_of
from tests.lookup.web import Web, serve

SNAPSHOT = snapshot_of(entry("web", tags=("a",)), entry("db"))
ASCII = "".join(map(chr, range(0x21, 0x7F)))
MANY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)


class Hasty(FakeDirectory):
    """Does not let a blocking query block: its index may be anything here."""

    async def wait(self, service: str | None, index: int, timeout: float) -> Snapshot:
        await asyncio.sleep(0)
        return SNAPSHOT


@pytest_asyncio.fixture
async def web() -> AsyncIterator[Web]:
    async with serve(Hasty(SNAPSHOT)) as web:
        yield web


async def raw(web: Web, octets: bytes, patience: float = 10.0) -> bytes:
    """Send octets as they are and read the answer until the server hangs up, or b"" if it waits for more."""
    reader, writer = await asyncio.open_connection(*_address(web))
    try:
        writer.write(octets)
        async with asyncio.timeout(patience):
            return await reader.read()
    except (ConnectionError, TimeoutError):
        return b""
    finally:
        writer.close()


def _address(web: Web) -> tuple[str, int]:
    listen = web.server.addresses[0]
    return listen.host, listen.port


def status(answer: bytes) -> int:
    assert re.match(rb"HTTP/[01]\.\d \d{3} ", answer), answer[:100]
    return int(answer[9:12])


async def request(web: Web, target: str, headers: str = "") -> bytes:
    lines = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
    return await raw(web, lines.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/lookup/%00", 400),
        ("/lookup/a%0Ab", 400),
        ("/lookup/%1b%5b31m", 400),
        ("/v1/health/service/%00", 400),
        ("/v1/health/service/a%2Fb", 200),  # a name like another, and nobody has it
        ("/v1/health/service/", 400),
        ("/v1/catalog/service/..%2f..%2fetc%2fpasswd", 200),
        ("/lookup/..%2f..%2fetc%2fpasswd", 404),
        ("/lookup/%ff%fe", 404),
        ("/lookup/%ed%a0%80", 404),  # half of a surrogate pair
        ("/lookup/%zz", 404),
        ("/lookup/%F0%9F%92%A9", 404),
        ("/lookup/" + "a" * 7000, 404),
        ("/lookup/" + "a." * 3000 + "service.consul", 404),
        ("/lookup/../../etc/passwd", 404),
        ("//lookup//web", 404),
        ("/lookup/web/", 404),
        ("/LOOKUP/web", 404),
        ("/", 200),
        ("*", 400),
        ("/lookup/web?" + "tag=a&" * 1000, 200),
        ("/lookup/web?" + "&" * 7000, 200),
        ("/lookup/web?tag=%00%ff%zz", 200),
        ("/v1/health/service/web?index=%00", 400),
        ("/v1/health/service/web?wait=" + "9" * 7000 + "s", 400),
        ("/v1/health/service/web?index=" + "9" * 7000, 400),
        ("/v1/health/service/web?index=1&wait=" + "1s" * 3000, 400),
        ("/lookup/" + "a" * 9000, 400),
    ],
)
async def test_a_hostile_path_or_query_gets_a_plain_answer(web: Web, target: str, expected: int) -> None:
    answer = await request(web, target)
    assert status(answer) == expected
    assert b"Traceback" not in answer


@pytest.mark.parametrize(
    "octets",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 300 + b"\r\n\r\n",  # a TLS hello
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\r\n" * 1000 + b"x",
    ],
)
async def test_what_is_no_http_gets_400_and_no_line_in_the_log(
    web: Web, octets: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await raw(web, octets)
    assert 400 <= status(answer) < 500
    assert b"Traceback" not in answer
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (await web.get("/livez")).status == 200


async def test_a_body_is_not_waited_for(web: Web) -> None:
    answer = await raw(
        web, b"PUT /lookup/web HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\nx"
    )
    assert status(answer) == 405


@MANY
@given(
    route=st.sampled_from(["/lookup/", "/v1/catalog/service/", "/v1/health/service/", "/v1/", "/"]),
    rest=st.text(ASCII, max_size=60) | st.binary(max_size=20).map(lambda b: "".join(f"%{c:02x}" for c in b)),
    query=st.text(ASCII, max_size=60)
    | st.lists(
        st.tuples(
            st.sampled_from(["tag", "passing", "index", "wait", "dc", "format", "filter", "near"]),
            st.text(ASCII.replace("&", ""), max_size=12),
        )
    ).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs)),
)
async def test_no_path_and_no_query_is_ever_500(web: Web, route: str, rest: str, query: str) -> None:
    assume(re.split("[?#]", unquote(route + rest))[0] != "/events")  # a stream has no end
    answer = await request(web, f"{route}{rest}?{query}")
    assert 200 <= status(answer) < 500
    assert b"Traceback" not in answer


@MANY
@given(st.binary(max_size=200))
async def test_no_octets_are_ever_500(web: Web, octets: bytes) -> None:
    answer = await raw(web, octets, patience=0.05)
    assert not answer or 200 <= status(answer) < 500
