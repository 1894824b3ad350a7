"""Looks a name up and connects to what it was told, without pause, until it is told to stop.

    python3 client.py NAME PORT [ADDRESS...]

Each turn asks the container's own resolver anew, as an app does that opens a
connection, then sends one request and reads the whole answer. With the port
"srv" both address and port are taken from SRV. It says "ready" when each of the
addresses and its first lookup has answered, and counts from then on: a new
container's overlay needs a moment, and some more after a node was lost.
With the port "none" it only looks up, and that without the container's own
resolver, which says no more of a failure than that there was one: it asks the
agent itself, over TCP too where the answer over UDP is cut.
On SIGTERM it prints a report, one JSON object, and ends.
"""

from __future__ import annotations

import http.client
import json
import random
import signal
import socket
import sys
import time
from collections import Counter
from typing import Any

TIMEOUT = 5.0  # seconds for each of: the connection, the answer, a lookup of SRV
AGENT = "169.254.53.53"
PACE = 0.02  # seconds between two turns


class Client:
    """Takes turns, and keeps count of them."""

    def __init__(self, name: str, port: str) -> None:
        self._name, self._port = name, port
        self._over = False
        self._good = time.time()
        self._served: Counter[str] = Counter()
        self._failures: list[list[Any]] = []
        self._longest_gap = 0.0

    def run(self, addresses: list[str]) -> None:
        signal.signal(signal.SIGTERM, self._stop)
        for address in addresses:
            self._reach(address)
        while not self._served:
            self._turn()
        self._failures.clear()
        self._longest_gap = 0.0
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while not self._over:
            self._turn()
            time.sleep(PACE)
        report = {"served": self._served, "failures": self._failures, "longest_gap": self._longest_gap}
        sys.stdout.write(json.dumps(report) + "\n")

    def _reach(self, address: str) -> None:
        """Return when this address answers."""
        while not self._over:
            try:
                visit(address, int(self._port))
            except (OSError, http.client.HTTPException):
                time.sleep(PACE)
            else:
                return

    def _stop(self, *_: object) -> None:
        self._over = True

    def _turn(self) -> None:
        began, where = time.time(), None
        try:
            if self._port == "none":
                served = by_agent(self._name)
            else:
                where = by_srv(self._name) if self._port == "srv" else by_address(self._name, int(self._port))
                served = visit(*where)
        except Exception as error:  # noqa: BLE001 - whatever a user of the service would meet
            stage = "connect" if where else "lookup"
            self._failures.append([began, stage, where, f"{type(error).__name__}: {error}"])
        else:
            now = time.time()
            self._longest_gap, self._good = max(self._longest_gap, now - self._good), now
            self._served[served] += 1


def by_address(name: str, port: int) -> tuple[str, int]:
    """As most programs do: the first address, and a port that they know."""
    found = socket.getaddrinfo(name, port, socket.AF_INET, socket.SOCK_STREAM)
    return str(found[0][4][0]), port


def by_agent(name: str) -> str:
    """The first address that the node's agent gives."""
    import dns.message  # noqa: PLC0415 - only this way of asking needs them
    import dns.query  # noqa: PLC0415
    import dns.rcode  # noqa: PLC0415

    question = dns.message.make_query(name, "A", use_edns=False)
    reply, by_tcp = dns.query.udp_with_fallback(question, AGENT, timeout=TIMEOUT)
    if not reply.answer:
        said = f"{dns.rcode.to_text(reply.rcode())} over {'TCP' if by_tcp else 'UDP'}"
        raise OSError(f"no address: {said}, {reply.authority or 'no authority'}")
    return str(reply.answer[0][0].address)


def by_srv(name: str) -> tuple[str, int]:
    """One of the SRV records, with the address that came along."""
    import dns.rdatatype  # noqa: PLC0415 - only this way of asking needs it
    import dns.resolver  # noqa: PLC0415

    answer = dns.resolver.resolve(name, "SRV", lifetime=TIMEOUT)
    chosen = random.choice(list(answer))
    for extra in answer.response.additional:
        if extra.name == chosen.target and extra.rdtype == dns.rdatatype.A:
            return str(extra[0].address), int(chosen.port)
    raise OSError(f"no address of {chosen.target} beside the SRV record")


def visit(address: str, port: int) -> str:
    """One request; the first line of the answer."""
    connection = http.client.HTTPConnection(address, port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        reply = connection.getresponse()
        body = reply.read().decode()
        if reply.status != 200:
            raise OSError(f"status {reply.status}: {body.strip()}")
        return body.partition("\n")[0]
    finally:
        connection.close()


if __name__ == "__main__":
    Client(*sys.argv[1:3]).run(sys.argv[3:])
