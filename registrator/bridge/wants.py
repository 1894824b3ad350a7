"""What is to be registered of each container: worked out in slices, with what was refused said once."""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter

from registrator.bridge.addresses import Host
from registrator.bridge.instances import Found, assemble
from registrator.model import Container, Instance, Problem
from registrator.policy import Policy
from registrator.stats import Stats

log = logging.getLogger(__name__)

SLICE = 0.0005  # seconds of work on one container before others have their turn
SAID_AT_ONCE = 10  # problems of one container


class Wants:
    """Makes instances of containers, by the operator's policy."""

    def __init__(self, policy: Policy, stats: Stats) -> None:
        self._policy = policy
        self._stats = stats
        self._said: dict[str, frozenset[Problem]] = {}

    async def of(self, container: Container, host: Host, peer: Container | None) -> tuple[Instance, ...]:
        """What is to be registered of a container that is up; see `assemble`."""
        steps = assemble(container, host, self._policy, peer)
        slice_ends = perf_counter() + SLICE
        while True:
            try:
                next(steps)
            except StopIteration as end:
                found: Found = end.value
                break
            if perf_counter() > slice_ends:
                await asyncio.sleep(0)
                slice_ends = perf_counter() + SLICE
        wanted, problems = found
        self._say(container, frozenset(problems))
        return wanted

    def forget(self, container_id: str) -> None:
        """The container is not up any more."""
        self._said.pop(container_id, None)

    def _say(self, container: Container, problems: frozenset[Problem]) -> None:
        new = sorted(problems - self._said.get(container.id, frozenset()), key=str)
        for problem in new[:SAID_AT_ONCE]:
            log.warning("container %s: %s", container.name, problem)
        if len(new) > SAID_AT_ONCE:
            log.warning("container %s: and %d more like these", container.name, len(new) - SAID_AT_ONCE)
        self._stats.limited.update(problem.limit for problem in new if problem.limit)
        if problems:
            self._said[container.id] = problems
        else:
            self.forget(container.id)
