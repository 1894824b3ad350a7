"""How long work in a thread leaves the event loop its turns: Python's threads share one lock.

A thread that computes gives that lock away only every five milliseconds; a loop
that reads and sends packets loses it with each of them. So long work rests
after each slice of its own accord.
"""

from __future__ import annotations

import time

SLICE = 0.00025  # seconds of work
REST = 0.00025  # seconds at least in which the others have the lock


class Pace:
    """Called again and again by work in a thread, it rests whenever a slice is over."""

    def __init__(self) -> None:
        self._until = time.perf_counter() + SLICE

    def __call__(self) -> None:
        """Rest, if it is time."""
        if time.perf_counter() > self._until:
            time.sleep(REST)
            self._until = time.perf_counter() + SLICE
