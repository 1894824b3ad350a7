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
"""

from __future__ import annotations

from random import Random

from registrator.lookup.basis import Basis
from registrator.model import Snapshot

random = Random().random  # noqa: S311 - who comes first is no secret

Counted = tuple[str, str, str, str]  # type, response code, transport, source: a key of Stats.dns_queries

OWN_SIZE = 1000  # octets that the objects around a reply's own take, keys in the cache included (measured)
TC_BIT = 0x02  # in a head's first octet (RFC 1035, 4.1.1)
MOST_TURNS = 8
MOST_OCTETS = 2560  # of all turns together, but there are always two where there is a choice


class Rendered:
    """A reply to one question from one kind of asker.

    `end` is the offset behind the question. `counted` says under which key of
    the statistics it goes. Unless `validate` is called it never holds.
    """

    __slots__ = ("_basis", "_snapshot", "_until", "counted", "end")

    def __init__(self, end: int, counted: Counted) -> None:
        self.end = end
        self.counted = counted
        self._basis: Basis | None = None
        self._snapshot: Snapshot | None = None  # where it was last seen to hold
        self._until = 0.0

    def validate(self, snapshot: Snapshot, basis: Basis, until: float) -> None:
        """Let it be sent until `until`, on the caller's clock, and while what it was made of stays."""
        self._basis = basis
        self._snapshot = snapshot
        self._until = until

    def holds(self, snapshot: Snapshot | None, now: float) -> bool:
        """Whether it may still be sent."""
        if now >= self._until:
            return False
        if snapshot is not self._snapshot:
            if snapshot is None or self._basis is None or not self._basis.holds(snapshot):
                return False
            self._snapshot = snapshot
        return True

    def reply(self, packet: bytes) -> bytes:
        """The reply to a query whose question is this one, in whatever case."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """About how many octets of memory it takes."""
        raise NotImplementedError


class Circle:
    """Records of `width` octets each; a slice of it are `keep` of them, from a random one on."""

    __slots__ = ("_count", "_length", "_records", "_width")

    def __init__(self, records: bytes, width: int, keep: int) -> None:
        self._records = records * 2 if keep else b""
        self._count = len(records) // width
        self._width = width
        self._length = keep * width

    def slice(self) -> bytes:
        """As many records as are kept."""
        at = int(random() * self._count) * self._width
        return self._records[at : at + self._length]

    @property
    def size(self) -> int:
        """Octets."""
        return len(self._records)


class Ring(Rendered):
    """Address records: a slice of each circle (the near instances', the others'), then `rest`."""

    __slots__ = ("_circle", "_head", "_near", "_rest")

    def fill(self, head: bytes, near: Circle | None, circle: Circle, rest: bytes) -> Ring:
        """Set what is sent."""
        self._head = head
        self._near = near
        self._circle = circle
        self._rest = rest
        return self

    def reply(self, packet: bytes) -> bytes:
        """See `Rendered.reply`."""
        near = self._near.slice() if self._near else b""
        return packet[:2] + self._head + packet[12 : self.end] + near + self._circle.slice() + self._rest

    @property
    def size(self) -> int:
        """See `Rendered.size`."""
        return OWN_SIZE + self._circle.size + (self._near.size if self._near else 0)


class Turns(Rendered):
    """Whole replies but for id and question, up to `wanted` of them, added as they are asked for."""

    __slots__ = ("_turns", "seed", "wanted")

    def fill(self, seed: int, wanted: int, head: bytes, tail: bytes) -> Turns:
        """Set the first turn; `wanted` is how many orders there are to show, all made from `seed`."""
        self.seed = seed
        self._turns = [(head, tail)]
        self.wanted = min(wanted, MOST_TURNS, max(2, MOST_OCTETS // (len(tail) + 1)))
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
        return bool(self._turns[0][0][0] & TC_BIT)

    def reply(self, packet: bytes) -> bytes:
        """See `Rendered.reply`."""
        turns = self._turns
        head, tail = turns[int(random() * len(turns))] if len(turns) > 1 else turns[0]
        return packet[:2] + head + packet[12 : self.end] + tail

    @property
    def size(self) -> int:
        """See `Rendered.size`."""
        return OWN_SIZE + self.wanted * (len(self._turns[0][1]) + 100)
