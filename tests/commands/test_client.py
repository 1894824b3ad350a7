"""The client of an agent: its URL, and one line for whatever goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from registrator.commands.client import AgentClient, NotThere, path_of
from registrator.model import Failure
from registrator.settings import SettingError
from tests.support.consul import free_ports


@contextmanager
def server(status: int, body: bytes) -> Iterator[str]:
    """A server that gives everybody the same answer; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()


@pytest.mark.parametrize("url", ["https://127.0.0.1", "http://", "http://a:b", "ftp://a", "http://a:0x"])
def test_an_address_that_is_none_is_a_usage_error(url: str) -> None:
    with pytest.raises(SettingError, match="write for instance http://127"):
        AgentClient(url)


def test_a_scheme_may_be_left_out() -> None:
    with server(200, b"{}") as url, AgentClient(url.removeprefix("http://")) as client:
        assert client.get("/x") == {}


def test_nobody_there_is_one_line_that_says_where() -> None:
    (port,) = free_ports(1)
    with AgentClient(f"http://127.0.0.1:{port}") as client, pytest.raises(Failure) as caught:
        client.get("/livez")
    assert f"no agent answers at http://127.0.0.1:{port} (Connection refused); is it running?" in str(
        caught.value
    )


def test_an_error_of_the_agent_is_told_in_its_own_line() -> None:
    for status, body, line in (
        (503, b"not ready: wait\n", "the agent at {} says: not ready: wait"),
        (404, b'{"error": "no such service"}', "no such service"),
        (500, b"", "the agent at {} says: HTTP 500"),
    ):
        with server(status, body) as url, AgentClient(url) as client, pytest.raises(Failure) as caught:
            client.get("/x")
        assert str(caught.value) == line.format(url)
        assert isinstance(caught.value, NotThere) == (status == 404)


def test_an_answer_that_is_no_json_is_one_line() -> None:
    with (
        server(200, b"<html>") as url,
        AgentClient(url) as client,
        pytest.raises(Failure, match="is no agent"),
    ):
        client.get("/x")


def test_names_of_any_kind_go_into_a_path() -> None:
    assert path_of("/explain", "a/b ?\n") == "/explain/a%2Fb%20%3F%0A"
