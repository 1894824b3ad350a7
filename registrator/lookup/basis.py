"""What of a snapshot an answer was made of, so that it can be kept for as long as that stays. Pure.

An answer is made from a copy of the snapshot that notes what is read of it.
When the snapshot is swapped, the answer still holds if what was read is the
same object as before: a change of one service leaves the answers about all
others alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from registrator.lookup.reach import by_address
from registrator.model import Node, Service, Snapshot

T = TypeVar("T")


class Basis:
    """What was read of a snapshot: services and names by key, and the nodes, if any of them."""

    __slots__ = ("_datacenters", "_names", "_nodes", "_services")

    def __init__(
        self,
        services: Mapping[str, Service | None],
        names: Mapping[str, object],
        nodes: Mapping[str, Node] | None,
        datacenters: tuple[str, ...],
    ) -> None:
        self._services = tuple(services.items())
        self._names = tuple((key, value is not None) for key, value in names.items())
        self._nodes = nodes
        self._datacenters = datacenters

    def holds(self, snapshot: Snapshot) -> bool:
        """Whether all that was read is the same in another snapshot."""
        services = snapshot.services
        for key, service in self._services:
            if services.get(key) is not service:
                return False
        for key, known in self._names:
            if (key in snapshot.names) is not known:
                return False
        return snapshot.datacenters == self._datacenters and (
            self._nodes is None or snapshot.nodes is self._nodes or snapshot.nodes == self._nodes
        )


class NodeIndex:
    """A catalog's nodes by their addresses, put in order once for each list of them."""

    def __init__(self) -> None:
        self._nodes: Mapping[str, Node] | None = None
        self._found: Mapping[str, Sequence[Node]] = {}

    def at(self, nodes: Mapping[str, Node], ip: str) -> Sequence[Node]:
        """Those of `nodes` that have this address, by name."""
        if nodes is not self._nodes:
            self._nodes, self._found = nodes, by_address(nodes.values())
        return self._found.get(ip, ())


class Reading:
    """`snapshot` stands for the one given; `basis` tells afterwards what was read of it."""

    def __init__(self, snapshot: Snapshot, index: NodeIndex) -> None:
        self._original = snapshot
        self._index = index
        self._services = _Noted(snapshot.services)
        self._names = _Noted(snapshot.names)
        self._nodes = _Noted(snapshot.nodes)
        self.snapshot = Snapshot(
            snapshot.index,
            self._names,
            self._services,
            self._nodes,
            snapshot.datacenter,
            snapshot.datacenters,
        )

    def nodes_at(self, ip: str) -> Sequence[Node]:
        """The nodes with this address, by name."""
        self._nodes.touched = True
        return self._index.at(self._original.nodes, ip)

    def basis(self) -> Basis:
        """What was read up to now."""
        nodes = self._original.nodes if self._nodes.touched else None
        return Basis(self._services.got, self._names.got, nodes, self._original.datacenters)


class _Noted(Mapping[str, T]):
    """A mapping that notes what is got from it by key, and whether it was touched at all."""

    def __init__(self, data: Mapping[str, T]) -> None:
        self._data = data
        self.got: dict[str, T | None] = {}
        self.touched = False

    def __getitem__(self, key: str) -> T:
        self.touched = True
        self.got[key] = self._data.get(key)
        return self._data[key]

    def __iter__(self) -> Iterator[str]:
        self.touched = True
        return iter(self._data)

    def __len__(self) -> int:
        self.touched = True
        return len(self._data)
