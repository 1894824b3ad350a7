"""Asks upstream resolvers: one after the other, equal questions once, and keeps what they said."""

from __future__ import annotations

import asyncio
import logging
import time

from registrator.complaint import Complaint
from registrator.lookup.records import Rcode
from registrator.lookup.recursor_cache import Cache
from registrator.lookup.recursor_exchange import NoReply, exchange
from registrator.lookup.recursor_message import FAILURE, Inquiry, Reply
from registrator.lookup.recursor_servers import Servers, Upstreams
from registrator.stats import Stats

log = logging.getLogger(__name__)

DEADLINE = 8.0  # seconds for all tries together; stub resolvers give up after five, dig after fifteen
MAX_FLIGHTS = 128  # inquiries under way
MAX_WAITING = (
    192  # askers that wait for them; the front lets 256 wait, and those for the catalog must find room
)


class Recursor:
    """Upstream resolvers behind a cache; `close` ends what is under way.

    Of the RCODEs only NOERROR and NXDOMAIN are answers. After any other, and
    after silence, the next server is asked; if none answers, the reply is
    SERVFAIL (as Consul's), kept for a second.
    """

    def __init__(self, servers: Servers, stats: Stats) -> None:
        self._upstreams = Upstreams(servers)
        self._stats = stats
        self._cache = Cache()
        self._flights: dict[Inquiry, asyncio.Task[Reply]] = {}
        self._waiting = 0
        self._complaint = Complaint(log)

    async def close(self) -> None:
        """Give up what is under way."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def known(self, inquiry: Inquiry) -> tuple[Reply, int] | None:
        """The reply from the cache and its age in seconds; None where it is not there."""
        found = self._cache.find(inquiry, time.monotonic())
        if found:
            self._stats.recursor_hits += 1
        return found

    async def ask(self, inquiry: Inquiry) -> Reply:
        """The reply from upstream. Does not raise: SERVFAIL where there is none, or too many wait."""
        flight = self._flights.get(inquiry)
        if self._waiting >= MAX_WAITING or (flight is None and len(self._flights) >= MAX_FLIGHTS):
            self._stats.recursions["crowded"] += 1
            return FAILURE
        if flight is None:
            flight = asyncio.create_task(self._fly(inquiry))
            self._flights[inquiry] = flight
        self._waiting += 1
        try:
            return await asyncio.shield(flight)  # an asker that goes away does not end it for the others
        finally:
            self._waiting -= 1

    async def _fly(self, inquiry: Inquiry) -> Reply:
        try:
            reply = await self._fetch(inquiry)
        except Exception:
            log.exception("recursion failed by a fault of this program's, please report this: %r", inquiry)
            reply = FAILURE
        finally:
            del self._flights[inquiry]
        self._cache.keep(inquiry, reply, time.monotonic())
        self._count(reply)
        return reply

    async def _fetch(self, inquiry: Inquiry) -> Reply:
        """Ask one server after the other."""
        troubles: list[str] = []
        silent = True
        try:
            async with asyncio.timeout(DEADLINE):
                for server in self._upstreams.order():
                    try:
                        reply = await exchange(server, inquiry)
                    except NoReply as error:
                        self._upstreams.failed(server)
                        troubles.append(f"{server}: {error}")
                        continue
                    self._upstreams.worked(server)
                    if reply.is_final:
                        self._complaint.over("a recursor answers again")
                        return reply
                    silent = silent and reply.rcode != Rcode.SERVFAIL
                    troubles.append(f"{server}: {_name(reply.rcode)}")
        except TimeoutError:
            troubles.append(f"{DEADLINE:g} s were over")
        self._tell(troubles, silent=silent)
        return FAILURE

    def _tell(self, troubles: list[str], *, silent: bool) -> None:
        """Say that no server answers; after a SERVFAIL it may be the fault of the name."""
        why = "; ".join(troubles) or "there is none"
        if silent:
            self._complaint.failed(
                "no recursor answers (%s): names outside the zone fail; check --recursor and the servers", why
            )
        else:
            log.debug("no answer from the recursors: %s", why)

    def _count(self, reply: Reply) -> None:
        outcomes = {Rcode.NOERROR: "answered", Rcode.NXDOMAIN: "missing"}
        self._stats.recursions[outcomes.get(Rcode(reply.rcode), "failed")] += 1
        self._stats.recursor_cached = len(self._cache)
        self._stats.recursor_octets = self._cache.octets


def _name(rcode: int) -> str:
    return Rcode(rcode).name if rcode in set(Rcode) else f"RCODE {rcode}"
