"""What an answer is made of: question, what is known of the catalog, who asks, the zone's rules. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from registrator.lookup.names import Question
from registrator.lookup.reach import by_address
from registrator.lookup.records import MAX_MESSAGE, Name, Record, to_name
from registrator.model import Node, Selected, Selection, Snapshot, View

MAX_CNAMES = 3  # how many names a CNAME inside the zone is followed through, as in Consul

Shuffle = Callable[[list[Any]], None]
Elsewhere = Callable[[Name], tuple[Record, ...]]  # addresses, and CNAMEs to them, of a name outside the zone


def no_pause() -> None:
    """What work on the event loop does between its parts: nothing."""


def nothing_elsewhere(_: Name) -> tuple[Record, ...]:
    """What is known outside the zone where nobody can be asked."""
    return ()


class NotLoaded(Exception):
    """Something that is known to exist, or may exist, is not at hand: have it loaded and ask again."""

    def __init__(self, selection: Selection) -> None:
        super().__init__(selection)
        self.selection = selection


@dataclass(frozen=True, slots=True)
class Ttls:
    """TTLs in seconds: of nodes, and of services by name ("web"), prefix ("web*") or for all ("*")."""

    node: int = 0
    services: Mapping[str, int] = field(default_factory=dict)

    def of(self, service: str) -> int:
        """That of the name itself, else of the longest prefix that it starts with, else 0."""
        exact = self.services.get(service)
        if exact is not None:
            return exact
        prefixes = (p for p in self.services if p.endswith("*") and service.startswith(p[:-1]))
        return self.services.get(max(prefixes, key=len, default=""), 0)


@dataclass(frozen=True, slots=True)
class Zone:
    """What we are the authority for, and how.

    `domains`: the zone and its other names, lower-cased. `bare_names`: a name
    of one label is a service's, where there is one of that name.
    """

    domains: tuple[Name, ...]
    ttls: Ttls = Ttls()
    only_passing: bool = False
    bare_names: bool = False

    @classmethod
    def named(
        cls, *domains: str, ttls: Ttls = Ttls(), only_passing: bool = False, bare_names: bool = False
    ) -> Zone:
        """A zone from its domains as text, in any case. Raises ValueError for what is none."""
        found = []
        for domain in domains:
            name = to_name(domain.lower())
            if name is None:
                raise ValueError(f"{domain!r} is no DNS zone")
            found.append(name)
        return cls(tuple(found), ttls, only_passing, bare_names)


@dataclass(frozen=True, slots=True)
class Known:
    """What may be read: the snapshot (None before the first), what was lately selected, names elsewhere.

    `nodes` finds nodes by an address; without it the snapshot's are looked through.
    """

    snapshot: Snapshot | None
    selected: Callable[[Selection], Selected | None]
    elsewhere: Elsewhere = nothing_elsewhere
    nodes: Callable[[str], Sequence[Node]] | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """How one answer is to be made.

    `now` is the time in seconds since 1970 (the SOA's serial). `shuffle` puts
    a service's instances, or their addresses, into the order in which they are
    given, in place, as many of them at least as there is room for; those of
    the owner `near` (unless that is "") come before the others.
    `room` is how many octets of SRV records, with the addresses that go with
    them, are worth making: one record beyond it is made, so that it is seen that
    there are more. `pooled`: see `answers.Answer`. `pause` is
    called between two instances.
    """

    now: int
    shuffle: Shuffle
    near: str = ""
    room: int = MAX_MESSAGE
    pooled: bool = False
    pause: Callable[[], None] = no_pause


@dataclass(frozen=True, slots=True)
class Ask:
    """All that an answer is made of; `depth` is how many CNAMEs may still be followed."""

    question: Question
    known: Known
    snapshot: Snapshot
    view: View
    zone: Zone
    terms: Terms
    depth: int = MAX_CNAMES

    @property
    def name(self) -> Name:
        """The name asked, as it was written."""
        return self.question.name

    def select(self, kind: str, name: str, datacenter: str) -> Selected:
        """What is in no snapshot. Raises NotLoaded."""
        selection = Selection(kind, name, "" if self.is_here(datacenter) else datacenter)
        found = self.known.selected(selection)
        if found is None:
            raise NotLoaded(selection)
        return found

    def nodes_at(self, ip: str) -> Sequence[Node]:
        """The nodes with this address, by name."""
        if self.known.nodes:
            return self.known.nodes(ip)
        return by_address(self.snapshot.nodes.values()).get(ip, ())

    def is_here(self, datacenter: str) -> bool:
        """Whether a name's datacenter, lower-cased, is our own."""
        return datacenter in ("", self.snapshot.datacenter.lower())

    def is_known(self, datacenter: str) -> bool:
        """Whether there is such a datacenter."""
        return self.is_here(datacenter) or datacenter in map(str.lower, self.snapshot.datacenters)
