"""The embedded catalog: one node's instances in this process, checks included.

The default: nothing else has to run. It keeps to Consul's semantics, so that
neither the bridge nor the front can tell which catalog is behind them.

What a change costs: each write and each change of a check's status marks the
snapshot as out of date, and one `call_soon` folds all marks of a turn of the
loop into the next snapshot. A probe that only says something else (the same
status, another output) is not worth waking blocking queries for: Consul holds
such news back for up to 5 minutes (check_update_interval), here they come with
the next snapshot, within `HOUSEKEEPING` seconds, and leave indexes alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Self

from registrator.catalog import Refused, Unavailable
from registrator.catalog.embedded_bulletin import EmbeddedBulletin
from registrator.catalog.embedded_checks import KINDS, LiveCheck
from registrator.catalog.embedded_snapshots import SnapshotBuilder
from registrator.catalog.probes import Prober
from registrator.model import (
    ADDRESS,
    PASSING,
    Check,
    CheckResult,
    Entry,
    Health,
    Instance,
    Node,
    Selected,
    Selection,
    Snapshot,
    health_check_id,
)

if TYPE_CHECKING:
    from registrator.stats import Stats

log = logging.getLogger(__name__)

# Consul's own check of the node, on every entry, so that readers see the same shape.
SERF_HEALTH = CheckResult("serfHealth", "Serf Health Status", PASSING, "Agent alive and reachable")

HOUSEKEEPING = 30.0  # seconds; Consul's interval for reaping critical services


@dataclass(slots=True)
class _Registered:
    """One instance as it is now: `instance` for the bridge, `shown` (without health) for readers."""

    instance: Instance
    shown: Instance
    checks: dict[str, LiveCheck]
    refused: frozenset[Check]


class EmbeddedCatalog:
    """The Protocols of this package, `Registry`, `Bulletin` and `Directory`, in this process.

    Built without I/O. `identify` must have named the node before the first
    `register`. Used as an async context manager, which ends every check and
    closes the probes' HTTP session; `run` goes on inside it. For one event loop.
    """

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._node: Node | None = None
        self._registered: dict[str, _Registered] = {}
        self._builder = SnapshotBuilder()
        self._prober = Prober()
        bulletin = EmbeddedBulletin()
        self.publish = bulletin.publish
        self.published = bulletin.published
        self._settled = False
        self._snapshot: Snapshot | None = None
        self._publication: asyncio.Handle | None = None  # set while a snapshot is due
        self._swapped = asyncio.Event()  # one for each snapshot: set when the next takes its place

    def identify(self, node: Node) -> None:
        """Name the node that all instances are on; may be called again when it changed."""
        if node == self._node:
            return
        self._node = node
        self._builder.place(node)
        for registered in self._registered.values():
            self._show(registered)
        self._mark()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for registered in self._registered.values():
            _stop(registered.checks.values())
        if self._publication is not None:
            self._publication.cancel()
        await self._prober.close()

    async def run(self) -> None:
        """Run the probes and reap what is critical for too long, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._prober.run())
            group.create_task(self._keep_house())

    # Registry -------------------------------------------------------------

    async def owned(self, owner: str) -> Mapping[str, Instance]:
        """All instances of `owner` by id, as registered, without checks, with their health now."""
        return {key: r.instance for key, r in self._registered.items() if r.instance.owner == owner}

    def taken(self) -> Mapping[str, str]:
        """Nothing: no other engine gets in here."""
        return {}

    async def register(self, instance: Instance) -> None:
        """Create or replace an instance with its checks and its health.

        A check of a kind that cannot be run here is left out with a warning.
        """
        self._stats.writes["register"] += 1
        earlier = self._registered.get(instance.id)
        checks = self._adopt_checks(instance, earlier)
        bare = replace(instance, checks=())
        registered = _Registered(
            instance=bare,
            shown=replace(bare, health=None),
            checks=checks,
            refused=_refuse(instance, earlier),
        )
        self._registered[instance.id] = registered
        if instance.health is not None and health_check_id(instance.id) in checks:
            self._refresh(registered, instance.health)
        self._show(registered)
        self._mark()

    async def deregister(self, instance_id: str) -> None:
        """Remove an instance and end its checks; an unknown id is not an error."""
        self._stats.writes["deregister"] += 1
        self._remove(instance_id)

    async def report(self, instance_id: str, health: Health) -> None:
        """Move or refresh the TTL check of an instance's health. Raises Refused when it has none."""
        self._stats.writes["report"] += 1
        registered = self._registered.get(instance_id)
        if registered is None or health_check_id(instance_id) not in registered.checks:
            self._stats.write_failures["report"] += 1
            raise Refused(f"{instance_id} has no health check that could be set; register it with one first")
        self._refresh(registered, health)
        self._show(registered)
        self._mark()

    async def disturbances(self) -> AsyncIterator[str]:
        """Wait for ever: nobody else writes here, and nothing is lost but with this process."""
        await asyncio.Event().wait()
        yield ""  # never reached; it makes this function an iterator

    def settled(self) -> None:
        """Show what is registered; there is no snapshot before."""
        self._settled = True
        self._publish()

    async def shown(self, services: Collection[str], timeout: float) -> None:  # noqa: ARG002 - all are shown
        """Show what is registered; that takes no time."""
        self._publish()

    # Directory ------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot | None:
        """The latest snapshot; None before `settled`. Writes of this turn of the loop come in the next."""
        return self._snapshot

    @property
    def age(self) -> float:
        """Always 0.0: what is shown here is what is."""
        return 0.0

    async def load(self, service: str) -> Snapshot:  # noqa: ARG002 - every service is loaded
        """The latest snapshot, with all writes before this call. Raises Unavailable before `settled`."""
        self._publish()
        return self._current()

    def selected(self, selection: Selection) -> Selected:
        """Instances by address; one node has no other datacenters, no mesh and no prepared queries."""
        if selection.kind != ADDRESS or self._snapshot is None:
            return Selected()
        return Selected(self._builder.at(selection.name))

    async def select(self, selection: Selection) -> Selected:
        """The same as `selected`: there is nothing to ask."""
        return self.selected(selection)

    async def wait(self, service: str | None, index: int, timeout: float) -> Snapshot:
        """Return when `Snapshot.index_of` is above `index`, after `timeout` seconds at the latest.

        Raises Unavailable when there is no snapshot even then.
        """
        self._publish()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._snapshot is None or self._snapshot.index_of(service) <= index:
                    await self._swapped.wait()
        return self._current()

    # Inside ---------------------------------------------------------------

    def _current(self) -> Snapshot:
        if self._snapshot is None:
            raise Unavailable("the containers of this node are still being listed; ask again in a moment")
        return self._snapshot

    def _adopt_checks(self, instance: Instance, earlier: _Registered | None) -> dict[str, LiveCheck]:
        """The instance's checks, running: those of `earlier` where unchanged; the rest of those end."""
        before = dict(earlier.checks) if earlier else {}
        after: dict[str, LiveCheck] = {}
        for check in instance.checks:
            if check.kind not in KINDS:
                continue
            there = before.get(check.id)
            if there is not None and there.definition == check:
                there.prolong()
                after[check.id] = before.pop(check.id)
            else:
                after[check.id] = LiveCheck(check, self._prober, partial(self._moved, instance.id), there)
        _stop(before.values())
        return after

    def _refresh(self, registered: _Registered, health: Health) -> None:
        registered.checks[health_check_id(registered.instance.id)].refresh(health.status, health.output)
        registered.instance = replace(registered.instance, health=health)

    def _moved(self, instance_id: str, check: LiveCheck, before: str) -> None:
        """A probe's result, or the end of a TTL, changed a check."""
        registered = self._registered[instance_id]
        if check.definition.id == health_check_id(instance_id):
            registered.instance = replace(registered.instance, health=Health(check.status, check.output))
        reworded = check.status == before
        self._show(registered, reworded=reworded)
        if not reworded:
            log.info("%s: check %r was %s, is %s", instance_id, check.definition.name, before, check.status)
            self._mark()

    def _remove(self, instance_id: str) -> None:
        registered = self._registered.pop(instance_id, None)
        if registered is not None:
            _stop(registered.checks.values())
            self._builder.drop(instance_id)
            self._mark()

    def _show(self, registered: _Registered, *, reworded: bool = False) -> None:
        """Put an instance as it is now into the next snapshot."""
        if self._node is None:
            raise RuntimeError("identify() names the node before anything is registered")
        results = (check.result(registered.shown) for check in registered.checks.values())
        self._builder.put(Entry(self._node, registered.shown, (SERF_HEALTH, *results)), reworded=reworded)

    def _mark(self) -> None:
        """The snapshot is out of date: make the next one when this turn of the loop is over."""
        if self._settled and self._publication is None:
            self._publication = asyncio.get_running_loop().call_soon(self._publish)

    def _publish(self) -> None:
        if self._publication is not None:
            self._publication.cancel()
            self._publication = None
        if not self._settled:
            return
        snapshot = self._builder.build()
        if snapshot is not self._snapshot:
            self._snapshot = snapshot
            swapped, self._swapped = self._swapped, asyncio.Event()
            swapped.set()

    async def _keep_house(self) -> None:
        """From time to time reap, and show what probes said without a change of status."""
        while True:
            await asyncio.sleep(HOUSEKEEPING)
            self._reap()
            self._publish()

    def _reap(self) -> None:
        """Remove the instances that have a check critical for longer than it allows."""
        for instance_id, registered in list(self._registered.items()):
            overdue = next((check.definition for check in registered.checks.values() if check.overdue), None)
            if overdue is not None:
                log.warning("%s: removed, check %r was critical for too long", instance_id, overdue.name)
                self._remove(instance_id)


def _stop(checks: Iterable[LiveCheck]) -> None:
    for check in checks:
        check.stop()


def _refuse(instance: Instance, earlier: _Registered | None) -> frozenset[Check]:
    """The checks that cannot be run here; each is said when it is first seen on an instance."""
    refused = frozenset(check for check in instance.checks if check.kind not in KINDS)
    for check in refused - (earlier.refused if earlier else frozenset()):
        log.warning(
            "%s: a %s check cannot be run by the embedded catalog, the instance is registered without %r; "
            "use an http, tcp or grpc check, or a Consul agent (--consul)",
            instance.id,
            check.kind,
            check.id,
        )
    return refused
