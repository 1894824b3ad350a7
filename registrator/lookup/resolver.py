"""One packet in, one reply out: wire, names and answers in a row, and what they counted.

`respond` never waits: it is what the UDP server calls for each packet, and
where a cache of rendered answers goes between `wire.screen` and `wire.parse`.
`resolve` also loads what the snapshot lacks.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

from registrator.catalog import CatalogError, Directory
from registrator.lookup import answers, names, wire
from registrator.lookup.answers import Answer
from registrator.lookup.ask import MAX_CNAMES, Known, NotLoaded, Zone
from registrator.lookup.records import Rcode, Type
from registrator.model import SERVICE, Selected, Selection, View
from registrator.stats import Stats

log = logging.getLogger(__name__)

UDP, TCP = "udp", "tcp"
ANSWERS_WITHOUT_EDNS = 3  # Consul's udp_answer_limit: what every old resolver copes with
LOAD_TIMEOUT = 3.0  # seconds; a stub resolver gives up after five
MAX_LOADS = 2 + MAX_CNAMES  # the name itself, and each that its CNAMEs lead to
TYPE_NAMES = {int(kind): kind.name for kind in Type}  # all others are counted as one


class Resolver:
    """Answers DNS messages about one zone from a Directory's snapshot.

    `view_of` tells, for the source address of a query, the networks on which
    its asker is. `most` is how many instances go into an UDP answer of at
    most 512 octets (Consul's udp_answer_limit).
    """

    def __init__(
        self,
        directory: Directory,
        zone: Zone,
        *,
        view_of: Callable[[str], View],
        stats: Stats,
        most: int = ANSWERS_WITHOUT_EDNS,
    ) -> None:
        self._directory = directory
        self._zone = zone
        self._view_of = view_of
        self._stats = stats
        self._most = most
        self._failures = 0

    async def resolve(self, packet: bytes, source: str, transport: str) -> bytes | None:
        """Answer a packet, loading what it needs; None for one to be dropped. Never raises.

        SERVFAIL where something is known to exist but cannot be had.
        """
        loaded: dict[Selection, Selected] = {}
        for _ in range(MAX_LOADS):
            try:
                return self._respond(packet, source, transport, loaded)
            except NotLoaded as missing:
                if not await self._load(missing.selection, loaded):
                    break
        return self.servfail(packet, transport)

    def respond(self, packet: bytes, source: str, transport: str) -> bytes | None:
        """Answer a packet from what is there now; None for one to be dropped.

        `source` is the asker's IP address, `transport` "udp" or "tcp". Raises
        NotLoaded where `resolve` has to be awaited, and nothing else.
        """
        return self._respond(packet, source, transport, {})

    def servfail(self, packet: bytes, transport: str) -> bytes:
        """SERVFAIL to a packet for which `respond` raised NotLoaded."""
        return self._render(wire.parse(packet), answers.SERVFAIL, transport)

    def _respond(
        self, packet: bytes, source: str, transport: str, loaded: dict[Selection, Selected]
    ) -> bytes | None:
        """Like `respond`, with what was loaded for this packet already."""
        verdict = wire.screen(packet)
        if verdict is None:
            return None
        if verdict:
            return self._bare(packet, verdict, transport)
        try:
            query = wire.parse(packet)
        except wire.Malformed:
            return self._bare(packet, Rcode.FORMERR, transport)
        try:
            return self._render(query, self._answer(query, source, loaded), transport)
        except NotLoaded:
            raise
        except Exception as error:  # noqa: BLE001 - one packet must not end the server
            self._log_failure(error, f"{source}, packet {packet[:512].hex()}")
            return self._render(query, answers.SERVFAIL, transport)

    def _answer(self, query: wire.Query, source: str, loaded: dict[Selection, Selected]) -> Answer:
        if query.edns and query.edns.version:
            return Answer(Rcode.BADVERS, authoritative=False)
        if query.qclass not in (wire.IN, wire.ANY_CLASS):
            return answers.REFUSED
        directory = self._directory
        return answers.answer(
            names.parse(query.name, query.qtype, self._zone.domains),
            Known(directory.snapshot, lambda wanted: loaded.get(wanted) or directory.selected(wanted)),
            self._view_of(source),
            self._zone,
            now=int(time.time()),
            shuffle=random.shuffle,
        )

    def _render(self, query: wire.Query, answer: Answer, transport: str) -> bytes:
        kind = TYPE_NAMES.get(query.qtype, "other")
        if transport == TCP:
            reply = wire.render(query, answer, wire.MAX_TCP)
        else:
            most = self._most if answer.alike and query.udp_size == wire.PLAIN_UDP else None
            reply = wire.render(query, answer, query.udp_size, most)
        self._stats.dns_queries[kind, answer.rcode.name, transport] += 1
        return reply

    def _bare(self, packet: bytes, rcode: Rcode, transport: str) -> bytes:
        self._stats.dns_queries["other", rcode.name, transport] += 1
        return wire.bare(packet, rcode)

    async def _load(self, selection: Selection, loaded: dict[Selection, Selected]) -> bool:
        try:
            async with asyncio.timeout(LOAD_TIMEOUT):
                if selection.kind == SERVICE and not selection.datacenter:
                    await self._directory.load(selection.name)
                else:
                    loaded[selection] = await self._directory.select(selection)
        except (CatalogError, TimeoutError) as error:
            log.debug("%s cannot be loaded: %s", selection, error or "timeout")
            return False
        except Exception as error:  # noqa: BLE001 - one name must not end the server
            self._log_failure(error, str(selection))
            return False
        return True

    def _log_failure(self, error: Exception, about: str) -> None:
        """Tell of a fault of our own: the first, then each tenfold count, as anybody may repeat it."""
        self._failures += 1
        if str(self._failures).strip("0") == "1":
            log.error(
                "DNS: no answer could be made (%d times now), please report this: %s",
                self._failures,
                about,
                exc_info=error,
            )
