"""From a question and the catalog's snapshot to records and a response code. Pure.

Answers are those of Consul 1.8.7 (its dns.go), but for which of an instance's
addresses is given: that depends on who asks (`reach`). Where Consul answers
one type with records of another (a CNAME's addresses of the other family,
`<hex>.addr` in the wrong family), the records of the type asked are given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from registrator.lookup import names, records
from registrator.lookup.names import AddressName, NodeName, Question, ServiceName
from registrator.lookup.reach import node_addresses, node_ips, reach
from registrator.lookup.records import Name, Rcode, Record, Type, to_name
from registrator.model import PASSING, WARNING, Address, Entry, Node, Snapshot, View

MAX_CNAMES = 3  # how many names a CNAME inside the zone is followed through, as in Consul
MAX_NAMESERVERS = 3
SERVERS = "consul"  # the service under which Consul's servers register themselves
HOST_LABEL = re.compile(r"[A-Za-z0-9-]+")

Shuffle = Callable[[list[Entry]], None]


class NotLoaded(Exception):
    """A known service's instances are not in the snapshot: load them and ask again."""

    def __init__(self, service: str) -> None:
        super().__init__(service)
        self.service = service


@dataclass(frozen=True, slots=True)
class Zone:
    """What we are the authority for: the domain, lower-cased, and its records' TTL in seconds."""

    domain: Name
    ttl: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply's code and its three sections; `authoritative` is the AA flag.

    `alike` says that the answers are instances of one service, any of which
    will do: an asker without EDNS gets few of them.
    """

    rcode: Rcode
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    authoritative: bool = True
    alike: bool = False


REFUSED = Answer(Rcode.REFUSED, authoritative=False)
SERVFAIL = Answer(Rcode.SERVFAIL, authoritative=False)


@dataclass(frozen=True, slots=True)
class _Ask:
    """All that an answer is made of; `depth` is how many CNAMEs may still be followed."""

    question: Question
    snapshot: Snapshot
    view: View
    zone: Zone
    shuffle: Shuffle
    depth: int = MAX_CNAMES

    @property
    def name(self) -> Name:
        return self.question.name


@dataclass(frozen=True, slots=True)
class _Found:
    """What a name that exists has of the type asked."""

    answers: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()


def answer(
    question: Question, snapshot: Snapshot | None, view: View, zone: Zone, *, now: int, shuffle: Shuffle
) -> Answer:
    """Answer one question for an asker with this view.

    `now` is the time in seconds since 1970 (the SOA's serial); `shuffle` puts
    a service's instances into the order in which they are given, in place.
    Without a snapshot the answer is SERVFAIL. Raises NotLoaded.
    """
    subject = question.subject
    if isinstance(subject, names.Outside):
        return REFUSED
    if isinstance(subject, names.Transfer):
        return Answer(Rcode.NOTIMP)
    if snapshot is None:
        return SERVFAIL
    ask = _Ask(question, snapshot, view, zone, shuffle)
    soa = records.soa(zone.domain, now)
    if isinstance(subject, names.Authority):
        return _authority(ask, soa)
    found = _find(ask)
    if found is None:
        return Answer(Rcode.NXDOMAIN, authority=(soa,))
    authority = () if found.answers else (soa,)
    alike = isinstance(subject, ServiceName)
    return Answer(Rcode.NOERROR, found.answers, authority, found.additional, alike=alike)


def _find(ask: _Ask) -> _Found | None:
    """What there is of the type asked under a name; None where the name does not exist."""
    match ask.question.subject:
        case ServiceName() as name if _is_here(ask, name.datacenter):
            return _service(ask, name)
        case NodeName() as name if _is_here(ask, name.datacenter):
            return _node(ask, name)
        case AddressName(octets):
            record = records.address(ask.name, ask.zone.ttl, octets)
            fits = ask.question.qtype in (record.type, Type.ANY)
            return _Found(answers=(record,)) if fits else _Found(additional=(record,))
    return None


def _is_here(ask: _Ask, datacenter: str) -> bool:
    return datacenter in ("", ask.snapshot.datacenter.lower())


def _authority(ask: _Ask, soa: Record) -> Answer:
    """SOA and NS, the same for every name in the zone."""
    servers = _nameservers(ask)
    glue = tuple(record for _, addresses in servers for record in addresses)
    nameservers = tuple(ns for ns, _ in servers)
    if ask.question.qtype == Type.SOA:
        return Answer(Rcode.NOERROR, (soa,), nameservers, glue)
    return Answer(Rcode.NOERROR, nameservers, () if nameservers else (soa,), glue)


def _nameservers(ask: _Ask) -> list[tuple[Record, tuple[Record, ...]]]:
    """NS records with their glue: Consul's servers, or the catalog's own nodes where there are none."""
    if SERVERS in ask.snapshot.names:
        nodes = {entry.node.name: entry.node for entry in _serving(ask, ServiceName(SERVERS))}
    else:
        nodes = {node.name: node for node in ask.snapshot.nodes.values()}
    usable = [node for node in nodes.values() if HOST_LABEL.fullmatch(node.name)]
    found = []
    for node in usable[:MAX_NAMESERVERS]:
        name = _node_name(ask, replace(node, name=node.name.lower()))
        if name:
            ns = records.ns(ask.zone.domain, ask.zone.ttl, name)
            found.append((ns, _addresses(ask, name, node_ips(node), Type.ANY)))
    return found


# Services -----------------------------------------------------------------


def _serving(ask: _Ask, name: ServiceName) -> list[Entry]:
    """The passing and warning instances of a service with the tag asked, shuffled. Raises NotLoaded."""
    service = ask.snapshot.services.get(name.service)
    if service is None:
        if name.service in ask.snapshot.names:
            raise NotLoaded(name.service)
        return []
    entries = [
        entry
        for entry in service.entries
        if entry.status in (PASSING, WARNING) and (not name.tag or _has_tag(entry, name.tag))
    ]
    ask.shuffle(entries)
    return entries


def _has_tag(entry: Entry, tag: str) -> bool:
    return any(tag == own.lower() for own in entry.instance.tags)


def _service(ask: _Ask, name: ServiceName) -> _Found | None:
    entries = _serving(ask, name)
    if not entries:
        return None
    if ask.question.qtype == Type.SRV:
        return _srv(ask, entries)
    return _Found(_service_addresses(ask, entries))


def _service_addresses(ask: _Ask, entries: list[Entry]) -> tuple[Record, ...]:
    """A and AAAA without duplicates; where there are none, the first host name's CNAME."""
    found: dict[Record, None] = {}
    alias: tuple[Record, ...] = ()
    for entry in entries:
        places = _places(ask, entry)
        found.update(dict.fromkeys(_addresses(ask, ask.name, (place.ip for place in places))))
        if not alias and places:
            alias = _alias(ask, places[0].ip)
    return tuple(found) or alias


def _places(ask: _Ask, entry: Entry) -> tuple[Address, ...]:
    """The instance's addresses for this asker; an alias of the very name asked means the node's."""
    places = reach(entry, ask.view)
    if places and records.packed(places[0].ip) is None:
        host = to_name(places[0].ip)
        if host and records.lowered(host) == records.lowered(ask.name):
            return tuple(node_addresses(entry))
    return places


def _srv(ask: _Ask, entries: list[Entry]) -> _Found:
    """One SRV record for each port of each target, with the targets' addresses and their nodes' meta."""
    answers: dict[tuple[Name, int], Record] = {}
    additional: dict[Record, None] = {}
    for entry in entries:
        for place in _places(ask, entry)[:1]:
            target = _target(ask, entry, place)
            if target is None or (target, place.port) in answers:
                continue
            weights = entry.instance.weights
            weight = weights.passing if entry.status == PASSING else weights.warning
            answers[target, place.port] = records.srv(ask.name, ask.zone.ttl, weight, place.port, target)
            additional.update(dict.fromkeys(_glue(ask, entry, place, target)))
            additional.update(dict.fromkeys(_node_meta(ask, entry.node)))
    return _Found(tuple(answers.values()), tuple(additional))


def _target(ask: _Ask, entry: Entry, place: Address) -> Name | None:
    """An SRV record's target: a host name as it is, the node's name, or the address in hexadecimal."""
    octets = records.packed(place.ip)
    if octets is None:
        return to_name(place.ip)
    if _at_node(entry, place):
        return _node_name(ask, entry.node)
    return _in_zone(ask, f"{octets.hex()}.addr.{entry.node.datacenter}")


def _glue(ask: _Ask, entry: Entry, place: Address, target: Name) -> tuple[Record, ...]:
    """The addresses of an SRV record's target, as far as the zone knows them."""
    if records.packed(place.ip) is None:
        return _followed(ask, target, Type.ANY)
    ips = node_ips(entry.node) if _at_node(entry, place) else (place.ip,)
    return _addresses(ask, target, ips, Type.ANY)


def _at_node(entry: Entry, place: Address) -> bool:
    """Whether the place is the node's own address because the service has none."""
    return not entry.instance.address and place.ip == entry.node.address


# Nodes --------------------------------------------------------------------


def _node(ask: _Ask, name: NodeName) -> _Found | None:
    """A node's addresses, with its meta as TXT in the answer for TXT and ANY, else as additional."""
    node = _known_node(ask.snapshot, name.node)
    if node is None:
        return None
    qtype = ask.question.qtype
    if qtype not in (Type.A, Type.AAAA, Type.TXT, Type.ANY):
        return _Found()
    meta = _node_meta(ask, node, ask.name)
    if qtype == Type.TXT:
        return _Found(meta)
    addresses = _addresses(ask, ask.name, node_ips(node)) or _alias(ask, node.address)
    return _Found(addresses + meta) if qtype == Type.ANY else _Found(addresses, meta)


def _known_node(snapshot: Snapshot, name: str) -> Node | None:
    """A node by its name in lower case."""
    exact = snapshot.nodes.get(name)
    return exact or next((node for node in snapshot.nodes.values() if node.name.lower() == name), None)


def _node_name(ask: _Ask, node: Node) -> Name | None:
    """`<node>.node.<dc>.<zone>`, or None where the node's name cannot be one of DNS."""
    return _in_zone(ask, f"{node.name}.node.{node.datacenter}")


def _in_zone(ask: _Ask, host: str) -> Name | None:
    labels = to_name(host)
    name = (*labels, *ask.zone.domain) if labels else None
    return name if name and records.wire_length(name) <= records.MAX_NAME else None


def _node_meta(ask: _Ask, node: Node, name: Name | None = None) -> tuple[Record, ...]:
    """A node's meta as TXT records "key=value" (RFC 1464); keys that start rfc1035- give the value alone."""
    name = name or _node_name(ask, node)
    if name is None:
        return ()
    texts = (v if k.lower().startswith("rfc1035-") else f"{k}={v}" for k, v in node.meta.items())
    return tuple(records.txt(name, ask.zone.ttl, text) for text in texts)


# Addresses and host names ---------------------------------------------------


def _addresses(ask: _Ask, name: Name, ips: Iterable[str], qtype: int | None = None) -> tuple[Record, ...]:
    """A and AAAA records of the type asked (or of `qtype`); host names give none."""
    octets = (records.packed(ip) for ip in ips)
    found = (records.address(name, ask.zone.ttl, ip) for ip in octets if ip)
    return tuple(record for record in found if _answers(record.type, qtype or ask.question.qtype))


def _answers(kind: Type, qtype: int) -> bool:
    """Whether an address record answers; Consul answers TXT for a service as it does ANY."""
    return qtype in (kind, Type.ANY, Type.TXT)


def _alias(ask: _Ask, host: str) -> tuple[Record, ...]:
    """A CNAME to a host name, followed where it leads into our zone; nothing for an IP address."""
    target = to_name(host) if records.packed(host) is None else None
    if target is None:
        return ()
    return (records.cname(ask.name, ask.zone.ttl, target), *_followed(ask, target, ask.question.qtype))


def _followed(ask: _Ask, target: Name, qtype: int) -> tuple[Record, ...]:
    """What the zone itself has for a CNAME's or an SRV record's target."""
    if not ask.depth:
        return ()
    question = names.parse(target, qtype, ask.zone.domain)
    found = _find(replace(ask, question=question, depth=ask.depth - 1))
    kinds = (Type.A, Type.AAAA, Type.CNAME)
    return tuple(record for record in found.answers if record.type in kinds) if found else ()
