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

from registrator.engine.client import Client
from registrator.engine.endpoint import Endpoint
from registrator.engine.errors import Unreachable, not_an_engine
from registrator.engine.parse import (
    CONTAINER_ACTIONS,
    NETWORK_ACTIONS,
    SERVICE_ACTIONS,
    parse_event,
)
from registrator.engine.slices import decoded
from registrator.model import Event

# Matched by the engine itself, so that health checks' exec_* events never cross the socket. With a
# "health_status" among them an engine matches all of these as prefixes, else as whole words.
FILTERS = {
    "type": ["container", "network", "service"],
    "event": sorted(CONTAINER_ACTIONS | NETWORK_ACTIONS | SERVICE_ACTIONS),
}
SLICE = 16  # events in a row before others on the loop have their turn
LONGEST = 2**24  # octets of one event: it has all labels of its container


class Subscription:
    """A stream of events since `since` (seconds of the engine's clock, inclusive).

    An engine answers before it subscribes, so the stream starts a little in the past.
    """

    def __init__(self, client: Client, endpoint: Endpoint, since: int) -> None:
        self._client = client
        self._endpoint = endpoint
        self._since = since
        self._response: aiohttp.ClientResponse | None = None

    async def events(self) -> AsyncGenerator[Event]:
        """Yield an empty event once subscribed, then each event; raise EngineError at the end."""
        params = {"since": str(self._since), "filters": json.dumps(FILTERS)}
        self._response = await self._client.stream("/events", params)
        try:
            yield Event()
            async with contextlib.aclosing(self._lines(self._response.content)) as lines:
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

    async def _lines(self, content: aiohttp.StreamReader) -> AsyncGenerator[bytes]:
        """Each event is a line. A stream that breaks off has ended."""
        rest = b""
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async for octets in content.iter_any():
                *lines, rest = (rest + octets).split(b"\n")
                for number, line in enumerate(lines, 1):
                    yield line
                    if number % SLICE == 0:
                        await asyncio.sleep(0)
                if len(rest) > LONGEST:
                    raise not_an_engine(self._endpoint, "an event of its stream has no end")

    async def _parsed(self, line: bytes) -> Event | None:
        try:
            return parse_event(await decoded(line.decode())) if line.strip() else None
        except (ValueError, RecursionError):
            raise not_an_engine(self._endpoint, "an event of its stream is no JSON") from None
