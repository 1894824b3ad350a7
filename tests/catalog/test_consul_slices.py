"""Parsing in slices gives what `json` gives, and does not hold up the loop."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.catalog.consul.slices import SLICE, elements, in_slices

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
layouts = st.sampled_from([None, 0, 2])


@given(st.lists(anything), layouts)
def test_arrays(document: list[object], indent: int | None) -> None:
    """Every element of an array, in order, however it is laid out."""
    assert list(elements(json.dumps(document, indent=indent))) == document


@given(st.dictionaries(st.text(), anything), layouts)
def test_objects(document: dict[str, object], indent: int | None) -> None:
    """Every pair of an object, in order."""
    assert dict(elements(json.dumps(document, indent=indent))) == document


def test_null_is_empty() -> None:
    """Go writes an empty array as null."""
    assert list(elements("null\n")) == []


@pytest.mark.parametrize("body", ["", "<html>", '"text"', "12", "[1, 2", '{"a": ', '{"a"}', "[1 2", "["])
def test_anything_else_is_refused(body: str) -> None:
    """What is no array or object, or breaks off, is an error and never a part of the truth."""
    with pytest.raises(ValueError):  # noqa: PT011 - json's own messages
        list(elements(body))


async def test_others_get_their_turn() -> None:
    """While 50 ms of work are done, another task runs many times."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def slow(number: int) -> int:
        time.sleep(SLICE / 5)
        return number

    task = asyncio.create_task(other())
    assert await in_slices(range(500), slow) == list(range(500))
    task.cancel()
    assert turns >= 50
