"""Asks upstream resolvers: one after the other, equal questions once, and keeps what they said."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from functools import partial

from registrator.complaint import Complaint
from registrator.limits import RECURSIONS, RECURSIONS_TCP
from registrator.lookup.records import Rcode
from registrator.lookup.recursor_cache import Cache
from registrator.lookup.recursor_exchange import NoMeans, NoReply, exchange
from registrator.lookup.recursor_message import FAILURE, Inquiry, Reply
from registrator.lookup.recursor_servers import Servers, Upstreams
from registrator.lookup.shares import NOBODY, Asker, Crowded, Shares
from registrator.stats import Stats

log = logging.getLogger(__name__)

QUIET = 30.0  # seconds between two lines about recursors that do not answer
DEADLINE = 8.0  # seconds for all tries together; stub resolvers give up after five, dig after fifteen


@dataclass(eq=False, slots=True)
class _Flight:
    """An inquiry under way, and how many wait for it: it ends with the last of them."""

    work: asyncio.Task[Reply]
    waiting: int = 0


class Recursor:
    """Upstream resolvers behind a cache; `close` ends what is under way.

    Of the RCODEs only NOERROR and NXDOMAIN are answers. After any other, and
    after silence, the next server is asked; if none answers, the reply is
    SERVFAIL (as Consul's), kept for a second.
    """

    def __init__(self, servers: Servers, stats: Stats, most: int = 2 * RECURSIONS.value) -> None:
        self._upstreams = Upstreams(servers)
        self._stats = stats
        self._cache = Cache()
        self._flights: dict[Inquiry, _Flight] = {}
        self._places = Shares(min(RECURSIONS.value, max(1, most // 2)), self._count_crowded)
        self._connections = Shares(RECURSIONS_TCP.value, self._count_crowded_tcp)
        self._answered = float("-inf")  # when any of them did last
        self._complaint = Complaint(log, QUIET)

    async def close(self) -> None:
        """Give up what is under way."""
        flights = [flight.work for flight in self._flights.values()]
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def known(self, inquiry: Inquiry) -> tuple[Reply, int] | None:
        """The reply from the cache and its age in seconds; None where it is not there."""
        found = self._cache.find(inquiry, time.monotonic())
        if found:
            self._stats.recursor_hits += 1
        return found

    async def ask(self, inquiry: Inquiry, asker: Asker = NOBODY) -> Reply:
        """The reply from upstream. Does not raise: SERVFAIL where there is none, or no place for it."""
        try:
            async with self._places.place(asker):
                return await self._join(inquiry, asker)
        except Crowded:
            self._stats.recursions["crowded"] += 1
            return FAILURE

    async def _join(self, inquiry: Inquiry, asker: Asker) -> Reply:
        """Wait for the reply with all who ask the same; who comes first is charged for a connection."""
        flight = self._flights.get(inquiry)
        if flight is None:
            flight = _Flight(asyncio.create_task(self._fly(inquiry, asker)))
            self._flights[inquiry] = flight
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.work)  # an asker that goes away does not end it for the others
        finally:
            flight.waiting -= 1
            if not flight.waiting and self._flights.get(inquiry) is flight:
                del self._flights[inquiry]
                flight.work.cancel()

    async def _fly(self, inquiry: Inquiry, asker: Asker) -> Reply:
        try:
            reply = await self._fetch(inquiry, asker)
        except Exception:
            log.exception("recursion failed by a fault of this program's, please report this: %r", inquiry)
            reply = FAILURE
        self._flights.pop(inquiry, None)
        self._cache.keep(inquiry, reply, time.monotonic())
        self._count(reply)
        return reply

    async def _fetch(self, inquiry: Inquiry, asker: Asker) -> Reply:
        """Ask one server after the other."""
        troubles: list[str] = []
        silent, begin = True, time.monotonic()
        try:
            async with asyncio.timeout(DEADLINE):
                for server in self._upstreams.order():
                    tried = time.monotonic()
                    try:
                        reply = await exchange(server, inquiry, partial(self._connections.place, asker))
                    except NoReply as error:
                        if not isinstance(error, NoMeans):
                            self._upstreams.failed(server, since=tried)
                        troubles.append(f"{server}: {error}")
                        continue
                    self._upstreams.worked(server)
                    if reply.is_final:
                        self._answered = time.monotonic()
                        self._complaint.over("a recursor answers again")
                        return reply
                    silent = silent and reply.rcode != Rcode.SERVFAIL
                    troubles.append(f"{server}: {_name(reply.rcode)}")
        except TimeoutError:
            troubles.append(f"{DEADLINE:g} s were over")
        self._tell(troubles, silent=silent and self._answered < begin)
        return FAILURE

    def _tell(self, troubles: list[str], *, silent: bool) -> None:
        """Say that no server answers; after a SERVFAIL, or when others got answers, blame the name."""
        why = "; ".join(troubles) or "there is none"
        if silent:
            self._complaint.failed(
                "no recursor answers (%s): names outside the zone fail; check --recursor and the servers", why
            )
        else:
            log.debug("no answer from the recursors: %s", why)

    def _count_crowded(self) -> None:
        self._stats.limited[RECURSIONS.name] += 1

    def _count_crowded_tcp(self) -> None:
        self._stats.limited[RECURSIONS_TCP.name] += 1

    def _count(self, reply: Reply) -> None:
        outcomes = {Rcode.NOERROR: "answered", Rcode.NXDOMAIN: "missing"}
        self._stats.recursions[outcomes.get(Rcode(reply.rcode), "failed")] += 1
        self._stats.recursor_cached = len(self._cache)
        self._stats.recursor_octets = self._cache.octets


def _name(rcode: int) -> str:
    return Rcode(rcode).name if rcode in set(Rcode) else f"RCODE {rcode}"
