"""Replies rendered once and sent many times, each time with another instance first.

What is the same for every asker stands here as octets; a reply is the query's
id, a head (the header behind the id), the asker's own question, as its case
comes back, and a tail:

- Addresses are of one length and point at nothing but the question, so a
  `Ring` has their records twice in a row, and a tail is a slice that starts
  anywhere: every instance comes first equally often.
- Everything else (SRV records point from one section into another) is in
  `Turns`: a few whole tails, each with the instances turned on by the same
  share. SRV's clients choose by weight, not by order.

Both are put into another order from time to time, where that can be done with
their octets alone: to make a reply of thirty SRV records takes ten times as
long.
"""

from __future__ import annotations

from random import Random

from registrator.lookup.basis import Basis
from registrator.lookup.layout import Layout
from registrator.model import Snapshot

rng = Random()  # noqa: S311 - who comes first is no secret
random = rng.random

Counted = tuple[str, str, str, str]  # type, response code, transport, source: a key of Stats.dns_queries

OWN_SIZE = 1000  # octets that the objects around a reply's own take, keys in the cache included (measured)
TC_BIT = 0x02  # in a head's first octet (RFC 1035, 4.1.1)
MOST_TURNS = 8
MOST_OCTETS = 2560  # of all turns together, but those without a layout are always two


def is_cut(head: bytes) -> bool:
    """Whether a reply with this head lacks some of the answers."""
    return bool(head[0] & TC_BIT)


class Rendered:
    """A reply to one question from one kind of asker.

    `end` is the offset behind the question. `counted` says under which key of
    the statistics it goes. Unless `validate` is called it never holds.
    """

    __slots__ = ("_basis", "_life", "_snapshot", "_until", "counted", "end")

    def __init__(self, end: int, counted: Counted) -> None:
        self.end = end
        self.counted = counted
        self._basis: Basis | None = None
        self._snapshot: Snapshot | None = None  # where it was last seen to hold
        self._until = self._life = 0.0

    def validate(self, snapshot: Snapshot, basis: Basis, now: float, life: float) -> None:
        """Let it be sent for about `life` seconds from `now` on, and while what it was made of stays.

        Each has a random share of that, so that replies made together do not end together.
        """
        self._basis = basis
        self._snapshot = snapshot
        self._life = life
        self._until = now + life * rng.uniform(0.5, 1.0)

    def holds(self, snapshot: Snapshot | None, now: float) -> bool:
        """Whether it may still be sent."""
        return now < self._until and (snapshot is self._snapshot or self._stands(snapshot))

    def renew(self, snapshot: Snapshot, now: float) -> bool:
        """Let it be sent for another life, in another order; False where it has to be made anew."""
        if not self._life or not self._stands(snapshot) or not self.reorder():
            return False
        self._until = now + self._life * rng.uniform(0.5, 1.0)
        return True

    def _stands(self, snapshot: Snapshot | None) -> bool:
        """Whether what it was made of is the same in this snapshot."""
        if snapshot is None or self._basis is None or not self._basis.holds(snapshot):
            return False
        self._snapshot = snapshot
        return True

    def reorder(self) -> bool:
        """Put the records into another order; False where their octets alone do not allow it."""
        raise NotImplementedError

    def reply(self, packet: bytes) -> bytes:
        """The reply to a query whose question is this one, in whatever case."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """About how many octets of memory it takes."""
        raise NotImplementedError


class Circle:
    """Records of `width` octets each, in a random order; shared by all replies that they are in."""

    __slots__ = ("_shared", "count", "records", "width")

    def __init__(self, records: bytes, width: int) -> None:
        self.count = len(records) // width
        self.width = width
        self._shared = False
        self.records = records * 2
        self.shuffle()

    def slice(self, length: int) -> bytes:
        """So many octets of whole records, from a random record on."""
        at = int(random() * self.count) * self.width
        return self.records[at : at + length]

    def shuffle(self) -> None:
        """Put the records into another order."""
        width, octets = self.width, self.records
        records = [octets[at * width : (at + 1) * width] for at in range(self.count)]
        rng.shuffle(records)
        self.records = b"".join(records) * 2

    def charge(self) -> int:
        """Octets, for the first reply that asks; the others share them."""
        if self._shared:
            return 0
        self._shared = True
        return len(self.records)


class Ring(Rendered):
    """Address records: a slice of each circle (the near instances', the others'), then `rest`."""

    __slots__ = ("_circle", "_head", "_length", "_near", "_near_length", "_rest", "_size")

    def fill(
        self, head: bytes, near: Circle | None, first: int, circle: Circle, keep: int, rest: bytes
    ) -> Ring:
        """Set what is sent: `first` of the near records, `keep` of the others."""
        self._head = head
        self._near = near
        self._circle = circle
        self._near_length = first * circle.width
        self._length = keep * circle.width
        self._rest = rest
        self._size = OWN_SIZE + circle.charge() + (near.charge() if near else 0)
        return self

    def reply(self, packet: bytes) -> bytes:
        """See `Rendered.reply`."""
        near = self._near.slice(self._near_length) if self._near else b""
        others = self._circle.slice(self._length)
        return packet[:2] + self._head + packet[12 : self.end] + near + others + self._rest

    def reorder(self) -> bool:
        """See `Rendered.reorder`."""
        self._circle.shuffle()
        if self._near:
            self._near.shuffle()
        return True

    @property
    def size(self) -> int:
        """See `Rendered.size`."""
        return self._size


class Turns(Rendered):
    """Whole replies but for id and question, up to `wanted` of them.

    The others are added when they are asked for: by `reorder` where there is a layout, else one by one.
    """

    __slots__ = ("_turns", "_whole", "layout", "seed", "wanted")

    def fill(
        self,
        seed: int,
        wanted: int,
        head: bytes,
        tail: bytes,
        layout: Layout | None = None,
        whole: bytes | None = None,
    ) -> Turns:
        """Set the first turn; `wanted` is how many orders there are to show, all made from `seed`.

        `whole` is the tail with all records, of which `tail` has some.
        """
        self.seed = seed
        self._turns = [(head, tail)]
        self._whole = whole
        room = MOST_OCTETS // (len(tail) + 1)
        self.wanted = min(wanted, MOST_TURNS, max(1 if layout else 2, room))
        self.layout = layout
        return self

    def add(self, head: bytes, tail: bytes) -> None:
        """Add the next turn."""
        first = self._turns[0][0]
        self._turns.append((first if first == head else head, tail))  # one object for all, most of the time

    @property
    def count(self) -> int:
        """How many turns there are."""
        return len(self._turns)

    @property
    def is_cut(self) -> bool:
        """Whether there were more records than fit, so that a turn shows but some of the instances."""
        return is_cut(self._turns[0][0])

    def reply(self, packet: bytes) -> bytes:
        """See `Rendered.reply`."""
        turns = self._turns
        head, tail = turns[int(random() * len(turns))] if len(turns) > 1 else turns[0]
        return packet[:2] + head + packet[12 : self.end] + tail

    def reorder(self) -> bool:
        """See `Rendered.reorder`."""
        if self.layout is None:
            return False
        head, tail = self._turns[0]
        whole = self._whole or tail
        self._turns = [(head, other) for other in self.layout.shuffled(whole, self.wanted, rng.shuffle)]
        return True

    @property
    def size(self) -> int:
        """See `Rendered.size`."""
        return OWN_SIZE + self.wanted * (len(self._turns[0][1]) + 100) + len(self._whole or b"")
