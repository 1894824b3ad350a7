"""One subscription to the engine's events: the SDK reads in a thread, the loop iterates.

The SDK's stream blocks, so it has a thread of its own. Between the two stands
an `Inbox` of bounded size. A thread that hangs in the SDK keeps its `slot`: at
most one exists for an engine, and as a daemon it never keeps the process alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

from registrator.engine.endpoint import Endpoint
from registrator.engine.errors import EngineError, Refused, Unreachable
from registrator.engine.parse import (
    CONTAINER_ACTIONS,
    NETWORK_ACTIONS,
    SERVICE_ACTIONS,
    parse_event,
)
from registrator.model import Event

LIMIT = 1024  # pending events; the engine's own memory is 256

# Matched by the engine itself, so that health checks' exec_* events never cross the socket. With a
# "health_status" among them an engine matches all of these as prefixes, else as whole words.
FILTERS = {
    "type": ["container", "network", "service"],
    "event": sorted(CONTAINER_ACTIONS | NETWORK_ACTIONS | SERVICE_ACTIONS),
}


class Inbox:
    """Events on their way from a thread to the loop, in order; on overflow one "look at everything"."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._pending: deque[Event] = deque()
        self._closed = False
        self._changed = asyncio.Event()

    def put(self, event: Event) -> None:
        """Add an event, from any thread."""
        with self._lock:
            if len(self._pending) >= LIMIT:
                self._pending.clear()
                self._pending.append(Event())
            self._pending.append(event)
            waiting = len(self._pending) == 1
        if waiting:
            self._wake()

    def close(self) -> None:
        """Let the reader end after what is pending; from any thread."""
        with self._lock:
            self._closed = True
        self._wake()

    async def get(self) -> Event | None:
        """The next event; None at the end."""
        while True:
            with self._lock:
                if self._pending:
                    return self._pending.popleft()
                if self._closed:
                    return None
                self._changed.clear()
            await self._changed.wait()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._changed.set)


class Subscription:
    """A stream of events since `since` (seconds of the engine's clock, inclusive).

    An engine answers before it subscribes, so the stream starts a little in the
    past. `slot` is a semaphore of one that the thread holds.
    """

    def __init__(self, endpoint: Endpoint, version: str, since: int, slot: asyncio.Semaphore) -> None:
        self._endpoint = endpoint
        self._version = version
        self._since = since
        self._slot = slot
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(self._loop)
        self._lock = threading.Lock()
        self._stream: Any = None
        self._closed = False
        self._failure: EngineError | None = None

    async def events(self, timeout: float) -> AsyncGenerator[Event]:
        """Yield an empty event once subscribed, then each event; raise EngineError at the end.

        Being subscribed must not take longer than `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._slot.acquire()
                threading.Thread(target=self._run, name="docker-events", daemon=True).start()
                event = await self._inbox.get()
            while event is not None:
                yield event
                event = await self._inbox.get()
        except TimeoutError:
            raise Unreachable(
                f"the Docker engine at {self._endpoint} gave no events in {timeout:g} s; look at its log"
            ) from None
        finally:
            self.close()
        raise self._failure or Unreachable(
            f"the Docker engine at {self._endpoint} ended its event stream; is dockerd being restarted?"
        )

    def close(self) -> None:
        """End the stream, and with it the thread; never blocks."""
        with self._lock:
            self._closed = True
            # The SDK looks for the socket in a response that may just be ending by itself.
            with contextlib.suppress(OSError, AttributeError):
                if self._stream is not None:
                    self._stream.close()

    def _run(self) -> None:
        """The thread's whole life."""
        try:
            self._read()
        except EngineError as error:
            self._failure = error
        except Exception as error:  # noqa: BLE001 - requests, urllib3 and the SDK share no base
            self._failure = Unreachable(
                f"the event stream of the Docker engine at {self._endpoint} broke ({type(error).__name__}); "
                "look at its log"
            )
        finally:
            self._inbox.close()
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for the slot
                self._loop.call_soon_threadsafe(self._slot.release)

    def _read(self) -> None:
        from docker.api import APIClient  # noqa: PLC0415 - imported beside the loop's first requests, not before

        api = APIClient(self._endpoint.url, self._version, tls=self._endpoint.tls or False)
        api.trust_env = False  # HTTP_PROXY is not for the engine
        api.hooks["response"].append(self._check)
        try:
            stream = api.events(decode=True, since=self._since, filters=FILTERS)
            with self._lock:
                self._stream = stream
            if self._closed:
                self.close()
            self._inbox.put(Event())
            for document in stream:
                if event := parse_event(document):
                    self._inbox.put(event)
        finally:
            api.close()

    def _check(self, response: Any, **_: object) -> None:  # noqa: ANN401 - requests' types are not ours to name
        """Requests' own hook: the SDK itself looks at the status only when it reads the first event."""
        if response.status_code != 200:
            raise Refused(self._endpoint, "/events", response.status_code, response.text)
