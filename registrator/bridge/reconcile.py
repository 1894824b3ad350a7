"""The loop: keeps a Registry true to what an engine runs.

1. Subscribe to events. Each is a wake-up for one container's lane.
2. A lane looks at its container, plans, and writes the difference.
3. A round lists all containers, reads all that we own in the catalog, and wakes
   the lanes of those that differ. It writes nothing itself, so that every write
   is made in its container's own lane, in order, after a fresh look.
4. A round is due at start, after each new subscription, when the catalog was
   disturbed, and at least every `resync` seconds.

A read that fails aborts the round or the lane's turn: it is never an empty
answer. Nothing is removed before the first complete listing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from dataclasses import replace
from typing import Protocol

from registrator.bridge.addresses import Host
from registrator.bridge.drains import Drains
from registrator.bridge.instances import HEALTH_TTL, left_behind
from registrator.bridge.lanes import Lanes, wait_at_most
from registrator.bridge.newcomers import Newcomers
from registrator.bridge.plan import Plan, plan
from registrator.bridge.views import Views
from registrator.bridge.wants import Wants
from registrator.bridge.writer import Writer
from registrator.catalog import Registry
from registrator.complaint import Complaint, Once
from registrator.journal import DRAINED, Journal
from registrator.model import Container, Event, Failure, Instance
from registrator.policy import ALWAYS, Policy, keeps
from registrator.stats import Stats

log = logging.getLogger(__name__)

REFRESH = HEALTH_TTL / 3
ROUND_PAUSE, LONGEST_ROUND_PAUSE = 0.1, 1.0  # after a failed round
FIRST_WRITES = 1.0  # seconds for which the first round waits for what it began, before it compares again
SHOWN = 1.0  # seconds for which readiness waits until lookups know what was registered
SLICE = 50  # containers that a round compares before it lets others run
SHARED = "container:"  # the network mode of a container in another's network namespace


class Listed(Protocol):
    """A container in a listing; `fingerprint` differs when the listing says something new of it."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def fingerprint(self) -> Hashable: ...  # noqa: D102


class Source(Protocol):
    """What the loop needs of an engine; every read raises `Failure` when it failed."""

    async def containers(self) -> Sequence[Listed]:
        """Every container that is up: a complete listing."""
        ...

    async def inspect(self, container_id: str) -> Container | None:
        """One container; None only when the engine says that there is no such container."""
        ...

    def events(self) -> AsyncIterator[Event]:
        """Wake-ups, for ever; an empty one after each new subscription."""
        ...


class Reconciler:
    """One node's loop. `identify` tells who the node is, and raises `Failure`."""

    def __init__(
        self,
        engine: Source,
        registry: Registry,
        identify: Callable[[], Awaitable[Host]],
        policy: Policy,
        stats: Stats,
        resync: float,
        journal: Journal | None = None,
    ) -> None:
        self.views = Views()
        self._journal = journal or Journal()
        self._engine = engine
        self._registry = registry
        self._identify = identify
        self._policy = policy
        self._stats = stats
        self._resync = resync
        self._host: Host | None = None
        self._host_known = asyncio.Event()
        self._lanes = Lanes(self._settle)
        self.newcomers = Newcomers(self.views, self._lanes, time.monotonic)
        self._drains = Drains(self._touch, stats)
        self._dead: set[str] = set()  # containers that died and were not looked at since
        self._unreadable: set[str] = set()  # containers whose last inspect failed
        self._writer = Writer(registry, self._touch, self._journal, self._reason)
        self._holdings = self._writer.holdings
        self._containers: dict[str, Container] = {}
        self._desired: dict[str, tuple[Instance, ...]] = {}
        self._sharing: defaultdict[str, set[str]] = defaultdict(set)  # by the container whose network it is
        self._seen: dict[str, Hashable] = {}  # fingerprints, by container
        self._stirred: set[str] = set()  # containers that had events since the latest listing began
        self._refresh: set[str] = set()  # containers whose health is to be told again
        self._rivals: set[str] = set()  # containers that want an id which another one holds
        self._wants = Wants(policy, stats)
        self._baffling = Once()  # what was unforeseen of each container
        self._round_due = asyncio.Event()
        self._disturbed = False  # whether the catalog was since the latest round
        self._complaint = Complaint(log)
        self._told: dict[str, float] = {}  # when the engine told of what is not in the catalog yet

    async def run(self) -> None:
        """Reconcile until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen())
                group.create_task(self._rounds())
                group.create_task(self._heed_disturbances())
                group.create_task(self._refresh_health())
        finally:
            self._drains.close()
            await self._lanes.close()

    def look_at(self, container_id: str) -> None:
        """Look again at a container: what is known of it, other than by its engine, has changed."""
        self._touch(container_id)

    async def withdraw(self) -> None:
        """Take everything of ours out of the catalog; call it when `run` is over. Raises `Failure`."""
        await self._writer.withdraw()

    # Wake-ups ---------------------------------------------------------------

    async def _listen(self) -> None:
        async for event in self._engine.events():
            if not event.container:
                if not event.action:  # after a new subscription, a container told to stop may live again
                    self._drains.close()
                self._round_due.set()
                continue
            if event.action == "kill" and event.container in self._containers:
                container = self._containers[event.container]
                if self._drains.signalled(container, event.signal):
                    self._journal.add(
                        DRAINED, f"{container.name} was told to stop", container=event.container
                    )
            elif event.action in ("die", "start", "destroy"):
                self._drains.end(event.container)
                self._dead.discard(event.container)
                if event.action == "die":
                    self._dead.add(event.container)
            self._stirred.add(event.container)
            self._seen.pop(event.container, None)
            if event.time:
                self._told.setdefault(event.container, event.time)
            self._touch(event.container)

    async def _heed_disturbances(self) -> None:
        async for reason in self._registry.disturbances():
            log.info("everything is compared again: %s", reason)
            self._disturbed = True
            self._round_due.set()

    async def _refresh_health(self) -> None:
        while True:
            await asyncio.sleep(REFRESH)
            for container_id, desired in self._desired.items():
                if any(instance.health for instance in desired):
                    self._refresh.add(container_id)
                    self._touch(container_id)

    def _touch(self, container_id: str) -> None:
        self._lanes.touch(container_id)

    # Rounds -----------------------------------------------------------------

    async def _rounds(self) -> None:
        await self._round_due.wait()
        pause = ROUND_PAUSE
        while True:
            self._round_due.clear()
            begin = time.perf_counter()
            try:
                await self._round()
            except Failure as failure:
                self._stats.rounds["failed"] += 1
                self._complaint.failed("containers and catalog cannot be compared yet: %s", failure)
                await wait_at_most(self._round_due, pause)
                pause = min(LONGEST_ROUND_PAUSE, pause * 2)
                continue
            self._stats.rounds["ok"] += 1
            self._stats.round_seconds.observe(time.perf_counter() - begin)
            self._complaint.over("containers and catalog can be compared again")
            pause = ROUND_PAUSE
            await wait_at_most(self._round_due, self._resync if self._stats.ready else pause)

    async def _round(self) -> None:
        host = await self._know_host()
        unreadable = frozenset(self._unreadable)
        self._stirred.clear()
        listed = await self._engine.containers()
        await self._writer.read(host.owner)
        if self._disturbed:
            self._disturbed = False
            self._writer.doubt_one()
        suspects = await self._suspects({c.id: c.fingerprint for c in listed})
        for container_id in suspects:
            self._touch(container_id)
        # A container that cannot be inspected, by an engine that lists it, holds up none of the others.
        if not self._stats.ready and await self._lanes.finished(FIRST_WRITES, apart_from=unreadable):
            self._registry.settled()
            await self._registry.shown(self._holdings.services(), SHOWN)
            self._stats.ready = True
            log.info(
                "ready: %d containers are up, %d instances are registered", len(listed), len(self._holdings)
            )

    async def _know_host(self) -> Host:
        """Who the node is now: the engine may have joined a Swarm, the node got another address."""
        host = await self._identify()
        if host != self._host:
            self._seen.clear()  # everything is registered anew under what the node is now
        self._host = host
        self._host_known.set()
        return host

    async def _suspects(self, present: dict[str, Hashable]) -> set[str]:
        """The containers that have to be looked at: new, changed, gone, or not as registered."""
        suspects = {*self._containers, *self._holdings.containers()} - present.keys()
        for number, (container_id, fingerprint) in enumerate(present.items(), 1):
            if self._seen.get(container_id) != fingerprint or self._plan(container_id):
                suspects.add(container_id)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        # What was looked at since may look again as in this listing one day, and be something else meanwhile.
        self._seen = {key: present[key] for key in present.keys() - self._stirred}
        return suspects

    # One container ----------------------------------------------------------

    async def _settle(self, container_id: str) -> bool:
        """Make the catalog true for one container; True when it is worth another try soon."""
        told = self._told.pop(container_id, 0.0)
        again = await self._make_true(container_id)
        if told and again:
            self._told.setdefault(container_id, told)
        elif told:
            self._stats.event_lag.observe(time.time() - told)
        return again

    async def _make_true(self, container_id: str) -> bool:
        """See `_settle`."""
        try:
            await self._host_known.wait()
            if dead := container_id in self._dead:
                # An inspect would be answered only when the engine has cleaned up, some 50 ms later.
                await self._apply(container_id)
            if container_id not in self._drains:
                await self._look(container_id)
            if dead:
                self._dead.discard(container_id)
            await self._apply(container_id)
        except Failure as failure:
            self._complaint.failed("%s", failure)
            return True
        except Exception as error:  # whatever one container is like, the others are not to suffer
            if self._baffling.is_new(container_id, repr(error)):
                log.exception("container %s cannot be handled, please report this", container_id[:12])
        else:
            self._baffling.forget(container_id)
        return False

    async def _look(self, container_id: str) -> None:
        container = await self._inspect(container_id) if container_id else None
        before = self._containers.get(container_id)
        wanted = self._desired.get(container_id, ())
        if before is not None and before.network_mode.startswith(SHARED):
            self._sharing[before.network_mode.removeprefix(SHARED)].discard(container_id)
        if container is not None and container.up:
            self.views.put(container)
            now_wanted = await self._wanted(container)
            container = _kept(container)
            self._containers[container_id] = container
            self._desired[container_id] = now_wanted
        else:
            self._containers.pop(container_id, None)
            self._forget(container_id, container)
        if (now_wanted := self._desired.get(container_id, ())) != wanted:
            self._writer.contests.forget(i.id for i in (*wanted, *now_wanted))
        self._stats.containers = len(self._containers)
        if before != container:
            for sharer in self._sharing.pop(container_id, ()):
                self._touch(sharer)

    async def _inspect(self, container_id: str) -> Container | None:
        try:
            container = await self._engine.inspect(container_id)
        except Failure:
            self._unreadable.add(container_id)
            raise
        self._unreadable.discard(container_id)
        return container

    def _forget(self, container_id: str, gone: Container | None) -> None:
        """A container is not up any more; its instances go, unless the policy keeps them."""
        self.views.drop(container_id)
        self._desired.pop(container_id, None)
        self._seen.pop(container_id, None)
        self._wants.forget(container_id)
        self._refresh.discard(container_id)
        if keeps(self._policy, gone):
            reason = f"exited with code {gone.exit_code}" if gone else "its container is gone"
            held = self._holdings.of(container_id).values()
            self._desired[container_id] = tuple(
                left_behind(i, reason, self._policy) for i in held if i.service
            )

    async def _wanted(self, container: Container) -> tuple[Instance, ...]:
        """What is to be registered of a container that is up."""
        if self._host is None:
            raise AssertionError("lanes begin when the host is known")
        peer = None
        if container.network_mode.startswith(SHARED):
            peer_id = container.network_mode.removeprefix(SHARED)
            self._sharing[peer_id].add(container.id)
            peer = self._containers.get(peer_id)
            if peer is None:
                return ()  # it is looked at again as soon as its peer is known
        return await self._wants.of(container, self._host, peer)

    def _plan(self, container_id: str) -> Plan:
        """What has to be written for a container, by all that is known of it."""
        desired = self._desired.get(container_id, ())
        if container_id in self._drains or container_id in self._dead:
            desired = self._drained(desired)
        contests = self._writer.contests
        free = (i for i in desired if i.id not in contests and self._rival(i.id, container_id) is None)
        held = {key: i for key, i in self._holdings.of(container_id).items() if key not in contests}
        return plan(free, held)

    def _drained(self, desired: tuple[Instance, ...]) -> tuple[Instance, ...]:
        """What is wanted of a container that stops or is dead: nothing, unless it may have to be kept."""
        if self._policy.deregister == ALWAYS:
            return ()
        return tuple(left_behind(instance, "told to stop", self._policy) for instance in desired)

    def _rival(self, instance_id: str, container_id: str) -> Container | None:
        """The other running container that wants, and holds, the same id."""
        holder = self._holdings.holder(instance_id)
        if holder is None or holder == container_id:
            return None
        wants = any(instance_id == other.id for other in self._desired.get(holder, ()))
        return self._containers.get(holder) if wants else None

    def _note_rivals(self, container_id: str) -> None:
        """Say that an id is taken, and remember who waits for it."""
        for instance in self._desired.get(container_id, ()):
            rival = self._rival(instance.id, container_id)
            if rival is not None and container_id not in self._rivals:
                self._rivals.add(container_id)
                name = self._containers[container_id].name
                taken = (
                    f"its id {instance.id} is held by container {rival.name}; give each its own SERVICE_ID"
                )
                log.warning("container %s: %s", name, taken)

    async def _apply(self, container_id: str) -> None:
        self._note_rivals(container_id)
        todo = self._plan(container_id)
        await self._writer.carry_out(todo, container_id)
        if todo.deregister:
            for rival in self._rivals:
                self._touch(rival)  # the id that it waits for may be free now
            self._rivals.clear()
        if container_id in self._refresh:
            self._refresh.discard(container_id)
            await self._writer.refresh(container_id)
        if todo:
            self._complaint.over("writing to the catalog works again")
        self._stats.instances = len(self._holdings)

    def _reason(self, container_id: str) -> str:
        """Why an instance of a container goes."""
        if container_id in self._drains:
            return "its container was told to stop"
        if container_id in self._dead:
            return "its container died"
        if container_id in self._containers:
            return "its container is registered in another way now"
        return "its container is gone"


def _kept(container: Container) -> Container:
    """What is remembered of a container: not what only its own instances were made of."""
    return replace(container, labels={}, env={}, health_output="", refused=())
