"""Whether each package of the run-time lock has a wheel, with a locked hash, for each machine and Python.

    python -m scripts.platforms [--python 3.11] [--machine arm64]

An image is built for a machine without a compiler, so that a missing wheel
breaks its build. pip resolves for each, and downloads nothing but metadata.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts import locks


def missing(lock: Path, python: str, machine: str) -> str:
    """What pip says where a wheel is missing for that Python and machine; "" where none is."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "wanted")
        wanted.write_text(locks.lines_for(lock, python, machine))
        command = (
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--dry-run"),
            *("--ignore-installed", "--target", folder, "--no-deps", "--require-hashes"),
            *(*locks.wheels_for(python, machine), "--requirement", str(wanted)),
        )
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    errors = [line for line in run.stderr.splitlines() if line.startswith("ERROR")]
    return "" if run.returncode == 0 else (errors or run.stderr.splitlines() or ["pip failed"])[-1]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.platforms")
    parser.add_argument("--python", action="append", help="3.11, ... (default: all)")
    parser.add_argument("--machine", action="append", choices=locks.MACHINES, help="default: all")
    options = parser.parse_args()
    failed = 0
    for machine in options.machine or locks.MACHINES:
        for python in options.python or locks.PYTHONS:
            error = missing(locks.RUN_TIME, python, locks.MACHINES[machine])
            failed += bool(error)
            print(f"{machine}, Python {python}: {error or 'a wheel for every package'}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
