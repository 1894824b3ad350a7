"""The cache of rendered replies, and its bounds.

A reply is found in two ways. `exact` has whole packets (but for the id) as
they came, so that a query that came before in the same octets is answered
without being parsed. Behind it stand the kinds of asker: a lower-cased
question, the EDNS size class, the flags that show in a reply and the view. So
names in random case (0x20) and queries with changing EDNS options (cookies)
find their reply after parsing, and do not fill the cache.

Names that do not exist have a small room of their own: a flood of them drives
out nothing but each other.
"""

from __future__ import annotations

from collections.abc import Hashable

from registrator.lookup.rendered import Rendered

EXACT_LIMIT = 20_000  # packets
OCTETS_LIMIT = 32 * 2**20  # of memory, for replies about what exists
MISSING_LIMIT = 1000  # replies about what does not

Networks = frozenset[str]


class Slot:
    """Where a reply is kept while it is renewed; `ready` is it when all of its orders are there."""

    __slots__ = ("ready", "rendered", "size")

    def __init__(self) -> None:
        self.ready: Rendered | None = None
        self.rendered: Rendered | None = None
        self.size = 0


class Replies:
    """Rendered replies by packet and by kind of asker; the longest unrenewed are driven out."""

    def __init__(self) -> None:
        self.exact: dict[tuple[bytes, Networks], Slot] = {}
        self._existing: dict[Hashable, Slot] = {}
        self._missing: dict[Hashable, Slot] = {}
        self._octets = 0

    def find(self, key: Hashable) -> Rendered | None:
        """The reply for one kind of asker, whether or not it still holds."""
        slot = self._existing.get(key) or self._missing.get(key)
        return slot.rendered if slot else None

    def keep(self, key: Hashable, rendered: Rendered, *, exists: bool) -> None:
        """Keep a reply in place of the one with the same key; `exists`: it is about a name that does."""
        slot = self._take(key) or Slot()
        slot.ready, slot.rendered, slot.size = None, rendered, rendered.size
        if exists:
            self._existing[key] = slot
            self._octets += slot.size
        else:
            self._missing[key] = slot
        self._shrink()

    def renewed(self, key: Hashable) -> None:
        """Count a reply among the latest again."""
        slot = self._existing.pop(key, None)
        if slot is not None:
            self._existing[key] = slot

    def recognize(self, octets: bytes, networks: Networks, key: Hashable) -> None:
        """From now on answer a packet of these octets (all but its id) without parsing it."""
        slot = self._existing.get(key) or self._missing.get(key)
        if slot is None:
            return
        slot.ready = slot.rendered
        self.exact[octets, networks] = slot
        if len(self.exact) > EXACT_LIMIT:
            del self.exact[next(iter(self.exact))]

    def __len__(self) -> int:
        return len(self._existing) + len(self._missing)

    @property
    def octets(self) -> int:
        """About how much memory the replies about existing names take."""
        return self._octets

    def _take(self, key: Hashable) -> Slot | None:
        slot = self._existing.pop(key, None)
        if slot is not None:
            self._octets -= slot.size
            return slot
        return self._missing.pop(key, None)

    def _shrink(self) -> None:
        while self._octets > OCTETS_LIMIT:
            slot = self._take(next(iter(self._existing)))
            if slot is not None:
                slot.ready = None
        while len(self._missing) > MISSING_LIMIT:
            self._missing.pop(next(iter(self._missing))).ready = None
