"""The Bulletin in Consul's key-value store: one key for each service of a Swarm (see `facts`).

Every write is a check-and-set on what was read before the manager's listing,
so that of several managers the one with the older word never undoes the newer:
its write is refused, and it looks again. A document of a later schema is left
alone: a manager whose agent is already updated keeps it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping

from registrator.catalog import CatalogError, Refused, Unavailable
from registrator.catalog.consul import facts
from registrator.catalog.consul.client import ConsulClient
from registrator.catalog.consul.slices import in_slices
from registrator.catalog.consul.watch import Watch
from registrator.complaint import Complaint
from registrator.model import SwarmService

log = logging.getLogger(__name__)

ATTEMPTS = 5  # of one publication; each fails only because another manager's write succeeded
WAIT = 60.0  # seconds; that Consul freezes is noticed sooner, by the directory's own watches


class ConsulBulletin:
    """Implements `catalog.Bulletin`."""

    def __init__(self, client: ConsulClient) -> None:
        self._client = client
        self._complaint = Complaint(log)

    async def publish(self, cluster_id: str, read: Callable[[], Awaitable[Iterable[SwarmService]]]) -> None:
        """See `catalog.Bulletin.publish`."""
        prefix = f"{facts.PREFIX}{cluster_id}/"
        for _ in range(ATTEMPTS):
            _, held = await self._client.keys(prefix, 0, 0)
            services = {f"{prefix}{service.id}": service for service in await read()}
            if await self._write(held, services):
                return
        raise Unavailable(
            f"the keys {prefix} at Consul at {self._client.address} were others after each of {ATTEMPTS} "
            "attempts to write them; does anybody but agents of registrator write there?"
        )

    async def _write(self, held: Mapping[str, facts.Key], services: Mapping[str, SwarmService]) -> bool:
        """Write the differences; False where a key was not as it had been read."""
        done = True
        for key, service in services.items():
            known = held.get(key)
            if known is None:
                done &= await self._client.put_key(key, facts.encode(service), 0)
            elif facts.decode(known.value) != service and not facts.is_later(known.value):
                done &= await self._client.put_key(key, facts.encode(service), known.index)
        for key in held.keys() - services.keys():
            done &= await self._client.delete_key(key, held[key].index)
        return done

    async def published(self) -> AsyncGenerator[Mapping[str, SwarmService]]:
        """See `catalog.Bulletin.published`: one blocking query on the keys of all clusters.

        Workers are not told which cluster is theirs; the id of a service is
        another in each cluster.
        """
        watch = Watch(lambda index: self._client.keys(facts.PREFIX, index, WAIT))
        known: Mapping[str, SwarmService] | None = None
        while True:
            try:
                await watch.advance()
            except CatalogError as error:
                # Later the directory's watches say that Consul is away.
                if known is None or isinstance(error, Refused):
                    self._complaint.failed("what managers know of Swarm's services cannot be read: %s", error)
                if known is None and isinstance(error, Refused):
                    known = {}
                    yield known
                await watch.back_off(error)
                continue
            self._complaint.over("what managers know of Swarm's services can be read")
            documents = [key.value for key in (watch.data or {}).values()]
            found = {s.id: s for s in await in_slices(documents, facts.decode) if s is not None}
            if found != known:
                known = found
                yield known
