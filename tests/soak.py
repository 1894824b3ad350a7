"""The long life of an agent: `python -m tests.soak [--share 0.1] [--catalog embedded]`.

20,000 containers come and go on an engine that replays documents, 100,000
names are asked over DNS, 10,000 clients drop off in the middle of what they
do, and with Consul, a real one, that is away and back 100 times, with nothing
of what it knew. The agent runs in this process: at each tenth, when all is
quiet, its objects are counted by type, with all blocks that Python has
allocated and the memory that the kernel counts. After a first part, in which
caches and the journal fill up to their limits, they must not grow.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import gc
import json
import logging
import re
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import cast

from registrator import agent
from registrator.descriptors import allowance, raise_limit
from registrator.loop import measured_loop
from registrator.settings import ConsulAddress, Listen, Settings
from registrator.stats import Stats
from tests.engine.documents import inspected, listed, network
from tests.lookup.messages import query
from tests.support.consul import ConsulServer, free_ports

CONTAINERS, NAMES, CLIENTS, OUTAGES = 20_000, 100_000, 10_000, 100
PARTS = 10
POPULATION, SERVICES = 40, 10  # containers that live at a time, and the services that they are of
AT_ONCE = 20  # containers that come, names that are asked, clients that drop off
ADDRESSES, MISSING = (
    512,
    1201,
)  # that there are, given again and again; names that do not exist, more than are kept
FILL = 560, 2500  # containers and names until journal and caches are full
PATIENCE = 60.0  # seconds for anything that is awaited
GROWTH, SPARE = 1.02, 60  # of a type's objects that are there: noise, less than one in every few containers
BLOCKS = 1.05  # of allocated blocks
MEMORY = 1.10  # of memory as the kernel counts it: malloc does not give all back
ONE = re.compile(r"/containers/([0-9a-f]{64})/json")


# The engine ---------------------------------------------------------------------


class Nursery:
    """An engine on a unix socket whose containers come and go as they are told."""

    def __init__(self) -> None:
        self.alive: dict[str, int] = {}  # the number of each, by its id
        self.unseen: set[str] = set()  # those that came or went, and were not looked at since
        self._born = 0
        self._streams: set[asyncio.StreamWriter] = set()
        self.open: set[asyncio.StreamWriter] = set()  # all connections

    def bear(self) -> None:
        """Start a container, and tell of it."""
        self._born += 1
        identity = f"{self._born:064x}"
        self.alive[identity] = self._born
        self._tell("start", identity)

    def bury(self) -> None:
        """End the oldest container, and tell of it."""
        identity = next(iter(self.alive))
        del self.alive[identity]
        self._tell("die", identity)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection of the agent's."""
        self.open.add(writer)
        try:
            while True:
                path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
                if "/events" in path:
                    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    self._streams.add(writer)
                else:
                    writer.write(self._answer(path))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._streams.discard(writer)
            self.open.discard(writer)
            writer.close()

    def _answer(self, path: str) -> bytes:
        status, document = "200 OK", self._document(path)
        if document is None:
            status, document = "404 Not Found", {"message": "No such container"}
        body = json.dumps(document)
        head = f"HTTP/1.1 {status}\r\nApi-Version: 1.41\r\nDate: {formatdate(usegmt=True)}"
        return (
            f"{head}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )

    def _document(self, path: str) -> object:
        if one := ONE.search(path):
            self.unseen.discard(one[1])
            return self._inspected(one[1]) if one[1] in self.alive else None
        if "/containers/json" in path:
            return [listed(Id=identity, **self._place(number)) for identity, number in self.alive.items()]
        return {"ID": "soak", "Name": "soak"} if "/info" in path else {}

    def _inspected(self, identity: str) -> object:
        number = self.alive[identity]
        labels = {"SERVICE_NAME": f"soak-{number % SERVICES}", "SERVICE_TAGS": f"blue,n{number % 7}"}
        document = inspected(
            config={"Labels": labels, "ExposedPorts": {"80/tcp": {}}},
            ports={"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": str(10_000 + number % ADDRESSES)}]},
            networks=self._place(number)["NetworkSettings"]["Networks"],
        )
        return {**document, "Id": identity, "Name": f"/soak-{number}"}

    @staticmethod
    def _place(number: int) -> dict[str, dict[str, dict[str, object]]]:
        address = f"10.100.{number % ADDRESSES // 256}.{number % 256}"
        return {"NetworkSettings": {"Networks": {"bridge": network("n1", address)}}}

    def _tell(self, action: str, identity: str) -> None:
        self.unseen.add(identity)
        actor = {"ID": identity, "Attributes": {}}
        event = {"Type": "container", "Action": action, "Actor": actor, "timeNano": time.time_ns()}
        line = json.dumps(event).encode() + b"\n"
        for stream in self._streams:
            stream.write(b"%x\r\n%s\r\n" % (len(line), line))


@contextlib.asynccontextmanager
async def nursery(folder: Path) -> AsyncIterator[tuple[str, Nursery]]:
    """A `Nursery` that listens; yields its URL too."""
    engine = Nursery()
    server = await asyncio.start_unix_server(engine.handle, folder / "docker.sock")
    try:
        yield f"unix://{folder / 'docker.sock'}", engine
    finally:
        server.close()
        for stream in tuple(engine.open):
            stream.transport.abort()
        await asyncio.sleep(0)  # a transport lets go of its socket in the loop's next turn


# Askers -------------------------------------------------------------------------


class Asker(asyncio.DatagramProtocol):
    """Asks names over UDP, and notes the ids that were answered."""

    def __init__(self) -> None:
        self.answered: set[int] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, _: object) -> None:
        self.answered.add(int.from_bytes(data[:2], "big"))

    async def ask(self, packets: list[bytes]) -> None:
        """Ask until each has a reply: a full socket may lose some."""
        self.answered.clear()
        for _ in range(int(PATIENCE)):
            for number, packet in enumerate(packets):
                if number not in self.answered:
                    self.transport.sendto(struct.pack("!H", number) + packet[2:])
            with contextlib.suppress(TimeoutError):
                await until(lambda: len(self.answered) == len(packets), 1)
                return
        lost = [packets[number].hex() for number in range(len(packets)) if number not in self.answered]
        raise TimeoutError(f"DNS does not answer {lost}")


@functools.lru_cache(maxsize=4096)
def packet(name: str, qtype: str) -> bytes:
    return query(name, qtype)


def names(first: int, number: int) -> list[bytes]:
    """Packets of names that exist, and as many of names that do not."""
    kinds = ("A", "SRV", "AAAA", "TXT")
    return [
        packet(f"soak-{n % SERVICES}.service.consul", kinds[n // 2 % 4])
        if n % 2
        else packet(f"missing-{n % MISSING}.service.consul", "A")
        for n in range(first, first + number)
    ]


WAIT = "GET /v1/health/service/soak-1?index={index}&wait=5m HTTP/1.1\r\nHost: localhost\r\n\r\n"
# What clients send before they drop off, over HTTP or DNS: in the middle of a request, or of its answer.
HTTP_WORDS = (
    b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n",
    WAIT.format(index=2**40).encode(),
    b"GET /v1/catalog/services?index=99999999999&wait=60s HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/catalog/serv",
    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 4000,
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf",
)
DNS_WORDS = (
    b"\x00",
    b"\x00\x30" + packet("soak-1.service.consul", "SRV")[:20],
    len(packet("soak-1.service.consul", "SRV")).to_bytes(2, "big") + packet("soak-1.service.consul", "SRV"),
)


async def drop_off(port: int, words: bytes) -> None:
    """Connect, say something, and be gone without a farewell."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(words)
    await writer.drain()
    await asyncio.sleep(0.01)  # until the request is being served
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait for something. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


# Measuring ----------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """What there is at one moment: objects by type, blocks that Python has allocated, resident octets."""

    objects: Counter[str]
    blocks: int
    memory: int

    @staticmethod
    def take() -> Measure:
        gc.unfreeze()  # what the agent set aside at its start counts too
        gc.collect()
        blocks = sys.getallocatedblocks()
        kinds = Counter(map(type, gc.get_objects()))
        # Interned, so that what is measured does not grow by its measures.
        objects = Counter(
            {sys.intern(f"{kind.__module__}.{kind.__qualname__}"): n for kind, n in kinds.items()}
        )
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return Measure(objects, blocks, pages * 4096)


def grown(measures: list[Measure], *, memory: bool = True) -> list[str]:
    """What there is more of at the end than at first, a line for each; empty where all is flat.

    The least of the last three counts: what is there now and then is no leak.
    """
    first, last = measures[0], measures[-3:]
    lines = []
    for kind in sorted(last[-1].objects):
        most = max(each.objects[kind] for each in measures[:2])
        now = min(each.objects[kind] for each in last)
        if now > most * GROWTH + SPARE:
            lines.append(f"{kind}: {most:,} objects at first, {now:,} at the end")
    blocks = min(each.blocks for each in last)
    if blocks > first.blocks * BLOCKS:
        lines.append(f"allocated blocks: {first.blocks:,} at first, {blocks:,} at the end")
    resident = min(each.memory for each in last)
    if memory and resident > first.memory * MEMORY:
        lines.append(
            f"memory: {first.memory / 2**20:.1f} MiB at first, {resident / 2**20:.1f} MiB at the end"
        )
    return lines


# The life -----------------------------------------------------------------------


@dataclass
class Life:
    """An agent that runs in this process, and all that happens to it."""

    engine: Nursery
    stats: Stats
    dns: int
    http: int
    consul: ConsulServer | None = None
    asked: int = 0
    dropped: int = 0
    measures: list[Measure] = field(default_factory=list)

    async def run(self, share: float, tell: Callable[[str], None]) -> list[Measure]:
        """Live, and measure after the first part and at each tenth."""
        loop = asyncio.get_running_loop()
        transport, asker = await loop.create_datagram_endpoint(
            Asker, remote_addr=("127.0.0.1", self.dns), local_addr=("127.0.0.1", 0)
        )
        for _ in range(POPULATION):
            self.engine.bear()
        await self.settled()
        containers, asked = FILL
        await self.live(asker, containers, asked, len(HTTP_WORDS) * AT_ONCE, int(self.consul is not None))
        for part in range(PARTS + 1):
            await self.quiet(asker)
            self.measures.append(Measure.take())
            tell(self.line(part))
            if part < PARTS:
                parts = (CONTAINERS, NAMES, CLIENTS, OUTAGES if self.consul else 0)
                await self.live(asker, *(self.tenth(number, share, part) for number in parts))
        transport.close()
        await asyncio.sleep(0)  # it lets go of its socket in the loop's next turn
        return self.measures

    @staticmethod
    def tenth(number: int, share: float, part: int) -> int:
        """How many of them a part has, so that all parts together have their share."""
        return int(number * share * (part + 1) / PARTS) - int(number * share * part / PARTS)

    def line(self, part: int) -> str:
        now = self.measures[-1]
        return (
            f"{part * 100 // PARTS:>3} %: {self.stats.writes['register']:,} registered, {self.asked:,} names "
            f"asked, {self.dropped:,} clients gone; {sum(now.objects.values()):,} objects, "
            f"{now.blocks:,} blocks, {now.memory / 2**20:.1f} MiB"
        )

    async def live(self, asker: Asker, containers: int, asked: int, clients: int, outages: int) -> None:
        """Let all of that happen, by turns."""
        turns = max(1, -(-containers // AT_ONCE))
        for turn in range(turns):
            await self.generation(self.due(containers, turn, turns))
            await self.ask(asker, self.due(asked, turn, turns))
            await self.drop(self.due(clients, turn, turns))
            for _ in range(self.due(outages, turn, turns)):
                await self.outage()

    @staticmethod
    def due(number: int, turn: int, turns: int) -> int:
        return number * (turn + 1) // turns - number * turn // turns

    async def generation(self, number: int) -> None:
        for _ in range(number):
            self.engine.bear()
            self.engine.bury()
        await self.settled()

    async def ask(self, asker: Asker, number: int) -> None:
        for first in range(self.asked, self.asked + number, AT_ONCE):
            await asker.ask(names(first, min(AT_ONCE, self.asked + number - first)))
        self.asked += number

    async def drop(self, number: int) -> None:
        for first in range(self.dropped, self.dropped + number, AT_ONCE):
            these = range(first, min(first + AT_ONCE, self.dropped + number))
            await asyncio.gather(*map(self.drop_one, these))
        self.dropped += number

    def drop_one(self, number: int) -> Awaitable[None]:
        if number % 3:
            return drop_off(self.http, HTTP_WORDS[number % len(HTTP_WORDS)])
        return drop_off(self.dns, DNS_WORDS[number // 3 % len(DNS_WORDS)])

    async def outage(self) -> None:
        """Consul away, and back with nothing of what it knew."""
        assert self.consul
        self.consul.kill()
        await asyncio.to_thread(self.consul.restart)
        await self.settled()

    async def settled(self) -> None:
        """Wait until what lives is registered, and with Consul until Consul has it."""
        stats, engine = self.stats, self.engine
        await until(lambda: stats.ready and not engine.unseen and stats.instances == len(engine.alive))
        while self.consul and not await asyncio.to_thread(self.has_all, self.consul):
            await asyncio.sleep(0.05)

    def has_all(self, consul: ConsulServer) -> bool:
        registered = consul.get("/v1/agent/services")
        ours = {each["Meta"].get("registrator-container", "") for each in registered.values() if each["Meta"]}
        return ours >= set(self.engine.alive)

    async def quiet(self, asker: Asker) -> None:
        """Let the loop close the connections of clients that are gone, and renew all cached replies.

        A reply holds the instances that it was made of until it is made again.
        """
        await asyncio.sleep(0.5)
        for _ in range(2):
            for first in range(0, 8 * SERVICES, AT_ONCE):
                await asker.ask(names(first, AT_ONCE))


@contextlib.asynccontextmanager
async def living(folder: Path, consul: ConsulServer | None = None) -> AsyncIterator[Life]:
    """An agent that runs on this loop, with its engine."""
    dns, http = free_ports(2)
    stats = Stats()
    async with nursery(folder) as (url, engine):
        settings = Settings(
            docker=url,
            consul=ConsulAddress(consul.url) if consul else None,
            dns=(Listen("127.0.0.1", dns),),
            http=(Listen("127.0.0.1", http),),
            ips=("192.0.2.1",),
        )
        running = asyncio.create_task(agent.run(settings, stats, allowance(raise_limit())))
        try:
            await until(lambda: stats.ready or running.done())
            yield Life(engine, stats, dns, http, consul)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running  # raises what ended it


@contextlib.contextmanager
def catalog(kind: str, folder: Path) -> Iterator[ConsulServer | None]:
    """A Consul, where that is the catalog."""
    if kind == "consul":
        with ConsulServer(folder) as server:
            yield server
    else:
        yield None


async def soak(kind: str, share: float, tell: Callable[[str], None]) -> list[Measure]:
    """A whole life with one catalog."""
    with tempfile.TemporaryDirectory() as folder, catalog(kind, Path(folder)) as consul:
        async with living(Path(folder), consul) as life:
            return await life.run(share, tell)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--share", type=float, default=1.0, help="of the whole (default: 1)")
    parser.add_argument("--catalog", choices=("embedded", "consul"), action="append", help="default: both")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    failed = 0
    for kind in options.catalog or ("embedded", "consul"):
        print(f"{kind}:", flush=True)  # noqa: T201 - progress
        started = time.monotonic()
        with asyncio.Runner(loop_factory=lambda: measured_loop(Stats())) as runner:
            told = functools.partial(print, flush=True)
            lines = grown(runner.run(soak(kind, options.share, told)))
        seconds = time.monotonic() - started
        print("\n".join(lines) or f"flat after {seconds:.0f} s", flush=True)  # noqa: T201 - the verdict
        failed += bool(lines)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
