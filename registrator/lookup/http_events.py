"""`/events`: what changes, as it changes, as server-sent events (HTML Living Standard, 9.2).

Two kinds. `change`: what this agent did and why, in words, from its journal;
its id is the journal's, so that a reader who was away goes on where it was
(Last-Event-ID). `services`: the names whose instances are others now, wherever
that came from, for those who keep a picture of the whole catalog.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import asdict

from aiohttp import web

from registrator import limits
from registrator.journal import Change, Journal
from registrator.lookup.http_gate import client
from registrator.lookup.http_places import NoPlace, Places
from registrator.lookup.http_reads import Reads
from registrator.lookup.http_reply import HEADERS, RETRY, Unserved
from registrator.model import Snapshot

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_READERS, MAX_OF_CLIENT = limits.HTTP_STREAMS.value, limits.HTTP_CLIENT_STREAMS.value
HEARTBEAT = 15.0  # seconds: proxies cut what is silent for longer, and the dead are found by it
SLOWEST = 10.0  # seconds that a reader may take for what it is sent


class EventRoutes:
    """Streams for readers, a bounded number of them."""

    def __init__(self, reads: Reads, journal: Journal, heartbeat: float = HEARTBEAT) -> None:
        self._reads = reads
        self._journal = journal
        self._heartbeat = heartbeat
        self._streams: Places[asyncio.Task[None]] = Places(MAX_READERS, MAX_OF_CLIENT)
        self._names: tuple[Snapshot | None, Snapshot | None, str] = (None, None, "")

    def routes(self) -> dict[str, Handler]:
        """Paths and their handlers."""
        return {"/events": self._events}

    def close(self) -> None:
        """End all streams; readers come back by themselves."""
        for stream in self._streams.holders():
            stream.cancel()

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """A stream that ends when the reader goes, is too slow, or the server closes."""
        if self._reads.closing:
            raise Unserved(503, "the agent is about to end", RETRY)
        who, number = client(), _resume(request)
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream"})
        stream = asyncio.ensure_future(self._stream(request, response, number))
        try:
            self._make_room(who, stream)
            await stream
        except (asyncio.CancelledError, TimeoutError, ConnectionError):
            handler = asyncio.current_task()
            if not response.prepared or (handler and handler.cancelling()):
                raise
        finally:
            stream.cancel()
            self._streams.leave(who, stream)
        return response

    def _make_room(self, who: str, stream: asyncio.Task[None]) -> None:
        """Give a stream a place, for which another may have to end. Raises Unserved."""
        try:
            loser = self._streams.take(who, stream)
        except NoPlace as full:
            limit = limits.HTTP_CLIENT_STREAMS if full.own else limits.HTTP_STREAMS
            self._reads.stats.limited[limit.name] += 1
            raise Unserved(503, "too many readers of /events are there; close some", RETRY) from None
        if loser is not None:
            self._reads.stats.limited[limits.HTTP_STREAMS.name] += 1
            loser.cancel()

    async def _stream(self, request: web.Request, response: web.StreamResponse, number: int) -> None:
        seen = self._reads.directory.snapshot
        await response.prepare(request)
        if request.method == "HEAD":
            return
        await _send(response, "retry: 1000\n\n")
        while True:
            for change in self._journal.since(number):
                number = change.number
                await _send(response, _change(change))
            latest = await self._either(number, seen)
            names = self._changed(seen, latest) if latest is not seen else ""
            seen = latest
            if names:
                await _send(response, names)
            elif not self._journal.since(number):
                await _send(response, ": still here\n\n")

    def _changed(self, seen: Snapshot | None, latest: Snapshot | None) -> str:
        """The event that names what changed: made once, since most readers have seen the same."""
        if self._names[0] is not seen or self._names[1] is not latest:
            names = sorted(changed_services(seen, latest))
            event = f"event: services\ndata: {json.dumps(names)}\n\n" if names else ""
            self._names = (seen, latest, event)
        return self._names[2]

    async def _either(self, number: int, seen: Snapshot | None) -> Snapshot | None:
        """Wait for a change in the journal or another snapshot; returns the latest snapshot."""
        waits: Iterable[asyncio.Task[object]] = (
            asyncio.ensure_future(self._journal.wait(number, self._heartbeat)),
            asyncio.ensure_future(self._reads.changed(seen, self._heartbeat)),
        )
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
                with suppress(asyncio.CancelledError):
                    await wait
        return self._reads.directory.snapshot


def changed_services(old: Snapshot | None, new: Snapshot | None) -> set[str]:
    """The services (lower-cased) of which two snapshots show something different."""
    if old is None or new is None:
        return set((new or old).names) if (new or old) else set()  # type: ignore[union-attr]
    changed = old.names.keys() ^ new.names.keys()
    if old.nodes != new.nodes:
        changed |= new.names.keys()
    loaded = old.services.keys() & new.services.keys()
    return changed | {name for name in loaded if old.services[name] is not new.services[name]}


def _resume(request: web.Request) -> int:
    """The number of the last change that the reader has seen; 0 for one who wants all that is known."""
    text = request.headers.get("Last-Event-ID") or request.query.get("since", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise Unserved(400, "Last-Event-ID and ?since= take the id of an event")
    return int(text)


def _change(change: Change) -> str:
    return f"id: {change.number}\nevent: change\ndata: {json.dumps(asdict(change))}\n\n"


async def _send(response: web.StreamResponse, text: str) -> None:
    async with asyncio.timeout(SLOWEST):
        await response.write(text.encode())
