"""The Registry on Consul: the agent's own services, written through /v1/agent.

A service in maintenance stays in it, whatever is written: it is not replaced
with all of its checks (`replace-existing-checks`), since its maintenance is
one of them. So the registry knows the checks that stand there, and removes
those that are no more wanted one by one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from registrator.catalog import CatalogError, Unavailable
from registrator.catalog.consul import errors, form
from registrator.catalog.consul.client import ConsulClient
from registrator.catalog.consul.watch import Contact, Disturbances
from registrator.model import META_OWNER, Health, Instance, health_check_id
from registrator.stats import Stats

log = logging.getLogger(__name__)

MAX_WRITES = 16  # at once


class ConsulRegistry:
    """Implements `catalog.Registry`."""

    def __init__(self, client: ConsulClient, disturbances: Disturbances, stats: Stats) -> None:
        self._client = client
        self._disturbances = disturbances
        self._contact = Contact(disturbances)
        self._stats = stats
        self._writing = asyncio.Semaphore(MAX_WRITES)
        self._checks: dict[str, frozenset[str]] = {}  # ids of the checks that stand there, by service
        self._checks_read = False
        self._taken: dict[str, str] = {}
        self._commandless: set[str] = set()  # services whose checks this Consul would not run

    async def owned(self, owner: str) -> Mapping[str, Instance]:
        """See `catalog.Registry.owned`: read from the agent itself, not from the catalog."""
        before = dict(self._checks)
        async with self._contacting():
            services, checks = await asyncio.gather(self._client.services(), self._client.checks())
        self._take_in(checks, before)
        self._commandless &= services.keys()
        owners = {key: (service.get("Meta") or {}).get(META_OWNER, "") for key, service in services.items()}
        self._taken = {key: other for key, other in owners.items() if other not in ("", owner)}
        return {
            key: form.instance(self._as_wanted(service), form.health_of(key, checks))
            for key, service in services.items()
            if owners[key] == owner
        }

    def taken(self) -> Mapping[str, str]:
        """See `catalog.Registry.taken`."""
        return self._taken

    async def register(self, instance: Instance) -> None:
        """See `catalog.Registry.register`.

        Where this Consul runs no commands, the instance is registered without
        the checks that are some, with a warning.

        Consul keeps the status and the output of a check that it has already,
        whatever the definition says, and takes no output with it (seen on
        1.8.7); so an instance with health is followed by a report. A new one
        starts with the right status all the same.
        """
        async with self._write("register"):
            try:
                await self._put(instance)
            except errors.ScriptsDisabled:
                await self._put(form.without_commands(instance))
                self._warn_of_commands(instance)
            else:
                self._commandless.discard(instance.id)
            if instance.health is not None:
                await self._client.update_check(health_check_id(instance.id), instance.health)

    async def deregister(self, instance_id: str) -> None:
        """See `catalog.Registry.deregister`."""
        async with self._write("deregister"):
            with suppress(errors.NotFound):
                await self._client.deregister(instance_id)
            self._commandless.discard(instance_id)
            self._checks.pop(instance_id, None)

    async def report(self, instance_id: str, health: Health) -> None:
        """See `catalog.Registry.report`; raises `Refused` for an instance without such a check."""
        async with self._write("report"):
            await self._client.update_check(health_check_id(instance_id), health)

    async def disturbances(self) -> AsyncIterator[str]:
        """See `catalog.Registry.disturbances`."""
        async for reason in self._disturbances.reasons():
            self._commandless.clear()  # Consul may have another configuration by now
            yield reason

    def settled(self) -> None:
        """Nothing to do: Consul shows what is registered as it comes."""

    async def _put(self, instance: Instance) -> None:
        """Create or replace a service and its checks.

        Those that it has no more are removed while Meta says that the work is
        not over: should it be cut off, the next comparison begins it anew.
        """
        if not self._checks_read:
            self._take_in(await self._client.checks(), {})
        wanted = frozenset(check.id for check in instance.checks)
        there = self._checks.get(instance.id, frozenset())
        self._checks[instance.id] = there | wanted
        if there - wanted:
            await self._client.register(form.definition(form.unfinished(instance)))
            for check_id in sorted(there - wanted):
                with suppress(errors.NotFound):
                    await self._client.deregister_check(check_id)
        await self._client.register(form.definition(instance))
        self._checks[instance.id] = wanted

    def _take_in(self, checks: Mapping[str, form.JSON], before: Mapping[str, frozenset[str]]) -> None:
        """Believe a reading of all checks; what was written since `before` is the newer word."""
        read: defaultdict[str, frozenset[str]] = defaultdict(frozenset)
        for check_id, check in checks.items():
            service_id = check.get("ServiceID")
            if service_id and check_id != form.maintenance_check_id(service_id):
                read[service_id] |= {check_id}
        written = {key: ids for key, ids in self._checks.items() if before.get(key) is not ids}
        self._checks = {**read, **written}
        self._checks_read = True

    def _as_wanted(self, service: form.JSON) -> form.JSON:
        """A service without the mark of what was left out of it, where it would be left out again."""
        return form.unmarked(service) if service["ID"] in self._commandless else service

    def _warn_of_commands(self, instance: Instance) -> None:
        if instance.id not in self._commandless:
            self._commandless.add(instance.id)
            log.warning(
                "%s: registered without its checks that run a command, which this Consul agent refuses; "
                "set enable_script_checks in the agent's configuration (and see to its ACLs), "
                "or use an HTTP, TCP or gRPC check",
                instance.id,
            )

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
