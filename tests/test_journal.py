"""The journal of changes: bounded, numbered, awaited."""

from __future__ import annotations

import asyncio

from registrator.journal import HEALTH, KEPT, REGISTERED, Journal


async def test_a_reader_gets_what_came_after_the_number_that_it_knows() -> None:
    journal = Journal()
    journal.add(REGISTERED, "one", service="web", instance="web-1", container="c1")
    (first,) = journal.since(0)
    assert (first.kind, first.text, first.service, first.instance, first.container) == (
        "registered",
        "one",
        "web",
        "web-1",
        "c1",
    )
    journal.add(HEALTH, "two")
    assert [change.text for change in journal.since(first.number)] == ["two"]
    assert journal.since(first.number + 1) == ()


async def test_the_oldest_fall_out() -> None:
    journal = Journal()
    for number in range(KEPT + 5):
        journal.add(REGISTERED, str(number))
    changes = journal.since(0)
    assert (len(changes), changes[0].text) == (KEPT, "5")


async def test_a_wait_ends_with_the_next_change_and_with_its_time() -> None:
    journal = Journal()
    assert await journal.wait(0, 0.01) == ()
    waiting = asyncio.create_task(journal.wait(0, 60))
    await asyncio.sleep(0)
    journal.add(REGISTERED, "now")
    (change,) = await asyncio.wait_for(waiting, 5)
    assert change.text == "now"
    assert await journal.wait(change.number - 1, 60) == (change,), "what is known already is not waited for"


async def test_numbers_go_on_growing_in_the_agents_next_life() -> None:
    journal = Journal()
    journal.add(REGISTERED, "before")
    (last,) = journal.since(0)
    await asyncio.sleep(0.002)  # a life is longer than its changes are many: one a millisecond
    assert Journal().since(last.number) == ()
    after = Journal()
    after.add(REGISTERED, "after")
    assert [change.text for change in after.since(last.number)] == ["after"]
