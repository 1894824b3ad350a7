"""One packet in, one reply out: from the cache of rendered replies, else made; and what they counted.

`quick` is the fast path: a query seen before in the same octets costs a look
into a table. `respond` understands the packet, and never waits. `resolve` also
loads what the snapshot lacks, and leaves large answers to a thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from functools import partial
from typing import Protocol

from registrator.catalog import CatalogError, Directory
from registrator.lookup import answers, wire
from registrator.lookup.ask import MAX_CNAMES, Elsewhere, NotLoaded, Zone
from registrator.lookup.cookies import NONE, Cookies, Proof
from registrator.lookup.limit import Verdict
from registrator.lookup.maker import ANSWERS_WITHOUT_EDNS, TCP, TYPE_NAMES, Job, Made, Maker, source_of
from registrator.lookup.pace import Pace
from registrator.lookup.records import Rcode
from registrator.lookup.rendered import Rendered, Turns
from registrator.lookup.replies import Replies
from registrator.model import OUTSIDE, SERVICE, Selected, Selection, Snapshot, View
from registrator.stats import Stats

log = logging.getLogger(__name__)

CODES = tuple(Rcode(code).name if code in set(Rcode) else str(code) for code in range(16))
ASKER = "asker"  # the kind of what is missing where it is not known yet who asks
LOAD_TIMEOUT = 3.0  # seconds; a stub resolver gives up after five
MAX_LOADS = 2 + MAX_CNAMES  # the name itself, and each that its CNAMEs lead to


class Newcomers(Protocol):
    """Askers of whom it is not known yet on which networks they are."""

    def may_be(self, source: str) -> bool:
        """Whether the asker at this address should wait before it is answered."""
        ...

    async def wait(self, source: str) -> None:
        """Wait until more may be known, a moment at most; never raises."""
        ...


class Resolver:
    """Answers DNS messages about one zone from a Directory's snapshot.

    `view_of` tells, for the source address of a query, the networks on which
    its asker is. `most` is how many instances go into an UDP answer of at
    most 512 octets (Consul's udp_answer_limit). `near` gives the owner whose
    instances come first, "" for none. `newcomers` are askers that wait.
    """

    def __init__(
        self,
        directory: Directory,
        zone: Zone,
        *,
        view_of: Callable[[str], View],
        stats: Stats,
        most: int = ANSWERS_WITHOUT_EDNS,
        near: Callable[[], str] = str,
        newcomers: Newcomers | None = None,
    ) -> None:
        self._directory = directory
        self._view_of = view_of
        self._stats = stats
        self._maker = Maker(zone, most=most, near=near)
        self._newcomers = newcomers
        self._cookies = Cookies()
        self._replies = Replies()
        self._aside: dict[Hashable, asyncio.Task[Made]] = {}  # large replies being made
        self._lane = asyncio.Semaphore(1)
        self._failures = 0
        self._tells = log.isEnabledFor(logging.DEBUG)  # then no lookup takes the fast path, which is silent

    @property
    def stats(self) -> Stats:
        """Where it counts."""
        return self._stats

    @property
    def snapshot(self) -> Snapshot | None:
        """What answers are made from now."""
        return self._directory.snapshot

    def quick(self, packet: bytes, source: str, snapshot: Snapshot | None, now: float) -> bytes | None:
        """Answer a UDP packet of octets that came before, or give None: then ask `respond`.

        `snapshot` is the resolver's and `now` the monotonic time; both may be
        the same for several packets in a row.
        """
        try:
            view = self._view_of(source)
            if view is OUTSIDE and self._is_new(source):
                return None
            slot = self._replies.exact.get((packet[2:], view.networks))
            rendered = slot.ready if slot else None
            if slot is None or rendered is None or not rendered.holds(snapshot, now):
                return None
            slot.used = True
            reply = rendered.reply(packet)
        except Exception:  # noqa: BLE001 - `respond` meets the same fault, and tells
            return None
        self._stats.dns_queries[rendered.counted] += 1
        return reply

    def respond(self, packet: bytes, source: str, transport: str) -> bytes | None:
        """Answer a packet from what is there now; None for one to be dropped.

        `source` is the asker's IP address, `transport` "udp" or "tcp". Raises
        NotLoaded where `resolve` has to be awaited, and nothing else.
        """
        query = self._read(packet, source, transport)
        if not isinstance(query, wire.Query):
            return query
        if self._is_new(source):
            raise NotLoaded(Selection(ASKER, source))
        try:
            job = self._job(query, source, transport)
            reply = self._kept(job, packet) or self._take(job, packet, self._make(job, {}))
        except NotLoaded:
            raise
        except Exception as error:  # noqa: BLE001 - one packet must not end the server
            return self._fault(error, packet, source, transport)
        self._tell(query, source, transport, reply)
        return reply

    async def resolve(self, packet: bytes, source: str, transport: str) -> bytes | None:
        """Answer a packet, loading what it needs; None for one to be dropped. Never raises.

        SERVFAIL where something is known to exist but cannot be had.
        """
        begin = time.perf_counter()
        query = self._read(packet, source, transport)
        if not isinstance(query, wire.Query):
            return query
        try:
            if self._newcomers is not None and self._is_new(source):
                await self._newcomers.wait(source)
            job = self._job(query, source, transport)
            reply = self._kept(job, packet) or await self._load_and_make(job, packet)
        except Exception as error:  # noqa: BLE001 - one packet must not end the server
            return self._fault(error, packet, source, transport)
        else:
            self._tell(query, source, transport, reply)
            return reply
        finally:
            self._stats.dns_seconds.observe(time.perf_counter() - begin)

    def _is_new(self, source: str) -> bool:
        return self._newcomers is not None and self._newcomers.may_be(source)

    def took(self, seconds: float, queries: int) -> None:
        """Count how long so many queries took that were answered at once."""
        self._stats.dns_seconds.observe(seconds, queries)

    def limited(self, verdict: Verdict, packet: bytes) -> bytes | None:
        """The reply, if any, to a packet that the rate limit does not let have a full one."""
        self._stats.dns_limited[verdict.value] += 1
        return wire.slipped(packet) if verdict is Verdict.SLIP else None

    def servfail(self, packet: bytes, source: str, transport: str) -> bytes:
        """SERVFAIL to a packet for which `respond` raised NotLoaded."""
        return self._servfail(packet, source, transport)

    def _servfail(self, packet: bytes, source: str, transport: str) -> bytes:
        query = wire.parse(packet)
        job = self._maker.job(query, OUTSIDE, transport, self._proof(query, source))
        return self._send(self._maker.fixed(job, answers.SERVFAIL), packet, job)

    # Reading ------------------------------------------------------------------

    def _read(self, packet: bytes, source: str, transport: str) -> wire.Query | bytes | None:
        """The query; or the reply to what is none, None for what gets no reply."""
        verdict = wire.screen(packet)
        if verdict is None:
            return None
        if not verdict:
            try:
                return wire.parse(packet)
            except wire.Malformed:
                verdict = Rcode.FORMERR
        self._stats.dns_queries["other", verdict.name, transport, source_of(self._view_of(source))] += 1
        return wire.bare(packet, verdict)

    # Replies ------------------------------------------------------------------

    def _kept(self, job: Job, packet: bytes) -> bytes | None:
        """The reply that was made before, if it still holds."""
        snapshot, now = self.snapshot, time.monotonic()
        rendered = self._replies.find(job.key)
        if rendered is None or snapshot is None:
            return None
        if not rendered.holds(snapshot, now) and not rendered.renew(snapshot, now):
            return None
        self._replies.wanted(job.key)
        if isinstance(rendered, Turns) and rendered.count < rendered.wanted and not rendered.reorder():
            self._maker.add_turn(job, rendered, snapshot)
        elif job.is_plain(packet) and not self._tells:
            self._replies.recognize(packet[2:], job.view.networks, job.key)
        return self._send(rendered, packet, job)

    def _job(self, query: wire.Query, source: str, transport: str) -> Job:
        """Understand a query from this address."""
        return self._maker.job(query, self._view_of(source), transport, self._proof(query, source))

    def _proof(self, query: wire.Query, source: str) -> Proof:
        """What the query's cookie says of its asker."""
        return self._cookies.judge(query.cookie, source, time.time()) if query.cookie else NONE

    def _make(
        self, job: Job, loaded: Mapping[Selection, Selected], elsewhere: Elsewhere | None = None
    ) -> Made:
        """Make a reply of what is there now and of what was loaded for it. Raises NotLoaded."""

        def selected(selection: Selection) -> Selected | None:
            return loaded.get(selection) or self._directory.selected(selection)

        return self._maker.make(job, self.snapshot, selected, time.monotonic(), elsewhere)

    async def _load_and_make(self, job: Job, packet: bytes) -> bytes:
        """Make a reply, loading for it what is missing."""
        loaded: dict[Selection, Selected] = {}
        for _ in range(MAX_LOADS):
            try:
                if job.transport == TCP and self._maker.is_large(job, self.snapshot):
                    made = await self._make_aside(job, loaded)
                    return self._send(made.rendered, packet, job)
                return self._take(job, packet, self._make(job, loaded))
            except NotLoaded as missing:
                if not await self._load(missing.selection, loaded):
                    break
        return self._send(self._maker.fixed(job, answers.SERVFAIL), packet, job)

    async def _make_aside(self, job: Job, loaded: Mapping[Selection, Selected]) -> Made:
        """Make a large reply in a thread: one at a time, and once for all who ask for the same now."""
        key = job.key, job.recursion
        work = None if loaded else self._aside.get(key)
        if work is None:
            work = asyncio.create_task(self._in_thread(job, loaded))
            if not loaded:
                self._aside[key] = work
                work.add_done_callback(partial(self._made_aside, key))
        return await asyncio.shield(work)

    def _made_aside(self, key: Hashable, work: asyncio.Task[Made]) -> None:
        del self._aside[key]
        if not work.cancelled():
            work.exception()  # seen, even where nobody waits any more

    async def _in_thread(self, job: Job, loaded: Mapping[Selection, Selected]) -> Made:
        async with self._lane:
            made = await asyncio.to_thread(self._make, replace(job, pause=Pace()), loaded)
            self._keep(job, made)
            return made

    def _take(self, job: Job, packet: bytes, made: Made) -> bytes:
        """Send what was made, and keep it where it may be."""
        self._keep(job, made)
        return self._send(made.rendered, packet, job)

    def _keep(self, job: Job, made: Made) -> None:
        self._stats.dns_renders += 1
        if made.exists is not None:
            self._replies.keep(job.key, made.rendered, exists=made.exists)
            self._stats.dns_replies, self._stats.dns_reply_octets = len(self._replies), self._replies.octets

    def _send(self, rendered: Rendered, packet: bytes, job: Job) -> bytes:
        self._stats.dns_queries[rendered.counted] += 1
        reply = rendered.reply(packet)
        if not job.cookie:
            return reply
        return wire.with_cookie(reply, job.cookie)

    # Loading ------------------------------------------------------------------

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
        return True

    def _tell(self, query: wire.Query, source: str, transport: str, reply: bytes) -> None:
        """Log a lookup for who asked for that with the log level."""
        if self._tells:
            name = b".".join(query.name).decode("utf-8", "backslashreplace")
            kind = TYPE_NAMES.get(query.qtype, f"TYPE{query.qtype}")
            rcode, found = reply[3] & 0xF, int.from_bytes(reply[6:8], "big")
            log.debug(
                "%s asked %s %s over %s: %s, %d answers", source, name, kind, transport, CODES[rcode], found
            )

    def _fault(self, error: Exception, packet: bytes, source: str, transport: str) -> bytes:
        """SERVFAIL for a fault of our own, told at the first and each tenfold: anybody may repeat it."""
        self._failures += 1
        if str(self._failures).strip("0") == "1":
            log.error(
                "DNS: no answer could be made (%d times now), please report this: %s, packet %s",
                self._failures,
                source,
                packet[:512].hex(),
                exc_info=error,
            )
        return self._servfail(packet, source, transport)
