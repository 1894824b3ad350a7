"""How a reply's SRV records are put into another order as octets, without being made anew. Pure.

An SRV record holds its target as a whole (RFC 2782), so it may stand anywhere.
The target's addresses point at it; where all records are of one length, what
they point at stays where it is, and their data alone moves along.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from registrator.lookup.answers import Answer
from registrator.lookup.records import POINTED_SIZE, Record, Type, wire_length
from registrator.lookup.wire import Query

T = TypeVar("T")

POINTER = 2  # octets


@dataclass(frozen=True, slots=True)
class Layout:
    """SRV records of `width` octets, and behind them each target's addresses, of `glue` octets each.

    The first `near` of `count` records are to stay before the others. A reply
    has the first `keep` in its order; where that is not all of them, nothing
    is left behind them but the last `end` octets (an OPT record).
    """

    count: int
    near: int
    width: int
    glue: tuple[int, ...]
    keep: int
    end: int = 0

    def cut(self, room: int, most: int, end: int) -> Layout:
        """The layout of a reply of as many of the records as `room` octets hold, at most `most`."""
        keep = min(most, room // (self.width + sum(self.glue)), self.count)
        return _shared(self.count, self.near, self.width, self.glue, keep, end)

    def first(self, tail: bytes) -> bytes:
        """The tail with the records in their order."""
        return self._ordered(tail, list(range(self.count)))

    def shuffled(self, tail: bytes, turns: int, shuffle: Callable[[list[int]], None]) -> list[bytes]:
        """So many tails of other orders; every record is first in as many of them, if there is room."""
        near, others = list(range(self.near)), list(range(self.near, self.count))
        shuffle(near)
        shuffle(others)
        orders = (turned(near, turn, turns) + turned(others, turn, turns) for turn in range(turns))
        return [self._ordered(tail, order) for order in orders]

    def _ordered(self, tail: bytes, order: list[int]) -> bytes:
        """The tail with its records, and the data of their targets' addresses, in this order."""
        width, behind, group = self.width, self.count * self.width, sum(self.glue)
        kept = order[: self.keep]
        parts = [tail[at * width : (at + 1) * width] for at in kept]
        for place, source in enumerate(kept):
            pointer = behind + place * group
            start = behind + source * group
            for length in self.glue:
                parts.append(tail[pointer : pointer + POINTER])
                parts.append(tail[start + POINTER : start + length])
                start += length
        parts.append(tail[behind + self.count * group if self.keep == self.count else len(tail) - self.end :])
        return b"".join(parts)


def layout_of(query: Query, answer: Answer) -> Layout | None:
    """The layout of a reply that holds all of the answer's records; None where it is another.

    The records must have the question's name, and targets that differ in
    nothing but the octets of their first label, and have the same kinds of
    addresses. Nothing else may point at a target.
    """
    first, count, additional = answer.answers[0], len(answer.answers), answer.additional
    target = first.target
    if answer.authority or not target or not all(_is_like(record, first) for record in answer.answers):
        return None
    names = [record.target for record in answer.answers]
    kinds = [(record.type, len(record.data)) for record in additional if record.name == target]
    addresses, others = additional[: count * len(kinds)], additional[count * len(kinds) :]
    expected = [(name, *kind) for name in names for kind in kinds]
    if first.name != query.name or [(r.name, r.type, len(r.data)) for r in addresses] != expected:
        return None
    if any(record.name[-len(target) :] in names for record in others):
        return None
    width = POINTED_SIZE + len(first.data) + wire_length(target)
    return _shared(count, answer.near, width, tuple(POINTED_SIZE + length for _, length in kinds), count)


_shared = lru_cache(maxsize=1024)(Layout)  # few are different, and every reply has one


def _is_like(record: Record, first: Record) -> bool:
    """Whether an SRV record has the length of the first, and ends like it."""
    one, other = record.target, first.target
    return (
        record.type == Type.SRV
        and record.name == first.name
        and one is not None
        and other is not None
        and len(one[0]) == len(other[0])
        and one[1:] == other[1:]
    )


def turned(order: list[T], turn: int, turns: int) -> list[T]:
    """An order turned on by `turn` of `turns` shares."""
    at = turn * len(order) // turns
    return order[at:] + order[:at]
