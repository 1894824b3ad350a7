"""An event loop that counts its own long turns: work beyond 1 ms holds up every lookup meanwhile."""

from __future__ import annotations

import asyncio
import selectors
from time import perf_counter

from registrator.stats import Stats

LONG_TURN = 0.001  # seconds


def measured_loop(stats: Stats) -> asyncio.SelectorEventLoop:
    """A loop whose turns (all that runs between two looks at its sockets) are counted when they are long."""
    return asyncio.SelectorEventLoop(_TimedSelector(stats))


class _TimedSelector(selectors.DefaultSelector):
    """The platform's selector, which knows when the loop comes to it and when it leaves."""

    def __init__(self, stats: Stats) -> None:
        super().__init__()
        self._stats = stats
        self._left_at = perf_counter()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events; the time since the last wait was over is one turn's work."""
        turn = perf_counter() - self._left_at
        if turn > LONG_TURN:
            self._stats.long_turns += 1
            self._stats.longest_turn = max(self._stats.longest_turn, turn)
        events = super().select(timeout)
        self._left_at = perf_counter()
        return events
