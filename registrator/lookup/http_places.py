"""Places for a bounded number of holders, of which every client has its share.

Used for connections, blocking queries and streams. A client is who counts as
one over HTTP: an IPv4 address, or the /64 of an IPv6 one. Where all places are
taken, the client that holds the most gives one up for a client that holds
fewer; so whoever is new gets in, however many places one client took.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

PREFIX = 64  # bits that the IPv6 addresses of one client have in common: a host may choose the rest


@lru_cache(maxsize=4096)
def client_of(source: str) -> str:
    """Who counts as one client, as text; what is not an IP address is a client by itself."""
    try:
        address = ipaddress.ip_address(source.partition("%")[0])
    except ValueError:
        return source
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, PREFIX), strict=False))


class NoPlace(Exception):
    """There is no place for a client; `own` when it is its own share that is used up."""

    def __init__(self, *, own: bool) -> None:
        super().__init__("no place")
        self.own = own


class Places(Generic[T]):
    """At most `most` holders, and at most `each` of one client."""

    def __init__(self, most: int, each: int) -> None:
        self._most, self._each = most, each
        self._by_client: dict[str, dict[T, None]] = {}  # the longest there first
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def holders(self) -> list[T]:
        """All who have a place."""
        return [holder for held in self._by_client.values() for holder in held]

    def take(self, client: str, holder: T, idle: Callable[[T], bool] | None = None) -> T | None:
        """Give `holder` a place; returns who lost its place for it. Raises NoPlace.

        `idle` tells whose place nobody misses: such a holder goes first, and
        makes room for another of the same client too.
        """
        loser = self._loser(client, idle)
        if loser is not None:
            self.leave(loser[0], loser[1])
        self._by_client.setdefault(client, {})[holder] = None
        self._count += 1
        return loser[1] if loser else None

    def leave(self, client: str, holder: T) -> None:
        """Take a holder's place back, if it has one."""
        held = self._by_client.get(client, {})
        if holder in held:
            del held[holder]
            self._count -= 1
            if not held:
                del self._by_client[client]

    def renew(self, client: str, holder: T) -> None:
        """Count a holder as the one that came last."""
        held = self._by_client.get(client, {})
        if holder in held:
            del held[holder]
            held[holder] = None

    def _loser(self, client: str, idle: Callable[[T], bool] | None) -> tuple[str, T] | None:
        """Who has to go so that `client` gets a place; None where there is room. Raises NoPlace."""
        own = self._by_client.get(client, {})
        full_share = len(own) >= self._each
        if not full_share and self._count < self._most:
            return None
        heaviest = client if full_share else max(self._by_client, key=lambda one: len(self._by_client[one]))
        crowd = self._by_client[heaviest]
        first_idle = next((holder for holder in crowd if idle(holder)), None) if idle else None
        if first_idle is not None:
            return heaviest, first_idle
        if len(crowd) > len(own) + 1:
            return heaviest, next(iter(crowd))
        raise NoPlace(own=full_share)
