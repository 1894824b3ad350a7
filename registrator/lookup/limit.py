"""A limit on replies to askers who may not be who they say: UDP sources can be forged. Pure.

Whoever forges a source has us send replies to a victim. So each client network
outside (see `askers`) gets so many replies a second over UDP; of the queries
beyond, every second gets an empty reply with TC, no longer than the query,
which a true asker follows over TCP, and the others get none (BIND calls that
response rate limiting with slip 2). Neighbours are never judged.
"""

from __future__ import annotations

from enum import Enum

WINDOW = 1.0  # seconds
MAX_CLIENTS = 10_000  # counted each for itself in a window; the others share one count
OTHERS = ""


class Verdict(Enum):
    """What a query gets."""

    REPLY = "reply"
    SLIP = "slipped"  # an empty reply with TC
    DROP = "dropped"


class RateLimit:
    """At most `most` replies to one client network in a second; 0 is no limit."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: dict[str, int] = {}
        self._until = 0.0

    def judge(self, client: str, now: float) -> Verdict:
        """What a query from this network (see `client_of`) gets at `now`, in seconds of a monotonic clock."""
        if not self._most:
            return Verdict.REPLY
        if now >= self._until:
            self._counts.clear()
            self._until = now + WINDOW
        if client not in self._counts and len(self._counts) >= MAX_CLIENTS:
            client = OTHERS
        count = self._counts[client] = self._counts.get(client, 0) + 1
        if count <= self._most:
            return Verdict.REPLY
        return Verdict.SLIP if (count - self._most) % 2 else Verdict.DROP
