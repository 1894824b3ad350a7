"""The cache of rendered replies, and its bounds.

A reply is found in two ways. `exact` has whole packets (but for the id) as
they came, so that a query that came before in the same octets is answered
without being parsed. Behind it stand the kinds of asker: a lower-cased
question, the EDNS size class, the flags that show in a reply and the view. So
names in random case (0x20) and queries with changing EDNS options (cookies)
find their reply after parsing, and do not fill the cache.

What is asked for again and again stays, whatever else is asked. Names that do
not exist have a small room of their own: a flood of them drives out nothing
but each other. A reply about what exists is new until it is asked for a second
time; where room has to be made the new ones go first, and of the others those
that nobody has asked for since room was last looked for.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeVar

from registrator import limits
from registrator.lookup.rendered import Rendered

EXACT_LIMIT = limits.DNS_PACKETS.value
OCTETS_LIMIT = limits.DNS_REPLIES.value  # of memory, for replies about what exists
NEW_SHARE = 4  # one part in so many is for replies that were asked for once
MISSING_LIMIT = limits.DNS_MISSING.value  # replies about what does not
SPELLINGS = 8  # packets, by their octets, of one reply
CHANCES = 8  # replies that are looked at before one is driven out

Networks = frozenset[str]
Packet = tuple[bytes, Networks]
Key = TypeVar("Key", bound=Hashable)


class Slot:
    """Where a reply is kept while it is renewed; `ready` is it when all of its orders are there.

    `used`: asked for since room was last looked for. `packets` are its keys in `exact`.
    """

    __slots__ = ("packets", "ready", "rendered", "size", "used")

    def __init__(self) -> None:
        self.ready: Rendered | None = None
        self.rendered: Rendered | None = None
        self.size = 0
        self.used = False
        self.packets: tuple[Packet, ...] = ()


class Replies:
    """Rendered replies by packet and by kind of asker."""

    def __init__(self) -> None:
        self.exact: dict[Packet, Slot] = {}
        self._new: dict[Hashable, Slot] = {}  # asked for once
        self._wanted: dict[Hashable, Slot] = {}
        self._missing: dict[Hashable, Slot] = {}
        self._new_octets = self._wanted_octets = 0

    def find(self, key: Hashable) -> Rendered | None:
        """The reply for one kind of asker, whether or not it still holds."""
        slot = self._slot(key)
        return slot.rendered if slot else None

    def keep(self, key: Hashable, rendered: Rendered, *, exists: bool) -> None:
        """Keep a reply in place of the one with the same key; `exists`: it is about a name that does."""
        wanted = key in self._wanted
        slot = self._take(key) or Slot()
        slot.ready, slot.rendered, slot.size = None, rendered, rendered.size
        if not exists:
            self._missing[key] = slot
        elif wanted:
            self._wanted[key] = slot
            self._wanted_octets += slot.size
        else:
            self._new[key] = slot
            self._new_octets += slot.size
        self._shrink()

    def wanted(self, key: Hashable) -> None:
        """Count a reply among those that are asked for more than once."""
        slot = self._new.pop(key, None)
        if slot is not None:
            self._new_octets -= slot.size
            self._wanted_octets += slot.size
            self._wanted[key] = slot
        else:
            slot = self._wanted.get(key)
        if slot is not None:
            slot.used = True

    def recognize(self, octets: bytes, networks: Networks, key: Hashable) -> None:
        """From now on answer a packet of these octets (all but its id) without parsing it."""
        slot = self._slot(key)
        if slot is None:
            return
        slot.ready = slot.rendered
        packet = octets, networks
        if packet in self.exact:
            return
        while len(slot.packets) >= SPELLINGS:
            self._forget(slot.packets[0])
        slot.packets += (packet,)
        self.exact[packet] = slot
        if len(self.exact) > EXACT_LIMIT:
            self._forget(self._least(self.exact))

    def __len__(self) -> int:
        return len(self._new) + len(self._wanted) + len(self._missing)

    @property
    def octets(self) -> int:
        """About how much memory the replies about existing names take."""
        return self._new_octets + self._wanted_octets

    def _slot(self, key: Hashable) -> Slot | None:
        return self._wanted.get(key) or self._new.get(key) or self._missing.get(key)

    def _take(self, key: Hashable) -> Slot | None:
        slot = self._wanted.pop(key, None)
        if slot is not None:
            self._wanted_octets -= slot.size
            return slot
        slot = self._new.pop(key, None)
        if slot is not None:
            self._new_octets -= slot.size
            return slot
        return self._missing.pop(key, None)

    def _shrink(self) -> None:
        while self.octets > OCTETS_LIMIT:
            crowded = not self._wanted or self._new_octets > OCTETS_LIMIT // NEW_SHARE
            self._drop(next(iter(self._new)) if crowded else self._least(self._wanted))
        while len(self._missing) > MISSING_LIMIT:
            self._drop(next(iter(self._missing)))

    def _drop(self, key: Hashable) -> None:
        """Drive a reply out, with its packets."""
        slot = self._take(key)
        if slot is not None:
            slot.ready = None
            while slot.packets:
                self._forget(slot.packets[0])

    def _forget(self, packet: Packet) -> None:
        slot = self.exact.pop(packet)
        slot.packets = tuple(own for own in slot.packets if own != packet)

    @staticmethod
    def _least(slots: dict[Key, Slot]) -> Key:
        """One that nobody asked for lately: each that somebody did goes behind the others once."""
        for _ in range(CHANCES):
            key = next(iter(slots))
            slot = slots[key]
            if not slot.used:
                return key
            slot.used = False
            del slots[key]
            slots[key] = slot
        return next(iter(slots))
