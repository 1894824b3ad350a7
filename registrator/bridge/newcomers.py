"""Askers that may be containers too new to be known: their lookup waits for the looks that are under way.

A container's program may ask before the engine has told where it is; answered
at once it would be taken for a host, and given addresses that it may not reach.
Only an address that is nobody's, while containers are being looked at, waits:
once, briefly, and few of them at a time.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from registrator.bridge.lanes import Lanes
from registrator.bridge.views import Views

PATIENCE = 0.25  # seconds; on an idle machine a look takes some milliseconds
STRANGER_FOR = 10.0  # seconds for which an address that waited in vain does not wait again
MAX_STRANGERS = 1024
MAX_WAITING = 64


class Newcomers:
    """Who is to wait, and for what; `clock` gives monotonic seconds."""

    def __init__(self, views: Views, lanes: Lanes, clock: Callable[[], float]) -> None:
        self._views = views
        self._lanes = lanes
        self._clock = clock
        self._strangers: dict[str, float] = {}  # until when
        self._waiting = 0

    def may_be(self, ip: str) -> bool:
        """Whether the asker at this address should wait before it is answered."""
        return (
            self._lanes.busy
            and not self._views.knows(ip)
            and self._strangers.get(ip, 0.0) <= self._clock()
            and self._waiting < MAX_WAITING
            and _may_be_a_container(ip)
        )

    async def wait(self, ip: str) -> None:
        """Wait for the looks that are under way now, but no longer than PATIENCE; never raises."""
        self._waiting += 1
        try:
            await self._lanes.finished(PATIENCE)
        finally:
            self._waiting -= 1
        if not self._views.knows(ip):
            self._strangers.pop(ip, None)
            self._strangers[ip] = self._clock() + STRANGER_FOR
            if len(self._strangers) > MAX_STRANGERS:
                del self._strangers[next(iter(self._strangers))]


def _may_be_a_container(ip: str) -> bool:
    """Whether engines give such addresses: no loopback, and none that is routed on the internet."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    return address.is_private and not address.is_loopback
