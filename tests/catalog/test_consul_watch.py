"""The rules of blocking queries and of contact, against answers made up for the purpose."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from registrator.catalog import CatalogError, Refused, Unavailable
from registrator.catalog.consul import watch as module
from registrator.catalog.consul.watch import Contact, Disturbances, Watch, follow

Answer = tuple[int, str] | CatalogError


class Script:
    """Answers a blocking query from a list, notes what was asked, and then is silent."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.asked: list[int] = []
        self.over = asyncio.Event()

    async def __call__(self, index: int) -> tuple[int, str]:
        self.asked.append(index)
        if not self._answers:
            self.over.set()
            await asyncio.Event().wait()
        answer = self._answers.pop(0)
        if isinstance(answer, CatalogError):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between tries."""
    for name in ("FIRST_BACKOFF", "MAX_BACKOFF", "MAX_BACKOFF_REFUSED", "PAUSE"):
        monkeypatch.setattr(module, name, 0.0001)


async def play(script: Script, disturbances: Disturbances | None = None) -> list[str]:
    """Follow the script to its end and return what was news."""
    watch: Watch[str] = Watch(script)
    news: list[str] = []
    contact = Contact(disturbances or Disturbances())
    task = asyncio.create_task(follow(watch, contact, lambda: news.append(watch.data or "")))
    async with asyncio.timeout(5):
        await script.over.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return news


down = Unavailable("down")
ROWS: list[tuple[str, list[Answer], list[int], list[str]]] = [
    # what it shows, what Consul answers, the indexes asked for, what is news
    ("a new index with new data is news", [(5, "a"), (7, "b")], [0, 5, 7], ["a", "b"]),
    ("the same index is the end of a wait", [(5, "a"), (5, "a")], [0, 5, 5], ["a"]),
    ("equal data are no news", [(5, "a"), (6, "a"), (7, "b")], [0, 5, 6, 7], ["a", "b"]),
    ("a lower index starts again from 0", [(5, "a"), (3, "b"), (3, "b")], [0, 5, 0, 3], ["a", "b"]),
    ("a failure starts again from 0", [(5, "a"), down, (5, "a")], [0, 5, 0, 5], ["a"]),
    ("failures do not end it", [*[down] * 25, (5, "a")], [*[0] * 26, 5], ["a"]),
    ("a refusal does not end it", [Refused("no"), (5, "a")], [0, 0, 5], ["a"]),
]


@pytest.mark.parametrize(("answers", "asked", "news"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS])
async def test_rules(answers: list[Answer], asked: list[int], news: list[str]) -> None:
    """What is asked next and what is news, row by row."""
    script = Script(*answers)
    assert await play(script) == news
    assert script.asked == asked


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([(5, "a"), (6, "b")], ""),
        ([(5, "a"), (3, "b")], "went backwards"),
        ([(5, "a"), down, (3, "b")], "went backwards"),
        ([(5, "a"), down, (5, "a")], "answers again"),
        ([down, (5, "a")], "answers again"),
    ],
)
async def test_disturbances(answers: list[Answer], reason: str) -> None:
    """A return and a lower index are reasons to reconcile; a change is none."""
    disturbances = Disturbances()
    await play(Script(*answers), disturbances)
    first: Callable[[], Awaitable[str]] = disturbances.reasons().__anext__
    if reason:
        assert reason in await asyncio.wait_for(first(), 1)
    else:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(first(), 0.05)


async def test_failures_are_logged_first_and_then_every_tenth(caplog: pytest.LogCaptureFixture) -> None:
    """25 failures in a row are three lines."""
    caplog.set_level(logging.WARNING)
    await play(Script(*[down] * 25, (5, "a")))
    assert [record.getMessage()[:13] for record in caplog.records] == [
        "down (try 1; ",
        "down (try 11;",
        "down (try 21;",
    ]


async def test_contact_is_there_when_all_have_it() -> None:
    """Lost by two, it is back with the second; age is 0 then and grows before."""
    contact = Contact(Disturbances())
    contact.lose("names")
    contact.lose("nodes")
    await asyncio.sleep(0.01)
    contact.regain("names")
    assert contact.age > 0.005
    assert not contact.there.is_set()
    contact.regain("nodes")
    assert contact.age == 0
    assert contact.there.is_set()


async def test_untaken_reasons_are_one() -> None:
    """A bridge that was busy is told once, with the latest reason."""
    disturbances = Disturbances()
    disturbances.report("first")
    disturbances.report("second")
    reasons = disturbances.reasons()
    assert await anext(reasons) == "second"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(reasons), 0.02)
