"""Carries out plans: the writes to a Registry, and what it holds of ours by them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

from registrator.bridge.contests import Contests
from registrator.bridge.holdings import Holdings
from registrator.bridge.plan import Plan
from registrator.catalog import Refused, Registry, Taken
from registrator.journal import DEREGISTERED, HEALTH, REGISTERED, Journal
from registrator.model import Health, Instance
from registrator.settings import join_host_port

log = logging.getLogger(__name__)

SLICE = 4  # writes of one container in a row before others have their turn


class Writer:
    """Writes plans, container by container.

    `wake` is called for a container to look at again; `why` says why an
    instance of a container goes.
    """

    def __init__(
        self, registry: Registry, wake: Callable[[str], None], journal: Journal, why: Callable[[str], str]
    ) -> None:
        self.holdings = Holdings()
        self.contests = Contests()
        self._registry = registry
        self._wake = wake
        self._journal = journal
        self._why = why
        self._writing: Counter[str] = Counter()  # writes under way, by instance
        self._written: set[str] = set()  # instances written since the latest reading began
        self._refused: dict[str, str] = {}  # what was said of instances that were refused
        self._has_read = False

    async def read(self, owner: str) -> None:
        """Learn from the catalog what it holds of ours. Raises `Failure`."""
        self._written = set(self._writing)
        owned = await self._registry.owned(owner)
        taken = self._registry.taken()
        lost = {key for key in self.holdings if key in taken and key not in self._written}
        undone = lost | self.holdings.adopt(owned, keep=self._written)
        for instance_id in self.contests.note(undone if self._has_read else ()):
            log.warning("%s: %s; it is left as it is for now", instance_id, _rival(taken.get(instance_id)))
        self._has_read = True

    def doubt_one(self) -> None:
        """Let one instance be written again, though it is as it should be.

        What a Consul agent could not pass on to servers without a leader it
        keeps to itself, for a minute or more, until something else is written.
        """
        for instance_id in self.holdings:
            if instance_id not in self.contests:
                holder = self.holdings.holder(instance_id) or ""
                self.holdings.doubt(self.holdings.of(holder)[instance_id])
                return

    async def carry_out(self, todo: Plan, container_id: str) -> None:
        """Write what a plan for a container says. What is refused is said, and spoils only itself.

        Raises `Failure` when the catalog cannot be written to.
        """
        writes: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            *((i.id, partial(self._register, i)) for i in todo.register),
            *((key, partial(self._report, key, health)) for key, health in todo.report),
            *((key, partial(self._deregister, key, container_id)) for key in todo.deregister),
        ]
        for number, (instance_id, write) in enumerate(writes, 1):
            if number % SLICE == 0:
                await asyncio.sleep(0)  # a catalog in this process waits for nobody
            try:
                await write()
            except Taken as refusal:
                if self.holdings.holder(instance_id) == container_id:
                    self.holdings.drop(instance_id)  # what is there is not ours to remove either
                self._say_refused(instance_id, str(refusal))
            except Refused as refusal:
                self._say_refused(instance_id, str(refusal))
            else:
                self._refused.pop(instance_id, None)

    async def refresh(self, container_id: str) -> None:
        """Tell the health of a container's instances again, before it is forgotten. Raises `Failure`."""
        again = tuple((i.id, i.health) for i in self.holdings.of(container_id).values() if i.health)
        await self.carry_out(Plan(report=again), container_id)

    async def withdraw(self) -> None:
        """Take out all that is held. Raises `Failure`."""
        for instance_id in self.holdings:
            with suppress(Taken):
                await self._registry.deregister(instance_id)
            self.holdings.drop(instance_id)

    @contextmanager
    def _write(self, instance_id: str) -> Iterator[None]:
        """A write of an instance: what is read meanwhile may be older than it."""
        self._written.add(instance_id)
        self._writing[instance_id] += 1
        try:
            yield
        finally:
            self._writing[instance_id] -= 1
            if not self._writing[instance_id]:
                del self._writing[instance_id]
            self._written.add(instance_id)

    async def _register(self, instance: Instance) -> None:
        # A write that fails may have been carried out all the same.
        with self._write(instance.id):
            self.holdings.doubt(instance)
            await self._registry.register(instance)
            self.holdings.put(replace(instance, checks=()))
        network = next((a.network for a in instance.addresses if a.ip == instance.address), "as told")
        where = join_host_port(instance.address, instance.port)
        said = instance.service, where, network, instance.id
        log.info("registered %s at %s (%s) as %s", *said, extra=_fields(REGISTERED, instance))
        self._note(REGISTERED, instance, f"registered {instance.service} at {where} ({network})")

    async def _report(self, instance_id: str, health: Health) -> None:
        holder = self.holdings.holder(instance_id) or ""
        before = self.holdings.of(holder).get(instance_id)
        with self._write(instance_id):
            try:
                await self._registry.report(instance_id, health)
            except Taken:
                raise
            except Refused:
                if before is not None:  # it is not there as we know it: it has to be registered anew
                    self.holdings.doubt(before)
                    self._wake(holder)
                raise
            held = self.holdings.of(holder)
            if instance_id in held:
                self.holdings.put(replace(held[instance_id], health=health))
        if before is None or before.health != health:
            fields = _fields(HEALTH, before) if before else None
            log.info("%s is %s: %s", instance_id, health.status, health.output, extra=fields)
            if before is not None:
                self._note(HEALTH, before, f"{instance_id} is {health.status}: {health.output}")

    async def _deregister(self, instance_id: str, container_id: str) -> None:
        held = self.holdings.of(container_id).get(instance_id)
        if held is None:  # another container took the id over while the writes before this one went on
            return
        why = self._why(container_id)
        with self._write(instance_id):
            await self._registry.deregister(instance_id)
            holder = self.holdings.holder(instance_id)
            if holder == container_id:
                self.holdings.drop(instance_id)
        if holder is not None and holder != container_id:
            # It was taken over while the removal was on its way.
            self.holdings.doubt(self.holdings.of(holder)[instance_id])
            self._wake(holder)
        what = held.service or "a doubtful registration"
        log.info("deregistered %s (%s): %s", what, instance_id, why, extra=_fields(DEREGISTERED, held))
        self._note(DEREGISTERED, held, f"deregistered {held.service or instance_id}: {why}")

    def _note(self, kind: str, instance: Instance, text: str) -> None:
        self._journal.add(
            kind, text, service=instance.service, instance=instance.id, container=instance.container
        )

    def _say_refused(self, instance_id: str, refusal: str) -> None:
        """Say once of an instance why it is refused; the next round asks again."""
        if self._refused.get(instance_id) != refusal:
            self._refused[instance_id] = refusal
            log.warning("%s: %s", instance_id, refusal)


def _rival(other: str | None) -> str:
    """Who else writes an id, and what to do about it; `other` is the owner where that is not this engine."""
    if other is None:
        return (
            "another registrator keeps writing it in this engine's name: stop one of the two, or give a "
            "machine that is a copy of another its own engine id"
        )
    return (
        f"the registrator of another engine ({other}) keeps taking it on the same Consul agent: give every "
        "node its own Consul agent, or each its own host name"
    )


def _fields(event: str, instance: Instance) -> dict[str, str]:
    """What a log line about an instance says for machines."""
    container = instance.container
    return {"event": event, "service": instance.service, "instance": instance.id, "container": container}
