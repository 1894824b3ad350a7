"""A twentieth of the soak (`make soak`): what an agent holds stays the same, whatever comes and goes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import soak
from tests.support.consul import ConsulServer

SHARE = 0.05


@pytest.fixture(autouse=True)
def unlogged() -> Iterator[None]:
    """Pytest keeps log records, and with them the errors and frames that they are about."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


async def live(folder: Path, consul: ConsulServer | None, share: float) -> list[soak.Measure]:
    lines: list[str] = []
    async with soak.living(folder, consul) as life:
        measures = await life.run(share, lines.append)
        assert life.stats.writes["register"] >= (soak.CONTAINERS * share + soak.FILL[0])
        assert life.asked >= soak.NAMES * share
        assert life.dropped >= soak.CLIENTS * share
    print("\n".join(lines))  # noqa: T201 - for who reads a failure
    return measures


async def test_an_agent_with_its_own_catalog_stays_as_it_is(tmp_path: Path) -> None:
    """1,000 containers, 5,000 names and 500 clients that drop off leave no object behind."""
    assert soak.grown(await live(tmp_path, None, SHARE), memory=False) == []


@pytest.mark.consul
async def test_an_agent_with_consul_stays_as_it_is(tmp_path: Path, consul: ConsulServer) -> None:
    """With outages after which Consul knows nothing, too."""
    assert soak.grown(await live(tmp_path, consul, SHARE / 2), memory=False) == []


def measure(blocks: int = 1000, memory: int = 1000, **objects: int) -> soak.Measure:
    return soak.Measure(Counter(objects), blocks, memory)


@pytest.mark.parametrize(("leak", "seen"), [(0, False), (20, True)])
def test_the_verdict_sees_a_leak_of_twenty_objects_a_tenth(leak: int, *, seen: bool) -> None:
    """One in every five containers of the short form; what comes and goes is noise."""
    measures = [measure(task=500 + 20 * (part % 2) + leak * part) for part in range(soak.PARTS + 1)]
    assert bool(soak.grown(measures)) == seen


def test_the_verdict_sees_octets_that_are_no_objects() -> None:
    """Text and numbers are not among what the collector knows."""
    assert soak.grown([measure(), measure(), *[measure(blocks=1060)] * 3])
    assert soak.grown([measure(), measure(), *[measure(memory=1200)] * 3])
    assert not soak.grown([measure(), measure(), *[measure(memory=1200)] * 3], memory=False)
