"""An upstream resolver as bad as a test wants it, UDP and TCP on one port of loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import dns.flags
import dns.message
import dns.rrset

from registrator.settings import Listen

UDP, TCP = "udp", "tcp"
HANGING = [b"hanging"]  # instead of packets: a TCP connection on which nothing comes
# From a query and its transport to the octets sent back, one packet after the other.
Answers = Callable[[dns.message.Message, str], Iterable[bytes]]


@dataclass
class Upstream:
    """Where it is, and what it was asked over which transport, from which port."""

    at: Listen
    asked: list[tuple[dns.message.Message, str, int]] = field(default_factory=list)

    send: Callable[[bytes, int], None] = lambda *_: None  # a packet over UDP to a port that has asked

    @property
    def transports(self) -> list[str]:
        return [transport for _, transport, _ in self.asked]


@asynccontextmanager
async def upstream(answers: Answers, host: str = "127.0.0.1") -> AsyncIterator[Upstream]:
    """Serve; the loop must go on for it to answer."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    loop = asyncio.get_running_loop()
    tcp = socket.create_server((host, 0), family=family)
    port = tcp.getsockname()[1]
    found = Upstream(Listen(host, port))
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Udp(found, answers), local_addr=(host, port), family=family
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            length = int.from_bytes(await reader.readexactly(2), "big")
        except asyncio.IncompleteReadError:  # given up before it asked
            writer.close()
            return
        query = dns.message.from_wire(await reader.readexactly(length))
        found.asked.append((query, TCP, writer.get_extra_info("peername")[1]))
        packets = list(answers(query, TCP))
        if packets == HANGING:
            await reader.read()
        else:
            for packet in packets:
                writer.write(len(packet).to_bytes(2, "big") + packet)
        writer.close()

    server = await asyncio.start_server(serve, sock=tcp)
    try:
        yield found
    finally:
        server.close()
        transport.close()
        await asyncio.sleep(0)  # the transport closes its socket in the loop's next turn


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, found: Upstream, answers: Answers) -> None:
        self._found = found
        self._answers = answers

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._found.send = lambda packet, port: transport.sendto(packet, (self._found.at.host, port))

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        self._found.asked.append((query, UDP, addr[1]))
        for packet in self._answers(query, UDP):
            self._transport.sendto(packet, addr)


def response(
    query: dns.message.Message,
    *records: str,
    rcode: int = 0,
    authority: Iterable[str] = (),
    additional: Iterable[str] = (),
) -> dns.message.Message:
    """A response with records as "name ttl type data"."""
    message = dns.message.make_response(query, recursion_available=True, our_payload=1232)
    message.set_rcode(dns.rcode.Rcode(rcode))
    message.answer = [_rrset(text) for text in records]
    message.authority = [_rrset(text) for text in authority]
    message.additional = [_rrset(text) for text in additional]
    return message


def wire(
    query: dns.message.Message, *records: str, rcode: int = 0, authority: Iterable[str] = ()
) -> list[bytes]:
    """The one packet of a `response`."""
    return [response(query, *records, rcode=rcode, authority=authority).to_wire(max_size=65535)]


def truncated(query: dns.message.Message) -> list[bytes]:
    """An empty response with TC."""
    message = response(query)
    message.flags |= dns.flags.TC
    return [message.to_wire()]


def address(query: dns.message.Message, *ips: str, ttl: int = 60) -> list[bytes]:
    """These IPv4 addresses, whatever was asked."""
    name = query.question[0].name
    return wire(query, *(f"{name} {ttl} A {ip}" for ip in ips or ("192.0.2.7",)))


def _rrset(text: str) -> dns.rrset.RRset:
    name, ttl, kind, data = text.split(" ", 3)
    return dns.rrset.from_text(name, int(ttl), "IN", kind, data)
