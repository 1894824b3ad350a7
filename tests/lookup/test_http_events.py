"""`/events`: what changes, as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from registrator.journal import REGISTERED, Journal
from registrator.lookup import http_events
from registrator.lookup.http_events import changed_services
from registrator.model import CRITICAL, Node
from tests.lookup.fakes import FakeDirectory, entry, snapshot_of
from tests.lookup.web import Web, serve

SNAPSHOT = snapshot_of(entry("redis"), entry("web"))


class Reader:
    """An open stream, read event by event."""

    def __init__(self, response: Any) -> None:
        self.response = response

    async def next(self) -> dict[str, str]:
        """The next event's fields; a comment is a field without a name."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(5):
            while line := (await self.response.content.readline()).decode().rstrip("\n"):
                name, _, value = line.partition(": ")
                fields[name] = value
        return fields

    async def event(self) -> dict[str, str]:
        """The next event, past comments and the preamble."""
        while "event" not in (fields := await self.next()):
            pass
        return fields


@asynccontextmanager
async def reading(web: Web, path: str = "/events", **headers: str) -> AsyncIterator[Reader]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with web.client.get(web.url + path, headers=names) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        yield Reader(response)


async def test_a_change_in_the_journal_is_told_in_words_at_once() -> None:
    journal = Journal()
    journal.add(REGISTERED, "earlier")
    async with serve(FakeDirectory(SNAPSHOT), journal=journal) as web, reading(web) as reader:
        assert json.loads((await reader.event())["data"])["text"] == "earlier"
        journal.add(REGISTERED, "registered\nweb", service="web", instance="web-1", container="c1")
        event = await reader.event()
    data = json.loads(event["data"])
    assert event["event"] == "change"
    assert event["id"] == str(data["number"])
    assert (data["kind"], data["text"], data["instance"]) == ("registered", "registered\nweb", "web-1")


async def test_a_reader_who_was_away_goes_on_where_it_was() -> None:
    journal = Journal()
    for text in ("one", "two", "three"):
        journal.add(REGISTERED, text)
    second = str(journal.since(0)[1].number)
    async with serve(FakeDirectory(SNAPSHOT), journal=journal) as web:
        async with reading(web, Last_Event_ID=second) as reader:
            assert json.loads((await reader.event())["data"])["text"] == "three"
        async with reading(web, f"/events?since={second}") as reader:
            assert json.loads((await reader.event())["data"])["text"] == "three"


@pytest.mark.parametrize("number", ["x", "-1", "9" * 30, "²"])
async def test_an_id_that_is_none_is_refused(number: str) -> None:
    async with serve(FakeDirectory(SNAPSHOT)) as web:
        assert (await web.get("/events", params={"since": number})).status == 400


async def test_the_services_that_changed_are_named_whoever_changed_them() -> None:
    directory = FakeDirectory(SNAPSHOT)
    async with serve(directory) as web, reading(web) as reader:
        await reader.next()  # the preamble: it is listening now
        services = {**SNAPSHOT.services, **snapshot_of(entry("web", status=CRITICAL)).services}
        directory.publish(replace(SNAPSHOT, services=services))
        event = await reader.event()
    assert (event["event"], json.loads(event["data"])) == ("services", ["web"])


async def test_a_silent_stream_has_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_events.EventRoutes.__init__, "__defaults__", (0.01,))
    async with serve(FakeDirectory(SNAPSHOT)) as web, reading(web) as reader:
        await reader.next()
        assert await reader.next() == {"": "still here"}


async def test_readers_are_bounded_and_their_places_come_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_events, "MAX_READERS", 1)
    async with serve(FakeDirectory(SNAPSHOT)) as web:
        async with reading(web) as reader:
            await reader.next()
            refused = await web.get("/events")
            assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        async with asyncio.timeout(5):
            while (await web.ask("HEAD", "/events")).status != 200:
                await asyncio.sleep(0.01)


async def test_the_servers_end_ends_the_streams() -> None:
    async with serve(FakeDirectory(SNAPSHOT)) as web, reading(web) as reader:
        await reader.next()
        await asyncio.wait_for(web.server.close(), 1)
        assert await reader.next() == {}


def test_what_two_snapshots_show_differently() -> None:
    more = snapshot_of(entry("redis"), entry("web"), entry("new"))
    assert changed_services(SNAPSHOT, SNAPSHOT) == set()
    assert changed_services(None, SNAPSHOT) == {"redis", "web"}
    assert changed_services(SNAPSHOT, replace(SNAPSHOT, names={"web": ()})) == {"redis"}
    assert changed_services(SNAPSHOT, replace(more, services=SNAPSHOT.services)) == {"new"}
    moved = replace(SNAPSHOT, nodes={"n1": Node("n1", "192.0.2.9")})
    assert changed_services(SNAPSHOT, moved) == {"redis", "web"}
    unloaded = replace(SNAPSHOT, services={})
    assert changed_services(SNAPSHOT, unloaded) == set(), "to leave memory is no change"
