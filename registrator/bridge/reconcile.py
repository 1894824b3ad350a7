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
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from registrator.bridge.addresses import Host
from registrator.bridge.drains import Drains
from registrator.bridge.holdings import Holdings
from registrator.bridge.instances import HEALTH_TTL, instances, left_behind
from registrator.bridge.lanes import Lanes
from registrator.bridge.plan import Plan, plan
from registrator.bridge.views import Views
from registrator.catalog import Refused, Registry
from registrator.complaint import Complaint
from registrator.model import Container, Event, Failure, Health, Instance, Problem
from registrator.policy import ALWAYS, Policy, keeps
from registrator.settings import join_host_port
from registrator.stats import Stats

log = logging.getLogger(__name__)

REFRESH = HEALTH_TTL / 3
ROUND_PAUSE, LONGEST_ROUND_PAUSE = 0.1, 5.0  # after a failed round
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
    ) -> None:
        self.views = Views()
        self._engine = engine
        self._registry = registry
        self._identify = identify
        self._policy = policy
        self._stats = stats
        self._resync = resync
        self._host: Host | None = None
        self._host_known = asyncio.Event()
        self._host_due = True
        self._lanes = Lanes(self._settle)
        self._drains = Drains(self._touch, stats)
        self._dead: set[str] = set()  # containers that died and were not looked at since
        self._holdings = Holdings()
        self._containers: dict[str, Container] = {}
        self._desired: dict[str, tuple[Instance, ...]] = {}
        self._sharing: defaultdict[str, set[str]] = defaultdict(set)  # by the container whose network it is
        self._seen: dict[str, Hashable] = {}  # fingerprints, by container
        self._refresh: set[str] = set()  # containers whose health is to be told again
        self._writing: Counter[str] = Counter()  # writes under way, by container
        self._written: set[str] = set()  # containers written to since the round began
        self._rivals: set[str] = set()  # containers that want an id which another one holds
        self._said: dict[str, frozenset[Problem]] = {}
        self._round_due = asyncio.Event()
        self._complaint = Complaint(log)

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

    async def withdraw(self) -> None:
        """Take everything of ours out of the catalog; call it when `run` is over. Raises `Failure`."""
        for instance_id in self._holdings:
            await self._registry.deregister(instance_id)
            self._holdings.drop(instance_id)

    # Wake-ups ---------------------------------------------------------------

    async def _listen(self) -> None:
        async for event in self._engine.events():
            if not event.container:
                # The engine may be another one by now, or may have joined a Swarm,
                # and a container that was told to stop may be in its next life.
                self._host_due = True
                self._drains.close()
                self._round_due.set()
                continue
            if event.action == "kill" and event.container in self._containers:
                self._drains.signalled(self._containers[event.container], event.signal)
            elif event.action in ("die", "start", "destroy"):
                self._drains.end(event.container)
                self._dead.discard(event.container)
                if event.action == "die":
                    self._dead.add(event.container)
            self._touch(event.container)

    async def _heed_disturbances(self) -> None:
        async for reason in self._registry.disturbances():
            log.info("everything is compared again: %s", reason)
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

    @contextmanager
    def _write(self, container_id: str) -> Iterator[None]:
        """A write for a container: what a round reads meanwhile may be older than it."""
        self._written.add(container_id)
        self._writing[container_id] += 1
        try:
            yield
        finally:
            self._writing[container_id] -= 1
            self._writing += Counter()  # forget those at 0
            self._written.add(container_id)

    # Rounds -----------------------------------------------------------------

    async def _rounds(self) -> None:
        await self._round_due.wait()
        pause = ROUND_PAUSE
        while True:
            self._round_due.clear()
            try:
                await self._round()
            except Failure as failure:
                self._stats.rounds["failed"] += 1
                self._complaint.failed("containers and catalog cannot be compared yet: %s", failure)
                await asyncio.sleep(pause)
                pause = min(LONGEST_ROUND_PAUSE, pause * 2)
                continue
            self._stats.rounds["ok"] += 1
            self._complaint.over("containers and catalog can be compared again")
            pause = ROUND_PAUSE
            await self._until_a_round_is_due()

    async def _until_a_round_is_due(self) -> None:
        try:
            async with asyncio.timeout(self._resync):
                await self._round_due.wait()
        except TimeoutError:
            return

    async def _round(self) -> None:
        host = await self._know_host()
        listed = await self._engine.containers()
        self._written = set(self._writing)
        owned = await self._registry.owned(host.owner)
        self._holdings.adopt(owned, keep=self._written)
        suspects = await self._suspects({c.id: c.fingerprint for c in listed})
        for container_id in suspects:
            self._touch(container_id)
        if not self._stats.ready:
            await self._lanes.finished(suspects)
            self._registry.settled()
            self._stats.ready = True
            log.info(
                "ready: %d containers are up, %d instances are registered", len(listed), len(self._holdings)
            )

    async def _know_host(self) -> Host:
        if self._host is None or self._host_due:
            host = await self._identify()
            self._host_due = False
            if host != self._host:
                self._seen.clear()  # everything is registered anew under what the node is now
            self._host = host
            self._host_known.set()
        return self._host

    async def _suspects(self, present: dict[str, Hashable]) -> set[str]:
        """The containers that have to be looked at: new, changed, gone, or not as registered."""
        suspects = {*self._containers, *self._holdings.containers()} - present.keys()
        for number, (container_id, fingerprint) in enumerate(present.items(), 1):
            if self._seen.get(container_id) != fingerprint or self._plan(container_id):
                suspects.add(container_id)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        self._seen = present
        return suspects

    # One container ----------------------------------------------------------

    async def _settle(self, container_id: str) -> bool:
        """Make the catalog true for one container; True when it is worth another try soon."""
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
        except Refused as refusal:
            # Asking again soon would be refused again; the next round asks.
            self._complaint.failed("%s", refusal)
            return False
        except Failure as failure:
            self._complaint.failed("%s", failure)
            return True
        except Exception:  # whatever one container is like, the others are not to suffer
            log.exception("container %s cannot be handled, please report this", container_id[:12])
        return False

    async def _look(self, container_id: str) -> None:
        container = await self._engine.inspect(container_id) if container_id else None
        before = self._containers.pop(container_id, None)
        if before is not None and before.network_mode.startswith(SHARED):
            self._sharing[before.network_mode.removeprefix(SHARED)].discard(container_id)
        if container is not None and container.up:
            self._containers[container_id] = container
            self.views.put(container)
            self._desired[container_id] = self._wanted(container)
        else:
            self._forget(container_id, container)
        self._stats.containers = len(self._containers)
        if before != container:
            for sharer in self._sharing.pop(container_id, ()):
                self._touch(sharer)

    def _forget(self, container_id: str, gone: Container | None) -> None:
        """A container is not up any more; its instances go, unless the policy keeps them."""
        self.views.drop(container_id)
        for known in (self._desired, self._said, self._seen):
            known.pop(container_id, None)
        self._refresh.discard(container_id)
        if keeps(self._policy, gone):
            reason = f"exited with code {gone.exit_code}" if gone else "its container is gone"
            held = self._holdings.of(container_id).values()
            self._desired[container_id] = tuple(
                left_behind(i, reason, self._policy) for i in held if i.service
            )

    def _wanted(self, container: Container) -> tuple[Instance, ...]:
        """What is to be registered of a container that is up; what was refused is said once."""
        if self._host is None:
            raise AssertionError("lanes begin when the host is known")
        peer = None
        if container.network_mode.startswith(SHARED):
            peer_id = container.network_mode.removeprefix(SHARED)
            self._sharing[peer_id].add(container.id)
            peer = self._containers.get(peer_id)
            if peer is None:
                return ()  # it is looked at again as soon as its peer is known
        found, problems = instances(container, self._host, self._policy, peer)
        self._say(container, frozenset(problems))
        return found

    def _plan(self, container_id: str) -> Plan:
        """What has to be written for a container, by all that is known of it."""
        desired = self._desired.get(container_id, ())
        if container_id in self._drains or container_id in self._dead:
            desired = self._drained(desired)
        free = (i for i in desired if self._rival(i.id, container_id) is None)
        return plan(free, self._holdings.of(container_id))

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
        for instance in todo.register:
            await self._register(instance)
        for instance_id, health in todo.report:
            await self._report(instance_id, health)
        for instance_id in todo.deregister:
            await self._deregister(instance_id, container_id)
        if container_id in self._refresh:
            self._refresh.discard(container_id)
            for instance in self._holdings.of(container_id).values():
                if instance.health is not None:
                    await self._registry.report(instance.id, instance.health)
        if todo:
            self._complaint.over("writing to the catalog works again")
        self._stats.instances = len(self._holdings)

    async def _register(self, instance: Instance) -> None:
        # A write that fails may have been carried out all the same.
        with self._write(instance.container):
            self._holdings.doubt(instance)
            await self._registry.register(instance)
            self._holdings.put(replace(instance, checks=()))
        network = next((a.network for a in instance.addresses if a.ip == instance.address), "as told")
        where = join_host_port(instance.address, instance.port)
        log.info("registered %s at %s (%s) as %s", instance.service, where, network, instance.id)

    async def _report(self, instance_id: str, health: Health) -> None:
        holder = self._holdings.holder(instance_id) or ""
        with self._write(holder):
            await self._registry.report(instance_id, health)
            held = self._holdings.of(holder)
            if instance_id in held:
                self._holdings.put(replace(held[instance_id], health=health))
        log.info("%s is %s: %s", instance_id, health.status, health.output)

    async def _deregister(self, instance_id: str, container_id: str) -> None:
        service = self._holdings.of(container_id)[instance_id].service
        with self._write(container_id):
            await self._registry.deregister(instance_id)
            holder = self._holdings.holder(instance_id)
            if holder == container_id:
                self._holdings.drop(instance_id)
        if holder == container_id:
            for rival in self._rivals:
                self._touch(rival)  # the id may be free for it now
            self._rivals.clear()
        elif holder is not None:
            # Another container took the id over while the removal was on its way.
            self._holdings.doubt(self._holdings.of(holder)[instance_id])
            self._touch(holder)
        log.info("deregistered %s (%s)", service or "a doubtful registration", instance_id)

    def _say(self, container: Container, problems: frozenset[Problem]) -> None:
        for problem in problems - self._said.get(container.id, frozenset()):
            log.warning("container %s: %s", container.name, problem)
        self._said[container.id] = problems
