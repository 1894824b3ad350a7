"""How fast, and at what cost, the agent keeps a catalog true: see benchmarks/README.md.

    .venv/bin/python benchmarks/registration.py [--catalog embedded|consul] [--only start,cold,idle,...]

Needs a Docker engine and a Consul; makes containers labelled registrator.test=1 and removes them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

# Run as a file, it must find its own package, and not the dns.py beside it where dnspython is meant.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import fleet, latency, shares, slope, startup
from benchmarks.lab import CONSUL, EMBEDDED, Laboratory, laboratory
from tests.support.engine import unique

PARTS = ("start", "cold", "idle", "slope", "profile")
NOTE = """
* gliderlabs/registrator 7.4.0, measured earlier on the same kind of machine; it is not run here.
/ floor: the ratio to a loop with no agent around it (read the event, inspect, PUT), run in between."""


def main() -> None:
    """Measure what was asked for; what cannot be had is said in one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--catalog", choices=(EMBEDDED, CONSUL), help="only this one (default: both)")
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="containers of each kind (30)")
    parser.add_argument("--containers", type=int, default=200, metavar="N", help="on the full node (200)")
    parser.add_argument("--only", default=",".join(PARTS), metavar="PARTS", help=f"some of {','.join(PARTS)}")
    options = parser.parse_args()
    parts = set(options.only.split(","))
    if unknown := parts - set(PARTS):
        parser.error(f"--only: {', '.join(unknown)} is none of {', '.join(PARTS)}")
    catalogs = [options.catalog] if options.catalog else [CONSUL, EMBEDDED]
    try:
        with laboratory() as lab:
            measure(lab, parts, catalogs, options.rounds, options.containers)
    except (OSError, subprocess.SubprocessError, pytest.fail.Exception, pytest.skip.Exception) as error:
        sys.exit(f"benchmarks/registration.py: {error}")
    print(NOTE)


def measure(lab: Laboratory, parts: set[str], catalogs: list[str], rounds: int, containers: int) -> None:
    """Print a table for each part."""
    if "start" in parts:
        latency.report(lab, catalogs, rounds)
    if "cold" in parts:
        name = unique("bench")
        with fleet.running(lab.docker, containers, name):
            startup.report_starts(lab, catalogs, name, containers)
    if "idle" in parts:
        startup.report_rest(lab, catalogs, containers)
    if "slope" in parts:
        slope.report(lab, catalogs)
    if "profile" in parts:
        shares.report(lab, catalogs, containers)


if __name__ == "__main__":
    main()
