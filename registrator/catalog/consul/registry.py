"""The Registry on Consul: the agent's own services, written through /v1/agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from registrator.catalog import CatalogError, Unavailable
from registrator.catalog.consul import errors, form
from registrator.catalog.consul.client import ConsulClient
from registrator.catalog.consul.watch import Contact, Disturbances
from registrator.model import META_OWNER, Health, Instance, health_check_id
from registrator.stats import Stats

MAX_WRITES = 16  # at once


class ConsulRegistry:
    """Implements `catalog.Registry`."""

    def __init__(self, client: ConsulClient, disturbances: Disturbances, stats: Stats) -> None:
        self._client = client
        self._disturbances = disturbances
        self._contact = Contact(disturbances)
        self._stats = stats
        self._writing = asyncio.Semaphore(MAX_WRITES)

    async def owned(self, owner: str) -> Mapping[str, Instance]:
        """See `catalog.Registry.owned`: read from the agent itself, not from the catalog."""
        async with self._contacting():
            services, checks = await asyncio.gather(self._client.services(), self._client.checks())
        return {
            service_id: form.instance(service, form.health_of(service_id, checks))
            for service_id, service in services.items()
            if (service.get("Meta") or {}).get(META_OWNER) == owner
        }

    async def register(self, instance: Instance) -> None:
        """See `catalog.Registry.register`.

        Consul keeps the status and the output of a check that it has already,
        whatever the definition says, and takes no output with it (seen on
        1.8.7); so an instance with health is followed by a report. A new one
        starts with the right status all the same.
        """
        async with self._write("register"):
            await self._client.register(form.definition(instance))
            if instance.health is not None:
                await self._client.update_check(health_check_id(instance.id), instance.health)

    async def deregister(self, instance_id: str) -> None:
        """See `catalog.Registry.deregister`."""
        async with self._write("deregister"):
            with suppress(errors.NotFound):
                await self._client.deregister(instance_id)

    async def report(self, instance_id: str, health: Health) -> None:
        """See `catalog.Registry.report`; raises `Refused` for an instance without such a check."""
        async with self._write("report"):
            await self._client.update_check(health_check_id(instance_id), health)

    def disturbances(self) -> AsyncIterator[str]:
        """See `catalog.Registry.disturbances`."""
        return self._disturbances.reasons()

    def settled(self) -> None:
        """Nothing to do: Consul shows what is registered as it comes."""

    @asynccontextmanager
    async def _write(self, kind: str) -> AsyncIterator[None]:
        """Count a write, and keep no more than `MAX_WRITES` of them under way."""
        async with self._writing:
            try:
                async with self._contacting():
                    yield
            except CatalogError:
                self._stats.write_failures[kind] += 1
                raise
            self._stats.writes[kind] += 1

    @asynccontextmanager
    async def _contacting(self) -> AsyncIterator[None]:
        """Note whether Consul's agent answers; a refusal is an answer."""
        try:
            yield
        except Unavailable:
            self._contact.lose(self)
            raise
        except CatalogError:
            self._contact.regain(self)
            raise
        self._contact.regain(self)
