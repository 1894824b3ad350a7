"""When checks are run: the constants as they are in use."""

from __future__ import annotations

import asyncio

import pytest

from registrator.catalog.probes import Probe, Prober
from registrator.model import Check
from registrator.stats import Stats


def check(interval: float, timeout: float = 0.0) -> Check:
    return Check("c", "a check", "tcp", "127.0.0.1:1", interval, timeout)


async def test_new_checks_are_run_soon_and_not_all_at_once() -> None:
    """First runs are spread over the first second, whatever the interval is."""
    prober, clock = Prober(Stats()), asyncio.get_running_loop().time
    running, times = [], []
    for interval in (0.5, 10.0, 300.0) * 30:
        now = clock()
        running.append(prober.start(check(interval), "", lambda *_: None))
        assert running[-1].timer
        times.append(running[-1].timer.when() - now)
    for probe in running:
        probe.stop()
    assert len(times) == 90
    assert max(times) < 1.5
    assert max(times) - min(times) > 0.5


@pytest.mark.parametrize(("given", "taken"), [(0.0, 1.0), (0.2, 1.0), (1.0, 1.0), (15.0, 15.0)])
def test_least_interval(given: float, taken: float) -> None:
    """An interval below a second is a second, as in Consul."""
    assert Probe(check(given), "", lambda *_: None).interval == taken


def test_default_timeout() -> None:
    """A check without a timeout has Consul's, 10 s."""
    assert Probe(check(10.0), "", lambda *_: None).timeout == 10.0
    assert Probe(check(10.0, 0.5), "", lambda *_: None).timeout == 0.5


@pytest.mark.parametrize(
    ("interval", "given", "taken"), [(5.0, 0.0, 5.0), (1.0, 31536000.0, 1.0), (86400.0, 86400.0, 120.0)]
)
def test_a_timeout_is_at_most_the_interval(interval: float, given: float, taken: float) -> None:
    """A check that never gets an answer is over before it is due again, and within two minutes."""
    assert Probe(check(interval, given), "", lambda *_: None).timeout == taken
