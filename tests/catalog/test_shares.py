"""Whose checks are run first, where some never get an answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.catalog import probes
from registrator.catalog.shares import Shares
from registrator.limits import CHECKS_AT_ONCE, CHECKS_AT_ONCE_IN_ALL, CHECKS_AT_ONCE_OF_CONTAINER
from registrator.model import PASSING, Check
from registrator.stats import Stats

SHARE = CHECKS_AT_ONCE_OF_CONTAINER.value


@dataclass(eq=False, slots=True)
class Work:
    container: str
    stopped: bool = False


def started(line: Shares[Work]) -> list[str]:
    """The containers of all that may start now."""
    found = []
    while (work := line.next()) is not None:
        found.append(work.container)
    return found


def test_a_container_has_no_more_than_its_share() -> None:
    line: Shares[Work] = Shares()
    waits = [line.put(Work("a")) for _ in range(70)]
    assert started(line) == ["a"] * SHARE
    assert waits == [False] * SHARE + [True] * (70 - SHARE)
    assert line.put(Work("a"))
    line.over("a")
    assert started(line) == ["a"]


def test_containers_take_turns() -> None:
    line: Shares[Work] = Shares()
    for container in "aaaabbbbcccc":
        line.put(Work(container))
    assert "".join(started(line)) == "abcabcabcabc"


def test_one_that_has_nothing_under_way_comes_first() -> None:
    """Though other containers fill all places with checks that never end."""
    line: Shares[Work] = Shares()
    for number in range(100):
        for _ in range(70):
            line.put(Work(f"bad-{number}"))
    under_way = Counter(started(line))
    assert max(under_way.values()) <= SHARE
    assert under_way.total() == max(CHECKS_AT_ONCE.value, 100)
    line.put(Work("good"))
    line.put(Work("good"))
    assert started(line) == ["good"]
    line.over("good")
    assert started(line) == ["good"]


def test_there_is_an_end_of_it() -> None:
    """Each takes a file descriptor."""
    line: Shares[Work] = Shares()
    for number in range(2000):
        line.put(Work(str(number)))
    assert len(started(line)) == CHECKS_AT_ONCE_IN_ALL.value


def test_what_was_stopped_takes_no_place() -> None:
    line: Shares[Work] = Shares()
    for _ in range(3):
        line.put(Work("a", stopped=True))
    line.put(Work("a"))
    assert started(line) == ["a"]
    line.over("a")
    assert line.next() is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2))))
def test_everything_has_its_turn_and_nothing_is_left(steps: list[tuple[str, int]]) -> None:
    """Whatever the order of puts, starts and ends: all that was put is started once."""
    line: Shares[Work] = Shares()
    put, begun, running = 0, 0, list[Work]()
    for container, step in steps:
        if step == 0:
            line.put(Work(container))
            put += 1
        elif step == 1 and (work := line.next()) is not None:
            running.append(work)
            begun += 1
        elif step == 2 and running:
            line.over(running.pop().container)
    while running or begun < put:
        if (work := line.next()) is not None:
            running.append(work)
            begun += 1
        else:
            line.over(running.pop().container)
    assert begun == put
    assert line.next() is None


async def test_seventy_checks_that_never_end_delay_no_other_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only its share of a container's checks is under way; other containers' checks all get results."""
    monkeypatch.setattr(probes, "FIRST_WITHIN", 0.0)
    hanging, answered, all_answered = 0, 0, asyncio.Event()

    async def connect(target: str, timeout: float, allowance: object) -> tuple[str, str]:
        nonlocal hanging
        if target == "never":
            hanging += 1
            await asyncio.Event().wait()
        return PASSING, "fine"

    def note(status: str, output: str) -> None:
        nonlocal answered
        answered += 1
        if answered == 30:
            all_answered.set()

    monkeypatch.setattr(probes, "connect", connect)
    stats = Stats()
    prober = probes.Prober(stats)
    running = asyncio.create_task(prober.run())
    started = [
        prober.start(Check("c", "c", "tcp", "never", 10.0), f"bad-{number % 10}", lambda *_: None)
        for number in range(700)
    ]
    async with asyncio.timeout(30):
        while stats.limited[CHECKS_AT_ONCE_OF_CONTAINER.name] == 0:
            await asyncio.sleep(0.01)
        started += [
            prober.start(Check("c", "c", "tcp", "fine", 600.0), f"good-{number % 3}", note)
            for number in range(30)
        ]
        await all_answered.wait()
    assert hanging <= CHECKS_AT_ONCE.value
    for probe in started:
        probe.stop()
    running.cancel()
    await asyncio.wait([running])
