"""What a Swarm's manager knows, for the agent that runs on it: the embedded catalog has no others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping

from registrator.model import SwarmService


class EmbeddedBulletin:
    """Implements `catalog.Bulletin` in this process."""

    def __init__(self) -> None:
        self._clusters: dict[str, dict[str, SwarmService]] = {}
        self._changed = asyncio.Event()  # one for each state: set when the next takes its place

    async def publish(self, cluster_id: str, read: Callable[[], Awaitable[Iterable[SwarmService]]]) -> None:
        """See `catalog.Bulletin.publish`."""
        services = {service.id: service for service in await read()}
        if services != self._clusters.get(cluster_id, {}):
            self._clusters[cluster_id] = services
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def published(self) -> AsyncGenerator[Mapping[str, SwarmService]]:
        """See `catalog.Bulletin.published`."""
        while True:
            changed = self._changed
            yield {key: service for services in self._clusters.values() for key, service in services.items()}
            await changed.wait()
