"""The cache of upstream replies, and its bounds.

What does not exist, and what failed, has a small room of its own: a flood of
names without an answer drives out nothing but each other.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from dataclasses import dataclass

from registrator.lookup.records import Rcode
from registrator.lookup.recursor_message import Inquiry, Reply

FOUND_LIMIT, FOUND_OCTETS = 10_000, 16 * 2**20
MISSING_LIMIT, MISSING_OCTETS = 2_000, 2 * 2**20
OWN_SIZE = 500  # octets that the objects around a reply take (measured)
RECORD_SIZE = 160  # the same of each record's place


@dataclass(frozen=True, slots=True)
class Kept:
    """A reply that came at `since` and may be given until `until`, in seconds of a monotonic clock."""

    reply: Reply
    since: float
    until: float

    @property
    def size(self) -> int:
        """About how many octets of memory it takes."""
        reply = self.reply
        return OWN_SIZE + len(reply.question) * 2 + len(reply.body) + RECORD_SIZE * len(reply.places)


class Room:
    """Up to `entries` replies of up to `octets` together; the longest unused go first."""

    def __init__(self, entries: int, octets: int) -> None:
        self._limits = entries, octets
        self._kept: OrderedDict[Inquiry, Kept] = OrderedDict()
        self.octets = 0

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, inquiry: Inquiry) -> Kept | None:
        """What is kept, be it too old; it counts as used."""
        kept = self._kept.get(inquiry)
        with contextlib.suppress(KeyError):  # dropped meanwhile: large answers are made in a thread
            self._kept.move_to_end(inquiry)
        return kept

    def drop(self, inquiry: Inquiry) -> None:
        """Forget one, if it is there."""
        kept = self._kept.pop(inquiry, None)
        self.octets -= kept.size if kept else 0

    def keep(self, inquiry: Inquiry, kept: Kept) -> None:
        """Put one in that is not there."""
        self._kept[inquiry] = kept
        self.octets += kept.size
        while len(self._kept) > self._limits[0] or self.octets > self._limits[1]:
            self.drop(next(iter(self._kept)))


class Cache:
    """Upstream replies by what was asked."""

    def __init__(self) -> None:
        self._found = Room(FOUND_LIMIT, FOUND_OCTETS)
        self._missing = Room(MISSING_LIMIT, MISSING_OCTETS)

    def __len__(self) -> int:
        return len(self._found) + len(self._missing)

    @property
    def octets(self) -> int:
        """About how much memory it takes."""
        return self._found.octets + self._missing.octets

    def find(self, inquiry: Inquiry, now: float) -> tuple[Reply, int] | None:
        """The reply, if it may still be given, and its age in whole seconds."""
        kept = self._found.find(inquiry) or self._missing.find(inquiry)
        if kept is None or now >= kept.until:
            return None
        return kept.reply, int(now - kept.since)

    def keep(self, inquiry: Inquiry, reply: Reply, now: float) -> None:
        """Keep a reply for as long as it says, in place of an earlier one."""
        self._found.drop(inquiry)
        self._missing.drop(inquiry)
        if reply.ttl:
            room = self._found if reply.rcode == Rcode.NOERROR and reply.counts[0] else self._missing
            room.keep(inquiry, Kept(reply, now, now + reply.ttl))
