"""A service's usable instances, worked out once for all questions of one kind of asker. Pure.

Whatever is asked of a service (any type, tag, size or spelling), what needs a
look at each of its instances is done once for each version of the service and
each view, and kept beside the version itself (`Service.memo`), with which it
goes away. So a question costs what its reply holds, however many instances
there are, and one of a tag or type that they do not have costs nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from registrator import limits
from registrator.lookup.reach import reach, within_reach
from registrator.lookup.records import Type, packed
from registrator.model import PASSING, WARNING, Entry, Selected, Service, View

Parts = tuple[list[Entry], list[Entry]]  # those near, the others

VIEWS = limits.DNS_VIEWS.value
FEW = 16  # instances: of so few it takes less room to look again at each than to keep what was seen
GOOD, PERFECT = (PASSING, WARNING), (PASSING,)


def crowd_of(source: Service | Selected, view: View, *, only_passing: bool, near: str) -> Crowd | None:
    """The instances of a service that an asker may be given; None for none.

    Those out of its reach are left out, if others remain, then those that are
    critical (with `only_passing` those in state warning too). `near` is the
    owner whose instances come first, "" for none.
    """
    key = view.networks, only_passing, near
    found: Crowd | str | None = source.memo.get(key, "")
    if isinstance(found, str):
        good = PERFECT if only_passing else GOOD
        usable = [entry for entry in within_reach(source.entries, view) if entry.status in good]
        found = _divided(usable, near, view) if usable else None
        if len(source.entries) > FEW:
            source.memo[key] = found
            if len(source.memo) > VIEWS:
                del source.memo[next(iter(source.memo))]
    return found


def chosen(source: Selected, view: View) -> Crowd | None:
    """What a prepared query found: all of it, in its order."""
    if view.networks not in source.memo and source.entries:
        source.memo[view.networks] = Crowd((), source.entries, view, ordered=True)
    found: Crowd | None = source.memo.get(view.networks)
    return found


def _divided(entries: Sequence[Entry], near: str, view: View) -> Crowd:
    if not near:
        return Crowd((), entries, view)
    parts: Parts = [], []
    for entry in entries:
        parts[entry.instance.owner != near].append(entry)
    return Crowd(*parts, view)


@dataclass(frozen=True, slots=True)
class Pool:
    """The addresses that a service has for an asker, each once: those of the near instances, the others'.

    `kind` is their type where all have one, else None. `memo` keeps what is
    rendered of them.
    """

    near: tuple[bytes, ...]
    others: tuple[bytes, ...]
    kind: Type | None
    memo: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def total(self) -> int:
        """How many addresses there are."""
        return len(self.near) + len(self.others)


class Crowd:
    """Instances that may be answered, those near to this node first; never none.

    `ordered`: they come in an order that is to be kept (a prepared query's).
    """

    __slots__ = ("_named", "_pools", "_tags", "_view", "near", "ordered", "others")

    def __init__(
        self, near: Sequence[Entry], others: Sequence[Entry], view: View, *, ordered: bool = False
    ) -> None:
        self.near = near
        self.others = others
        self.ordered = ordered
        self._view = view
        self._tags: dict[str, Crowd | Parts] | None = None
        self._pools: dict[Type, Pool] | None = None
        self._named = False

    @property
    def has_names(self) -> bool:
        """Whether an instance's address is a host name: then what is answered depends on the name asked."""
        self._look()
        return self._named

    def pool(self, qtype: int) -> Pool | None:
        """The addresses that answer a question of this type (A, AAAA or, for all, ANY); None for none."""
        return self._look().get(Type(qtype))

    def tagged(self, tag: str) -> Crowd | None:
        """Those with a tag, lower-cased; None where no instance has it."""
        if self._tags is None:
            self._tags = self._by_tag()
        found = self._tags.get(tag)
        if isinstance(found, tuple):
            found = self._tags[tag] = Crowd(*found, self._view, ordered=self.ordered)
        return found

    def _by_tag(self) -> dict[str, Crowd | Parts]:
        parts: dict[str, Crowd | Parts] = {}
        lists: dict[str, Parts] = {}
        for which, entries in enumerate((self.near, self.others)):
            for entry in entries:
                for tag in dict.fromkeys(map(str.lower, entry.instance.tags)):
                    lists.setdefault(tag, ([], []))[which].append(entry)
        parts.update(lists)
        return parts

    def _look(self) -> dict[Type, Pool]:
        """The addresses by type; found out once."""
        if self._pools is None:
            near, others = self._octets(self.near), self._octets(self.others)
            pools = {Type.ANY: _pool(near, others)}
            for kind, length in ((Type.A, 4), (Type.AAAA, 16)):
                pools[kind] = _pool(*([o for o in part if len(o) == length] for part in (near, others)))
            uniform = pools[Type.ANY].kind
            if uniform:  # the same, once
                pools[Type.ANY] = pools[uniform]
            self._pools = {kind: pool for kind, pool in pools.items() if pool.total}
        return self._pools

    def _octets(self, entries: Sequence[Entry]) -> list[bytes]:
        """All addresses for this asker, in order."""
        found = []
        for entry in entries:
            for place in reach(entry, self._view):
                octets = packed(place.ip)
                if octets is None:
                    self._named = True
                else:
                    found.append(octets)
        return found


def _pool(near: Sequence[bytes], others: Sequence[bytes]) -> Pool:
    first = dict.fromkeys(near)
    rest = dict.fromkeys(octets for octets in others if octets not in first)
    lengths = {len(octets) for part in (first, rest) for octets in part}
    kind = {4: Type.A, 16: Type.AAAA}[lengths.pop()] if len(lengths) == 1 else None
    return Pool(tuple(first), tuple(rest), kind)
