"""gRPC checks run on a real gRPC server, and on servers that are none."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registrator.catalog import probe_grpc
from registrator.catalog.probe_wire import Allowance, Turns
from registrator.model import CRITICAL, PASSING, Check
from tests.catalog.grpc_servers import health_server
from tests.catalog.servers import answer, self_signed, serving

UNHEALTHY = "gRPC application didn't report service healthy"
LONG = "x" * 300


async def probe(check: Check, timeout: float) -> tuple[str, str]:
    return await probe_grpc.probe(check, timeout, Allowance(Turns()))


def grpc(target: str, *, tls: bool = False, skip: bool = False) -> Check:
    return Check("c", "a check", "grpc", target, grpc_use_tls=tls, tls_skip_verify=skip)


@pytest.mark.parametrize(
    ("service", "status", "output"),
    [
        pytest.param("", PASSING, "gRPC check {}: success", id="the server as a whole"),
        pytest.param("/", PASSING, "gRPC check {}: success", id="no service after the slash: as a whole"),
        pytest.param("/up", PASSING, "gRPC check {}: success", id="a service that serves"),
        pytest.param("/a/b", PASSING, "gRPC check {}: success", id="all after the first slash is its name"),
        pytest.param("/é", PASSING, "gRPC check {}: success", id="a name beyond ASCII"),
        pytest.param("/down", CRITICAL, UNHEALTHY, id="NOT_SERVING"),
        pytest.param("/unknown", CRITICAL, UNHEALTHY, id="UNKNOWN, which is an empty message"),
        pytest.param(f"/{LONG}", CRITICAL, "rpc error: code = NotFound desc = ", id="an unknown long name"),
        pytest.param(
            "/abort 7 who are you? ü%41",
            CRITICAL,
            "rpc error: code = PermissionDenied desc = who are you? ü%41",
            id="an error in the server's own words",
        ),
    ],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_what_a_server_says(host: str, service: str, status: str, output: str) -> None:
    """SERVING is passing, everything else critical, in Consul's words."""
    with health_server(host) as server:
        target = server + service
        assert await probe(grpc(target), 5.0) == (status, output.format(target))


async def test_a_server_without_the_health_service() -> None:
    with health_server(servicer=None) as server:
        status, output = await probe(grpc(server), 5.0)
    assert status == CRITICAL
    assert output.startswith("rpc error: code = Unimplemented desc = ")


@pytest.mark.parametrize(
    ("tls", "skip", "status", "output"),
    [
        pytest.param(True, True, PASSING, "gRPC check {}: success", id="unverified"),
        pytest.param(
            True,
            False,
            CRITICAL,
            "rpc error: code = Unavailable desc = connection error: "
            'desc = "transport: authentication handshake failed: self-signed certificate"',
            id="a certificate that nobody vouches for",
        ),
        pytest.param(
            False, False, CRITICAL, "rpc error: code = Unavailable desc = connection closed", id="no TLS"
        ),
    ],
)
async def test_tls(tmp_path: Path, tls: bool, skip: bool, status: str, output: str) -> None:  # noqa: FBT001
    """Over TLS a certificate is verified unless the check says not to."""
    self_signed(tmp_path)
    with health_server(tls=tmp_path) as server:
        result = await probe(grpc(server, tls=tls, skip=skip), 5.0)
    assert (result[0], result[1].replace("self signed", "self-signed")) == (status, output.format(server))


async def test_tls_where_the_server_has_none() -> None:
    with health_server() as server:
        status, output = await probe(grpc(server, tls=True), 5.0)
    assert status == CRITICAL
    assert "authentication handshake failed" in output


async def test_a_server_that_takes_too_long() -> None:
    with health_server() as server:
        result = await probe(grpc(f"{server}/slow"), 0.2)
    assert result == (CRITICAL, "rpc error: code = DeadlineExceeded desc = context deadline exceeded")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("127.0.0.1:1", "dial tcp 127.0.0.1:1: connect: connection refused"),
        ("[::1]:1/web", "dial tcp [::1]:1: connect: connection refused"),
        ("127.0.0.1", "dial tcp: address 127.0.0.1: missing port in address"),
        ("127.0.0.1:99999", "dial tcp 127.0.0.1:99999: connect: "),
        ("no.such.invalid:80", "dial tcp no.such.invalid:80: connect: "),
        ("", "dial tcp: address : missing port in address"),
    ],
)
async def test_what_cannot_be_reached(target: str, reason: str) -> None:
    """Where no connection can be made the check is critical and says why."""
    status, output = await probe(grpc(target), 5.0)
    assert status == CRITICAL
    said = 'rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing '
    assert output.startswith(said + reason)


async def test_an_http_server_is_no_grpc_server() -> None:
    async with serving(answer) as base:
        result = await probe(grpc(base.removeprefix("http://")), 5.0)
    assert result == (CRITICAL, "rpc error: code = Unavailable desc = connection closed")


@asynccontextmanager
async def saying(octets: bytes) -> AsyncIterator[str]:
    """A server that says the same to everybody, hears them out, and hangs up."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(octets)
        await reader.read(100)
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
HEADERS_200 = b"\0\0\x01\x01\x04\0\0\0\x01\x88"  # :status 200, the stream goes on
TRAILERS_404 = b"\0\0\x01\x01\x05\0\0\0\x01\x8d"  # :status 404, the stream ends


@pytest.mark.parametrize(
    ("octets", "output"),
    [
        pytest.param(b"", "Unavailable desc = connection closed", id="nothing"),
        pytest.param(b"HTTP/1.1 400 Bad\r\n\r\n", "Unavailable desc = connection closed", id="HTTP/1.1"),
        pytest.param(SETTINGS + HEADERS_200, "Unavailable desc = connection closed", id="half an answer"),
        pytest.param(
            SETTINGS + TRAILERS_404,
            "Unknown desc = no gRPC answer (HTTP status 404): is this a gRPC port?",
            id="HTTP/2 without gRPC",
        ),
        pytest.param(
            SETTINGS + b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x07",
            "Unavailable desc = call reset (HTTP/2 error 7)",
            id="a reset",
        ),
        pytest.param(
            SETTINGS + HEADERS_200 + b"\0\x20\0\0\0\0\0\0\x01" + b"x" * 0x2000,
            "ResourceExhausted desc = the answer is too long for one of the health protocol",
            id="an endless answer",
        ),
    ],
)
async def test_servers_that_are_none(octets: bytes, output: str) -> None:
    """Whatever comes back, the check is critical and says what it was."""
    async with saying(octets) as server:
        status, said = await probe(grpc(server), 5.0)
    assert status == CRITICAL
    assert said == f"rpc error: code = {output}"


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: SETTINGS + HEADERS_200 + tail))
def test_any_octets_are_an_answer_of_some_kind(octets: bytes) -> None:
    """No answer makes the probe raise, or pass."""

    async def ask() -> tuple[str, str]:
        async with saying(octets) as server:
            return await probe(grpc(server), 5.0)

    assert asyncio.run(ask())[0] == CRITICAL


def test_h2_is_imported_for_the_first_grpc_check_alone() -> None:
    """The catalog as it starts does not pay for it."""
    code = "import sys, registrator.catalog.embedded; sys.exit('h2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
