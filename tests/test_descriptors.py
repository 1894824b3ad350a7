"""The limit of open files: raised, shared out, and used up."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from registrator.descriptors import RESERVED, allowance
from registrator.limits import DESCRIPTORS, HTTP_CONNECTIONS, HTTP_HEALTH_CONNECTIONS, RECURSIONS
from registrator.lookup import tcp
from registrator.lookup.acceptor import PAUSE
from tests.support.agent import AgentProcess
from tests.support.engine import Docker, wait_for

CLIENTS = 60
HELD = 3.0  # seconds without a free descriptor


@contextlib.contextmanager
def used_up(agent: AgentProcess) -> Iterator[None]:
    """The agent has as many files open as it may; a limit below them does not close any."""
    soft, hard = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (soft, hard))


def cpu(pid: int) -> float:
    """Seconds of processor time (proc(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_without_a_descriptor_it_waits_quietly_and_recovers(agent: AgentProcess, docker: Docker) -> None:
    """Dozens of clients at HTTP and DNS over TCP for seconds: one line, no work, and UDP is answered.

    Afterwards those who have waited are answered, and a container that came in
    the meantime is known.
    """
    agent.start_ready()
    before = agent.log.count("\n")
    with contextlib.ExitStack() as stack:
        with used_up(agent):
            clients = [
                stack.enter_context(socket.create_connection((agent.host, port), 5))
                for port in (agent.http_port, agent.dns_port)
                for _ in range(CLIENTS // 2)
            ]
            worked, began = cpu(agent.pid), time.monotonic()
            name = docker.run(env={"SERVICE_NAME": "late", "SERVICE_PORT": "80"}) and "late"
            while time.monotonic() < began + HELD:
                assert agent.ask("nothing") == ["NXDOMAIN"]
                time.sleep(0.05)
            assert cpu(agent.pid) - worked < HELD / 3
            lines = agent.log.splitlines()[before:]
            told = [line for line in lines if "no new connections" in line]
            assert len(told) == 1, lines
            assert "Too many open files" in told[0]
            assert "LimitNOFILE" in told[0]
            assert "Traceback" not in agent.log
            assert len(lines) < 10, lines
        for client in clients[: CLIENTS // 2]:
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.recv(15) == b"HTTP/1.1 200 OK"
    wait_for(lambda: agent.ask(name)[0] not in ("NXDOMAIN", "SERVFAIL"), "the container in lookups", 30)
    hits = agent.metric(f'registrator_limited_total{{limit="{DESCRIPTORS.name}"}}')
    assert 1 <= hits <= 2 * (HELD / PAUSE + 10)


@pytest.mark.parametrize("flood", ["http_port", "dns_port"])
def test_clients_cannot_take_the_descriptors_of_engine_and_consul(
    agent: AgentProcess, docker: Docker, flood: str
) -> None:
    """With a low limit there are fewer connections: one line says so, and containers are found as before."""
    agent.enter = ["prlimit", "--nofile=128:128"]
    agent.start_ready()
    assert agent.log.count("only 128 open files are allowed") == 1
    with contextlib.ExitStack() as stack:
        for _ in range(150):
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_connection((agent.host, getattr(agent, flood)), 5))
        docker.run(env={"SERVICE_NAME": "late", "SERVICE_PORT": "80"})
        wait_for(lambda: agent.ask("late")[0] not in ("NXDOMAIN", "SERVFAIL"), "the container in lookups", 30)
        assert len(list(Path(f"/proc/{agent.pid}/fd").iterdir())) < 120
    assert "no new connections" not in agent.log


def test_the_soft_limit_is_raised_to_what_is_needed() -> None:
    program = "from registrator.descriptors import raise_limit; print(raise_limit())"
    for given, expected in (("256:1024", "1024"), ("256:5000", "4096"), ("5000:5000", "5000")):
        command = ["prlimit", f"--nofile={given}", sys.executable, "-c", program]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == expected


def test_all_caps_together_are_below_the_limit() -> None:
    """With two addresses for DNS, as with --dns-link-local."""
    http = HTTP_CONNECTIONS.value + HTTP_HEALTH_CONNECTIONS.value
    most = http + 2 * tcp.MAX_CONNECTIONS + 2 * RECURSIONS.value + RESERVED
    assert most < DESCRIPTORS.value


@pytest.mark.parametrize("limit", [64, 128, 256, 1024, 4095, 4096, 1_000_000])
def test_shares_leave_what_is_reserved(limit: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    shares = allowance(limit)
    assert shares.http + shares.dns + shares.recursions <= limit - min(RESERVED, limit // 2)
    assert min(shares.http, shares.dns, shares.recursions) >= 8
    assert len(caplog.messages) == (limit < DESCRIPTORS.value)
