"""Whose turn it is where many containers' checks are due and only so many may run at once: pure.

A container has at most `CHECKS_AT_ONCE_OF_CONTAINER` under way, so that checks
that never get an answer delay their own container's checks only. One that has
none under way always comes first, beyond `CHECKS_AT_ONCE` too: however many
containers keep their share busy, each of the others gets its turn.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from typing import Generic, Protocol, TypeVar

from registrator.limits import CHECKS_AT_ONCE, CHECKS_AT_ONCE_IN_ALL, CHECKS_AT_ONCE_OF_CONTAINER

AT_ONCE = CHECKS_AT_ONCE.value
AT_ONCE_OF_CONTAINER = CHECKS_AT_ONCE_OF_CONTAINER.value
AT_ONCE_IN_ALL = CHECKS_AT_ONCE_IN_ALL.value


class Stoppable(Protocol):
    """What waits here; once stopped it is dropped when its turn comes."""

    @property
    def container(self) -> str: ...  # noqa: D102
    @property
    def stopped(self) -> bool: ...  # noqa: D102


Work = TypeVar("Work", bound=Stoppable)


class Shares(Generic[Work]):
    """What is due, by container, and how much of each is under way."""

    def __init__(self) -> None:
        self._due: defaultdict[str, deque[Work]] = defaultdict(deque)
        self._under_way: Counter[str] = Counter()
        self._total = 0
        # Containers with something due, in the order in which their turn comes; sets that keep an order.
        self._idle: dict[str, None] = {}  # with nothing under way
        self._busy: dict[str, None] = {}  # with less under way than their share

    def put(self, work: Work) -> bool:
        """Add what is due; whether it has to wait for others of its own container."""
        container = work.container
        self._due[container].append(work)
        self._place(container)
        return self._under_way[container] + len(self._due[container]) > AT_ONCE_OF_CONTAINER

    def next(self) -> Work | None:
        """What may start now; it is under way until `over`. None: nothing may."""
        while (container := self._chosen()) is not None:
            work = self._due[container].popleft()
            if not work.stopped:
                self._under_way[container] += 1
                self._total += 1
            self._idle.pop(container, None)
            self._busy.pop(container, None)
            self._place(container)
            if not work.stopped:
                return work
        return None

    def over(self, container: str) -> None:
        """Something of a container is under way no more."""
        self._under_way[container] -= 1
        self._total -= 1
        self._place(container)

    def _chosen(self) -> str | None:
        if self._idle and self._total < AT_ONCE_IN_ALL:
            return next(iter(self._idle))
        if self._busy and self._total < AT_ONCE:
            return next(iter(self._busy))
        return None

    def _place(self, container: str) -> None:
        """Put a container into the line that it now belongs to, at its end where it is new there."""
        waits, under_way = bool(self._due[container]), self._under_way[container]
        if not waits:
            del self._due[container]
        if not under_way:
            del self._under_way[container]
        for line, belongs in (
            (self._idle, waits and not under_way),
            (self._busy, waits and 0 < under_way < AT_ONCE_OF_CONTAINER),
        ):
            if not belongs:
                line.pop(container, None)
            elif container not in line:
                line[container] = None
