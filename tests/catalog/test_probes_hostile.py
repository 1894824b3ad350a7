"""Checks of servers that mean harm: each ends by itself, at a bound, in turns that lookups do not feel.

Timeouts are an hour, so that whatever ends here ends at a limit.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hpack import HPACKDecodingError

from registrator.catalog import probe_grpc, probe_http
from registrator.catalog.probe_wire import Allowance, OverLimit, Turns
from registrator.limits import (
    ANSWER_BODY,
    ANSWER_FRAMES,
    ANSWER_HEAD,
    ANSWER_OVERHEAD,
    ANSWER_READS,
    CHECK_OUTPUT,
)
from registrator.model import CRITICAL, PASSING, Check
from tests.catalog.hostile import dripping, hostile, repeating, watched
from tests.catalog.servers import self_signed

HOUR = 3600.0
LONGEST_TURN = 0.03  # seconds of CPU; some 2 ms are what it takes
BOTH = pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
Behaviour = Callable[[socket.socket], None]


async def ask(check: Check) -> tuple[str, str, str]:
    """Run a check once: status, output, and the limit that it hit."""
    allowance = Allowance(Turns())
    probe = probe_grpc.probe if check.kind == "grpc" else probe_http.probe

    async def run() -> tuple[str, str]:
        try:
            return await probe(check, HOUR, allowance)
        except OverLimit as error:
            return CRITICAL, str(error)

    (status, output), turns = await watched(run())
    assert turns.longest < LONGEST_TURN
    assert turns.count >= ANSWER_READS.value - max(0, allowance.left(ANSWER_READS))
    assert len(output) < CHECK_OUTPUT.value + 500
    return status, output, allowance.hit.name if allowance.hit else ""


def http(at: str, scheme: str = "http", **more: object) -> Check:
    return Check("c", "c", "http", f"{scheme}://{at}/", tls_skip_verify=True, **more)  # type: ignore[arg-type]


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("behaviour", "limit"),
    [
        pytest.param(repeating(OK + b"\r\n", b"x" * 1000), ANSWER_BODY, id="without end"),
        pytest.param(repeating(CHUNKED, b"1\r\nx\r\n"), ANSWER_BODY, id="tiny chunks"),
        pytest.param(repeating(CHUNKED, b"1;" + b"a" * 500 + b"\r\nx\r\n"), ANSWER_BODY, id="extensions"),
        pytest.param(repeating(CHUNKED, b"\r\n"), ANSWER_BODY, id="empty lines in place of chunks"),
        pytest.param(
            repeating(OK + b"Content-Length: 99999999999999\r\n\r\n", b"x"), ANSWER_BODY, id="a long length"
        ),
        pytest.param(dripping(OK + b"\r\n", b"x"), ANSWER_READS, id="drop by drop"),
        pytest.param(dripping(CHUNKED, b"1\r\nx\r\n"), ANSWER_READS, id="chunks drop by drop"),
    ],
)
@BOTH
async def test_http_bodies_without_end(behaviour: Behaviour, limit: object, host: str) -> None:
    """The status decides, and the connection is closed at the limit."""
    with hostile(behaviour, host) as server:
        status, output, hit = await ask(http(server.at))
    assert status == PASSING or limit is ANSWER_READS  # the head may have come drop by drop as well
    assert hit == limit.name  # type: ignore[attr-defined]
    assert "200 OK" in output or "answer_reads" in output


async def test_many_at_once_have_a_turn_each() -> None:
    """Checks under way together make no turn of the loop longer than one of them does."""
    turns = Turns()
    with hostile(repeating(CHUNKED, b"1\r\nx\r\n")) as server:
        runs = [probe_http.probe(http(server.at), HOUR, allowance := Allowance(turns)) for _ in range(40)]
        results, loop = await watched(asyncio.gather(*runs))
    assert [status for status, _ in results] == [PASSING] * 40
    assert allowance.hit is ANSWER_BODY
    assert loop.longest < LONGEST_TURN


@pytest.mark.parametrize(
    ("behaviour", "limit"),
    [
        pytest.param(repeating(OK, b"X-Y: z\r\n"), ANSWER_HEAD, id="header fields"),
        pytest.param(repeating(OK, b"a:\n"), ANSWER_HEAD, id="short header fields"),
        pytest.param(repeating(OK + b"X: ", b"y"), ANSWER_HEAD, id="one header field"),
        pytest.param(repeating(b"HTTP/1.1 200 ", b"y"), ANSWER_HEAD, id="a status line"),
        pytest.param(
            repeating(OK + b"X: " + b"y" * 20000 + b"\r\n\r\n", b"x"), ANSWER_HEAD, id="long, with an end"
        ),
        pytest.param(dripping(OK, b"X-Y: z\r\n"), ANSWER_READS, id="drop by drop"),
    ],
)
@BOTH
async def test_http_heads_without_end(behaviour: Behaviour, limit: object, host: str) -> None:
    """Without a complete head the check is critical, whatever its status line said."""
    with hostile(behaviour, host) as server:
        status, output, hit = await ask(http(server.at))
    assert (status, hit) == (CRITICAL, limit.name)  # type: ignore[attr-defined]
    assert hit in output


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(repeating(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), id="interim answers"),
        pytest.param(repeating(b"", b"\r\n\r\n"), id="empty lines"),
        pytest.param(repeating(b"SSH-2.0-OpenSSH\r\n", b"x"), id="another protocol"),
        pytest.param(repeating(b"", b"\0"), id="zeros"),
    ],
)
async def test_http_that_is_none(behaviour: Behaviour) -> None:
    """Critical without a word of what came."""
    with hostile(behaviour) as server:
        status, output, hit = await ask(http(server.at))
    assert (status, hit) == (CRITICAL, "")
    assert output.endswith(("the answer is not HTTP/1.1", "too many interim answers"))


async def test_nothing_is_inflated() -> None:
    """A compressed body is not asked for, and shown as it comes."""
    bomb = gzip.compress(bytes(50_000_000))
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    with hostile(lambda connection: connection.sendall(head + bomb)) as server:
        status, output, _ = await ask(http(server.at))
    assert b"\r\nAccept-Encoding: identity\r\n" in server.asked[0]
    assert status == PASSING
    assert "\0" not in output


async def test_control_characters_are_not_kept() -> None:
    """Neither from a reason phrase nor from a body; line ends and tabs stay."""
    answer = b"HTTP/1.1 200 O\x1b[2JK\r\n\r\na\tb\r\nc\x1b]0;x\x07\x9b\xc2\x9b"
    with hostile(lambda connection: connection.sendall(answer)) as server:
        _, output, _ = await ask(http(server.at))
    assert output.endswith("200 O\ufffd[2JK Output: a\tb\r\nc\ufffd]0;x\ufffd\ufffd\ufffd")


async def test_a_reason_is_short() -> None:
    with hostile(
        lambda connection: connection.sendall(b"HTTP/1.1 503 " + b"y" * 9000 + b"\r\n\r\n")
    ) as server:
        status, output, _ = await ask(http(server.at, foreign=True))
    assert status == CRITICAL
    assert len(output) < 200


async def test_nothing_is_shown_of_what_is_not_the_containers_own() -> None:
    """Code and reason, and the body is not even read."""
    with hostile(repeating(OK + b"\r\n", b"secret")) as server:
        status, output, hit = await ask(http(server.at, foreign=True))
        assert (status, output, hit) == (PASSING, f"HTTP GET http://{server.at}/: 200 OK", "")
    with hostile(lambda connection: connection.sendall(b"-ERR secret\r\n")) as server:
        status, output, _ = await ask(http(server.at, foreign=True))
    assert status == CRITICAL
    assert "secret" not in output


# Redirects ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "elsewhere",
    [
        "http://{other}/",
        "//{other}/",
        "http:{other}",
        "http://{own}@{other}/",
        "http://{own}\\@{other}/",
        "http://{other}\\@{own}/",
        "http://{other}#@{own}/",
        "http://127.0.0.1/",
        "http://localhost:{port}/",
        "http://[::1]:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "https://127.0.0.1/",
        "file:///etc/passwd",
        "ftp://{own}/",
        "http://[",
        "http://{own}0/",
        "\thttp://{other}/",
        "ht\ttp://{other}/",
    ],
)
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_redirects_stay_on_host_and_port(elsewhere: str, code: int) -> None:
    """Whatever a server redirects to, only its own host and port are asked; elsewhere it is critical."""
    with hostile(lambda connection: connection.sendall(OK + b"\r\nsecret")) as other:
        location = ""

        def redirect(connection: socket.socket) -> None:
            head = f"HTTP/1.1 {code} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
            connection.sendall(head.encode())

        with hostile(redirect) as server:
            port = server.at.rpartition(":")[2]
            location = elsewhere.format(other=other.at, own=server.at, port=port)
            status, output, _ = await ask(http(server.at))
    assert other.asked == []
    assert status == CRITICAL
    assert "secret" not in output


@pytest.mark.parametrize(
    "location", ["/there?x=1", "there?x=1", "http://{own}/there?x=1", "//{own}/there?x=1"]
)
@BOTH
async def test_redirects_on_the_same_host_and_port_are_followed(location: str, host: str) -> None:
    def redirect(connection: socket.socket) -> None:
        if len(server.asked) == 1:
            connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: %s\r\n\r\n" % location.encode())
        else:
            connection.sendall(OK + b"\r\nfine")

    with hostile(redirect, host) as server:
        location = location.format(own=server.at)
        status, output, _ = await ask(http(server.at, method="POST", body="x"))
    assert (status, output) == (PASSING, f"HTTP POST http://{server.at}/: 200 OK Output: fine")
    assert server.asked[1].startswith(b"GET /there?x=1 HTTP/1.1\r\n")
    assert b"\r\nHost: %s\r\n" % server.at.encode() in server.asked[1]


async def test_a_redirect_adds_no_line_to_a_request() -> None:
    """Octets that no URL has are quoted."""

    def redirect(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /a b\x00\x0b\x0c\x85\xff\r\n\r\n")

    with hostile(redirect) as server:
        await ask(http(server.at))
    assert server.asked[1].startswith(b"GET /a%20b%00%0B%0C%C2%85%C3%BF HTTP/1.1\r\n")


async def test_without_redirects_the_first_answer_counts() -> None:
    """With --own-checks-only."""
    answer = b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n"
    with hostile(lambda connection: connection.sendall(answer)) as server:
        status, output, _ = await ask(http(server.at, redirects=False))
    assert len(server.asked) == 1
    assert (status, output) == (CRITICAL, f"HTTP GET http://{server.at}/: 302 Found Output: ")


# TLS ----------------------------------------------------------------------------------------


async def test_a_long_certificate_chain(tmp_path: Path) -> None:
    """More handshake than any honest server has ends the check."""
    self_signed(tmp_path)
    certificate, chain = tmp_path / "certificate.pem", tmp_path / "chain.pem"
    chain.write_bytes(certificate.read_bytes() * 120)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, tmp_path / "key.pem")
    for kind in ("http", "grpc"):
        with hostile(lambda _: None, tls=context) as server:
            target = f"https://{server.at}/" if kind == "http" else server.at
            check = Check("c", "c", kind, target, tls_skip_verify=True, grpc_use_tls=True)
            status, _, hit = await ask(check)
        assert (status, hit) == (CRITICAL, ANSWER_OVERHEAD.name)


async def test_session_tickets_without_end(tmp_path: Path) -> None:
    """TLS messages that carry no data are counted."""
    context = self_signed(tmp_path)
    context.num_tickets = 250
    with hostile(repeating(OK, b"X: y\r\n"), tls=context) as server:
        status, _, hit = await ask(http(server.at, "https"))
    assert (status, hit) == (CRITICAL, ANSWER_OVERHEAD.name)


async def test_a_body_without_end_over_tls(tmp_path: Path) -> None:
    with hostile(repeating(OK + b"\r\n", b"x"), tls=self_signed(tmp_path)) as server:
        status, _, hit = await ask(http(server.at, "https"))
    assert (status, hit) == (PASSING, ANSWER_BODY.name)


@pytest.mark.parametrize("scheme", ["https", "grpc"])
async def test_a_server_that_is_not_tls(scheme: str) -> None:
    def behave(connection: socket.socket) -> None:
        repeating(b"", b"\x16\x03\x03\x40\x00" + b"x" * 0x4000)(connection)

    with hostile(behave) as server:
        check = Check("c", "c", "grpc", server.at, grpc_use_tls=True)
        status, _, _ = await ask(check if scheme == "grpc" else http(server.at, "https"))
    assert status == CRITICAL


# gRPC ---------------------------------------------------------------------------------------


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    """RFC 9113, 4.1."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


DATA, HEADERS, PRIORITY, SETTINGS, PUSH, PING, WINDOW, CONTINUATION = 0, 1, 2, 4, 5, 6, 8, 9
HELLO = frame(SETTINGS)
MANY_SETTINGS = b"".join(struct.pack(">HI", number, number) for number in range(10, 2700))
HALF = HELLO + frame(HEADERS, b"\x88", 4, 1)  # :status 200, the stream goes on


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        pytest.param(HELLO, frame(PING, b"x" * 8), id="PING"),
        pytest.param(HELLO, frame(SETTINGS), id="SETTINGS"),
        pytest.param(HELLO, frame(SETTINGS, struct.pack(">HI", 3, 5) * 2700), id="long SETTINGS"),
        pytest.param(HELLO, frame(SETTINGS, MANY_SETTINGS), id="SETTINGS of thousands"),
        pytest.param(HELLO, frame(HEADERS, b"\x20" * 16000, 4, 1), id="HPACK table sizes"),
        pytest.param(HELLO, frame(HEADERS, b"\x3f\x01" * 8000, 4, 1), id="HPACK long table sizes"),
        pytest.param(HELLO, frame(WINDOW, b"\0\0\0\1"), id="WINDOW_UPDATE"),
        pytest.param(HELLO, frame(WINDOW, b"\0\0\0\1", stream=1), id="WINDOW_UPDATE of the stream"),
        pytest.param(HELLO, frame(PRIORITY, b"\0\0\0\0\1", stream=3), id="PRIORITY"),
        pytest.param(HELLO, frame(99, b"x"), id="unknown frames"),
        pytest.param(HALF, frame(DATA, stream=1), id="empty DATA"),
        pytest.param(HALF, frame(DATA, b"\x00", 8, 1), id="padded DATA"),
        pytest.param(HALF, frame(HEADERS, b"\x88", 4, 1), id="HEADERS"),
        pytest.param(HELLO + frame(HEADERS, b"", 0, 1), frame(CONTINUATION, b"", 0, 1), id="CONTINUATION"),
        pytest.param(HELLO, frame(PUSH, b"\0\0\0\2\x88", 4, 1), id="PUSH_PROMISE"),
        pytest.param(
            HELLO + frame(HEADERS, b"\x88", 0, 1), frame(CONTINUATION, b"\x88" * 16000, 0, 1), id="HPACK"
        ),
        pytest.param(
            HELLO + frame(HEADERS, b"\x88\x40\x01a\x7f\xff\x1f" + b"b" * 4000, 4, 1),
            frame(HEADERS, b"\xbe" * 16000, 4, 1),
            id="HPACK references",
        ),
        pytest.param(b"", b"\xff\xff\xff" + bytes(1000), id="a frame of 16 MB"),
        pytest.param(b"", b"HTTP/1.1 200 OK\r\n", id="HTTP/1.1"),
        pytest.param(b"", b"\0", id="zeros"),
    ],
)
@BOTH
async def test_grpc_servers_that_mean_harm(begin: bytes, again: bytes, host: str) -> None:
    """However many frames come, no more than a few are looked at."""
    with hostile(repeating(begin, again), host) as server:
        status, _, hit = await ask(Check("c", "c", "grpc", server.at))
    assert status == CRITICAL
    assert hit in ("", ANSWER_FRAMES.name, ANSWER_HEAD.name)


@pytest.mark.parametrize("update", [b"\x20", b"\x3f\x01", b"\x3f\xe1\x1f"])
def test_a_header_begins_with_two_changes_of_the_tables_size_at_most(update: bytes) -> None:
    """Each costs as much as a header field, and counts for none."""
    decoder = probe_grpc._HeaderDecoder(8192)
    assert list(decoder.decode(update * 2 + b"\x88", raw=True)) == [(b":status", b"200")]
    with pytest.raises(HPACKDecodingError, match="too often"):
        decoder.decode(update * 3 + b"\x88")


async def test_grpc_drop_by_drop() -> None:
    with hostile(dripping(b"", HELLO + frame(PING, b"x" * 8) * 1000)) as server:
        status, _, hit = await ask(Check("c", "c", "grpc", server.at))
    assert (status, hit) in ((CRITICAL, ANSWER_READS.name), (CRITICAL, ANSWER_FRAMES.name))


async def test_the_words_of_a_grpc_server_that_is_not_the_containers_own_are_not_shown() -> None:
    """The name of the code is; nor are control characters of a server's own."""
    # :status 200, grpc-status 7, grpc-message in literal fields (RFC 7541, 6.2.2)
    fields = b"\x88" + b"".join(
        b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value
        for name, value in ((b"grpc-status", b"7"), (b"grpc-message", b"secret%1B[2J"))
    )
    for foreign, said in ((True, "(not shown)"), (False, "secret\ufffd[2J")):
        with hostile(lambda c: c.sendall(HELLO + frame(HEADERS, fields, 5, 1))) as server:
            _, output, _ = await ask(Check("c", "c", "grpc", server.at, foreign=foreign))
        assert output == f"rpc error: code = PermissionDenied desc = {said}"
