"""The HTTP server's sockets: binding, the cap on connections, idle ones, an orderly end."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest
from aiohttp import ClientSession

from registrator.lookup import http_connection, http_floor, http_server
from registrator.lookup.http import HttpFront
from registrator.lookup.http_server import HttpBindError, HttpServer
from registrator.model import OUTSIDE
from registrator.settings import Listen
from registrator.stats import Stats
from tests.lookup.fakes import FakeDirectory, entry, snapshot_of
from tests.lookup.web import LOOPBACK, serve

SNAPSHOT = snapshot_of(entry("web"))


def server(*listens: Listen) -> HttpServer:
    front = HttpFront(FakeDirectory(SNAPSHOT), stats=Stats(), view_of=lambda _: OUTSIDE, domain="consul")
    return HttpServer(front, listens)


async def test_it_listens_on_both_families_and_tells_the_real_ports() -> None:
    http = server(LOOPBACK, Listen("::1", 0))
    await http.start()
    try:
        assert [address.host for address in http.addresses] == ["127.0.0.1", "::1"]
        async with ClientSession() as client:
            for address in http.addresses:
                async with client.get(f"http://{address}/livez") as response:
                    assert response.status == 200
    finally:
        await http.close()


async def test_without_an_address_it_serves_nothing_and_closes_all_the_same() -> None:
    http = server()
    await http.start()
    assert http.addresses == ()
    await http.close()
    await http.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_port_in_use_is_one_line_that_says_what_to_do(host: str) -> None:
    async with await asyncio.start_server(lambda *_: None, host, 0) as other:
        taken = Listen(host, other.sockets[0].getsockname()[1])
        with pytest.raises(HttpBindError) as caught:
            await server(LOOPBACK, taken).start()
    assert str(taken) in str(caught.value)
    assert "another program has that port" in str(caught.value)
    assert "--http" in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_when_one_address_fails_none_is_left_open() -> None:
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as other:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            free = Listen("127.0.0.1", probe.getsockname()[1])
        http = server(free, Listen("127.0.0.1", other.sockets[0].getsockname()[1]))
        with pytest.raises(HttpBindError):
            await http.start()
        assert http.addresses == ()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(free.host, free.port)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
async def test_an_address_of_another_node_is_one_line_that_says_what_to_do(host: str) -> None:
    with pytest.raises(HttpBindError, match="this node does not have that address"):
        await server(Listen(host, 0)).start()


async def test_a_port_that_is_not_permitted_is_one_line_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Root may bind any port, so the kernel's answer to others is put in its place."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(http_server, "bind", refuse)
    with pytest.raises(HttpBindError, match=r"above 1023 .* CAP_NET_BIND_SERVICE"):
        await server(Listen("127.0.0.1", 80)).start()


async def test_connections_beyond_the_cap_are_refused_and_places_come_free_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is held are streams: an idle connection would make room."""
    monkeypatch.setattr(http_floor, "MAX_CONNECTIONS", 3)
    async with serve(FakeDirectory(SNAPSHOT)) as web:
        address = web.server.addresses[0]
        held = [await asyncio.open_connection(address.host, address.port) for _ in range(3)]
        for reader, writer in held:  # each is known to the server once it has answered
            writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(b"GET /lookup/web HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"too many HTTP connections" in answer
        for _, writer in held:
            writer.close()
        async with asyncio.timeout(5):
            while (await web.get("/lookup/web")).status != 200:
                pass


async def test_a_connection_that_never_sends_a_whole_request_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_connection, "IDLE", 0.2)
    async with serve(FakeDirectory(SNAPSHOT)) as web:
        address = web.server.addresses[0]
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: ")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_it_closes_within_a_second_though_a_client_reads_nothing() -> None:
    """The reply is larger than all buffers on the way, so that the handler's write hangs."""
    many = snapshot_of(*(entry("web", n, meta={"k": "x" * 500}) for n in range(1, 5000)))
    async with serve(FakeDirectory(many)) as web:
        address = web.server.addresses[0]
        _, writer = await asyncio.open_connection(address.host, address.port, limit=1024)
        writer.write(b"GET /v1/health/service/web HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
        await web.get("/v1/health/service/web?passing")  # by now the other one is being answered
        began = time.monotonic()
        await web.server.close()
        assert time.monotonic() - began < 1
        writer.close()
