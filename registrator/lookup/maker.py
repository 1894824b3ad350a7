"""From a question to rendered octets: names, answers and wire in a row, for one kind of asker.

Nothing here waits or touches a socket, so a large answer may be made in a thread.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from registrator.lookup import answers, names, wire
from registrator.lookup.answers import MODERATE, SMALLEST_ANSWER, Answer
from registrator.lookup.ask import Elsewhere, Known, Shuffle, Terms, Zone, no_pause, nothing_elsewhere
from registrator.lookup.basis import Basis, NodeIndex, Reading
from registrator.lookup.cookies import NONE, SPACE, Proof
from registrator.lookup.crowd import Pool, crowd_of
from registrator.lookup.layout import layout_of, turned
from registrator.lookup.names import (
    AddressName,
    Authority,
    Nothing,
    Question,
    ReverseName,
    ServiceName,
    Subject,
    Transfer,
)
from registrator.lookup.records import MAX_MESSAGE, Name, Rcode, Record, Type, lowered
from registrator.lookup.rendered import Circle, Counted, Rendered, Ring, Turns, is_cut
from registrator.lookup.wire import HEADER, Query
from registrator.model import ADDRESS, Selected, Selection, Snapshot, View

UDP, TCP = "udp", "tcp"
ANSWERS_WITHOUT_EDNS = 3  # Consul's udp_answer_limit: what every old resolver copes with
SIZES = (wire.PROVEN_UDP, wire.UNPROVEN_UDP, 1200, 512)  # to which what an asker takes is rounded down
TYPE_NAMES = {int(kind): kind.name for kind in Type}  # all others are counted as one
# At most so many seconds a reply is sent in the same orders while the catalog stays.
LIFETIME = 60.0
PART_LIFETIME = 10.0  # of one that shows only some instances, or has not each of them first
ORDER_LIFETIME = 5.0  # of one that has not each of them first, but is reordered with little work
SOA_LIFETIME = 1.0  # seconds, where it holds an SOA record: its serial is the time
LARGE = 100  # instances: what takes more than a millisecond to render


@dataclass(frozen=True, slots=True)
class Job:
    """A query understood, with its name lower-cased, and who asks how."""

    query: Query
    question: Question
    view: View
    transport: str
    size: int  # octets that the reply may have, without a cookie
    recursion: bool = False  # it is offered to the asker
    cookie: bytes = b""  # goes into the reply
    pause: Callable[[], None] = no_pause  # called between the parts of long work

    @property
    def key(self) -> tuple[object, ...]:
        """All that a reply depends on, but for the catalog: the same key, the same reply.

        Types that nothing here has records of, 65,000 of them, are all answered alike.
        """
        query = self.query
        shown = query.flags & (wire.RD | wire.CD)
        edns = (query.edns.version << 1 | query.edns.dnssec_ok) if query.edns else None
        kind = query.qtype if query.qtype in TYPE_NAMES else None
        return (
            query.question[:-4],
            kind,
            query.qclass,
            shown,
            edns,
            self.size,
            self.transport,
            self.view.networks,
        )

    def is_plain(self, packet: bytes) -> bool:
        """Whether a packet of this question came over UDP, in lower case and without EDNS options."""
        end = HEADER.size + len(self.query.question)
        length = end + (wire.OPT.size if self.query.edns else 0)
        return (
            self.transport == UDP
            and len(packet) == length
            and self.query.qtype in TYPE_NAMES
            and packet[HEADER.size : end] == self.query.question
        )


@dataclass(frozen=True, slots=True)
class Made:
    """A reply, and whether it may be kept: None where not, else whether it is about something that exists."""

    rendered: Rendered
    exists: bool | None = None


class Maker:
    """Makes replies about one zone.

    `most` is how many instances go into an UDP answer of 512 octets; `near`
    gives the owner whose instances come first, "" for none.
    """

    def __init__(self, zone: Zone, *, most: int, near: Callable[[], str]) -> None:
        self._zone = zone
        self._most = most
        self._near = near
        self._nodes = NodeIndex()

    def job(self, query: Query, view: View, transport: str, proof: Proof = NONE) -> Job:
        """Understand a query; `proof` is what its cookie says."""
        question = query.question[:-4].lower() + query.question[-4:]
        name = query.name if question == query.question else lowered(query.name)
        size = MAX_MESSAGE
        if transport == UDP:
            taken = query.udp_size(proven=proof.proven)
            size = next(size for size in SIZES if size <= taken)
        if proof.cookie:
            size -= SPACE
        query = Query(query.id, query.flags, name, query.qtype, query.qclass, question, query.edns)
        zone = self._zone
        parsed = names.parse(name, query.qtype, zone.domains, bare=zone.bare_names)
        return Job(query, parsed, view, transport, size, cookie=proof.cookie)

    def make(
        self,
        job: Job,
        snapshot: Snapshot | None,
        selected: Callable[[Selection], Selected | None],
        now: float,
        elsewhere: Elsewhere | None = None,
    ) -> Made:
        """Answer and render; `now` is the clock on which the reply expires. Raises NotLoaded.

        Where `elsewhere` is given and asked, the reply is not for all askers, and so not to be kept.
        """
        refusal = _refusal(job.query)
        if refusal or snapshot is None:
            return Made(self.fixed(job, refusal or answers.SERVFAIL))
        absent = self._absent(job, snapshot)
        if absent is not None:
            answer = answers.missing(job.question, int(time.time()))
            rendered = self.fixed(job, answer)
            rendered.validate(snapshot, absent, now, SOA_LIFETIME)
            return Made(rendered, exists=False)
        if self._is_nobodys(job.question.subject, snapshot, selected):
            return Made(self.fixed(job, answers.missing(job.question, int(time.time()))))
        reading = Reading(snapshot, self._nodes)
        asked: list[Selection | Name] = []

        def note(selection: Selection) -> Selected | None:
            asked.append(selection)
            return selected(selection)

        def follow(name: Name) -> tuple[Record, ...]:
            asked.append(name)
            return elsewhere(name) if elsewhere else ()

        seed = random.getrandbits(32)
        known = Known(reading.snapshot, note, follow if elsewhere else nothing_elsewhere, reading.nodes_at)
        answer = self._answer(job, known, _order(seed, 0, 1, job.size), pooled=True)
        if elsewhere and any(record.type == Type.CNAME for record in answer.answers):
            answer = replace(answer, alike=False)  # a chain that leads outside needs all of its links
        rendered = self._rendered(job, answer, seed)
        if asked or isinstance(job.question.subject, Transfer) or answers.is_outside(job.question, snapshot):
            return Made(rendered)
        rendered.validate(snapshot, reading.basis(), now, _lifetime(answer, rendered))
        return Made(rendered, exists=answer.rcode == Rcode.NOERROR and not _is_without_number(job.question))

    def _absent(self, job: Job, snapshot: Snapshot) -> Basis | None:
        """What it stands on that a name made up by anybody does not exist; None where that is not plain.

        It needs no look at any instance, so a flood of such names costs little.
        """
        subject = job.question.subject
        if isinstance(subject, Nothing):
            return Basis({}, {}, None, snapshot.datacenters)
        if not isinstance(subject, ServiceName) or subject.datacenter or job.question.is_bare:
            return None
        name = subject.service
        service = snapshot.services.get(name)
        if service is None:
            absent = name not in snapshot.names
            return Basis({name: None}, {name: None}, None, snapshot.datacenters) if absent else None
        if not subject.tag:
            return None
        crowd = crowd_of(service, job.view, only_passing=self._zone.only_passing, near=self._near())
        known = crowd and crowd.tagged(subject.tag)
        return None if known else Basis({name: service}, {}, None, snapshot.datacenters)

    def _is_nobodys(
        self, subject: Subject, snapshot: Snapshot, selected: Callable[[Selection], Selected | None]
    ) -> bool:
        """Whether it is an address in reverse that is known to be nobody's."""
        if not isinstance(subject, ReverseName) or self._nodes.at(snapshot.nodes, subject.ip):
            return False
        found = selected(Selection(ADDRESS, subject.ip))
        return found is not None and not found.entries

    def add_turn(self, job: Job, turns: Turns, snapshot: Snapshot) -> None:
        """Render the next of a reply's orders."""
        order = _order(turns.seed, turns.count, turns.wanted, job.size)
        answer = self._answer(job, Known(snapshot, lambda _: None), order)
        turns.add(*self._octets(job, answer))

    def fixed(self, job: Job, answer: Answer) -> Rendered:
        """A reply of one order that is sent once."""
        return Turns(_end(job), _counted(job, answer)).fill(0, 1, *self._octets(job, answer))

    def passed_on(self, job: Job, rcode: Rcode, head: bytes, tail: bytes) -> Rendered:
        """A reply that was rendered by another hand: the header behind the id, what follows the question."""
        return Turns(_end(job), _counted(job, Answer(rcode))).fill(0, 1, head, tail)

    def is_large(self, job: Job, snapshot: Snapshot | None) -> bool:
        """Whether to make this reply takes longer than the loop should wait."""
        subject = job.question.subject
        if snapshot is None or not isinstance(subject, ServiceName):
            return False
        service = snapshot.services.get(subject.service)
        return service is not None and len(service.entries) > LARGE

    def _answer(self, job: Job, known: Known, order: Shuffle, *, pooled: bool = False) -> Answer:
        terms = Terms(int(time.time()), order, self._near(), job.size, pooled, job.pause)
        return answers.answer(job.question, known, job.view, self._zone, terms)

    def _rendered(self, job: Job, answer: Answer, seed: int) -> Rendered:
        if answer.pool:
            return self._ring(job, answer, answer.pool)
        total = len(answer.answers)
        end, counted = _end(job), _counted(job, answer)
        if total < 2 or not answer.alike or job.transport != UDP:  # TCP gives them all
            return Turns(end, counted).fill(seed, 1, *self._octets(job, answer))
        return self._some(job, answer, seed) or self._turns(job, answer, seed)

    def _turns(self, job: Job, answer: Answer, seed: int) -> Rendered:
        head, tail = self._octets(job, answer)
        layout = None if is_cut(head) else layout_of(job.query, answer)
        return Turns(_end(job), _counted(job, answer)).fill(seed, len(answer.answers), head, tail, layout)

    def _some(self, job: Job, answer: Answer, seed: int) -> Rendered | None:
        """A reply with some of not very many SRV records, which is put into another order as octets.

        None where all of them fit, or their octets do not allow that.
        """
        total, query = len(answer.answers), job.query
        if not 1 < total <= MODERATE:
            return None
        most, end = self._limit(job, answer) or total, len(wire.opt(query, answer))
        layout = layout_of(query, answer)
        if layout is None:
            return None
        room = job.size - _end(job) - end
        few = layout.cut(room, most, end)
        if few.keep in (0, total):
            return None
        whole = wire.render(query, answer, MAX_MESSAGE)[_end(job) :]
        if _end(job) + len(whole) > wire.LAST_POINTER:
            return None
        given = replace(answer, answers=answer.answers[: few.keep])
        glue = given.additional[: few.keep * len(few.glue)]
        head = wire.header(query, replace(given, additional=glue), truncated=True)
        turns = Turns(_end(job), _counted(job, answer))
        return turns.fill(seed, total, _header(head[2:]), few.first(whole), few, whole)

    def _ring(self, job: Job, answer: Answer, pool: Pool) -> Rendered:
        """A reply of addresses of one family; the records are shared by all replies of the same pool."""
        end, rest = _end(job), wire.opt(job.query, answer)
        circles: tuple[Circle | None, Circle] | None = pool.memo.get(answer.ttl)
        if circles is None:
            circles = pool.memo[answer.ttl] = _circles(pool, answer.ttl)
        near, others = circles
        width = others.width
        fitting = (job.size - end - len(rest)) // width
        keep = min(pool.total, fitting, self._limit(job, answer) or pool.total)
        head = _header(wire.pooled_header(job.query, answer, keep, truncated=keep < pool.total)[2:])
        first = min(near.count, keep) if near else 0
        return Ring(end, _counted(job, answer)).fill(head, near, first, others, keep - first, rest)

    def _octets(self, job: Job, answer: Answer) -> tuple[bytes, bytes]:
        """A reply's head (the header behind the id) and its tail (what follows the question)."""
        packet = wire.render(job.query, answer, job.size, self._limit(job, answer), job.pause)
        return _header(packet[2 : HEADER.size]), packet[_end(job) :]

    def _limit(self, job: Job, answer: Answer) -> int | None:
        return self._most if answer.alike and job.size <= wire.PLAIN_UDP else None


def _circles(pool: Pool, ttl: int) -> tuple[Circle | None, Circle]:
    """The records of a pool's near addresses, where these are some and not all, and of the others."""
    kind = pool.kind or Type.A
    if not pool.near or not pool.others:
        return None, Circle(*wire.pointed(kind, ttl, pool.near or pool.others))
    return Circle(*wire.pointed(kind, ttl, pool.near)), Circle(*wire.pointed(kind, ttl, pool.others))


def _is_without_number(question: Question) -> bool:
    """Whether anybody can make up names like this one that have an answer: they are not worth a room."""
    match question.subject:
        case AddressName():
            return True
        case Authority():
            return len(question.name) > len(question.domain)
    return False


def _refusal(query: Query) -> Answer | None:
    """The answer to an EDNS version to come or a class without data; None for a query like others."""
    if query.edns and query.edns.version:
        return Answer(Rcode.BADVERS, authoritative=False)
    return None if query.qclass in (wire.IN, wire.ANY_CLASS) else answers.REFUSED


def _order(seed: int, turn: int, turns: int, room: int) -> Shuffle:
    """A shuffle that is always the same, turned on by `turn` of `turns` shares.

    Of more than there is room for, in octets, only the first are drawn: they
    are another part of all in each turn.
    """
    most = room // SMALLEST_ANSWER + 1

    def shuffle(entries: list[Any]) -> None:
        count = len(entries)
        if count <= most:
            random.Random(seed).shuffle(entries)  # noqa: S311 - who comes first is no secret
            entries[:] = turned(entries, turn, turns)
            return
        draw = random.Random(seed + turn).random  # noqa: S311 - see above
        for at in range(most):
            other = at + int(draw() * (count - at))
            entries[at], entries[other] = entries[other], entries[at]

    return shuffle


def _lifetime(answer: Answer, rendered: Rendered) -> float:
    """Seconds for which a reply may be sent as it is, while the catalog stays."""
    if any(record.type == Type.SOA for record in (*answer.answers, *answer.authority)):
        return SOA_LIFETIME
    if len(answer.answers) == 1 and not answer.pool:
        return math.inf  # there is no other order
    if isinstance(rendered, Turns) and (rendered.is_cut or rendered.wanted < len(answer.answers)):
        return ORDER_LIFETIME if rendered.layout else PART_LIFETIME
    return LIFETIME


@lru_cache(maxsize=1024)
def _header(octets: bytes) -> bytes:
    """The same object for all replies with this header."""
    return octets


def _end(job: Job) -> int:
    return HEADER.size + len(job.query.question)


def _counted(job: Job, answer: Answer) -> Counted:
    return _key(
        TYPE_NAMES.get(job.query.qtype, "other"), answer.rcode.name, job.transport, source_of(job.view)
    )


@lru_cache(maxsize=1024)
def _key(kind: str, rcode: str, transport: str, source: str) -> Counted:
    """The same object for all replies that are counted alike."""
    return kind, rcode, transport, source


def source_of(view: View) -> str:
    """Where an asker is, as metrics tell it."""
    return "container" if view.networks else "outside"
