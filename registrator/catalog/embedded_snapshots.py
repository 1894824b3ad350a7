"""How the embedded catalog turns entries that change one by one into immutable snapshots.

Pure: no clock, no loop. Changes are put in as they come and folded into one
new `Snapshot` by `build`; only the services that changed are made anew, the
others are shared with the snapshot before, so that a swap among a thousand
services costs little more than the copy of two dictionaries.

The folds are numbered. A service's index is the number of the fold in which
its entries last changed, the snapshot's own that in which names, tags or nodes
last changed. So both start at 1 and never go back, not even for a service that
went and came again, and `Snapshot.index_of` never falls for any name.
"""

from __future__ import annotations

from itertools import islice
from types import MappingProxyType

from registrator.model import Entry, Node, Service, Snapshot

MOST_AT = 16  # instances that are found by one address: those of a node may be many


class SnapshotBuilder:
    """The entries of one node by service, and the latest snapshot made of them."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._datacenter = "dc1"
        self._entries: dict[str, dict[str, Entry]] = {}  # service, lower-cased -> instance id -> entry
        self._service_of: dict[str, str] = {}  # instance id -> service, lower-cased
        self._at: dict[str, dict[str, Entry]] = {}  # IP address -> instance id -> entry
        self._changed: set[str] = set()  # services that get a new index
        self._reworded: set[str] = set()  # services that keep theirs
        self._fold = 0
        self._names: dict[str, tuple[str, ...]] = {}
        self._services: dict[str, Service] = {}
        self._latest: Snapshot | None = None

    def place(self, node: Node) -> None:
        """Set the only node that there is. The caller puts its entries again."""
        self._nodes = {node.name.lower(): node}
        self._datacenter = node.datacenter

    def put(self, entry: Entry, *, reworded: bool = False) -> None:
        """Add or replace an instance's entry; `reworded`: it is not worth a new index."""
        instance_id, key = entry.instance.id, entry.instance.service.lower()
        if self._service_of.get(instance_id, key) != key:
            self.drop(instance_id)
        self._service_of[instance_id] = key
        entries = self._entries.setdefault(key, {})
        self._move(instance_id, entries.get(instance_id), entry)
        entries[instance_id] = entry
        (self._reworded if reworded else self._changed).add(key)

    def drop(self, instance_id: str) -> None:
        """Remove an instance; an unknown one is not an error."""
        key = self._service_of.pop(instance_id, None)
        if key is None:
            return
        self._move(instance_id, self._entries[key].pop(instance_id), None)
        if not self._entries[key]:
            del self._entries[key]
        self._changed.add(key)

    def at(self, ip: str) -> tuple[Entry, ...]:
        """Entries whose reverse name this address is, `MOST_AT` at most, as they were put last."""
        return tuple(islice(self._at.get(ip, {}).values(), MOST_AT))

    def build(self) -> Snapshot:
        """Fold all that was put since the last call; the same object as then if nothing differs."""
        before, names, services = self._latest, self._names.copy(), self._services.copy()
        fold, different = self._fold + 1, False
        for key in self._changed | self._reworded:
            different |= self._renew(key, fold, names, services)
        self._changed.clear()
        self._reworded.clear()
        renamed = before is None or names != self._names or self._nodes != before.nodes
        if before is not None and not different and not renamed:
            return before
        self._fold, self._names, self._services = fold, names, services
        self._latest = Snapshot(
            index=fold if before is None or renamed else before.index,
            names=MappingProxyType(names),
            services=MappingProxyType(services),
            nodes=MappingProxyType(self._nodes),
            datacenter=self._datacenter,
            datacenters=(self._datacenter,),
        )
        return self._latest

    def _move(self, instance_id: str, before: Entry | None, after: Entry | None) -> None:
        """Keep the index of addresses true to an instance that changed."""
        old = before.instance.reversible if before else ()
        new = after.instance.reversible if after else ()
        for ip in old:
            if ip not in new:
                del self._at[ip][instance_id]
                if not self._at[ip]:
                    del self._at[ip]
        if after:
            for ip in new:
                self._at.setdefault(ip, {})[instance_id] = after

    def _renew(
        self, key: str, fold: int, names: dict[str, tuple[str, ...]], services: dict[str, Service]
    ) -> bool:
        """Bring one service up to date in `names` and `services`; whether it differs from before."""
        old = services.get(key)
        entries = tuple(entry for _, entry in sorted(self._entries.get(key, {}).items()))
        if entries == (old.entries if old else ()):
            return False  # put back as it was, or came and went
        if not entries:
            del names[key], services[key]
            return True
        index = fold if old is None or key in self._changed else old.index
        services[key] = Service(entries[0].instance.service, index, entries)
        names[key] = tuple(dict.fromkeys(tag for entry in entries for tag in entry.instance.tags))
        return True
