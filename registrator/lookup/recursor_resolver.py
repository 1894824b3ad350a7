"""The resolver of an agent with `--recursor`: what is not ours to answer is asked elsewhere.

For askers to whom recursion is offered, names outside the zone are forwarded
(and reverse names that the catalog does not know, as Consul does), and names
to which answers of the zone lead are followed outside. What was fetched takes
the way of what is loaded from the catalog: it is one more kind of selection.

An asker without RD gets from the cache what is there, as from BIND, and else
what it would get without a recursor: nothing is forwarded for it.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from registrator.catalog import Directory
from registrator.lookup import answers, wire
from registrator.lookup.ask import Elsewhere, NotLoaded, Zone
from registrator.lookup.askers import is_local
from registrator.lookup.maker import ANSWERS_WITHOUT_EDNS, Job, Made
from registrator.lookup.names import ReverseName
from registrator.lookup.records import Name, Rcode, Record, Type
from registrator.lookup.recursor import Recursor
from registrator.lookup.recursor_message import FAILURE, Inquiry, Reply
from registrator.lookup.recursor_servers import SystemServers, is_own
from registrator.lookup.resolver import LOAD_TIMEOUT, Newcomers, Resolver
from registrator.lookup.shares import NOBODY, Asker
from registrator.model import Selected, Selection, Snapshot, View
from registrator.settings import DnsSettings, Listen, SettingError
from registrator.stats import Stats

FOREIGN = "foreign"
MAX_FETCHED = 16  # inquiries for one answer of the zone, two for a name; what is kept does not count
MAX_FOLLOWED = 5  # records of each and type, as in Consul
MAX_ASKERS = 4096  # addresses whose permission is remembered
# OPT and what concerns a message rather than a name (RFC 6895, 3.1); ANY may be forwarded.
NEVER_FORWARDED = frozenset({41, *range(128, 255)})

RA = 0x80  # in the header's fourth octet
WITH_RA = tuple(bytes((octet | RA,)) for octet in range(256))


@dataclass(frozen=True, slots=True)
class Foreign(Selection):
    """What is to be fetched from upstream, within so many seconds."""

    inquiries: tuple[Inquiry, ...] = ()
    patience: float | None = None  # as long as the recursor takes
    asker: Asker = NOBODY


@dataclass(frozen=True, slots=True)
class Fetched(Selected):
    """What came from upstream."""

    reply: Reply = FAILURE


class Clients:
    """Askers who may have names resolved for them: neighbours, and the networks given."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = tuple(map(ipaddress.ip_network, allowed))
        self._known: dict[str, bool] = {}

    def may(self, source: str) -> bool:
        """Whether the asker at this IP address is one."""
        known = self._known.get(source)
        if known is None:
            if len(self._known) >= MAX_ASKERS:
                self._known.clear()
            known = self._known[source] = is_local(source) or self._is_allowed(source)
        return known

    def _is_allowed(self, source: str) -> bool:
        try:
            address = ipaddress.ip_address(source)
        except ValueError:
            return False
        return any(address in network for network in self._allowed)


class RecursiveResolver(Resolver):
    """A Resolver with a recursor, for its `clients` alone; to them RA is set."""

    def __init__(
        self,
        recursor: Recursor,
        clients: Clients,
        directory: Directory,
        zone: Zone,
        *,
        view_of: Callable[[str], View],
        stats: Stats,
        most: int = ANSWERS_WITHOUT_EDNS,
        near: Callable[[], str] = str,
        newcomers: Newcomers | None = None,
    ) -> None:
        super().__init__(
            directory, zone, view_of=view_of, stats=stats, most=most, near=near, newcomers=newcomers
        )
        self._recursor = recursor
        self._clients = clients

    # What the front calls -------------------------------------------------------

    def quick(self, packet: bytes, source: str, snapshot: Snapshot | None, now: float) -> bytes | None:
        """See `Resolver.quick`."""
        return self._marked(super().quick(packet, source, snapshot, now), source)

    def respond(self, packet: bytes, source: str, transport: str) -> bytes | None:
        """See `Resolver.respond`; raises NotLoaded for what has to be forwarded, too."""
        return self._marked(super().respond(packet, source, transport), source)

    async def resolve(self, packet: bytes, source: str, transport: str) -> bytes | None:
        """See `Resolver.resolve`."""
        return self._marked(await super().resolve(packet, source, transport), source)

    def servfail(self, packet: bytes, source: str, transport: str) -> bytes:
        """See `Resolver.servfail`."""
        reply = super().servfail(packet, source, transport)
        return self._marked(reply, source) or reply

    def _marked(self, reply: bytes | None, source: str) -> bytes | None:
        """The reply with RA where recursion is offered. Kept replies have none: they are for all askers."""
        if reply is None or not self._clients.may(source):
            return reply
        return reply[:3] + WITH_RA[reply[3]] + reply[4:]

    # Making a reply -------------------------------------------------------------

    def _job(self, query: wire.Query, source: str, transport: str) -> Job:
        return replace(super()._job(query, source, transport), recursion=self._recursion(source))

    def _recursion(self, source: str) -> Asker | None:
        return self.asker(source) if self._clients.may(source) else None

    def _make(
        self, job: Job, loaded: Mapping[Selection, Selected], elsewhere: Elsewhere | None = None
    ) -> Made:
        if answers.is_outside(job.question, self.snapshot):
            return self._forwarded(job, loaded) or super()._make(job, loaded)
        wanted: list[Inquiry] = []
        made = super()._make(job, loaded, elsewhere or self._follower(job, loaded, wanted))
        if wanted:
            raise NotLoaded(_fetching(job, tuple(wanted), patience=LOAD_TIMEOUT))
        if isinstance(job.question.subject, ReverseName) and made.rendered.counted[1] == Rcode.NXDOMAIN.name:
            return self._forwarded(job, loaded) or made
        return made

    def _forwarded(self, job: Job, loaded: Mapping[Selection, Selected]) -> Made | None:
        """The reply from upstream; None where this is none to forward. Raises NotLoaded."""
        query = job.query
        if not job.recursion or not _is_forwardable(query):
            return None
        dnssec_ok = bool(query.edns and query.edns.dnssec_ok)
        inquiry = Inquiry(query.question, dnssec_ok, bool(query.flags & wire.CD))
        found = self._found(inquiry, loaded)
        if found is None:
            if query.flags & wire.RD:
                raise NotLoaded(_fetching(job, (inquiry,)))
            return None
        reply, age = found
        head, tail = reply.render(query, job.size, age)
        return Made(self._maker.passed_on(job, Rcode(reply.rcode), head, tail))

    def _follower(self, job: Job, loaded: Mapping[Selection, Selected], wanted: list[Inquiry]) -> Elsewhere:
        """What is known of names outside; what has to be fetched first is put into `wanted`."""
        kinds = _kinds(job.query.qtype)
        # Once: the next time instances come in another order, and others would be missing.
        fetch = job.query.flags & wire.RD and not any(isinstance(key, Foreign) for key in loaded)

        def follow(name: Name) -> tuple[Record, ...]:
            if not job.recursion:
                return ()
            records: dict[Record, None] = {}
            for inquiry in (Inquiry.of(name, kind) for kind in kinds):
                found = self._found(inquiry, loaded)
                if found is not None:
                    records.update(dict.fromkeys(found[0].addresses(found[1])[:MAX_FOLLOWED]))
                elif fetch and inquiry not in wanted and len(wanted) < MAX_FETCHED:
                    wanted.append(inquiry)
            return tuple(records)

        return follow

    def _found(self, inquiry: Inquiry, loaded: Mapping[Selection, Selected]) -> tuple[Reply, int] | None:
        """The reply to an inquiry, fetched for this very query or before, and its age."""
        fetched = loaded.get(_key(inquiry))
        return (fetched.reply, 0) if isinstance(fetched, Fetched) else self._recursor.known(inquiry)

    # Fetching -------------------------------------------------------------------

    async def _load(self, selection: Selection, loaded: dict[Selection, Selected]) -> bool:
        if not isinstance(selection, Foreign):
            return await super()._load(selection, loaded)
        asks = [self._ask(inquiry, selection) for inquiry in selection.inquiries]
        for inquiry, reply in zip(selection.inquiries, await asyncio.gather(*asks), strict=True):
            loaded[_key(inquiry)] = Fetched(reply=reply)
        return True

    async def _ask(self, inquiry: Inquiry, selection: Foreign) -> Reply:
        try:
            async with asyncio.timeout(selection.patience):
                return await self._recursor.ask(inquiry, selection.asker)
        except TimeoutError:
            return FAILURE


def make_recursor(rules: DnsSettings, own: Sequence[Listen], stats: Stats, most: int) -> Recursor:
    """The recursor that the operator wants; `own` is where this agent answers. Raises SettingError.

    `most` is how many questions may be under way, each with a socket.
    """
    if rules.system_recursors:
        return Recursor(SystemServers(own), stats, most)
    for server in rules.recursors:
        if is_own(server, own):
            raise SettingError(f"--recursor: at {server} this agent itself answers; give another resolver")
    return Recursor(lambda: rules.recursors, stats, most)


def _fetching(job: Job, inquiries: tuple[Inquiry, ...], patience: float | None = None) -> Foreign:
    return Foreign(FOREIGN, "", inquiries=inquiries, patience=patience, asker=job.recursion or NOBODY)


def _key(inquiry: Inquiry) -> Foreign:
    return Foreign(FOREIGN, "", inquiries=(inquiry,))


def _is_forwardable(query: wire.Query) -> bool:
    return (
        query.qclass == wire.IN
        and query.qtype not in NEVER_FORWARDED
        and not (query.edns and query.edns.version)
    )


def _kinds(qtype: int) -> tuple[Type, ...]:
    """The address types that help an asker of this type."""
    return (Type(qtype),) if qtype in (Type.A, Type.AAAA) else (Type.A, Type.AAAA)
