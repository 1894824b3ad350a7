"""What the catalog holds of ours, as last read or written, by container."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from registrator.bridge.plan import same
from registrator.model import META_CONTAINER, Instance


class Holdings:
    """Registered instances, each held by exactly one container."""

    def __init__(self) -> None:
        self._of: dict[str, dict[str, Instance]] = {}
        self._holder: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._holder)

    def __iter__(self) -> Iterator[str]:
        """The ids of all instances held."""
        return iter(tuple(self._holder))

    def of(self, container: str) -> Mapping[str, Instance]:
        """The instances that a container holds, by id."""
        return self._of.get(container, {})

    def holder(self, instance_id: str) -> str | None:
        """The container that holds an instance, or None."""
        return self._holder.get(instance_id)

    def containers(self) -> frozenset[str]:
        """Every container that holds something."""
        return frozenset(self._of)

    def services(self) -> frozenset[str]:
        """The names under which something is registered."""
        held = (instance for of_one in self._of.values() for instance in of_one.values())
        return frozenset(instance.service for instance in held if instance.service)

    def put(self, instance: Instance) -> None:
        """An instance is registered now; its container takes it over from any other."""
        self.drop(instance.id)
        self._holder[instance.id] = instance.container
        self._of.setdefault(instance.container, {})[instance.id] = instance

    def doubt(self, instance: Instance) -> None:
        """Nobody knows what the catalog holds under this id: any plan will write it anew."""
        self.put(Instance(instance.id, "", "", 0, meta={META_CONTAINER: instance.container}))

    def drop(self, instance_id: str) -> None:
        """An instance is not registered any more."""
        holder = self._holder.pop(instance_id, None)
        if holder is not None:
            held = self._of[holder]
            del held[instance_id]
            if not held:
                del self._of[holder]

    def adopt(self, owned: Mapping[str, Instance], keep: Collection[str]) -> set[str]:
        """Believe a complete reading of the catalog, except of the instances in `keep`.

        Those were written while the reading went on: what was written is the
        newer word, but of nothing else of their containers. Returns the ids that
        are there otherwise than was known: somebody else wrote them.
        """
        undone: set[str] = set()
        for instance_id in tuple(self._holder):
            if instance_id not in keep and instance_id not in owned:
                self.drop(instance_id)
        for instance in owned.values():
            if instance.id in keep:
                continue
            before = self._holder.get(instance.id)
            known = self._of[before][instance.id] if before is not None else None
            if known is None or (known.service and not same(known, instance)):
                undone.add(instance.id)
            self.put(instance)
        return undone
