"""Where we answer otherwise than Consul 1.8.7 on purpose: the one list, each with its reason.

A difference that no row allows fails the tests, and so does a row that no
question needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import dns.reversename

from tests.conformance.compare import Question, Reply

ZONE, OTHER_ZONE = "consul.", "alt.example."


@dataclass(frozen=True)
class Deliberate:
    """A difference in no more than `parts` of a reply, where `holds` says so of (question, ours, theirs).

    `example` is a question that shows it; `tuned` where it takes other options than the defaults.
    """

    example: Question
    reason: str
    parts: frozenset[str]
    holds: Callable[[Question, Reply, Reply], bool]
    tuned: bool = False


def _row(
    example: Question,
    reason: str,
    parts: str,
    holds: Callable[[Question, Reply, Reply], bool],
    *,
    tuned: bool = False,
) -> Deliberate:
    return Deliberate(example, reason, frozenset(parts.split()), holds, tuned)


def _is_reverse(question: Question) -> bool:
    return question.name.endswith(".arpa")


def _alike(ours: tuple[str, ...], theirs: tuple[str, ...]) -> bool:
    """Whether the records are the same but for their case and for which of the two zones they name."""
    mine, consuls = (
        sorted(r.lower().replace(OTHER_ZONE, ZONE) for r in records) for records in (ours, theirs)
    )
    return mine == consuls


DELIBERATE = [
    _row(
        Question("thirty.service.consul", "A", None),
        "TC is set whenever answers were left out, so that the asker comes again over TCP; "
        "Consul does it only with enable_truncate.",
        "flags",
        lambda _, ours, theirs: ours.flags - theirs.flags == {"TC"} and theirs.flags <= ours.flags,
    ),
    _row(
        Question("six.node.consul", "A"),
        "A node that exists has an SOA beside its empty answer, as services have (RFC 2308).",
        "authority",
        lambda q, ours, theirs: ".node." in q.name and not ours.answer and not theirs.authority,
    ),
    _row(
        Question("nobody.node.consul", "MX"),
        "A node that does not exist is NXDOMAIN for every type (RFC 8020), not for addresses and TXT alone.",
        "rcode authority",
        lambda q, ours, theirs: ".node." in q.name and (ours.rcode, theirs.rcode) == ("NXDOMAIN", "NOERROR"),
    ),
    _row(
        Question("web.service.dc1.dc.consul", "A"),
        "<dc>.dc names a datacenter, as from Consul 1.9 on.",
        "rcode answer authority additional",
        lambda q, _, theirs: ".dc." in q.name and theirs.rcode == "NXDOMAIN",
    ),
    _row(
        Question("0a000001.addr.consul", "AAAA"),
        "An address asked in the other family is given beside an empty answer, as from Consul 1.9 on: "
        "an A record is no answer to AAAA.",
        "answer authority additional",
        lambda q, ours, theirs: ".addr." in q.name and _alike(ours.additional, theirs.answer),
    ),
    _row(
        Question("0a01.addr.consul", "A"),
        "What is no address in hexadecimal is NXDOMAIN, not an empty answer.",
        "rcode authority",
        lambda q, ours, theirs: ".addr." in q.name and (ours.rcode, theirs.rcode) == ("NXDOMAIN", "NOERROR"),
    ),
    _row(
        Question("0A000001.addr.consul", "A"),
        "The name comes back in the asker's case for addresses, too (0x20 needs it).",
        "answer",
        lambda q, ours, theirs: q.name.startswith("0A") and _alike(ours.answer, theirs.answer),
    ),
    _row(
        Question("both.node.consul", "ANY"),
        "A node of both families is given with both: ANY and SRV of Consul leave its IPv4 address out.",
        "answer additional",
        lambda q, ours, _: q.name.startswith(("both.", "bare-both.")) and " a " in _all(ours),
    ),
    _row(
        Question(str(dns.reversename.from_address("2001:db8::4")).removesuffix("."), "PTR"),
        "The reverse of a node's second address is found, too.",
        "rcode flags answer edns",
        lambda q, ours, theirs: _is_reverse(q) and " both.node." in str(ours.answer) and not theirs.answer,
    ),
    _row(
        Question("1.0.99.10.in-addr.arpa", "PTR"),
        "An address that nobody has is NXDOMAIN with an SOA, not SERVFAIL with RA, as from Consul 1.11 on.",
        "rcode flags authority edns",
        lambda q, ours, theirs: _is_reverse(q) and (ours.rcode, theirs.rcode) == ("NXDOMAIN", "SERVFAIL"),
    ),
    _row(
        Question("10.in-addr.arpa", "SOA"),
        "The rest of arpa is refused like any other zone.",
        "rcode flags edns",
        lambda q, ours, theirs: "arpa" in q.name and (ours.rcode, theirs.rcode) == ("REFUSED", "SERVFAIL"),
    ),
    _row(
        Question("9.0.0.10.in-addr.arpa", "PTR"),
        "An address that a service only says it has, registered by whoever may, gets no name from it: "
        "only those on the networks of what an agent registered, and nodes' own.",
        "rcode flags answer authority",
        lambda q, ours, theirs: _is_reverse(q)
        and ours.rcode == "NXDOMAIN"
        and ".service." in str(theirs.answer),
    ),
    _row(
        Question("1.0.1.10.in-addr.arpa", "SOA"),
        "A reverse name is in no zone of ours: no SOA stands beside its answer.",
        "authority",
        lambda q, _, theirs: _is_reverse(q) and q.qtype == "SOA" and bool(theirs.answer),
    ),
    _row(
        Question("example.org", "A"),
        "EDNS comes back in every reply to a query that had it (RFC 6891, 6.1.1), refusals included.",
        "edns",
        lambda _, ours, theirs: ours.edns and not theirs.edns and theirs.rcode in ("REFUSED", "SERVFAIL"),
    ),
    _row(
        Question("bare.service.alt.example", "SRV"),
        "Names in an answer are in the domain that was asked, as from Consul 1.11 on.",
        "answer authority additional",
        lambda q, ours, theirs: OTHER_ZONE in f"{q.name}." and all(
            _alike(getattr(ours, part), getattr(theirs, part))
            for part in ("answer", "authority", "additional")
        ),
        tuned=True,
    ),
    _row(
        Question("thirty.service.consul", "SRV", None),
        "As many answers as fit into 512 octets once names are compressed; Consul reckons without.",
        "answer additional",
        lambda _, ours, theirs: "TC" in ours.flags
        and len(theirs.answer) < len(ours.answer)
        and ours.octets <= 512,
        tuned=True,
    ),
    _row(
        Question("many.service.consul", "A", 65535),
        "No UDP reply is above 1232 octets, whatever the asker offers, without a cookie (RFC 7873).",
        "answer additional flags",
        lambda q, ours, theirs: not q.tcp and (q.size or 0) > 1232 and ours.octets <= 1232 < theirs.octets,
    ),
    _row(
        Question("find-many.query.consul", "A", 1232),
        "No reply is longer than the asker takes; Consul's may be, by the OPT record.",
        "answer additional flags",
        lambda q, ours, theirs: not q.tcp and ours.octets <= (q.size or 512) < theirs.octets,
    ),
    _row(
        Question("web.service.consul", "A", opcode="NOTIFY"),
        "A notification is NOTIMP, as all opcodes but QUERY are; Consul takes it for a question.",
        "rcode opcode flags question answer authority additional edns dnssec_ok options",
        lambda q, ours, _: q.opcode == "NOTIFY" and ours.rcode == "NOTIMP" and not _all(ours),
    ),
    _row(
        Question("web.service.consul", "A", flags="RD AD", count=2),
        "An error has none of the asker's flags but RD and CD: AD would vouch for data (RFC 4035, 3.2.3).",
        "flags",
        lambda q, ours, theirs: ours.rcode in ("FORMERR", "NOTIMP")
        and ours.flags < theirs.flags <= ours.flags | set(q.flags.split()),
    ),
    _row(
        Question("web.service.consul", "A", qclass="CH"),
        "Only the classes IN and ANY have data (RFC 1035, 3.2.4); Consul answers in its zone for all.",
        "rcode flags answer authority additional",
        lambda q, ours, _: q.qclass not in ("IN", "ANY") and ours.rcode == "REFUSED" and not _all(ours),
    ),
    _row(
        Question("web.service.consul", "A", version=1),
        "An EDNS version to come is BADVERS (RFC 6891, 6.1.3).",
        "rcode flags answer authority additional",
        lambda q, ours, _: q.version > 0 and ours.rcode == "BADVERS" and not _all(ours),
    ),
    _row(
        Question("web.service.consul", "A", dnssec_ok=True),
        "The DO flag comes back as it was sent (RFC 3225, 3).",
        "dnssec_ok",
        lambda q, ours, theirs: q.dnssec_ok and ours.dnssec_ok and not theirs.dnssec_ok,
    ),
    _row(
        Question("web.service.consul", "A", subnet="198.51.100.0/24"),
        "No answer depends on a client subnet, so none is spoken of (RFC 7871, 7.2.1).",
        "options",
        lambda q, ours, theirs: bool(q.subnet) and bool(theirs.options) and not ours.options,
    ),
]  # fmt: skip


def _all(reply: Reply) -> str:
    return "\n".join(reply.answer + reply.additional).lower()
