"""What stands at a Consul agent: the ids of services and of checks, and whose they are. Pure.

An agent has one service of an id, and one check: whoever registers another
replaces it without a word. Its servers' catalog, to which the agent passes
everything on, compares ids without their case; two that differ in it alone
replace each other there, again and again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from registrator.catalog.consul import form
from registrator.model import META_CONTAINER, META_OWNER, Instance, folded


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has registered a service: an engine and its container, both "" for what is nobody's of ours."""

    owner: str = ""
    container: str = ""

    def __str__(self) -> str:
        if not self.owner:
            return "a service that is not registrator's"
        return f"container {self.container[:12]} of engine {self.owner}"


class Standing:
    """The ids as last read or written. Of what is written while a reading is under way the writes count."""

    def __init__(self) -> None:
        self._holders: dict[str, Holder] = {}  # by service
        self._checks: dict[str, frozenset[str]] = {}  # their ids by service; "" has the node's own
        self._alike: defaultdict[str, set[str]] = defaultdict(set)  # services by lower-cased id
        self._bearers: defaultdict[str, set[str]] = defaultdict(set)  # services by a check's lower-cased id
        self._written: set[str] = set()  # services that were written since the latest reading began

    def checks_of(self, service_id: str) -> frozenset[str]:
        """The ids of a service's checks, without its maintenance."""
        return self._checks.get(service_id, frozenset())

    def begin_reading(self) -> None:
        """What is written from now on is newer than what is about to be read."""
        self._written.clear()

    def take_in(self, services: Mapping[str, form.JSON], checks: Mapping[str, form.JSON]) -> None:
        """Believe a reading of all services and checks, by id."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        for check_id, check in checks.items():
            service_id = check.get("ServiceID") or ""
            if check_id != form.maintenance_check_id(service_id):
                found[service_id].add(check_id)
        for service_id in {*self._holders, *self._checks} - self._written:
            self.drop(service_id)
        for service_id in {*services, *found} - self._written:
            holder = holder_of(services[service_id]) if service_id in services else None
            self._put(service_id, holder, found[service_id])

    def put(self, instance: Instance, checks: Iterable[str]) -> None:
        """An instance is being registered, and has these checks there."""
        self.drop(instance.id)
        self._put(instance.id, Holder(instance.owner, instance.container), checks)
        self._written.add(instance.id)

    def drop(self, service_id: str) -> None:
        """A service is not there any more."""
        self._holders.pop(service_id, None)
        self._leave(self._alike, service_id, service_id)
        for check_id in self._checks.pop(service_id, ()):
            self._leave(self._bearers, check_id, service_id)

    def removed(self, service_id: str) -> None:
        """A service was deregistered."""
        self.drop(service_id)
        self._written.add(service_id)

    def obstacle(self, instance: Instance) -> str:
        """What is in the way of an instance, apart from a service of its very id; "" for nothing."""
        own = Holder(instance.owner, instance.container)
        for other in sorted(self._alike.get(folded(instance.id), ())):
            if other != instance.id and self._holders[other] != own:
                return f"the id {other}, the same to Consul's catalog, is held by {self._holders[other]}"
        for check in instance.checks:
            for bearer in sorted(self._bearers.get(folded(check.id), ())):
                if bearer != instance.id:
                    return f"the id of its check {check.id} is held by {self._bearer(bearer)}"
        return ""

    def bears(self, check_id: str) -> frozenset[str]:
        """The services that have a check of that id, whatever its case."""
        return frozenset(self._bearers.get(folded(check_id), ()))

    def _bearer(self, service_id: str) -> str:
        return f"service {service_id}" if service_id else "a check of the node"

    def _put(self, service_id: str, holder: Holder | None, checks: Iterable[str]) -> None:
        if holder is not None:
            self._holders[service_id] = holder
            self._alike[folded(service_id)].add(service_id)
        self._checks[service_id] = frozenset(checks)
        for check_id in self._checks[service_id]:
            self._bearers[folded(check_id)].add(service_id)

    @staticmethod
    def _leave(index: defaultdict[str, set[str]], key: str, service_id: str) -> None:
        """Take a service out of an index, and what is then empty too."""
        held = index.get(folded(key))
        if held is not None:
            held.discard(service_id)
            if not held:
                del index[folded(key)]


def holder_of(service: form.JSON) -> Holder:
    """Who has registered a service that Consul's agent reports."""
    meta = service.get("Meta") or {}
    return Holder(meta.get(META_OWNER, ""), meta.get(META_CONTAINER, ""))


def may_replace(instance: Instance, service: form.JSON) -> bool:
    """Whether an instance may be written over the service that has its id.

    Our own, of course. Another's only under the container's own default id,
    which belongs to it: that is what gliderlabs/registrator left of it, or,
    where it is marked, an engine that was set up again and has another id since.
    """
    holder = holder_of(service)
    if holder.owner and holder.owner == instance.owner:
        return True
    left = bool(holder.owner) or form.OLD_ID.fullmatch(instance.id) is not None
    return instance.inherits and left and not service.get("Kind")
