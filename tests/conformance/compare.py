"""One question to both, and what is different about the answers, in words."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, fields

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from registrator.lookup.resolver import Resolver

PATIENCE = 5.0  # seconds for Consul's answer
ASKER = "192.0.2.200"  # no container: what Consul would answer is what it gets


@dataclass(frozen=True)
class Question:
    """A question as it is sent. `size` is EDNS' payload size, None without EDNS; `tcp` the transport.

    The rest is what few askers send: `count` is how often the question stands
    in its section, `subnet` an ECS option (RFC 7871), "" for none.
    """

    name: str
    qtype: str
    size: int | None = 4096
    tcp: bool = False
    qclass: str = "IN"
    flags: str = "RD"
    opcode: str = "QUERY"
    count: int = 1
    version: int = 0
    dnssec_ok: bool = False
    subnet: str = ""

    def __str__(self) -> str:
        usual = {field.name: field.default for field in fields(self)[4:]}
        unusual = [f"{key}={getattr(self, key)}" for key in usual if getattr(self, key) != usual[key]]
        edns = "no EDNS" if self.size is None else str(self.size)
        return " ".join([self.name, self.qtype, "TCP" if self.tcp else "UDP", edns, *unusual])

    def message(self) -> dns.message.Message:
        """The query, which dnspython gives a random id."""
        message = dns.message.make_query(self.name, self.qtype, self.qclass)
        message.flags = dns.flags.from_text(self.flags)
        message.set_opcode(dns.opcode.from_text(self.opcode))
        message.question *= self.count
        if self.size is not None:
            do = dns.flags.DO if self.dnssec_ok else 0
            options = [dns.edns.ECSOption.from_text(self.subnet)] if self.subnet else []
            message.use_edns(self.version, do, self.size, options=options)
        return message


@dataclass(frozen=True)
class Reply:
    """What is compared of an answer. Records are "owner ttl type data" without order; OPT is not one.

    Beside the answer case is not compared: compression may give a name the asker's.
    What the OPT record offers is not compared either: Consul gives the asker's own size back.
    """

    rcode: str
    opcode: str
    flags: frozenset[str]
    question: str
    answer: tuple[str, ...]
    authority: tuple[str, ...]
    additional: tuple[str, ...]
    edns: bool
    dnssec_ok: bool
    options: tuple[str, ...]
    octets: int

    @classmethod
    def read(cls, packet: bytes) -> Reply:
        """Understand a packet by dnspython."""
        message = dns.message.from_wire(packet, ignore_trailing=False)
        return cls(
            dns.rcode.to_text(message.rcode()),
            dns.opcode.to_text(message.opcode()),
            frozenset(dns.flags.to_text(message.flags).split()),
            " ".join(str(rrset) for rrset in message.question),
            _records(message.answer),
            tuple(map(str.lower, _records(message.authority))),
            tuple(map(str.lower, _records(message.additional))),
            message.edns >= 0,
            bool(message.ednsflags & dns.flags.DO),
            tuple(map(str, message.options)),
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
    packet = question.message().to_wire()
    async with asyncio.timeout(PATIENCE):
        reply = await (_over_tcp if question.tcp else _over_udp)(packet, port)
    assert reply[:2] == packet[:2]
    return Reply.read(reply)


async def _over_udp(packet: bytes, port: int) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0)
        sock.connect(("127.0.0.1", port))
        sock.send(packet)
        return await asyncio.get_running_loop().sock_recv(sock, 65535)


async def _over_tcp(packet: bytes, port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(len(packet).to_bytes(2, "big") + packet)
    reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    writer.transport.abort()
    return reply


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
    parts = [field.name for field in fields(Reply) if field.name != "octets"]
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
