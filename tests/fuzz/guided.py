"""A search for inputs that cost too much or make a parser fail, led by coverage.

    python -m tests.fuzz.guided [--minutes 5] [--target NAME] [--seed N]

Inputs that reach lines of ours that no input reached before, or that reach a
line far more often, are kept, and others are made of them. Each is held to
the budget of `budget`. The first that breaks it, or lets out what its target
does not name, is shown with the command that repeats it.

The search is a small one of our own, by sys.settrace, which runs everywhere;
`by_atheris` is atheris', where that is installed.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random, SystemRandom
from types import FrameType
from typing import Any

from tests.fuzz.budget import Budget, Overspent, Stuck, held
from tests.fuzz.mutation import mutated
from tests.fuzz.targets import TARGETS, Target

OURS = str(Path(__file__).resolve().parents[2] / "registrator")
KEPT = 2000  # inputs of one target; then one falls out for each that comes
TURN = 2.0  # seconds for one target before the next one has its turn


class Coverage:
    """The lines that an input reaches, each with the power of two of how often."""

    def __init__(self) -> None:
        self._hits: Counter[tuple[str, int]] = Counter()

    def of(self, target: Target, data: bytes) -> frozenset[tuple[str, int, int]]:
        """Run an input. Raises what it lets out."""
        self._hits.clear()
        previous = sys.gettrace()
        sys.settrace(self._calls)
        try:
            with held():
                target.run(data)
        finally:
            sys.settrace(previous)
        return frozenset((file, line, count.bit_length()) for (file, line), count in self._hits.items())

    def _calls(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        return self._lines if frame.f_code.co_filename.startswith(OURS) else None

    def _lines(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            self._hits[frame.f_code.co_filename, frame.f_lineno] += 1
        return self._lines


class Search:
    """The search for one target."""

    def __init__(self, target: Target, rng: Random) -> None:
        self.target = target
        self.inputs = 0
        self.seen: set[tuple[str, int, int]] = set()
        self._rng = rng
        self._budget = Budget(target)
        self._coverage = Coverage()
        self._kept: list[bytes] = []
        for data in (target.plain, *target.seeds):
            self.look(data)

    def run(self, seconds: float) -> None:
        """Search for a while. Raises `Fault`."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self.look(mutated(self.target, self._rng.choice(self._kept), self._rng))

    def look(self, data: bytes) -> None:
        """Try one input. Raises `Fault`."""
        self.inputs += 1
        try:
            reached = self._coverage.of(self.target, data)
            if reached <= self.seen and self._kept:
                return
            self._budget.check(data)
        except (Exception, Stuck) as error:
            raise Fault(self.target, data, error) from error
        self.seen |= reached
        if len(self._kept) >= KEPT:
            self._kept.pop(int(self._rng.random() * len(self._kept)))
        self._kept.append(data)


class Fault(Exception):
    """An input that broke a law."""

    def __init__(self, target: Target, data: bytes, error: BaseException) -> None:
        what = str(error) if isinstance(error, Overspent) else repr(error)
        super().__init__(f"{target.name}: {what[:300]}\n  bytes.fromhex({data.hex()!r})")


def search(targets: list[Target], minutes: float, seed: int) -> int:
    """Search in turns; the exit code. A target with a fault has no more turns."""
    rng = Random(seed)
    ends = time.monotonic() + minutes * 60
    searches: list[Search] = []
    faults = 0
    for target in targets:
        try:
            searches.append(Search(target, rng))
        except Fault as fault:
            faults += 1
            print(f"broken: {fault}", flush=True)
    for each in itertools.cycle(list(searches)):
        if time.monotonic() > ends or not searches:
            break
        if each in searches:
            try:
                each.run(min(TURN, ends - time.monotonic()))
            except Fault as fault:
                faults += 1
                searches.remove(each)
                print(f"broken: {fault}", flush=True)
    for each in searches:
        print(f"{each.target.name}: {each.inputs:,} inputs, {len(each.seen):,} kinds of lines", flush=True)
    return int(faults > 0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--target", action="append", choices=TARGETS, help="default: all, in turns")
    parser.add_argument("--seed", type=int, default=SystemRandom().getrandbits(32), help="to repeat a run")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    targets = [TARGETS[name] for name in options.target or TARGETS]
    print(f"seed {options.seed}", flush=True)
    return search(targets, options.minutes, options.seed)


if __name__ == "__main__":
    sys.exit(main())
