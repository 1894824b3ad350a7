"""How a start grows with the number of containers, up to a thousand of them on a recorded engine."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import startup
from benchmarks.figures import Row, table
from benchmarks.lab import Laboratory

SIZES = (0, 250, 500, 1000)
RUNS = 3


def report(lab: Laboratory, catalogs: Sequence[str]) -> None:
    """Cold starts by the number of containers."""
    rows = []
    for catalog in catalogs:
        for number in SIZES:
            with lab.recorded(number) as url:
                found = startup.starts(lab, lab.agent(catalog, docker=url), RUNS)
            rows.append(Row(f"{catalog}: cold start, {number} containers", found.seconds, "s"))
            rows.append(Row(f"{catalog}:   its CPU", found.cpu, "s"))
            rows.append(Row(f"{catalog}:   its peak memory", found.peak, "MiB"))
    table("The slope, on a recorded engine", rows)
