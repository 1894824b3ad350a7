"""DNS messages for tests, made and read by dnspython: another's eyes than the code's own."""

from __future__ import annotations

from collections.abc import Mapping

import dns.message
import dns.name
import dns.rdatatype
import dns.rrset

from registrator.lookup import answers, names, wire
from registrator.lookup.ask import Known, Terms, Zone
from registrator.lookup.records import MAX_MESSAGE
from registrator.model import OUTSIDE, Selected, Selection, Snapshot, View

ZONE = Zone.named("consul")
NOW = 1700000000


def query(name: str | dns.name.Name, qtype: str, size: int | None = None, version: int = 0) -> bytes:
    """A query's octets, with EDNS where `size` is given."""
    message = dns.message.make_query(name, qtype)
    if size is not None:
        message.use_edns(version, payload=size)
    return message.to_wire()


def answer(
    snapshot: Snapshot | None,
    name: str,
    qtype: str,
    *,
    view: View = OUTSIDE,
    size: int = MAX_MESSAGE,
    zone: Zone = ZONE,
    selections: Mapping[Selection, Selected] | None = None,
) -> dns.message.Message:
    """What the front's pure part answers, rendered, as dnspython reads it; instances keep their order."""
    asked = wire.parse(query(name, qtype))
    question = names.parse(asked.name, asked.qtype, zone.domains, bare=zone.bare_names)
    known = Known(snapshot, (selections or {}).get)
    made = answers.answer(question, known, view, zone, Terms(NOW, lambda _: None))
    return dns.message.from_wire(wire.render(asked, made, size))


def text(section: list[dns.rrset.RRset]) -> list[str]:
    """A section's records as "name type data", in order."""
    return [
        f"{rrset.name} {dns.rdatatype.to_text(rrset.rdtype)} {data}" for rrset in section for data in rrset
    ]
