"""DNS beside its peers: queries a second, latency and CPU a query, in interleaved rounds.

    .venv/bin/python benchmarks/dns.py [--rounds 5] [--seconds 2] [--only throughput,latency,memory]

Needs dnsperf, unbound, dnsmasq (Debian's packages), a Consul and two cores:
the servers are pinned to one, dnsperf to the other. All are on loopback.
Figures are medians over the rounds with the least and the greatest; ratios
are made within a round, so that what else the machine does falls out.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

# Run as a file, it must find its own package, and not itself where dnspython is meant.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.dns_servers import (
    Consul,
    Data,
    Dnsmasq,
    Missing,
    Ours,
    OursChanging,
    Server,
    Unbound,
    find,
    started,
)
from benchmarks.figures import percentile

SERVER_CORE, LOAD_CORE = 0, 1
NAMES = {1: 400, 3: 400, 30: 200}  # instances -> how many names have so many
STEADY = 15_000  # queries a second, for latency
RUN_UP = 0.5  # seconds before each run of latency that are not counted
TIMES = (1, 4)  # as many names, for memory
PEER = "unbound"
WORKLOADS = [("A", 1), ("A", 3), ("A", 30), ("SRV", 1), ("SRV", 3), ("SRV", 30)]
SUMMARY = re.compile(r"Queries completed:\s+(\d+).*?Queries per second:\s+([\d.]+)", re.DOTALL)
EACH = re.compile(r"^> \w+ \S+ \w+ ([\d.]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """One run of dnsperf against one server."""

    qps: float
    cpu: float  # microseconds a query
    p50: float = 0.0  # microseconds
    p99: float = 0.0


def data(times: int = 1) -> Data:
    """A thousand names with 1, 3 and 30 instances, or so many times as many."""
    found, number = {}, 0
    for instances, names in NAMES.items():
        for name in range(names * times):
            ips = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(number, number + instances)]
            found[f"s{instances}-{name:04}"] = ips
            number += instances
    return found


def questions(folder: Path, qtype: str, instances: int, times: int = 1) -> Path:
    """A file of dnsperf's: all names with so many instances, 0 for all names."""
    names = [name for name in data(times) if not instances or name.startswith(f"s{instances}-")]
    file = folder / f"{qtype}-{instances}-{times}"
    file.write_text("".join(f"{name}.service.consul {qtype}\n" for name in names))
    return file


def load(server: Server, file: Path, seconds: float, rate: int = 0) -> Run:
    """Ask as fast as it answers, or `rate` times a second and look at each answer's time."""
    command = ["taskset", "-c", str(LOAD_CORE), find("dnsperf"), "-s", "127.0.0.1", "-p", str(server.port),
               "-d", str(file), "-l", str(seconds), "-e", "-c", "8", "-q", "64"]  # fmt: skip
    if rate:
        command += ["-Q", str(rate), "-v"]
    before = server.cpu()
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    cpu = server.cpu() - before
    match = SUMMARY.search(output)
    if match is None:
        raise RuntimeError(f"dnsperf said: {output[-500:]}")
    latencies = [float(seconds) * 1e6 for seconds in EACH.findall(output)]
    return Run(
        float(match[2]), cpu * 1e6 / int(match[1]), percentile(latencies, 0.5), percentile(latencies, 0.99)
    )


def interleaved(
    servers: Sequence[Server], file: Path, rounds: int, seconds: float, rate: int = 0
) -> dict[str, list[Run]]:
    """Rounds in which each server has its turn, another one first each time; a first round warms up."""
    runs: dict[str, list[Run]] = {server.name: [] for server in servers}
    for server in servers:
        load(server, file, min(seconds, 1.0), rate)
    for number in range(rounds):
        at = number % len(servers)
        for server in [*servers[at:], *servers[:at]]:
            if rate:  # what it put off while the others had their turns is not what a steady load meets
                load(server, file, RUN_UP, rate)
            runs[server.name].append(load(server, file, seconds, rate))
    return runs


def shown(values: Sequence[float], digits: int = 0) -> str:
    """The median, with the least and the greatest."""
    return f"{statistics.median(values):,.{digits}f} [{min(values):,.{digits}f}-{max(values):,.{digits}f}]"


def ratios(runs: dict[str, list[Run]], name: str, field: str) -> str:
    """A server's figure by the peer's of the same round."""
    pairs = zip(runs[name], runs[PEER], strict=True)
    return shown([getattr(mine, field) / getattr(peer, field) for mine, peer in pairs], 2)


def print_changing(runs: dict[str, list[Run]]) -> None:
    """What changes cost: the p99 of our changing front by that of the still one in the same round."""
    pairs = zip(runs[OursChanging.name], runs[Ours.name], strict=True)
    found = shown([changing.p99 / still.p99 for changing, still in pairs], 2)
    print(f"  p99 while it changes / p99 while it is still: {found}")


def print_table(title: str, runs: dict[str, list[Run]], fields: dict[str, str]) -> None:
    """One row for each server, two columns for each field."""
    print(f"\n{title}  (load average {os.getloadavg()[0]:.1f}; / is by {PEER} in the same round)")
    for name, own in runs.items():
        cells = [f"{name:27}"]
        for field, unit in fields.items():
            values = [getattr(run, field) for run in own]
            cells.append(f"{shown(values, 0 if values[0] > 100 else 1)} {unit}")
            cells.append(f"/ {ratios(runs, name, field)}")
        print("  " + "  ".join(cell.ljust(30 if number % 2 else 20) for number, cell in enumerate(cells)))


def throughput(servers: Sequence[Server], folder: Path, rounds: int, seconds: float) -> None:
    """As many queries as each can answer, type by type."""
    for qtype, instances in WORKLOADS:
        able = [server for server in servers if qtype in server.kinds]
        runs = interleaved(able, questions(folder, qtype, instances), rounds, seconds)
        print_table(f"{qtype}, {instances} instances, EDNS", runs, {"qps": "q/s", "cpu": "us CPU"})


def latency(servers: Sequence[Server], folder: Path, rounds: int, seconds: float) -> None:
    """The time of each answer under a load that all can carry, on all thousand names."""
    for qtype in ("A", "SRV"):
        able = [server for server in servers if qtype in server.kinds]
        runs = interleaved(able, questions(folder, qtype, 0), rounds, seconds, STEADY)
        title = f"{qtype}, 1,000 names, {STEADY:,} queries a second"
        print_table(title, runs, {"p50": "us p50", "p99": "us p99", "cpu": "us CPU"})
        print_changing(runs)


def memory(folder: Path, seconds: float) -> None:
    """What one more rendered reply takes of our process, by the kernel's count: the slope over the names.

    What a server's first queries take besides, once for all, is not in it.
    """
    print("\nMemory: A and SRV of all names, each asked more than once")
    earlier = None
    for times in TIMES:
        with ExitStack() as stack:
            own = folder / f"memory-{times}"
            own.mkdir()
            (server,) = started(stack, [Ours], own, data(times), SERVER_CORE)
            for qtype in ("A", "SRV"):
                load(server, questions(folder, qtype, 0, times), seconds)
            told = json.loads(server.stop())
        replies, grown = told["rendered_replies"], told["memory_grown"]
        line = f"  {replies:,} replies: {grown / 2**20:.1f} MiB grown"
        line += f", {told['octets_each']:,} octets each as the cache counts"
        if earlier:
            line += f"; {(grown - earlier[1]) / (replies - earlier[0]):,.0f} octets for each more"
        print(line)
        earlier = replies, grown


def main() -> None:
    """Measure what was asked for; what cannot be had is said in one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="interleaved rounds (5)")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="of each run (2)")
    parts = "throughput,latency,memory"
    parser.add_argument("--only", default=parts, metavar="PARTS", help=parts.replace(",", ", "))
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            wanted = options.only.split(",")
            if "memory" in wanted:
                memory(Path(folder), options.seconds)
            peers = [
                part for name, part in (("throughput", throughput), ("latency", latency)) if name in wanted
            ]
            kinds = [Unbound, Ours, OursChanging, Dnsmasq, Consul] if peers else []
            servers = started(stack, kinds, Path(folder), data(), SERVER_CORE)
            for part in peers:
                part(servers, Path(folder), options.rounds, options.seconds)
            for server in servers:
                told = server.stop()
                if told:
                    print(f"\n{server.name}: {json.loads(told)}")
    except (Missing, TimeoutError, OSError) as error:
        sys.exit(f"benchmarks/dns.py: {error}")


if __name__ == "__main__":
    main()
