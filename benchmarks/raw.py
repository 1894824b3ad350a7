"""HTTP without anything between: for observers and for the floor, whose own time must be small."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

LABEL = "registrator.bench"  # whose containers these are: "agent" or "floor"


class UnixConnection(http.client.HTTPConnection):
    """A kept-alive connection to an HTTP server on a unix socket."""

    def __init__(self, url: str) -> None:
        super().__init__("localhost")
        self._path = url.removeprefix("unix://")

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def connect(url: str) -> http.client.HTTPConnection:
    """A connection to unix:///path or http://host:port."""
    if url.startswith("unix://"):
        return UnixConnection(url)
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    connection.connect()
    assert connection.sock
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: object = None
) -> tuple[bytes, http.client.HTTPMessage]:
    """One request on a kept-alive connection: the body and the headers. Raises OSError for a refusal."""
    content = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} if content else {}
    connection.request(method, path, content, headers)
    response = connection.getresponse()
    answer = response.read()
    if response.status >= 300:
        raise OSError(f"{method} {path}: {response.status} {answer[:200]!r}")
    return answer, response.headers


def events(docker: str, label: str, actions: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The engine's events of containers with `LABEL`=label, as they come, for ever."""
    filters = {"type": ["container"], "event": list(actions), "label": [f"{LABEL}={label}"]}
    connection = connect(docker)
    connection.request("GET", f"/events?filters={quote(json.dumps(filters))}")
    response = connection.getresponse()
    while line := response.readline():
        yield json.loads(line)


def past_events(docker: str, container: str, since: float) -> dict[str, int]:
    """When things happened to a container since a time, by action; in the engine's own ns since the epoch."""
    filters = quote(json.dumps({"type": ["container"], "container": [container]}))
    connection = connect(docker)
    try:
        path = f"/events?since={since:.9f}&until={time.time():.9f}&filters={filters}"
        body, _ = ask(connection, "GET", path)
    finally:
        connection.close()
    found = (json.loads(line) for line in body.splitlines() if line)
    return {event["Action"]: event["timeNano"] for event in found}
