"""The agent as its own process, as an operator runs it, and the questions one asks it.

All methods block: these tests look at the agent from outside and have no
event loop of their own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import pytest

from tests.support.consul import free_ports
from tests.support.engine import wait_for


class AgentProcess:
    """`registrator agent` on ports of its own at `host`; `log` is what it said so far.

    `enter` is the beginning of its command line, where it is to run in a
    namespace other than ours.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        env: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        enter: Sequence[str] = (),
    ) -> None:
        self.host = host
        self.enter = list(enter)
        self.dns_port, self.http_port = free_ports(2)
        self._options = options
        self._env = env or {}
        self._path = folder / "agent.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return self._path.read_text()

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def start(self) -> None:
        """Start it; it need not be ready when this returns."""
        dns, http = f"{self.host}:{self.dns_port}", f"{self.host}:{self.http_port}"
        command = [sys.executable, "-m", "registrator", "agent", "--dns", dns, "--http", http]
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("REGISTRATOR_", "CONSUL_"))}
        with self._path.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.enter, *command, *self._options],
                stdout=log,
                stderr=log,
                env={**clean, **self._env},
            )

    def start_ready(self) -> None:
        """Start it and wait for its first complete reconcile."""
        self.start()
        wait_for(self.ready, f"readiness; the agent's log is {self._path}", 20)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        assert self._process
        self._process.send_signal(number)
        return self._process.wait(10)

    def wait(self, timeout: float = 20.0) -> int:
        """Wait for its end; return the exit code."""
        assert self._process
        return self._process.wait(timeout)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)

    def ready(self) -> bool:
        return self.status("/readyz") == 200

    def status(self, path: str) -> int:
        """The status of an HTTP answer; 0 where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{self.host}:{self.http_port}{path}", timeout=5) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0

    def get(self, path: str) -> Any:
        """A JSON document of its HTTP API."""
        with urllib.request.urlopen(f"http://{self.host}:{self.http_port}{path}", timeout=10) as reply:
            return json.load(reply)

    def metric(self, sample: str) -> float:
        """One value of /metrics, by its name and labels as they are written there; 0 where it is not."""
        with urllib.request.urlopen(f"http://{self.host}:{self.http_port}/metrics", timeout=10) as reply:
            lines = reply.read().decode().splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(f"{sample} ")), 0.0)

    def ask(self, name: str, kind: str = "A") -> list[str]:
        """The answers of its DNS, sorted; a name without any gives its RCODE instead."""
        query = dns.message.make_query(f"{name}.service.consul", kind, use_edns=True)
        reply = dns.query.udp(query, self.host, port=self.dns_port, timeout=5)
        found = sorted(str(record) for answer in reply.answer for record in answer)
        return found or [dns.rcode.to_text(reply.rcode())]


@pytest.fixture
def agent(tmp_path: Path, engine_url: str) -> Iterator[AgentProcess]:
    """An agent with the embedded catalog on the engine that is there; not started."""
    process = AgentProcess(tmp_path, "--docker", engine_url)
    try:
        yield process
    finally:
        process.close()
