"""Processes that watch from outside when a service appears and disappears, and write down the time.

    python -m benchmarks.observers catalog URL SERVICE            by blocking queries
    python -m benchmarks.observers dns HOST PORT SERVICE DOCKER   by polling, from Docker's event on
    python -m benchmarks.observers floor DOCKER CONSUL SERVICE    the least that an agent could do
    python -m benchmarks.observers fill DOCKER CONSUL NAME        the least that a start could do

Each but the last prints a line of JSON per change as soon as it sees it. They are processes
of their own, so that nothing in the benchmark delays the clock's reading.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from benchmarks import raw

ROOT = Path(__file__).parent.parent
PACE = 0.0001  # seconds between DNS queries; the sleep itself takes another 0.06 ms
GIVE_UP = 5.0  # seconds


class Observer:
    """One of the processes above; `next` gives its lines."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.observers", *self._arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.next()  # it says when it is ready
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def next(self) -> dict[str, Any]:
        """What it says next; raises OSError when it ended instead."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise OSError(f"the observer {' '.join(self._arguments)} ended")
        document: dict[str, Any] = json.loads(line)
        return document


def say(**document: int | str) -> None:
    """Write a line for the benchmark to read."""
    print(json.dumps(document), flush=True)


# By blocking queries --------------------------------------------------------


def watch_catalog(url: str, service: str) -> None:
    """Say `count` whenever another number of instances is in the catalog, and when that was seen."""
    connection = raw.connect(url)
    index, count = "0", -1
    while True:
        path = f"/v1/health/service/{service}?wait=60s&index={index}"
        body, headers = raw.ask(connection, "GET", path)
        now = time.time_ns()
        index = headers["X-Consul-Index"]
        entries = len(json.loads(body))
        if entries != count:
            count = entries
            say(count=count, at=now)


# By DNS ---------------------------------------------------------------------


def watch_dns(host: str, port: str, service: str, docker: str) -> None:
    """Say when the start and the end of a container of the agent's could be seen in DNS."""
    query = struct.pack("!HHHHHH", 1, 0x100, 1, 0, 0, 0)
    for label in (service, "service", "consul"):
        query += bytes([len(label)]) + label.encode()
    query += struct.pack("!BHH", 0, 1, 1)
    stream = raw.events(docker, "agent", ("start", "kill", "die"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((host, int(port)))
        sock.settimeout(GIVE_UP)
        without = count = answers(sock, query)
        say(count=count)
        for event in stream:
            wanted = without + (event["Action"] == "start")
            if wanted != count:
                count = wanted
                say(count=count, at=poll(sock, query, wanted))


def poll(sock: socket.socket, query: bytes, wanted: int) -> int:
    """The time (ns) at which DNS gave this number of answers; raises TimeoutError when it does not."""
    deadline = time.monotonic() + GIVE_UP
    while answers(sock, query) != wanted:
        if time.monotonic() > deadline:
            raise TimeoutError(f"DNS did not come to {wanted} answers")
        time.sleep(PACE)
    return time.time_ns()


def answers(sock: socket.socket, query: bytes) -> int:
    """How many answers a query has."""
    sock.send(query)
    count: int = struct.unpack_from("!H", sock.recv(4096), 6)[0]
    return count


# The floor ------------------------------------------------------------------


def floor(docker: str, consul: str, service: str) -> None:
    """Do for each container what no agent can do without, one thing after the other, and nothing else.

    Read the event, inspect the container, put it into Consul; on its death
    take it out. Says when each step was over.
    """
    engine, catalog = raw.connect(docker), raw.connect(consul)
    raw.ask(engine, "GET", "/_ping")
    raw.ask(catalog, "GET", "/v1/agent/self")
    stream = raw.events(docker, "floor", ("start", "die"))
    say()
    for event in stream:
        read = time.time_ns()
        container = event["Actor"]["ID"]
        if event["Action"] == "die":
            raw.ask(catalog, "PUT", f"/v1/agent/service/deregister/{container}")
            say(action="die", event=event["timeNano"], read=read, put=time.time_ns())
            continue
        register(engine, catalog, container, service)
        say(action="start", event=event["timeNano"], read=read, put=time.time_ns())


def fill(docker: str, consul: str, name: str) -> None:
    """Inspect all containers of a name and put each into Consul, one after the other, and end."""
    engine, catalog = raw.connect(docker), raw.connect(consul)
    filters = quote(json.dumps({"name": [name]}))
    for listed in json.loads(raw.ask(engine, "GET", f"/containers/json?filters={filters}")[0]):
        register(engine, catalog, listed["Id"], name)


def register(engine: HTTPConnection, catalog: HTTPConnection, container: str, service: str) -> None:
    """Inspect one container and put it into Consul."""
    document = json.loads(raw.ask(engine, "GET", f"/containers/{container}/json")[0])
    address = next((n["IPAddress"] for n in document["NetworkSettings"]["Networks"].values()), "")
    definition = {"ID": container, "Name": service, "Address": address, "Port": 80}
    raw.ask(catalog, "PUT", "/v1/agent/service/register", definition)


if __name__ == "__main__":
    match sys.argv[1:]:
        case "catalog", url, name:
            watch_catalog(url, name)
        case "dns", host, port, name, engine:
            watch_dns(host, port, name, engine)
        case "floor", engine, url, name:
            floor(engine, url, name)
        case "fill", engine, url, name:
            fill(engine, url, name)
