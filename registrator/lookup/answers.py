"""From a question and the catalog's snapshot to records and a response code. Pure.

Answers are those of Consul 1.8.7 (its dns.go), but for which of an instance's
addresses is given: that depends on who asks (`reach`). The few other places
where we know better stand in tests/conformance, each with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from registrator.lookup import names, records
from registrator.lookup.ask import Ask, Known, NotLoaded, Terms, Zone
from registrator.lookup.names import (
    AddressName,
    MeshName,
    NodeName,
    QueryName,
    Question,
    ReverseName,
    ServiceName,
)
from registrator.lookup.reach import node_addresses, node_ips, reach, within_reach
from registrator.lookup.records import Name, Rcode, Record, Type, to_name
from registrator.model import (
    ADDRESS,
    NODE,
    PASSING,
    QUERY,
    SERVICE,
    WARNING,
    Address,
    Entry,
    Node,
    Selection,
    Snapshot,
    View,
)

MAX_NAMESERVERS = 3
SERVERS = "consul"  # the service under which Consul's servers register themselves
HOST_LABEL = re.compile(r"[A-Za-z0-9-]+")


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply's code and its three sections; `authoritative` is the AA flag.

    `alike` says that the answers are instances of one service, any of which
    will do: an asker without EDNS gets few of them. The first `near` of them
    are to stay before the others.
    """

    rcode: Rcode
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    authoritative: bool = True
    alike: bool = False
    near: int = 0


REFUSED = Answer(Rcode.REFUSED, authoritative=False)
SERVFAIL = Answer(Rcode.SERVFAIL, authoritative=False)


@dataclass(frozen=True, slots=True)
class _Found:
    """What a name that exists has of the type asked."""

    answers: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    near: int = 0


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
    ask = Ask(question, known.snapshot, known.selected, view, zone, terms, elsewhere=known.elsewhere)
    soa = records.soa(question.domain, terms.now)
    if isinstance(subject, names.Authority):
        return _authority(ask, soa)
    found = _find(ask)
    negative = () if question.is_bare else (soa,)  # the zone's record says nothing of a name outside
    if found is None:
        return Answer(Rcode.NXDOMAIN, authority=negative)
    authority = () if found.answers else negative
    alike = isinstance(subject, ServiceName | MeshName | QueryName)
    return Answer(Rcode.NOERROR, found.answers, authority, found.additional, alike=alike, near=found.near)


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
            entries = ask.select(kind, service, datacenter).entries
            return _service(ask, service, _usable(ask, entries))
        case QueryName(query, datacenter):
            found = ask.select(QUERY, query, datacenter)
            return _service(ask, found.service.lower(), list(found.entries), found.ttl)
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
    if SERVERS in ask.snapshot.names:
        nodes = {entry.node.name: entry.node for entry in _serving(ask, ServiceName(SERVERS))}
    else:
        nodes = {node.name: node for node in ask.snapshot.nodes.values()}
    usable = [node for node in nodes.values() if HOST_LABEL.fullmatch(node.name)]
    ttl, found = ask.zone.ttls.node, []
    for node in usable[:MAX_NAMESERVERS]:
        name = _node_name(ask, replace(node, name=node.name.lower()))
        if name:
            ns = records.ns(ask.question.domain, ttl, name)
            found.append((ns, _addresses(name, ttl, node_ips(node), Type.ANY)))
    return found


def _reverse(ask: Ask, ip: str) -> _Found | None:
    """A node's name with this address, else a service's; for any type, and without TTL, as in Consul."""
    nodes = sorted((n for n in ask.snapshot.nodes.values() if ip in node_ips(n)), key=lambda n: n.name)
    target = next(filter(None, (_node_name(ask, node) for node in nodes)), None)
    if target is None:
        domain, entries = ask.question.domain, ask.select(ADDRESS, ip, "").entries
        found = (names.of_service(domain, e.instance.service, e.node.datacenter) for e in entries)
        target = next(filter(None, found), None)
    return _Found((records.ptr(ask.name, 0, target),)) if target else None


# Services -----------------------------------------------------------------


def _serving(ask: Ask, name: ServiceName) -> list[Entry]:
    """The usable instances of a service with the tag asked. Raises NotLoaded."""
    if not ask.is_here(name.datacenter):
        return _usable(ask, ask.select(SERVICE, name.service, name.datacenter).entries, name.tag)
    service = ask.snapshot.services.get(name.service)
    if service is None:
        if name.service in ask.snapshot.names:
            raise NotLoaded(Selection(SERVICE, name.service))
        return []
    return _usable(ask, service.entries, name.tag)


def _usable(ask: Ask, entries: Sequence[Entry], tag: str = "") -> list[Entry]:
    """The passing and warning instances in reach, narrowed to a tag unless that is "", shuffled."""
    good = (PASSING,) if ask.zone.only_passing else (PASSING, WARNING)
    near = within_reach(entries, ask.view)
    found = [entry for entry in near if entry.status in good and (not tag or _has_tag(entry, tag))]
    if len(found) > 1:
        ask.terms.shuffle(found)
        if ask.terms.near:
            found.sort(key=lambda entry: not _is_near(ask, entry))
    return found


def _is_near(ask: Ask, entry: Entry) -> bool:
    return bool(ask.terms.near) and entry.instance.owner == ask.terms.near


def _has_tag(entry: Entry, tag: str) -> bool:
    return any(tag == own.lower() for own in entry.instance.tags)


def _service(ask: Ask, service: str, entries: list[Entry], ttl: int | None = None) -> _Found | None:
    """Records of the type asked for these instances; the TTL is `ttl`, or that of `service` (lower-cased)."""
    if not entries:
        return None
    ttl = ask.zone.ttls.of(service) if ttl is None else ttl
    if ask.question.qtype == Type.SRV:
        return _srv(ask, entries, ttl)
    return _service_addresses(ask, entries, ttl)


def _service_addresses(ask: Ask, entries: list[Entry], ttl: int) -> _Found:
    """A and AAAA without duplicates; where there are none, the first host name's CNAME."""
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
    room, near = ask.terms.room, 0
    for entry in entries:
        if room < 0:
            break
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
        return tuple(r._replace(ttl=min(ttl, r.ttl)) for r in ask.elsewhere(target))
    found = _find(replace(ask, question=question, depth=ask.depth - 1))
    kinds = (Type.A, Type.AAAA, Type.CNAME)
    return tuple(r._replace(ttl=ttl) for r in found.answers if r.type in kinds) if found else ()
