"""All that answers, opened and closed together; and how one agent takes over from another.

With `share` a new agent is started beside the old one, on the same addresses:

1. While another one is there, the new one opens nothing until it can answer:
   no query may reach an agent that has nothing to say yet. (Where it is alone
   it opens at once, as without `share`, and `/readyz` tells that it is not
   ready.)
2. The old one, told to stop, lets the new one have what comes from then on. It
   answers what it has, and closes when the kernel brings it nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from registrator.descriptors import Allowance
from registrator.lookup.acceptor import Shortage
from registrator.lookup.dns import DnsServer
from registrator.lookup.http import HttpFront
from registrator.lookup.http_server import HttpServer
from registrator.lookup.linklocal import LinkLocal
from registrator.lookup.resolver import Resolver
from registrator.lookup.sharing import listeners
from registrator.settings import Listen

log = logging.getLogger(__name__)

DNS_PORT = 53
LOOK = 0.05  # seconds between two looks whether it is time to take over
SETTLED = 0.25  # seconds for handshakes that began with us, from not too far away
LOADED = 1.0  # seconds that the loading of services may take before all is opened
LONGEST = 1.2  # seconds that an agent goes on for what it has begun


class Fronts:
    """DNS and HTTP on all their addresses, `link_local` ("" is none) on port 53."""

    def __init__(
        self,
        resolver: Resolver,
        front: HttpFront,
        *,
        dns: Sequence[Listen],
        link_local: str,
        http: Sequence[Listen],
        rate_limit: int = 0,
        share: bool = False,
        allowance: Allowance,
        shortage: Shortage,
    ) -> None:
        self._link_local = LinkLocal(link_local) if link_local else None
        names = [*dns, Listen(link_local, DNS_PORT)] if link_local else list(dns)
        self._listens = [*names, *http]
        self._dns = DnsServer(
            resolver, names, rate_limit=rate_limit, share=share, connections=allowance.dns, shortage=shortage
        )
        self._http = HttpServer(front, http, share=share, connections=allowance.http, shortage=shortage)
        self._share = share
        self._open = False

    async def start(self) -> None:
        """Open all, unless another agent is to be relieved first. Raises `Failure` where it cannot."""
        if self._share and any(self._neighbours()):
            log.info("another agent answers there: taking over as soon as everything is known")
        else:
            await self._start()

    async def run(self, ready: Callable[[], bool], load: Callable[[], Awaitable[None]]) -> None:
        """Open what `start` left closed, when `ready`, or when the other agent is gone; never returns.

        `load` gets what is asked for most into memory, where that can be had
        quickly: the questions of all askers begin to come at one moment.
        """
        while not (self._open or ready()) and any(self._neighbours()):  # noqa: ASYNC110 - sockets of another process
            await asyncio.sleep(LOOK)
        if not self._open:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOADED):
                    await load()
            await self._start()
        await asyncio.Event().wait()

    async def retire(self) -> bool:
        """Leave all to the other agent on the same addresses, if there is one; tell whether there is."""
        if not self._share or not self._open:
            return self._share and any(self._neighbours())
        if not any(len(inodes) > 1 for inodes in self._neighbours()):
            return False
        log.info("another agent answers here too: leaving the rest to it")
        now = time.monotonic()
        await asyncio.gather(self._dns.retire(now + SETTLED, now + LONGEST), self._http.retire(now + SETTLED))
        return True

    async def close(self) -> None:
        """Close all that is open."""
        await self._http.close()
        await self._dns.close()
        if self._link_local and self._open:
            self._link_local.remove()

    async def _start(self) -> None:
        if self._link_local:
            self._link_local.add()
        self._open = True
        await self._dns.start()
        await self._http.start()

    def _neighbours(self) -> list[frozenset[int]]:
        """Who listens on each of the addresses, by inode; where we do, too."""
        return [listeners(listen.host, listen.port) for listen in self._listens]
