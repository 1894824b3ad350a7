"""One question to both, and what is different about the answers, in words."""

from __future__ import annotations

from dataclasses import dataclass

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from registrator.lookup.resolver import Resolver

PATIENCE = 5.0  # seconds for Consul's answer
ASKER = "192.0.2.200"  # no container: what Consul would answer is what it gets


@dataclass(frozen=True)
class Question:
    """A question as it is sent. `size` is EDNS' payload size, None without EDNS; `tcp` the transport."""

    name: str
    qtype: str
    size: int | None = 4096
    tcp: bool = False

    def __str__(self) -> str:
        how = "TCP" if self.tcp else "UDP"
        return f"{self.name} {self.qtype} {how} {'no EDNS' if self.size is None else self.size}"

    def message(self) -> dns.message.Message:
        """The query, which dnspython gives a random id."""
        message = dns.message.make_query(self.name, self.qtype)
        if self.size is not None:
            message.use_edns(0, payload=self.size)
        return message


@dataclass(frozen=True)
class Reply:
    """What is compared of an answer. Records are "owner ttl type data" without order; OPT is not one.

    Beside the answer case is not compared: compression may give a name the asker's.
    """

    rcode: str
    flags: frozenset[str]
    question: str
    answer: tuple[str, ...]
    authority: tuple[str, ...]
    additional: tuple[str, ...]
    edns: bool
    octets: int

    @classmethod
    def read(cls, packet: bytes) -> Reply:
        """Understand a packet by dnspython."""
        message = dns.message.from_wire(packet, ignore_trailing=False)
        return cls(
            dns.rcode.to_text(message.rcode()),
            frozenset(dns.flags.to_text(message.flags).split()),
            " ".join(str(rrset) for rrset in message.question),
            _records(message.answer),
            tuple(map(str.lower, _records(message.authority))),
            tuple(map(str.lower, _records(message.additional))),
            message.edns >= 0,
            len(packet),
        )


def _records(section: list[dns.rrset.RRset]) -> tuple[str, ...]:
    return tuple(
        sorted(
            f"{rrset.name} {rrset.ttl} {dns.rdatatype.to_text(rrset.rdtype)} {_data(data)}"
            for rrset in section
            for data in rrset
        )
    )


def _data(data: object) -> str:
    """A record's data as text; an SOA's serial is the time, and so is not compared."""
    text = str(data)
    if "hostmaster." in text:
        server, mailbox, _, *timers = text.split()
        return " ".join((server, mailbox, "NOW", *timers))
    return text


async def theirs(question: Question, port: int) -> Reply:
    """Consul's answer, from its DNS port on loopback."""
    ask = dns.asyncquery.tcp if question.tcp else dns.asyncquery.udp
    message = await ask(question.message(), "127.0.0.1", PATIENCE, port)
    assert message.wire is not None
    return Reply.read(message.wire)


async def ours(question: Question, resolver: Resolver) -> Reply:
    """Our answer, from the resolver that the servers use."""
    packet = question.message().to_wire()
    reply = await resolver.resolve(packet, ASKER, "tcp" if question.tcp else "udp")
    assert reply is not None
    return Reply.read(reply)


def differences(mine: Reply, consul: Reply, whole: Reply) -> set[str]:
    """The names of the parts that differ; `whole` is Consul's answer over TCP.

    Where both leave answers out, each chooses for itself: then as many of the
    whole are asked for, each of them with its target's addresses.
    """
    parts = ("rcode", "flags", "question", "answer", "authority", "additional", "edns")
    found = {part for part in parts if getattr(mine, part) != getattr(consul, part)}
    if "answer" in found and _same_share(mine, consul, whole):
        found -= {"answer", "additional"}
    return found


def _same_share(mine: Reply, consul: Reply, whole: Reply) -> bool:
    """Whether both have the same number of the whole's answers, and no more than what goes with them."""
    sizes = {(len(reply.answer), len(reply.additional)) for reply in (mine, consul)}
    return (
        len(sizes) == 1
        and len(mine.answer) < len(whole.answer)
        and all(set(reply.answer) <= set(whole.answer) for reply in (mine, consul))
        and all(set(reply.additional) <= set(whole.additional) for reply in (mine, consul))
    )
