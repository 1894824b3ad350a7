"""No input costs more than a plain one times a constant, and a parser says no in its own way."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.budget import Budget, Overspent
from tests.fuzz.mutation import mutated
from tests.fuzz.targets import TARGETS, Target

EXAMPLES = 150 if os.environ.get("CI") else 40
each_target = pytest.mark.parametrize("name", TARGETS)
fuzz = settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
HOSTILE = [
    pytest.param(target.name, data, id=f"{target.name}-{number}")
    for target in TARGETS.values()
    for number, data in enumerate(target.hostile)
]


@pytest.fixture(autouse=True)
def unlogged() -> Iterator[None]:
    """What is said of odd inputs is not what they cost here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@functools.cache
def budget(name: str) -> Budget:
    return Budget(TARGETS[name])


@each_target
def test_sound_inputs_are_taken(name: str) -> None:
    """The plain input, which is the measure, is none that is refused at once."""
    target = TARGETS[name]
    target.call(target.plain)
    for data in target.seeds:
        budget(name).check(data)


@pytest.mark.parametrize(("name", "data"), HOSTILE)
def test_a_hostile_input_costs_little(name: str, data: bytes) -> None:
    """Those that once stopped everything, and others of their kinds."""
    budget(name).check(data)


@each_target
@fuzz
@given(data=st.data())
def test_any_input_costs_little(name: str, data: st.DataObject) -> None:
    """Octets, pieces of the language in any order and number, and sound inputs with faults."""
    target = TARGETS[name]
    budget(name).check(data.draw(inputs(target))[: target.longest])


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    """Inputs of a target."""
    sound = st.sampled_from((target.plain, *target.seeds))
    piece = st.one_of(st.sampled_from(target.words or (b"",)), st.binary(max_size=6), sound)
    repeated = st.builds(lambda what, times: what * times, piece, st.sampled_from((1, 1, 1, 2, 40, 1000)))
    return st.one_of(
        st.lists(repeated, max_size=8).map(b"".join),
        st.builds(lambda data, seed: mutated(target, data, Random(seed)), sound, st.integers(0, 2**32)),
    )


def test_the_budget_sees_what_is_not_linear() -> None:
    def wasteful(data: bytes) -> object:
        return sum(1 for _ in data for _ in data)

    budget = Budget(Target("wasteful", wasteful, b"x" * 50))
    budget.check(b"x" * 60)
    with pytest.raises(Overspent, match="of CPU"):
        budget.check(b"x" * 3000)


def test_the_budget_sees_memory() -> None:
    def hungry(data: bytes) -> object:
        return bytes(len(data) ** 2)

    with pytest.raises(Overspent, match="KiB"):
        Budget(Target("hungry", hungry, b"x" * 100)).check(b"x" * 8000)
    with pytest.raises(Overspent, match="MiB"):
        Budget(Target("hungry", hungry, b"x" * 100)).check(b"x" * 40_000)
