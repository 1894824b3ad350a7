"""Clients that ask an agent without pause, and count what they did not get: dnsperf, and one of HTTP."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support import unavailable

PER_CONNECTION = 20  # queries that dnsperf asks on one TCP connection
LONGEST = 120  # seconds
COUNT = re.compile(r"^ +Queries (sent|completed|lost): +(\d+)", re.MULTILINE)
CODES = re.compile(r"^ +Response codes: +(.+)$", re.MULTILINE)


class DnsPerf:
    """dnsperf at a steady rate from `clients` ports, until `stop`: "udp", or "tcp" on new connections.

    `enter` begins its command line, where it is to run in a namespace other than ours.
    """

    def __init__(
        self,
        names: Path,
        host: str,
        port: int,
        mode: str,
        rate: int,
        clients: int = 20,
        enter: Sequence[str] = (),
    ) -> None:
        self.what = f"{mode} {host}"
        family = "inet6" if ":" in host else "inet"
        each = ["-O", f"num-queries-per-conn={PER_CONNECTION}"] if mode == "tcp" else []
        command = [
            *enter,
            *("dnsperf", "-f", family, "-s", host, "-p", str(port), "-m", mode, "-d", str(names), *each),
            *("-Q", str(rate), "-c", str(clients), "-t", "2", "-l", str(LONGEST), "-W"),
        ]
        try:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        except FileNotFoundError:
            unavailable("dnsperf is missing; install Debian's dnsperf")

    def stop(self) -> tuple[int, list[str]]:
        """End it; return how many answers it got, and what it did not like, one line each."""
        self._process.send_signal(signal.SIGINT)
        output, _ = self._process.communicate(timeout=10)
        counts = {kind: int(number) for kind, number in COUNT.findall(output)}
        codes = CODES.findall(output)
        told = [f"{self.what}: {counts['lost']} lost"] if counts["lost"] else []
        told += [f"{self.what}: {line}" for line in output.splitlines() if line.startswith("[Timeout]")][:3]
        told += [
            f"{self.what}: {code}" for code in codes if not re.fullmatch(r"NOERROR \d+ \(100\.00%\)", code)
        ]
        return counts["completed"], told

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


class HttpLoop:
    """GETs of one path, one after the other until `stop`: each on a connection of its own, or all on one."""

    def __init__(self, host: str, port: int, path: str, *, keep: bool, pause: float = 0.005) -> None:
        self.what = f"http {host} {'kept' if keep else 'new'} connections"
        self._host, self._port, self._path = host, port, path
        self._keep, self._pause = keep, pause
        self._wrong: list[str] = []
        self._got = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def stop(self) -> tuple[int, list[str]]:
        """See `DnsPerf.stop`."""
        self.close()
        return self._got, self._wrong

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=3)
        while not self._over.wait(self._pause):
            try:
                connection.request("GET", self._path)
                reply = connection.getresponse()
                body = reply.read()
            except (OSError, http.client.HTTPException) as error:
                self._wrong.append(f"{self.what}: {error!r}")
                connection.close()
                time.sleep(0.05)
                continue
            self._got += 1
            if reply.status != 200 or body.strip() == b"[]":
                self._wrong.append(f"{self.what}: {reply.status} {body[:80]!r}")
            if not self._keep:
                connection.close()
        connection.close()


def nothing_is_missing(clients: list[DnsPerf | HttpLoop]) -> None:
    """Stop the clients; every one got an answer, a good one, to each of its questions."""
    results = [client.stop() for client in clients]
    for client, (got, _) in zip(clients, results, strict=True):
        print(f"{client.what}: {got} answers")  # noqa: T201 - shown by -rP
        assert got > 100, client.what
    if wrong := [line for _, lines in results for line in lines]:
        pytest.fail("\n".join([f"{len(wrong)} complaints", *wrong[:20]]), pytrace=False)
