"""Cold and warm starts on a node full of containers, and what an agent costs there when nothing happens."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from urllib.request import urlopen

from benchmarks import raw
from benchmarks.figures import Row, table
from benchmarks.lab import CONSUL, Laboratory
from benchmarks.observers import ROOT
from tests.support.agent import AgentProcess

STARTS = 5
REST = 30.0  # seconds; a full reconcile falls into them, so there are twice as many as by default
SETTLE = 8.0  # seconds after a start
POLL = 0.005  # seconds between two looks at an agent that is starting
GIVE_UP = 60.0  # seconds


@dataclass
class Starts:
    """Seconds from the process's start to the end of its first reconcile; CPU (s), memory (MiB)."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)


def report_starts(lab: Laboratory, catalogs: Sequence[str], name: str, number: int) -> None:
    """Cold starts, and with Consul warm ones, on a node with a fleet called `name`."""
    floor = [fill(lab, name) for _ in range(STARTS)]
    least = median(floor)
    rows = [Row("the floor: list, inspect each, PUT each", floor, "s")]
    for catalog in catalogs:
        seen = Registered(lab.consul.url, name, number) if catalog == CONSUL else None
        cold = starts(lab, lab.agent(catalog), STARTS, over=seen)
        rows += [
            Row(f"{catalog}: cold start", cold.seconds, "s", least, "<= 0.5", "0.294-0.331"),
            Row(f"{catalog}:   its CPU", cold.cpu, "s"),
            Row(f"{catalog}:   its peak memory", cold.peak, "MiB", target="< 50", earlier="13"),
        ]
        if catalog == CONSUL:
            warm = starts(lab, lab.agent(catalog), STARTS, cold=False)
            rows.append(Row(f"{catalog}: start with all there already", warm.seconds, "s"))
            rows.append(Row(f"{catalog}:   its writes", warm.writes, "", target="0"))
    table(f"Starts on a node with {number} containers", rows)


def report_rest(lab: Laboratory, catalogs: Sequence[str], number: int) -> None:
    """What agents cost when nothing happens; all at once, since none of them does anything.

    The engine is recorded, so that what others start meanwhile is none of it.
    """
    with lab.recorded(number) as url:
        agents = [lab.agent(catalog, "--resync", f"{REST:.0f}", docker=url) for catalog in catalogs]
        spent = at_rest(agents)
    rows = []
    for catalog, cost in zip(catalogs, spent, strict=True):
        rows += [
            Row(f"{catalog}: CPU a minute", [cost.cpu * 1000], "ms", target="< 150"),
            Row(f"{catalog}: memory", [cost.now], "MiB", target="< 50", earlier="13"),
            Row(f"{catalog}:   at its peak", [cost.peak], "MiB"),
        ]
    table(f"{REST:.0f} s at rest with {number} containers and one full reconcile", rows)


def fill(lab: Laboratory, name: str) -> float:
    """Seconds that the least takes which a start could do, from the start of its process: the live peer."""
    lab.empty_consul()
    began = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.observers", "fill", lab.docker.url, lab.consul.url, name]
    subprocess.run(command, cwd=ROOT, check=True)
    return time.monotonic() - began


def starts(
    lab: Laboratory,
    agent: AgentProcess,
    runs: int,
    over: Callable[[], bool] | None = None,
    *,
    cold: bool = True,
) -> Starts:
    """Start an agent again and again until `over` (its own word if None), with an empty catalog if `cold`."""
    found = Starts()
    for _ in range(runs):
        if cold:
            lab.empty_consul()
        note(found, agent, over or agent.ready)
    return found


def note(starts: Starts, agent: AgentProcess, over: Callable[[], bool]) -> None:
    """One start, timed, and its end by SIGKILL, so that nothing is taken out of the catalog."""
    began = time.monotonic()
    agent.start()
    try:
        wait_until(over)
        starts.seconds.append(time.monotonic() - began)
        wait_until(agent.ready)
        starts.cpu.append(cpu(agent.pid))
        starts.peak.append(memory(agent.pid, "VmHWM"))
        starts.writes.append(writes(agent))
    finally:
        agent.close()


class Registered:
    """Whether Consul's agent has all instances of a fleet."""

    def __init__(self, url: str, name: str, number: int) -> None:
        self._url = url
        self._id = re.compile(rf'"ID": ?"[^"]*:{name}-\d+:80"'.encode())
        self._number = number

    def __call__(self) -> bool:
        connection = raw.connect(self._url)
        body, _ = raw.ask(connection, "GET", "/v1/agent/services")
        connection.close()
        return len(self._id.findall(body)) >= self._number


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + GIVE_UP
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"an agent was not ready in {GIVE_UP:.0f} s")
        time.sleep(POLL)


def writes(agent: AgentProcess) -> int:
    """How many writes to the catalog the agent has made."""
    with urlopen(f"http://127.0.0.1:{agent.http_port}/metrics", timeout=5) as reply:
        text = reply.read().decode()
    found = re.findall(r"^registrator_catalog_writes_total{.*} (\S+)", text, re.MULTILINE)
    return sum(int(float(number)) for number in found)


@dataclass(frozen=True)
class Rest:
    """CPU seconds a minute, memory now and at its peak (MiB)."""

    cpu: float
    now: float
    peak: float


def at_rest(agents: Sequence[AgentProcess]) -> list[Rest]:
    """What each of some agents costs after it has settled."""
    try:
        for agent in agents:
            agent.start()
        for agent in agents:
            wait_until(agent.ready)
        time.sleep(SETTLE)
        before = [cpu(agent.pid) for agent in agents]
        time.sleep(REST)
        spent = [cpu(agent.pid) - then for agent, then in zip(agents, before, strict=True)]
        return [
            Rest(used * 60 / REST, memory(agent.pid, "VmRSS"), memory(agent.pid, "VmHWM"))
            for agent, used in zip(agents, spent, strict=True)
        ]
    finally:
        for agent in agents:
            agent.close()


def cpu(pid: int) -> float:
    """The CPU seconds of all threads of a process so far (proc(5), schedstat)."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def memory(pid: int, field: str) -> float:
    """VmRSS (now) or VmHWM (the most so far) of a process, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    (kibibytes,) = re.findall(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    return int(kibibytes) / 1024
