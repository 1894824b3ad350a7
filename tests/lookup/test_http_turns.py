"""No request holds up the event loop: of 1,000 instances each tells in short slices, so that DNS goes on."""

from __future__ import annotations

import asyncio
import gc
import selectors
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from aiohttp import ClientSession

from registrator.lookup.openapi import ROUTES
from registrator.model import CRITICAL, PASSING, Address, Entry, Node, Snapshot
from tests.lookup.fakes import entry, snapshot_of
from tests.page.served import Served, served

INSTANCES, NODES = 1000, 50
LONGEST = 0.003  # seconds of CPU: the slices are of half a millisecond, the rest is for a slow machine
TRIES = 3  # of which the best counts: the garbage collector, and whoever else is there, are no slices of ours
PATHS = [path.replace("{name}", "{}") for path in ROUTES if path != "/events"]  # which has no end
QUESTIONS = [
    *(
        path.format("any" if "/state/" in path else "node-01" if "/node/" in path else "web")
        for path in PATHS
    ),
    "/lookup/web?format=text",
    "/lookup/web?tag=blue",
    "/lookup/web/one?near=node-49",
    "/explain/web?from=shop",
    "/explain/web-nobody",  # which is like each of many names
    "/explain/blue.web.service.consul?from=shop",
    "/v1/health/service/web?passing&tag=blue&near=node-49",
    "/v1/health/service/web?filter=Checks.Status+==+critical+and+Service.Tags+contains+blue",
    "/v1/health/state/critical?near=node-49",
    "/v1/health/node/node-01?filter=Status+==+critical",
]


class _Turns(selectors.DefaultSelector):
    """Knows the longest work, in CPU seconds of its thread, between two looks at the sockets."""

    longest = 0.0
    _since = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.longest = max(self.longest, time.thread_time() - self._since)
        events = super().select(timeout)
        self._since = time.thread_time()
        return events


def crowd(number: int, service: str) -> Entry:
    """One of the instances, as an agent registers it: on a network, with tags, Meta and checks."""
    ip = f"10.0.{number // 250}.{number % 250 + 1}"
    return entry(
        service,
        number,
        node=Node(f"node-{number % NODES:02}", f"192.0.2.{number % NODES + 1}"),
        status=CRITICAL if number % 3 == 0 else PASSING,
        tags=("blue", "v2"),
        meta={"registrator-owner": "engine", "team": "data"},
        address=ip,
        addresses=(Address("webnet", "id1", ip, 80), Address("published", "", "192.0.2.1", 32768)),
    )


ONE_NAME = snapshot_of(*(crowd(number, "web") for number in range(INSTANCES)))
MANY_NAMES = snapshot_of(crowd(1, "web"), *(crowd(n, f"web-{n}") for n in range(2, INSTANCES + 1)))


@contextmanager
def timed(snapshot: Snapshot) -> Iterator[tuple[Served, _Turns]]:
    """A front over a snapshot, and the turns of its loop. What tests before left is no garbage of ours."""
    turns = _Turns()
    gc.collect()
    gc.freeze()
    try:
        with served(snapshot, loop=asyncio.SelectorEventLoop(turns), shop="id1") as front:
            yield front, turns
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("snapshot", [ONE_NAME, MANY_NAMES], ids=["one name", "many names"])
async def test_no_answer_about_1000_instances_is_made_in_one_long_turn(snapshot: Snapshot) -> None:
    longest: dict[str, float] = {}
    with timed(snapshot) as (front, turns):
        async with ClientSession() as client:
            for question in QUESTIONS:
                tries = []
                for _ in range(TRIES):
                    front.do(lambda: setattr(turns, "longest", 0.0))
                    async with client.get(front.url + question) as response:
                        assert response.status == (404 if "nobody" in question else 200), (
                            await response.text()
                        )
                        await response.read()
                    tries.append(front.do(lambda: turns.longest))
                longest[question] = min(tries)
    print({question: f"{1000 * turn:.2f} ms" for question, turn in longest.items()})  # noqa: T201
    assert {question: turn for question, turn in longest.items() if turn > LONGEST} == {}
