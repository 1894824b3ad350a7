"""Ids that somebody else writes as well: two registrators where one belongs.

Two agents of one engine with other options, agents of machines that are copies
of one another, or of nodes of one name that share a Consul agent: each finds
the other's writes and would put them right for ever. A write that is found
undone is repeated once; when it is undone again, its id is left as it is for
some rounds. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

STRIKES = 2  # rounds that found a write undone, before its id is left alone
PATIENCE = 60  # rounds for which it is left; then all begins anew, for the other may be gone


class Contests:
    """How often each id was found undone in a row, and which are left alone."""

    def __init__(self) -> None:
        self._strikes: Counter[str] = Counter()
        self._left: dict[str, int] = {}  # rounds to go

    def __contains__(self, instance_id: object) -> bool:
        """Whether the id is to be left alone."""
        return instance_id in self._left

    def note(self, undone: Collection[str]) -> list[str]:
        """Take in what one round found undone; return the ids that are left alone from now on."""
        self._left = {key: rounds - 1 for key, rounds in self._left.items() if rounds > 1}
        self._strikes = Counter({key: self._strikes[key] + 1 for key in undone if key not in self._left})
        new = sorted(key for key, strikes in self._strikes.items() if strikes >= STRIKES)
        self._left |= dict.fromkeys(new, PATIENCE)
        return new

    def forget(self, instance_ids: Iterable[str]) -> None:
        """Begin anew with ids of which something else is wanted than before."""
        for key in instance_ids:
            self._left.pop(key, None)
            self._strikes.pop(key, None)
