"""The catalog: where instances are registered and what lookups read.

Three narrow Protocols, each shaped by its only consumer: the bridge writes to a
`Registry`, the lookup front reads a `Directory`, and by a `Bulletin` a Swarm's
managers tell all agents what only they know. Two implementations stand behind
all of them: `embedded` (in this process, the default) and `consul`. One suite of
contract tests (tests/contract/) runs on both.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from typing import Protocol

from registrator.model import Failure, Health, Instance, Selected, Selection, Snapshot, SwarmService


class CatalogError(Failure):
    """A catalog could not be read or written; `str()` is one line to act on."""


class Unavailable(CatalogError):
    """The catalog cannot be reached now: try again later."""


class Refused(CatalogError):
    """The catalog answered and said no (a bad definition, a token without the right)."""


class Taken(Refused):
    """The id of an instance, or of a check, is somebody else's there: nothing was written."""


class Registry(Protocol):
    """What the bridge writes to. Every method raises `CatalogError` when it failed."""

    async def owned(self, owner: str) -> Mapping[str, Instance]:
        """All instances whose Meta names `owner`, by id, in the form in which they were registered.

        Checks are not reported back (their digest is in Meta); `health` is.
        A failed read raises: it is never an empty answer.
        """
        ...

    def taken(self) -> Mapping[str, str]:
        """What the latest `owned` saw of other engines: the ids that they hold, with their owners."""
        ...

    async def register(self, instance: Instance) -> None:
        """Create or replace an instance, its checks and its health, in one write.

        Raises `Taken` where its id, or that of one of its checks, is another's,
        unless that is what an earlier registrator left (`Instance.inherits`).
        """
        ...

    async def deregister(self, instance_id: str) -> None:
        """Remove an instance and its checks; an unknown id is not an error. Raises `Taken` for another's."""
        ...

    async def report(self, instance_id: str, health: Health) -> None:
        """Move (or refresh) the TTL check by which the agent owns an instance's health."""
        ...

    def disturbances(self) -> AsyncIterator[str]:
        """Yield a reason each time what is registered may no longer be what was written.

        For instance: contact was lost and is back. A full reconcile is due then.
        """
        ...

    def settled(self) -> None:
        """The first complete reconcile is over: what is registered can be shown."""
        ...

    async def shown(self, services: Collection[str], timeout: float) -> None:
        """Return when lookups know these services, or after `timeout` seconds; never raises."""
        ...


class Directory(Protocol):
    """What lookups read."""

    @property
    def snapshot(self) -> Snapshot | None:
        """The latest snapshot, or None before the first. Reading it costs nothing."""
        ...

    @property
    def age(self) -> float:
        """Seconds since the snapshot was last known to be true; 0 while in contact."""
        ...

    async def load(self, service: str) -> Snapshot:
        """Make sure that the instances of a known `service` (lower-cased) are in the snapshot.

        Returns at once when they are. Raises `CatalogError` when they cannot be had.
        """
        ...

    def selected(self, selection: Selection) -> Selected | None:
        """What `selection` found lately, or None: then it must be awaited by `select`."""
        ...

    async def select(self, selection: Selection) -> Selected:
        """Find what is in no snapshot; what does not exist is an empty `Selected`.

        Raises `CatalogError` when it cannot be had.
        """
        ...

    async def wait(self, service: str | None, index: int, timeout: float) -> Snapshot:
        """Return when the service's index (None: the snapshot's own) is above `index`.

        Returns after `timeout` seconds at the latest, with what there is then;
        raises `CatalogError` when nothing is known at all.
        """
        ...

    async def run(self) -> None:
        """Keep the snapshot true until cancelled; never raises for a lost catalog."""
        ...


class Bulletin(Protocol):
    """What the managers of a Swarm tell all agents: its services."""

    async def publish(self, cluster_id: str, read: Callable[[], Awaitable[Iterable[SwarmService]]]) -> None:
        """Make what is published of a cluster what `read` gives: all of its services.

        `read` is called after what is published was read: so a service that it
        leaves out is gone, whoever published it. Only differences are written.
        Raises what `read` raises, and then nothing is written, or `CatalogError`.
        """
        ...

    def published(self) -> AsyncGenerator[Mapping[str, SwarmService]]:
        """Yield the services of all clusters by id: what is published now, then after each change.

        Goes on for ever: a catalog that is lost is waited for. One that refuses
        the first reading (a token without the right) yields no services.
        """
        ...
