"""How a start grows with the number of containers, up to a thousand of them on a recorded engine."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence

from benchmarks import recorded, startup
from benchmarks.figures import Row, table
from benchmarks.lab import Laboratory
from benchmarks.observers import ROOT

SIZES = (0, 250, 500, 1000)
RUNS = 3


@contextlib.contextmanager
def engine(lab: Laboratory, container: str, number: int) -> Iterator[str]:
    """A recorded engine as a process of its own; yields its URL."""
    path = lab.folder / f"recorded-{number}.sock"
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.recorded", str(path), lab.docker.url, container, str(number)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout
        if not process.stdout.readline():
            raise OSError("the recorded engine did not start")
        yield f"unix://{path}"
    finally:
        process.kill()
        process.communicate()


def report(lab: Laboratory, catalogs: Sequence[str]) -> None:
    """Cold starts by the number of containers."""
    labels = {"SERVICE_NAME": recorded.SERVICE}
    container = lab.docker.run(command=["sleep", "100000"], labels=labels, expose=["80/tcp"])
    rows = []
    for catalog in catalogs:
        for number in SIZES:
            with engine(lab, container, number) as url:
                found = startup.starts(lab, lab.agent(catalog, docker=url), RUNS)
            rows.append(Row(f"{catalog}: cold start, {number} containers", found.seconds, "s"))
            rows.append(Row(f"{catalog}:   its CPU", found.cpu, "s"))
            rows.append(Row(f"{catalog}:   its peak memory", found.peak, "MiB"))
    table("The slope, on a recorded engine", rows)
