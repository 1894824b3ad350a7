"""What one input may cost: CPU and memory, in the terms of a plain input of the same target and process."""

from __future__ import annotations

import gc
import resource
import signal
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import process_time
from types import FrameType

from tests.fuzz.targets import Target

TIMES = 10  # plain inputs' cost, for as many octets
TIMES_AT_ALL = 30  # where an input's length is no excuse
CPU_FLOOR = 0.004  # seconds: less is a garbage collection
ENOUGH = 0.04  # seconds of CPU that make a measure
MEMORY_FLOOR = 2**20  # octets
TRIES = 4  # the least of them counts: other work on the machine only ever adds
STUCK = 5.0  # seconds of CPU after which an input is ended
MOST_MEMORY = 512 * 2**20  # octets that one input may ask the system for


class Stuck(BaseException):
    """An input was ended: it took `STUCK` seconds. No parser catches this."""


class Overspent(AssertionError):
    """An input cost more than its budget."""


@dataclass(frozen=True)
class Cost:
    """Seconds of CPU and octets at the peak."""

    seconds: float
    octets: int


@contextmanager
def held() -> Iterator[None]:
    """End what takes `STUCK` seconds by `Stuck`, and what takes `MOST_MEMORY` more by a MemoryError."""
    started = process_time()

    def end(_number: int, _frame: FrameType | None) -> None:
        if process_time() > started + STUCK:  # the timer's own clock may be coarse, or the machine busy
            raise Stuck

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as statm:  # noqa: PTH123 - on every input
        now = int(statm.read().split()[0]) * resource.getpagesize()
    previous = signal.signal(signal.SIGALRM, end)
    resource.setrlimit(resource.RLIMIT_AS, (now + MOST_MEMORY, hard))
    signal.setitimer(signal.ITIMER_REAL, STUCK, STUCK / 10)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, previous)


def seconds_of(target: Target, data: bytes) -> float:
    """The CPU of one run."""
    with held():
        started = process_time()
        target.run(data)
        return process_time() - started


def octets_of(target: Target, data: bytes) -> int:
    """The peak of memory of one run, over what was there before."""
    tracemalloc.start()
    try:
        with held():
            target.run(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def least(measure: Callable[[], float], bound: float) -> float:
    """The least of some tries, as few as show that the bound holds."""
    lowest = measure()
    for _ in range(TRIES - 1):
        if lowest <= bound:
            break
        gc.collect()
        lowest = min(lowest, measure())
    return lowest


class Budget:
    """What the inputs of one target may cost."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.plain = Cost(self._plain_seconds(), octets_of(target, target.plain))

    def _plain_seconds(self) -> float:
        """The CPU of one plain input, over as many as a coarse clock needs."""
        runs = 1
        while True:
            with held():
                started = process_time()
                for _ in range(runs):
                    self._target.run(self._target.plain)
                spent = process_time() - started
            if spent >= ENOUGH:
                return spent / runs
            runs *= 2

    def of(self, data: bytes) -> Cost:
        """What an input may cost: `TIMES` a plain one of its length."""
        share = TIMES * max(1.0, len(data) / len(self._target.plain)) if self._target.scales else TIMES_AT_ALL
        return Cost(CPU_FLOOR + share * self.plain.seconds, MEMORY_FLOOR + int(share * self.plain.octets))

    def check(self, data: bytes) -> None:
        """Run an input. Raises `Overspent`, or whatever the target lets out."""
        target, allowed = self._target, self.of(data)
        shown = f"{target.name}: {len(data):,} octets {data[:80]!r}"
        try:
            seconds = least(lambda: seconds_of(target, data), allowed.seconds)
            octets = least(lambda: octets_of(target, data), allowed.octets)
        except Stuck:
            raise Overspent(f"{shown} take over {STUCK} s of CPU") from None
        except MemoryError:
            raise Overspent(f"{shown} take over {MOST_MEMORY >> 20} MiB") from None
        if seconds > allowed.seconds:
            raise Overspent(f"{shown} take {seconds * 1e3:.1f} ms of CPU, not {allowed.seconds * 1e3:.1f}")
        if octets > allowed.octets:
            raise Overspent(f"{shown} take {octets / 1024:,.0f} KiB, not {allowed.octets / 1024:,.0f}")
