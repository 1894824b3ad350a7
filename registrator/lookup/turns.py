"""Who may work next on the event loop: a few in each of its turns, one client after the other.

TCP's connections share it. However many of them have queries under way, or do
not read what they asked for, the loop comes back to UDP after a few replies,
and a client with one connection waits for one reply of each other client.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Turnstile:
    """Lets at most `each` through in a turn of the loop. For one event loop."""

    def __init__(self, each: int) -> None:
        self._each = self._left = each
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # client -> its own, the next client first
        self._turning = False

    async def enter(self, client: str) -> None:
        """Wait for a turn of this client's."""
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)
        if self._left and not self._waiting:
            self._left -= 1
            return
        mine = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(mine)
        await mine

    def _turn(self) -> None:
        """Begin another turn of the loop."""
        self._left = self._each
        while self._left and self._waiting:
            client, line = next(iter(self._waiting.items()))
            del self._waiting[client]
            waiter = line.popleft()
            while waiter.done() and line:  # one that was cancelled takes nobody's turn
                waiter = line.popleft()
            if line:
                self._waiting[client] = line
            if not waiter.done():
                waiter.set_result(None)
                self._left -= 1
        self._turning = self._left < self._each or bool(self._waiting)
        if self._turning:
            asyncio.get_running_loop().call_soon(self._turn)
