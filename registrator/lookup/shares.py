"""Places for work that waits, shared fairly by those for whom it waits.

While there are free places anybody takes one. When all are taken, an asker
that holds fewer than another gets the oldest place of the one that holds most.
So whoever asks for what never comes pays with its own questions, and an asker
with one question always finds a place.

Sources of UDP packets can be forged. Addresses of this node's containers are
known, and few; all others are without number. So the two have places of their
own: a container that invents addresses takes none from known ones.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import NamedTuple

SITE = 64  # bits that the IPv6 addresses of one host have in common (RFC 4291, 2.5.1)


class Asker(NamedTuple):
    """Who is charged for a question: `known` is a container of this node, or the node itself."""

    known: bool
    origin: str


NOBODY = Asker(known=True, origin="")  # this program itself


class Crowded(Exception):
    """There is no place: the asker holds as many as anybody, or has just lost its own to another."""


@lru_cache(maxsize=4096)
def origin_of(source: str) -> str:
    """What addresses that one host may use have in common: an IPv4 address, an IPv6 network of 64 bits."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return ""
    if address.version == 4:
        return source
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, SITE), strict=False))


def asker_of(source: str, *, known: bool) -> Asker:
    """The asker at an IP address; `known`: a container of this node has it."""
    if known:
        return Asker(known=True, origin=source)
    return Asker(known=source.startswith("127.") or source == "::1", origin=origin_of(source))


class Shares:
    """So many places for known askers, and as many for all others."""

    def __init__(self, places: int, refused: Callable[[], None] = lambda: None) -> None:
        """`refused` is called for each question that is given up for lack of a place."""
        self._places = places
        self._refused = refused
        self._pools: dict[bool, _Pool] = {True: _Pool(), False: _Pool()}

    def __len__(self) -> int:
        return sum(pool.taken for pool in self._pools.values())

    @asynccontextmanager
    async def place(self, asker: Asker) -> AsyncIterator[None]:
        """Hold a place while entered. Raises Crowded where there is none, and when another asker gets it."""
        pool = self._pools[asker.known]
        if pool.taken >= self._places and not pool.make_room(asker.origin):
            self._refused()
            raise Crowded
        try:
            async with asyncio.timeout(None) as end:
                pool.take(asker.origin, end)
                try:
                    yield
                finally:
                    pool.leave(asker.origin, end)
        except TimeoutError:
            if not end.expired():  # somebody else's
                raise
            self._refused()
            raise Crowded from None


class _Pool:
    """Who holds which places, each asker's oldest first; a place is what ends the work in it."""

    def __init__(self) -> None:
        self._held: dict[str, dict[asyncio.Timeout, None]] = {}
        self.taken = 0

    def take(self, origin: str, end: asyncio.Timeout) -> None:
        """Note a place as taken."""
        self._held.setdefault(origin, {})[end] = None
        self.taken += 1

    def leave(self, origin: str, end: asyncio.Timeout) -> None:
        """Give a place back; one that was lost is not there any more."""
        places = self._held.get(origin, {})
        if end in places:
            del places[end]
            self.taken -= 1
            if not places:
                del self._held[origin]

    def make_room(self, origin: str) -> bool:
        """Take a place from the asker that holds most; False where that is the one who needs it."""
        most = max(self._held, key=lambda other: len(self._held[other]))
        if len(self._held[most]) <= len(self._held.get(origin, ())):
            return False
        oldest = next(iter(self._held[most]))
        self.leave(most, oldest)
        oldest.reschedule(0)
        return True
