"""Containers that were told to stop: out of lookups at once, back if they outlive their grace period."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from registrator.model import Container
from registrator.stats import Stats

# Past its grace period a container is killed; this leaves time for that die event.
MARGIN = 0.5


class Drains:
    """The containers being drained; `revive(id)` is called for one that outlived its grace period."""

    def __init__(self, revive: Callable[[str], None], stats: Stats) -> None:
        self._revive = revive
        self._stats = stats
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def __contains__(self, container_id: object) -> bool:
        return container_id in self._timers

    def signalled(self, container: Container, number: int) -> bool:
        """A container got a signal: it is drained, as is returned, by its stop signal or SIGKILL."""
        drained = number in (container.stop_signal, signal.SIGKILL)
        if drained:
            self.end(container.id)
            delay = container.stop_timeout + MARGIN
            self._timers[container.id] = asyncio.get_running_loop().call_later(
                delay, self._outlived, container.id
            )
            self._stats.draining = len(self._timers)
            self._stats.drained += 1
        return drained

    def end(self, container_id: str) -> None:
        """The container died, or started anew."""
        timer = self._timers.pop(container_id, None)
        if timer is not None:
            timer.cancel()
            self._stats.draining = len(self._timers)

    def close(self) -> None:
        """Forget all of them."""
        for container_id in tuple(self._timers):
            self.end(container_id)

    def _outlived(self, container_id: str) -> None:
        self.end(container_id)
        self._revive(container_id)
