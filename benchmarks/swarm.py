"""What the loss of a Consul server costs on a Swarm of three nodes, in seconds.

    .venv/bin/python -m benchmarks.swarm        (as root; about a minute and a half)

Sets up the lab, or takes the one that `make lab` has left, and does to it what
tests/lab/test_consul.py does: a follower killed, the leader killed, the leader's
node cut off; each a few times. Clients look names up on every node meanwhile.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from statistics import median

from scripts.demo.steps import DemoError
from scripts.lab.__main__ import up
from scripts.lab.lab import Lab
from tests.lab.outages import Outage, cut_off, killed, worker_leads
from tests.lab.services import HEALTH_CHECK, NETWORK, Service, service

OUTAGES: dict[str, Callable[[Lab, Service], Outage]] = {
    "a follower killed": lambda lab, made: killed(lab, made, leading=False),
    "the leader killed": lambda lab, made: killed(lab, made, leading=True),
    "the leader's node cut off": lambda lab, made: cut_off(lab, made, worker_leads(lab)),
}
COLUMNS = ("elected", "registered", "out", "converged")


def row(name: str, outages: list[Outage]) -> str:
    """A line of medians; a figure that an outage does not have is a dash."""
    figures = [median(getattr(outage, column) for outage in outages) for column in COLUMNS]
    asked = sum(outage.clients.turns for outage in outages)
    failed = sum(len(outage.clients.failures) for outage in outages)
    gap = max(outage.clients.longest_gap for outage in outages)
    texts = [f"{figure:.1f}" if figure else "-" for figure in figures]
    return f"{name:26}" + "".join(f"{text:>12}" for text in [*texts, f"{failed}/{asked}", f"{gap:.2f}"])


def main() -> None:
    """Read the command line, and print a line for each outage when it is over."""
    parser = argparse.ArgumentParser(description="The loss of a Consul server on three nodes, in seconds.")
    parser.add_argument("--rounds", type=int, default=1, help="of each outage; the median is printed")
    rounds = parser.parse_args().rounds
    lab = Lab()
    kept = lab.kept.exists()
    try:
        if not kept:
            up(lab)
        if NETWORK not in lab.manager.docker("network", "ls", "--format", "{{.Name}}").split():
            lab.manager.docker("network", "create", "--driver", "overlay", "--attachable", NETWORK)
        with lab.held(), service(lab, *HEALTH_CHECK, "--mode", "global", replicas=3) as made:
            print(f"{'':26}" + "".join(f"{title:>12}" for title in (*COLUMNS, "failed", "longest gap")))
            for name, outage in OUTAGES.items():
                print(row(name, [outage(lab, made) for _ in range(rounds)]), flush=True)
    except DemoError as error:
        sys.exit(f"error: {error}")
    finally:
        if not kept:
            lab.clear()


if __name__ == "__main__":
    main()
