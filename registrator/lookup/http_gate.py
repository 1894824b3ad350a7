"""Which request renders its reply next: few at a time, the clients in turn.

A request takes its `Turn` when it begins to render (`in_slices` does so), after
all that it had to wait for, and gives it back when its reply is complete. What
clients have not taken of their replies counts too: who does not read is given
no further reply, and where all together hold too much, nobody is: then the
client with most of them loses one (`Floor` sees to it).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from time import perf_counter
from typing import TypeVar

from registrator import limits
from registrator.lookup.http_reply import RETRY, Unserved
from registrator.stats import Stats

T = TypeVar("T")
R = TypeVar("R")

RENDERS = limits.HTTP_RENDERS.value
# Seconds of rendering before the loop has its turn, which all together give it after half a millisecond;
# a thread would hold the interpreter's lock.
SLICE = 0.0005 / RENDERS
UNSENT, CLIENT_UNSENT = limits.HTTP_UNSENT.value, limits.HTTP_CLIENT_UNSENT.value
REPLY = limits.HTTP_REPLY.value  # characters
PATIENCE = float(limits.HTTP_QUEUE_TIME.value)  # seconds


class Gate:
    """Lets requests render."""

    def __init__(self, stats: Stats) -> None:
        self.stats = stats
        self._rendering = 0
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}  # by client, whose turn it is first
        self._unsent: Counter[str] = Counter()  # octets, by client
        self._all_unsent = 0

    async def enter(self, client: str) -> None:
        """Wait for a turn. Raises Unserved when none comes; else `leave` has to be called."""
        turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(client, deque()).append(turn)
        self._admit()  # who waits for its own replies to be taken holds up nobody else
        if turn.done():
            return
        try:
            async with asyncio.timeout(PATIENCE):
                await turn
        except TimeoutError:
            self._give_up(client, turn)
            self.stats.limited[limits.HTTP_QUEUE_TIME.name] += 1
            raise Unserved(503, "too many costly requests at a time; try again in a second", RETRY) from None
        except asyncio.CancelledError:
            self._give_up(client, turn)
            raise

    def leave(self) -> None:
        """Give a turn back: to the next, as soon as this reply counts as not taken (see `sending`)."""
        self._rendering -= 1
        asyncio.get_running_loop().call_soon(self._admit)

    @contextlib.contextmanager
    def sending(self, client: str, octets: int) -> Iterator[None]:
        """Count a reply as not taken yet."""
        self._unsent[client] += octets
        self._all_unsent += octets
        try:
            yield
        finally:
            self._all_unsent -= octets
            self._unsent[client] -= octets
            if not self._unsent[client]:
                del self._unsent[client]
            self._admit()

    def hoarder(self) -> str:
        """The client with the most of the replies for which another one has to wait; "" where none does."""
        if self._all_unsent < UNSENT or not self._queues:
            return ""
        most = max(self._unsent, key=self._unsent.__getitem__)
        least = min(self._unsent[client] for client in self._queues)
        return most if least < self._unsent[most] else ""

    def _may_enter(self, client: str) -> bool:
        return (
            self._rendering < RENDERS and self._all_unsent < UNSENT and self._unsent[client] < CLIENT_UNSENT
        )

    def _admit(self) -> None:
        """Give turns to those who may have one, one client after the other."""
        for client in [client for client in self._queues if self._may_enter(client)]:
            if not self._may_enter(client):
                break
            queue = self._queues.pop(client)
            turn = queue.popleft()
            if queue:
                self._queues[client] = queue  # behind the others
            if not turn.done():  # else it has been given up this moment
                turn.set_result(None)
                self._rendering += 1

    def _give_up(self, client: str, turn: asyncio.Future[None]) -> None:
        """Take a waiting turn out of its queue; one that was just given is given back."""
        if not turn.cancelled():
            self.leave()
            return
        queue = self._queues.get(client, deque())
        with contextlib.suppress(ValueError):
            queue.remove(turn)
        if not queue:
            self._queues.pop(client, None)
        self._admit()


class Turn:
    """One request's turn at a gate, taken at most once."""

    def __init__(self, gate: Gate, client: str) -> None:
        self.gate, self.client = gate, client
        self._taken = False

    async def take(self) -> None:
        """Wait for the turn, unless it is taken already. Raises Unserved."""
        if not self._taken:
            await self.gate.enter(self.client)
            self._taken = True

    def end(self) -> None:
        """Give it back, if it was taken: as soon as the reply counts as not taken yet."""
        if self._taken:
            self._taken = False
            asyncio.get_running_loop().call_soon(self.gate.leave)


TURN: ContextVar[Turn | None] = ContextVar("turn", default=None)  # of the request that is being handled


def client() -> str:
    """Whose request is being handled; "" outside of one."""
    turn = TURN.get()
    return turn.client if turn else ""


async def take_turn() -> None:
    """Wait until the request that is being handled may render its reply. Raises Unserved."""
    if turn := TURN.get():
        await turn.take()


def _too_long() -> Unserved:
    if turn := TURN.get():
        turn.gate.stats.limited[limits.HTTP_REPLY.name] += 1
    return Unserved(503, f"the reply would be longer than {REPLY} characters; ask for less, with ?filter=")


async def in_slices(render: Callable[[T], R | None], items: Iterable[T]) -> list[R]:
    """Render every item, without the Nones, when it is this request's turn. Raises Unserved.

    The loop has its own turn in between. Texts are together as long as a reply may be.
    """
    await take_turn()
    rendered: list[R] = []
    left = REPLY
    slice_ends = perf_counter() + SLICE
    for item in items:
        if (one := render(item)) is not None:
            rendered.append(one)
            if isinstance(one, str) and (left := left - len(one)) < 0:
                raise _too_long()
        if perf_counter() > slice_ends:
            await asyncio.sleep(0)
            slice_ends = perf_counter() + SLICE
    return rendered
