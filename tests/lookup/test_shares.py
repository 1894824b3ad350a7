"""Places shared by those who ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from registrator.lookup.shares import Asker, Crowded, Shares, asker_of, origin_of

A, B, C = (Asker(known=True, origin=name) for name in "abc")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("fd00::1", "fd00::ffff:1", True),
        ("fd00::1", "fd00:0:0:1::1", False),
        ("2001:db8::1", "2001:db8::2", True),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("", "no address", True),
    ],
)
def test_what_one_host_may_use_is_one_asker(one: str, other: str, *, same: bool) -> None:
    assert (origin_of(one) == origin_of(other)) is same
    assert (asker_of(one, known=False) == asker_of(other, known=False)) is same


def test_containers_and_the_node_itself_are_known() -> None:
    """Each container by its address: two on one network have different ones."""
    assert asker_of("fd00::1", known=True) != asker_of("fd00::2", known=True)
    for source, known in (("127.0.0.1", True), ("::1", True), ("10.0.0.1", False), ("1270.0.0.1", False)):
        assert asker_of(source, known=False).known is known


@asynccontextmanager
async def holding(shares: Shares, *askers: Asker) -> AsyncIterator[list[asyncio.Task[str]]]:
    """A task for each that holds a place; it says when it has lost it."""

    async def hold(asker: Asker) -> str:
        try:
            async with shares.place(asker):
                await asyncio.Event().wait()
        except Crowded:
            return "lost"
        raise AssertionError

    tasks = [asyncio.create_task(hold(asker)) for asker in askers]
    for _ in range(3):
        await asyncio.sleep(0)
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_asker_may_have_all_that_nobody_else_wants() -> None:
    refused: list[None] = []
    async with holding(Shares(3, lambda: refused.append(None)), A, A, A, A) as tasks:
        assert [task.done() for task in tasks] == [False, False, False, True]
        assert len(refused) == 1


async def test_the_oldest_place_of_who_has_most_goes_to_who_has_less() -> None:
    async with holding(Shares(4), B, A, A, A, C) as tasks:
        await settled()
        assert [task.done() for task in tasks] == [False, True, False, False, False]
        assert tasks[1].result() == "lost"


async def test_equals_take_nothing_from_one_another() -> None:
    async with holding(Shares(4), A, A, B, B, A, B) as tasks:
        await settled()
        assert [task.done() for task in tasks] == [False] * 4 + [True] * 2


async def test_the_two_kinds_have_places_of_their_own() -> None:
    strangers = [asker_of(f"10.0.0.{number}", known=False) for number in range(100)]
    shares = Shares(2)
    async with holding(shares, A, B) as tasks, holding(shares, *strangers):
        await settled()
        assert not any(task.done() for task in tasks)
        assert len(shares) == 4


async def test_places_are_given_back_however_the_work_ends() -> None:
    """Done, failed, too late by a time limit of its own, cancelled, or lost: the count is right."""
    shares = Shares(2)
    async with shares.place(A):
        pass
    with pytest.raises(ZeroDivisionError):
        async with shares.place(A):
            raise ZeroDivisionError
    with pytest.raises(TimeoutError):
        async with shares.place(A), asyncio.timeout(0):
            await asyncio.Event().wait()
    async with holding(shares, A, A, B):
        await settled()
        assert len(shares) == 2
    assert len(shares) == 0
