"""From a question and the catalog's snapshot to records and a response code. Pure.

Answers are those of Consul 1.8.7 (its dns.go), but for which of an instance's
addresses is given: that depends on who asks (`reach`). The few other places
where we know better stand in tests/conformance, each with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from registrator.lookup import names, records
from registrator.lookup.ask import Ask, Known, NotLoaded, Terms, Zone
from registrator.lookup.crowd import Crowd, Pool, chosen, crowd_of
from registrator.lookup.names import (
    AddressName,
    MeshName,
    NodeName,
    QueryName,
    Question,
    ReverseName,
    ServiceName,
)
from registrator.lookup.reach import node_addresses, node_ips, reach
from registrator.lookup.records import Name, Rcode, Record, Type, to_name
from registrator.model import (
    ADDRESS,
    NODE,
    PASSING,
    QUERY,
    SERVICE,
    Address,
    Entry,
    Node,
    Selected,
    Selection,
    Service,
    Snapshot,
    View,
)

MODERATE = 64  # instances
MAX_NAMESERVERS = 3
MOST_SERVERS = 64  # nodes that are looked at for those
SMALLEST_ANSWER = records.POINTED_SIZE + 4  # octets: an A record
# Consul answers TXT for a service as it does ANY.
POOLED: Mapping[int, Type] = {Type.A: Type.A, Type.AAAA: Type.AAAA, Type.ANY: Type.ANY, Type.TXT: Type.ANY}
SERVERS = "consul"  # the service under which Consul's servers register themselves
HOST_LABEL = re.compile(r"[A-Za-z0-9-]+")


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply's code and its three sections; `authoritative` is the AA flag.

    `alike` says that the answers are instances of one service, any of which
    will do: an asker without EDNS gets few of them. The first `near` of them
    are to stay before the others. With `Terms.pooled` those that are addresses
    of one family may be left in a `pool`: then `answers` is empty.
    """

    rcode: Rcode
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    authoritative: bool = True
    alike: bool = False
    near: int = 0
    pool: Pool | None = None
    ttl: int = 0  # of the pool's records


REFUSED = Answer(Rcode.REFUSED, authoritative=False)
SERVFAIL = Answer(Rcode.SERVFAIL, authoritative=False)


@dataclass(frozen=True, slots=True)
class _Found:
    """What a name that exists has of the type asked."""

    answers: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    near: int = 0
    pool: Pool | None = None
    ttl: int = 0
    ordered: bool = False

    def records(self, ask: Ask) -> tuple[Record, ...]:
        """The answers; of a pool's as many as there is room for, and one more."""
        pool = self.pool
        if pool is None:
            return self.answers
        most = ask.terms.room // SMALLEST_ANSWER + 1
        found: list[Record] = []
        for part in (pool.near, pool.others):
            octets = list(part)
            if not self.ordered:
                ask.terms.shuffle(octets)
            name, ttl = ask.name, self.ttl
            found += [records.address(name, ttl, one) for one in octets[: most - len(found)]]
        return tuple(found)


def answer(question: Question, known: Known, view: View, zone: Zone, terms: Terms) -> Answer:
    """Answer one question for an asker with this view.

    Without a snapshot the answer is SERVFAIL. Raises NotLoaded.
    """
    subject = question.subject
    if is_outside(question, known.snapshot):
        return REFUSED
    if isinstance(subject, names.Transfer):
        return Answer(Rcode.NOTIMP)
    if known.snapshot is None:
        return SERVFAIL
    ask = Ask(question, known, known.snapshot, view, zone, terms)
    if isinstance(subject, names.Authority):
        return _authority(ask, records.soa(question.domain, terms.now))
    found = _find(ask)
    return missing(question, terms.now) if found is None else _given(ask, found)


def _given(ask: Ask, found: _Found) -> Answer:
    """The answer about a name that exists."""
    alike = isinstance(ask.question.subject, ServiceName | MeshName | QueryName)
    pool = found.pool
    if pool and pool.kind and pool.total > 1 and ask.terms.pooled:
        return Answer(Rcode.NOERROR, alike=alike, near=found.near, pool=pool, ttl=found.ttl)
    answers = found.records(ask)
    authority = () if answers else _denial(ask.question, ask.terms.now)
    return Answer(Rcode.NOERROR, answers, authority, found.additional, alike=alike, near=found.near)


def missing(question: Question, now: int) -> Answer:
    """The answer about a name that does not exist."""
    return Answer(Rcode.NXDOMAIN, authority=_denial(question, now))


def _denial(question: Question, now: int) -> tuple[Record, ...]:
    """What goes with a negative answer; the zone's record says nothing of a name outside."""
    return () if question.is_bare else (records.soa(question.domain, now),)


def is_outside(question: Question, snapshot: Snapshot | None) -> bool:
    """Whether a name is none of ours to answer: outside the zone, and no service's bare name."""
    match question.subject:
        case names.Outside():
            return True
        case ServiceName(service) if question.is_bare and snapshot is not None:
            return service not in snapshot.names
    return False


def _find(ask: Ask) -> _Found | None:
    """What there is of the type asked under a name; None where the name does not exist."""
    subject = ask.question.subject
    match subject:
        case AddressName(addresses):
            found = tuple(records.address(ask.name, ask.zone.ttls.node, octets) for octets in addresses)
            fitting = tuple(record for record in found if ask.question.qtype in (record.type, Type.ANY))
            return _Found(fitting) if fitting else _Found(additional=found)
        case ReverseName(ip):
            return _reverse(ask, ip)
        case ServiceName() | MeshName() | QueryName() | NodeName() if ask.is_known(subject.datacenter):
            return _named(ask, subject)
    return None


def _named(ask: Ask, subject: ServiceName | MeshName | QueryName | NodeName) -> _Found | None:
    """What there is under a name of the catalog, in a datacenter that exists."""
    match subject:
        case ServiceName(service):
            return _service(ask, service, _serving(ask, subject))
        case MeshName(kind, service, datacenter):
            return _service(ask, service, _usable(ask, ask.select(kind, service, datacenter)))
        case QueryName(query, datacenter):
            found = ask.select(QUERY, query, datacenter)
            return _service(ask, found.service.lower(), chosen(found, ask.view), found.ttl)
        case NodeName(name, datacenter):
            return _node(ask, _known_node(ask, name, datacenter))


def _authority(ask: Ask, soa: Record) -> Answer:
    """SOA and NS, the same for every name in the zone."""
    servers = _nameservers(ask)
    glue = tuple(record for _, addresses in servers for record in addresses)
    nameservers = tuple(ns for ns, _ in servers)
    if ask.question.qtype == Type.SOA:
        return Answer(Rcode.NOERROR, (soa,), nameservers, glue)
    return Answer(Rcode.NOERROR, nameservers, () if nameservers else (soa,), glue)


def _nameservers(ask: Ask) -> list[tuple[Record, tuple[Record, ...]]]:
    """NS records with their glue: Consul's servers, or the catalog's own nodes where there are none."""
    ttl, found = ask.zone.ttls.node, dict[str, tuple[Record, tuple[Record, ...]]]()
    for node in islice(_servers(ask), MOST_SERVERS):
        if node.name in found or not HOST_LABEL.fullmatch(node.name):
            continue
        name = _node_name(ask, replace(node, name=node.name.lower()))
        if name:
            ns = records.ns(ask.question.domain, ttl, name)
            found[node.name] = ns, _addresses(name, ttl, node_ips(node), Type.ANY)
            if len(found) == MAX_NAMESERVERS:
                break
    return list(found.values())


def _servers(ask: Ask) -> Iterable[Node]:
    """The nodes that may be name servers, several times maybe."""
    if SERVERS not in ask.snapshot.names:
        return iter(ask.snapshot.nodes.values())
    crowd = _serving(ask, ServiceName(SERVERS))
    return (entry.node for entry in _in_order(ask, crowd)) if crowd else ()


def _reverse(ask: Ask, ip: str) -> _Found | None:
    """A node's name with this address, else a service's; for any type, and without TTL, as in Consul."""
    target = next(filter(None, (_node_name(ask, node) for node in ask.nodes_at(ip))), None)
    if target is None:
        domain, entries = ask.question.domain, ask.select(ADDRESS, ip, "").entries
        found = (names.of_service(domain, e.instance.service, e.node.datacenter) for e in entries)
        target = next(filter(None, found), None)
    return _Found((records.ptr(ask.name, 0, target),)) if target else None


# Services -----------------------------------------------------------------


def _serving(ask: Ask, name: ServiceName) -> Crowd | None:
    """The usable instances of a service with the tag asked. Raises NotLoaded."""
    if not ask.is_here(name.datacenter):
        return _usable(ask, ask.select(SERVICE, name.service, name.datacenter), name.tag)
    service = ask.snapshot.services.get(name.service)
    if service is None:
        if name.service in ask.snapshot.names:
            raise NotLoaded(Selection(SERVICE, name.service))
        return None
    return _usable(ask, service, name.tag)


def _usable(ask: Ask, source: Service | Selected, tag: str = "") -> Crowd | None:
    """The passing and warning instances in reach, narrowed to a tag unless that is ""; None for none."""
    crowd = crowd_of(source, ask.view, only_passing=ask.zone.only_passing, near=ask.terms.near)
    return crowd.tagged(tag) if crowd and tag else crowd


def _in_order(ask: Ask, crowd: Crowd) -> list[Entry]:
    """The instances in the order in which they are given: shuffled, those that are near before the others."""
    found: list[Entry] = []
    for part in (crowd.near, crowd.others):
        entries = list(part)
        if len(entries) > 1 and not crowd.ordered:
            ask.terms.shuffle(entries)
        found += entries
    return found


def _is_near(ask: Ask, entry: Entry) -> bool:
    return bool(ask.terms.near) and entry.instance.owner == ask.terms.near


def _service(ask: Ask, service: str, crowd: Crowd | None, ttl: int | None = None) -> _Found | None:
    """Records of the type asked for these instances; the TTL is `ttl`, or that of `service` (lower-cased)."""
    if crowd is None:
        return None
    ttl = ask.zone.ttls.of(service) if ttl is None else ttl
    if ask.question.qtype == Type.SRV:
        return _srv(ask, _in_order(ask, crowd), ttl)
    if crowd.has_names:
        return _named_addresses(ask, _in_order(ask, crowd), ttl)
    kind = POOLED.get(ask.question.qtype)
    pool = crowd.pool(kind) if kind else None
    if pool is None:
        return _Found()
    return _Found(near=len(pool.near), pool=pool, ttl=ttl, ordered=crowd.ordered)


def _named_addresses(ask: Ask, entries: list[Entry], ttl: int) -> _Found:
    """The same where some are host names: A and AAAA, and where there are none, the first name's CNAME."""
    found: dict[Record, None] = {}
    alias: tuple[Record, ...] = ()
    near = 0
    for entry in entries:
        places = _places(ask, entry)
        found.update(dict.fromkeys(_addresses(ask.name, ttl, [p.ip for p in places], ask.question.qtype)))
        if _is_near(ask, entry):
            near = len(found)
        if not alias and places:
            alias = _alias(ask, places[0].ip, ttl)
    return _Found(tuple(found) or alias, near=near)


def _places(ask: Ask, entry: Entry) -> tuple[Address, ...]:
    """The instance's addresses for this asker; an alias of the very name asked means the node's."""
    places = reach(entry, ask.view)
    return tuple(node_addresses(entry)) if _is_own_name(ask, places) else places


def _is_own_name(ask: Ask, places: tuple[Address, ...]) -> bool:
    if not places or records.packed(places[0].ip) is not None:
        return False
    host = to_name(places[0].ip)
    return host is not None and records.lowered(host) == records.lowered(ask.name)


def _srv(ask: Ask, entries: list[Entry], ttl: int) -> _Found:
    """One SRV record for each port of each target, with the targets' addresses and their nodes' meta."""
    answers: dict[tuple[Name, int], Record] = {}
    glue: dict[Record, None] = {}
    meta: dict[Record, None] = {}
    # Of not very many all are made: then they need not be made again to show the others.
    room, near = ask.terms.room if len(entries) > MODERATE else records.MAX_MESSAGE, 0
    for entry in entries:
        if room < 0:
            break
        ask.terms.pause()
        port, ips = _place(_places(ask, entry))
        target, addresses = _destination(ask, entry, ips, ttl) if ips else (None, ())
        if target is None:
            continue
        weights = entry.instance.weights
        weight = weights.passing if entry.status == PASSING else weights.warning
        if (target, port) not in answers:
            answers[target, port] = records.srv(ask.name, ttl, weight, port, target)
            room -= records.SRV_SIZE + records.wire_length(target)
        if _is_near(ask, entry):
            near = len(answers)
        for record in addresses:
            if record not in glue:
                glue[record] = None
                room -= records.POINTED_SIZE + len(record.data)
        if entry.node.meta:
            meta.update(dict.fromkeys(_node_meta(ask, entry.node, ttl)))
    return _Found(tuple(answers.values()), (*glue, *meta), near)


def _place(places: Sequence[Address]) -> tuple[int, list[str]]:
    """The port of the preferred address, and all addresses that have it.

    Engines may publish a port under two numbers, one of each family. Who
    followed a record for the second, and lacks that family, would fail.
    """
    port = places[0].port if places else 0
    return port, [place.ip for place in places if place.port == port]


def _destination(ask: Ask, entry: Entry, ips: list[str], ttl: int) -> tuple[Name | None, tuple[Record, ...]]:
    """An SRV record's target, and its addresses as far as the zone knows them.

    The target is a host name as it is, the node's name, or the addresses in hexadecimal.
    """
    octets = [octets for ip in ips if (octets := records.packed(ip))]
    if not octets:
        target = to_name(ips[0])
        return target, _followed(ask, target, ttl) if target else ()
    if _at_node(entry, ips[0]):
        target = _node_name(ask, entry.node)
        return target, _addresses(target, ttl, node_ips(entry.node), Type.ANY) if target else ()
    target = names.of_addresses(ask.question.domain, octets, entry.node.datacenter)
    return target, tuple([records.address(target, ttl, own) for own in octets]) if target else ()


def _at_node(entry: Entry, ip: str) -> bool:
    """Whether it is the node's own address because the service has none, or only its own name."""
    return ip == entry.node.address and records.packed(entry.instance.address) is None


# Nodes --------------------------------------------------------------------


def _node(ask: Ask, node: Node | None) -> _Found | None:
    """A node's addresses, with its meta as TXT in the answer for TXT and ANY, else as additional."""
    if node is None:
        return None
    qtype, ttl = ask.question.qtype, ask.zone.ttls.node
    if qtype not in (Type.A, Type.AAAA, Type.TXT, Type.ANY):
        return _Found()
    meta = _node_meta(ask, node, ttl, ask.name)
    if qtype == Type.TXT:
        return _Found(meta)
    addresses = _addresses(ask.name, ttl, node_ips(node), qtype) or _alias(ask, node.address, ttl)
    return _Found(addresses + meta) if qtype == Type.ANY else _Found(addresses, meta)


def _known_node(ask: Ask, name: str, datacenter: str) -> Node | None:
    """A node by its name in lower case. Raises NotLoaded."""
    if not ask.is_here(datacenter):
        return ask.select(NODE, name, datacenter).node
    return ask.snapshot.nodes.get(name)


def _node_name(ask: Ask, node: Node) -> Name | None:
    return names.of_node(ask.question.domain, node.name, node.datacenter)


def _node_meta(ask: Ask, node: Node, ttl: int, name: Name | None = None) -> tuple[Record, ...]:
    """A node's meta as TXT records "key=value" (RFC 1464); keys that start rfc1035- give the value alone."""
    name = name or _node_name(ask, node)
    if name is None:
        return ()
    texts = (v if k.lower().startswith("rfc1035-") else f"{k}={v}" for k, v in node.meta.items())
    return tuple(records.txt(name, ttl, text) for text in texts)


# Addresses and host names ---------------------------------------------------


def _addresses(name: Name, ttl: int, ips: Iterable[str], qtype: int) -> tuple[Record, ...]:
    """A and AAAA records of the type asked; host names give none."""
    octets = [octets for ip in ips if (octets := records.packed(ip))]
    found = [records.address(name, ttl, ip) for ip in octets]
    return tuple([record for record in found if _answers(record.type, qtype)])


def _answers(kind: Type, qtype: int) -> bool:
    """Whether an address record answers; Consul answers TXT for a service as it does ANY."""
    return qtype in (kind, Type.ANY, Type.TXT)


def _alias(ask: Ask, host: str, ttl: int) -> tuple[Record, ...]:
    """A CNAME to a host name, followed where it leads into our zone; nothing for an IP address."""
    target = to_name(host) if records.packed(host) is None else None
    if target is None:
        return ()
    return (records.cname(ask.name, ttl, target), *_followed(ask, target, ttl))


def _followed(ask: Ask, target: Name, ttl: int) -> tuple[Record, ...]:
    """The addresses of a CNAME's or an SRV record's target.

    Those that the zone itself has are of both families, whatever was asked,
    and have the TTL of what leads to them, as in Consul. Those from elsewhere
    may have a shorter one, which holds (Consul sets it aside).
    """
    if not ask.depth:
        return ()
    question = names.parse(target, Type.ANY, ask.zone.domains, bare=ask.zone.bare_names)
    if is_outside(question, ask.snapshot):
        return tuple(r._replace(ttl=min(ttl, r.ttl)) for r in ask.known.elsewhere(target))
    inner = replace(ask, question=question, depth=ask.depth - 1)
    found = _find(inner)
    if found is None:
        return ()
    kinds = (Type.A, Type.AAAA, Type.CNAME)
    return tuple(r._replace(ttl=ttl) for r in found.records(inner) if r.type in kinds)
