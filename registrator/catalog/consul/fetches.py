"""Requests under way, by what they are for: who wants the same waits for the same one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from registrator.catalog import CatalogError, Unavailable

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
Outcome = CatalogError | None  # returned by tasks, for in a task group raising it would end all
Spawn = Callable[[Coroutine[Any, Any, Outcome]], "asyncio.Task[Outcome]"]


class Fetches(Generic[K]):
    """Work on its way. `spawn` starts a task that its owner ends, or raises Unavailable."""

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn
        self._underway: dict[K, tuple[asyncio.Task[Outcome], float]] = {}

    def __len__(self) -> int:
        return len(self._underway)

    def __contains__(self, key: object) -> bool:
        return key in self._underway

    async def join(self, key: K, work: Callable[[], Awaitable[None]], patience: float | None = None) -> None:
        """Have the work done, by whoever began it; raises the CatalogError by which it failed.

        Returns without it `patience` seconds after it began; then it goes on
        in the background, as it does when one who waits for it gives up.
        """
        if key not in self._underway:
            self._underway[key] = self._spawn(self._run(key, work)), time.monotonic()
        task, began = self._underway[key]
        if patience is not None:
            patience = max(0.0, began + patience - time.monotonic())
        await asyncio.wait((task,), timeout=patience)
        if task.done() and not task.cancelled() and (error := task.result()):
            raise error

    async def _run(self, key: K, work: Callable[[], Awaitable[None]]) -> Outcome:
        try:
            await work()
        except CatalogError as error:
            return error
        except Exception:  # it spoils this request, not all that its task group runs
            log.exception("a request to Consul failed in a way that nobody foresaw")
            return Unavailable("the request failed by a fault of this program; its log has more")
        finally:
            del self._underway[key]
        return None
