"""The Registry on Consul: the agent's own services, written through /v1/agent.

A service in maintenance stays in it, whatever is written: it is not replaced
with all of its checks (`replace-existing-checks`), since its maintenance is
one of them. So the registry knows the checks that stand there, and removes
those that are no more wanted one by one.

Nothing of anybody else's is written. Consul replaces a service, and a check,
of the same id without a word, and has no write that depends on what is there.
So each write is preceded by a look at the service of its id; and before an id
that is not the container's own default one is written, all services and checks
are read again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from registrator.catalog import CatalogError, Taken, Unavailable
from registrator.catalog.consul import errors, form
from registrator.catalog.consul.client import ConsulClient
from registrator.catalog.consul.standing import Standing, holder_of, may_replace
from registrator.catalog.consul.watch import Contact, Disturbances
from registrator.model import Health, Instance, health_check_id
from registrator.stats import Stats

log = logging.getLogger(__name__)

MAX_WRITES = 16  # at once

REMEDY = "it is left as it is; choose another SERVICE_ID, or deregister the other if nobody needs it"


class ConsulRegistry:
    """Implements `catalog.Registry`."""

    def __init__(self, client: ConsulClient, disturbances: Disturbances, stats: Stats) -> None:
        self._client = client
        self._disturbances = disturbances
        self._contact = Contact(disturbances)
        self._stats = stats
        self._writing = asyncio.Semaphore(MAX_WRITES)
        self._standing = Standing()
        self._reading = asyncio.Lock()
        self._begun = 0  # readings so far
        self._read = 0  # the number of the latest one that succeeded; 0 before the first
        self._owners: set[str] = set()  # for whom this registry writes
        self._taken: dict[str, str] = {}
        self._commandless: set[str] = set()  # services whose checks this Consul would not run

    async def owned(self, owner: str) -> Mapping[str, Instance]:
        """See `catalog.Registry.owned`: read from the agent itself, not from the catalog."""
        self._owners.add(owner)
        async with self._contacting(), self._reading:
            services, checks = await self._read_all()
        self._commandless &= services.keys()
        owners = {key: holder_of(service).owner for key, service in services.items()}
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
            self._owners.add(instance.owner)
            await self._make_sure(instance)
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
            found = await self._client.service(instance_id)
            if found is not None and holder_of(found).owner not in self._owners - {""}:
                raise _taken_by(found)
            with suppress(errors.NotFound):
                await self._client.deregister(instance_id)
            self._commandless.discard(instance_id)
            self._standing.removed(instance_id)

    async def report(self, instance_id: str, health: Health) -> None:
        """See `catalog.Registry.report`; raises `Refused` for an instance without such a check."""
        async with self._write("report"):
            check_id = health_check_id(instance_id)
            if self._standing.bears(check_id) - {instance_id}:
                raise Taken(f"the check {check_id} is another service's there; it is left as it is")
            await self._client.update_check(check_id, health)

    async def disturbances(self) -> AsyncIterator[str]:
        """See `catalog.Registry.disturbances`."""
        async for reason in self._disturbances.reasons():
            self._commandless.clear()  # Consul may have another configuration by now
            yield reason

    def settled(self) -> None:
        """Nothing to do: Consul shows what is registered as it comes."""

    async def _put(self, instance: Instance) -> None:
        """Create or replace a service and its checks, after `_make_sure`.

        Those that it has no more are removed while Meta says that the work is
        not over: should it be cut off, the next comparison begins it anew.
        """
        wanted = frozenset(check.id for check in instance.checks)
        there = self._standing.checks_of(instance.id)
        self._standing.put(instance, there | wanted)
        if there - wanted:
            await self._client.register(form.definition(form.unfinished(instance)))
            for check_id in sorted(there - wanted):
                with suppress(errors.NotFound):
                    await self._client.deregister_check(check_id)
        await self._client.register(form.definition(instance))
        self._standing.put(instance, wanted)

    async def _make_sure(self, instance: Instance) -> None:
        """See to it that nothing of anybody else's is replaced. Raises `Taken`."""
        if not self._read or not instance.inherits:
            await self._read_again()
        found = await self._client.service(instance.id)
        if found is not None and not may_replace(instance, found):
            raise _taken_by(found)
        if obstacle := self._standing.obstacle(instance):
            raise Taken(f"not registered: {obstacle}; {REMEDY}")

    async def _read_again(self) -> None:
        """Read what stands there, unless somebody has begun to since this was called."""
        begun = self._begun
        async with self._reading:
            if self._read <= begun:
                await self._read_all()

    async def _read_all(self) -> tuple[Mapping[str, form.JSON], Mapping[str, form.JSON]]:
        """All services and all checks of the agent, by id; one reading at a time."""
        self._begun += 1
        number = self._begun
        self._standing.begin_reading()
        services, checks = await asyncio.gather(self._client.services(), self._client.checks())
        self._standing.take_in(services, checks)
        self._read = number
        return services, checks

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


def _taken_by(found: form.JSON) -> Taken:
    return Taken(f"not written: the id is held at this Consul agent by {holder_of(found)}; {REMEDY}")
