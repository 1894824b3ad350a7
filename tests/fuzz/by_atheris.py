"""The search of `guided` by atheris: `python -m tests.fuzz.by_atheris TARGET [options of libFuzzer]`.

atheris is not among what requirements-dev.lock pins, for it has wheels for some
Pythons and machines only: `.venv/bin/pip install atheris`. It ends at the first
input that breaks the budget or makes a parser fail, and keeps it in a file.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module


def main() -> int:
    try:
        atheris = import_module("atheris")
    except ImportError:
        print("atheris is not installed; run .venv/bin/pip install atheris, or make fuzz", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["registrator"]):
        targets = import_module("tests.fuzz.targets").TARGETS
    if len(sys.argv) < 2 or sys.argv[1] not in targets:
        print(f"name one of: {', '.join(targets)}", file=sys.stderr)
        return 2
    target = targets[sys.argv[1]]
    budget = import_module("tests.fuzz.budget").Budget(target)
    logging.disable(logging.CRITICAL)

    def one(data: bytes) -> None:
        budget.check(data[: target.longest])

    atheris.Setup([sys.argv[0], *sys.argv[2:]], one)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
