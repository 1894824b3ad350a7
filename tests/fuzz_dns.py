"""Damaged DNS packets for as long as is wanted: `python -m tests.fuzz_dns --packets 1000000`.

Sound queries of every kind are damaged and asked over UDP (the fast path, the
other, and the one that waits), over TCP, and as streams of damaged frames
through a real TCP server. The first packet after which a law is broken ends
the run with its octets; the same seed and number of packets bring it again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from random import Random, SystemRandom

import dns.rcode

from registrator.lookup.dns import DnsServer
from registrator.lookup.resolver import Resolver
from registrator.settings import Listen
from tests.lookup import fuzzing

SOUND = 0.2  # of the packets are left as they are, so that the cache is filled and hit
OVER_TCP = 0.1  # of the packets are asked over TCP
STREAM_EVERY = 1000  # packets, there is a stream
STREAM_LENGTH = 50  # packets in it
WRONG_LENGTHS = 0.02  # of the lengths before a stream's packets
TELL_EVERY = 5.0  # seconds
PATIENCE = 60.0  # seconds for all replies to a stream
LISTEN = Listen("127.0.0.1", 0)


class BrokenLaw(Exception):
    """A packet made the front fail, or its reply is none that it may send."""

    def __init__(self, packet: bytes, transport: str) -> None:
        super().__init__(f"over {transport}, packet {packet.hex()}")


class Fuzzer:
    """Damages packets, asks them, checks the replies and counts what came."""

    def __init__(self, seed: int) -> None:
        self._rng = Random(seed)
        self._sound = fuzzing.sound_packets()
        self._resolver: Resolver = fuzzing.front()
        self.codes: Counter[str] = Counter()
        self.packets = 0
        self.quick = 0
        self.streams = 0
        self.longest = 0  # octets of a UDP reply
        self.ratio = 0.0  # of a UDP reply's octets to its query's, at the most

    async def run(self, packets: int, seconds: float) -> None:
        """Ask so many packets, but no longer than so many seconds. Raises BrokenLaw."""
        server = DnsServer(self._resolver, [LISTEN])
        await server.start()
        started = told = time.monotonic()
        try:
            while self.packets < packets and (now := time.monotonic()) < started + seconds:
                await self._ask(self._packet(), now)
                if self.packets % STREAM_EVERY == 0:
                    await self._ask_stream(server.addresses[0])
                if now > told + TELL_EVERY:
                    told = now
                    self.tell(now - started)
        finally:
            await server.close()
        self.tell(time.monotonic() - started)

    def tell(self, seconds: float) -> None:
        """One line of what was done so far."""
        codes = ", ".join(f"{code} {count:,}" for code, count in self.codes.most_common())
        print(  # noqa: T201 - progress is what the program is for
            f"{self.packets:,} packets in {seconds:.0f} s ({self.quick:,} by the fast path, {self.streams:,} "
            f"TCP streams): {codes}; UDP replies of at most {self.longest:,} octets, {self.ratio:.1f} times "
            "their query",
            flush=True,
        )

    def _packet(self) -> bytes:
        """The next packet."""
        rng, sound = self._rng, self._sound
        packet = sound[int(rng.random() ** 3 * len(sound))]  # some come often
        if rng.random() >= SOUND:
            packet = fuzzing.damaged(packet, sound[int(rng.random() * len(sound))], rng)
        return packet

    async def _ask(self, packet: bytes, now: float) -> None:
        """Ask a packet over one of the transports, and check the reply. Raises BrokenLaw."""
        resolver = self._resolver
        transport = "tcp" if self._rng.random() < OVER_TCP else "udp"
        try:
            if transport == "tcp":
                reply = await resolver.resolve(packet, fuzzing.ASKER, transport)
            else:
                kept = resolver.quick(packet, fuzzing.ASKER, resolver.snapshot, now)
                if kept:
                    self.quick += 1
                    fuzzing.check(packet, kept, transport)
                reply = await fuzzing.ask_over_udp(resolver, packet, now)
            self._check(packet, reply, transport)
        except Exception as error:
            raise BrokenLaw(packet, transport) from error

    def _check(self, packet: bytes, reply: bytes | None, transport: str) -> None:
        fuzzing.check(packet, reply, transport)
        assert not self._resolver._failures, "an exception, which stands in the log above"
        self.packets += 1
        self.codes[dns.rcode.to_text(dns.rcode.Rcode(reply[3] & 0xF)) if reply else "dropped"] += 1
        if reply and transport == "udp":
            self.longest = max(self.longest, len(reply))
            self.ratio = max(self.ratio, len(reply) / len(packet))

    # TCP ------------------------------------------------------------------------

    async def _ask_stream(self, address: Listen) -> None:
        """Send damaged frames on a connection of their own, and check what comes back. Raises BrokenLaw."""
        self.streams += 1
        stream = b"".join(self._frame(self._packet()) for _ in range(STREAM_LENGTH))
        try:
            async with asyncio.timeout(PATIENCE):
                await self._converse(address, stream)
        except Exception as error:
            raise BrokenLaw(stream, "a TCP connection") from error

    def _frame(self, packet: bytes) -> bytes:
        length = len(packet)
        if self._rng.random() < WRONG_LENGTHS:
            length = min(max(0, length + int(self._rng.gauss(0, 20))), 65535)
        return length.to_bytes(2, "big") + packet

    async def _converse(self, address: Listen, stream: bytes) -> None:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        sending = asyncio.create_task(_send(writer, stream))
        try:
            for packet in messages(stream):
                if len(packet) < fuzzing.HEADER or packet[2] & 0x80:
                    break  # ends the connection, perhaps before the replies to the packets before were read
                reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                self._check(packet, reply, "tcp")
            assert not await reader.read(1), "a reply to nothing"
        except ConnectionError:
            assert any(len(packet) < fuzzing.HEADER or packet[2] & 0x80 for packet in messages(stream))
        finally:
            await sending
            writer.transport.abort()


async def _send(writer: asyncio.StreamWriter, stream: bytes) -> None:
    try:
        writer.write(stream)
        await writer.drain()
        writer.write_eof()
    except OSError:
        return  # the server has read enough


def messages(stream: bytes) -> list[bytes]:
    """The whole messages that a server reads of a stream."""
    found, at = [], 0
    while len(stream) >= at + 2:
        end = at + 2 + int.from_bytes(stream[at : at + 2], "big")
        if end > len(stream):
            break
        found.append(stream[at + 2 : end])
        at = end
    return found


def main() -> int:
    """Run from the command line; 1 where a law was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz_dns", description=__doc__)
    parser.add_argument("--packets", type=int, default=sys.maxsize, help="how many (default: no end)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="how long (default: no end)")
    parser.add_argument("--seed", type=int, default=SystemRandom().getrandbits(32), help="to repeat a run")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)  # noqa: T201 - needed to repeat it
    try:
        asyncio.run(Fuzzer(options.seed).run(options.packets, options.minutes * 60))
    except BrokenLaw as error:
        print(f"broken: {error} ({error.__cause__!r})", file=sys.stderr)  # noqa: T201 - the result
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
