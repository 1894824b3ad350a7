"""One subscription to the engine's events, read on the loop as they come.

Not through the SDK: its stream blocks, so it would need a thread, and the
import alone takes 8 MiB and 40 ms of every start.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator

import aiohttp

from registrator import bodies
from registrator.engine.client import Client
from registrator.engine.endpoint import Endpoint
from registrator.engine.errors import Unreachable
from registrator.engine.parse import (
    CONTAINER_ACTIONS,
    NETWORK_ACTIONS,
    SERVICE_ACTIONS,
    parse_event,
)
from registrator.engine.slices import decoded
from registrator.limits import ENGINE_EVENT
from registrator.model import Event
from registrator.spoilt import Spoilt

# Matched by the engine itself, so that health checks' exec_* events never cross the socket. With a
# "health_status" among them an engine matches all of these as prefixes, else as whole words.
FILTERS = {
    "type": ["container", "network", "service"],
    "event": sorted(CONTAINER_ACTIONS | NETWORK_ACTIONS | SERVICE_ACTIONS),
}
SLICE = 16  # events in a row before others on the loop have their turn
LONGEST = ENGINE_EVENT.value  # octets of one event: it has all labels of its container
UNREADABLE = "unreadable"  # the action of an event that could not be read: it may have been about anything


class Subscription:
    """A stream of events since `since` (seconds of the engine's clock, inclusive).

    An engine answers before it subscribes, so the stream starts a little in the past.
    """

    def __init__(self, client: Client, endpoint: Endpoint, since: int, spoilt: Spoilt) -> None:
        self._client = client
        self._spoilt = spoilt
        self._endpoint = endpoint
        self._since = since
        self._response: aiohttp.ClientResponse | None = None

    async def events(self) -> AsyncGenerator[Event]:
        """Yield an empty event once subscribed, then each event; raise EngineError at the end.

        In the place of one that cannot be read comes one about everything.
        """
        params = {"since": str(self._since), "filters": json.dumps(FILTERS)}
        self._response = await self._client.stream("/events", params)
        try:
            yield Event()
            async with contextlib.aclosing(self._lines(self._response)) as lines:
                async for line in lines:
                    if event := await self._parsed(line):
                        yield event
        finally:
            self.close()
        raise Unreachable(
            f"the Docker engine at {self._endpoint} ended its event stream; is dockerd being restarted?"
        )

    def close(self) -> None:
        """End the stream, whoever reads it; never blocks."""
        if self._response is not None:
            self._response.close()

    async def _lines(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes | None]:
        """Each event is a line, None one that is too long. A stream that breaks off has ended."""
        line, too_long = bytearray(), False
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async for octets in bodies.pieces(response):
                *ends, rest = octets.split(b"\n")
                for number, end in enumerate(ends, 1):
                    line += end
                    yield None if too_long or len(line) > LONGEST else bytes(line)
                    line, too_long = bytearray(), False
                    if number % SLICE == 0:
                        await asyncio.sleep(0)
                line += rest
                if len(line) > LONGEST:
                    line, too_long = bytearray(), True

    async def _parsed(self, line: bytes | None) -> Event | None:
        if line is None:
            return self._unreadable("is too long", ENGINE_EVENT.name)
        if not line.strip():
            return None
        try:
            return parse_event(await decoded(line))
        except Exception as error:  # noqa: BLE001 - one bad event spoils itself
            return self._unreadable(f"{type(error).__name__}: {error}")

    def _unreadable(self, why: str, limit: str = "") -> Event:
        self._spoilt.count(limit)
        self._spoilt.left_out(
            f"/events of the Docker engine at {self._endpoint}", 1, f"{why}; all are compared"
        )
        return Event(action=UNREADABLE)
