"""The directory beside a Consul of 5,000 services: how fresh, over how many connections, and floods of names.

What is asked comes as DNS packets through a `Resolver`, as from a network.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, Self

import dns.message
import dns.rcode
import pytest

from registrator.catalog import Unavailable
from registrator.catalog.consul import ConsulCatalog, directory, selections
from registrator.catalog.consul.http import MAX_CONNECTIONS
from registrator.lookup import resolver as resolver_module
from registrator.lookup.ask import NotLoaded, Zone
from registrator.lookup.maker import UDP
from registrator.lookup.metrics import Metrics
from registrator.lookup.replies import MISSING_LIMIT
from registrator.lookup.resolver import Resolver
from registrator.model import META_OWNER, OUTSIDE
from registrator.stats import Stats
from tests.catalog.consul_catalogs import connections_to, eventually, running
from tests.support.consul import ConsulServer
from tests.support.proxy import HANG, Fault, Proxy, status

log = logging.getLogger(__name__)

SERVICES = 5000
HOT = 300  # of them are asked for, again and again
FLOOD = 5_000  # packets; 100,000 were tried by hand
TXN = 64  # operations that Consul takes in one transaction
NODE = "elsewhere"  # what it has not registered itself, an agent takes from its own node
ASKER = "192.0.2.9"


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory, consul_binary: str) -> Iterator[ConsulServer]:
    """A Consul with 5,000 services and a prepared query."""
    with ConsulServer(tmp_path_factory.mktemp("crowd")) as server:
        place = {"net/0123456789ab/ipv4": {"Address": "10.0.0.6", "Port": 80}}
        owned = {"Service": "owned", "Meta": {META_OWNER: "an engine"}, "TaggedAddresses": place}
        server.put("/v1/catalog/register", {"Node": NODE, "Address": "10.0.0.5", "Service": owned})
        operations = [definition(f"svc-{n}", 1) for n in range(SERVICES)]
        for start in range(0, SERVICES, TXN):
            server.put("/v1/txn", operations[start : start + TXN])
        server.post("/v1/query", {"Name": "asked", "Service": {"Service": f"svc-{SERVICES - 1}"}})
        yield server


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that has much else to do a reading may take longer than a resolver would wait."""
    monkeypatch.setattr(resolver_module, "LOAD_TIMEOUT", 20.0)


def definition(service: str, port: int) -> dict[str, Any]:
    """An operation of Consul's transactions: an instance of a service, with this port."""
    instance = {"ID": service, "Service": service, "Address": "10.0.0.6", "Port": port, "Tags": ["v1"]}
    return {"Service": {"Verb": "set", "Node": NODE, "Service": instance}}


@asynccontextmanager
async def front(url: str) -> AsyncIterator[tuple[ConsulCatalog, Resolver]]:
    """A catalog that knows all names, and the DNS in front of it."""
    async with running(url) as catalog:
        await eventually(lambda: catalog.snapshot and len(catalog.snapshot.names) > SERVICES, 10)
        yield catalog, Resolver(catalog, Zone.named("consul"), view_of=lambda _: OUTSIDE, stats=Stats())


async def ask(resolver: Resolver, name: str, kind: str = "SRV") -> tuple[str, list[int]]:
    """Ask as the UDP server does; the response code and the ports of the answer."""
    packet = dns.message.make_query(name, kind).to_wire()
    try:
        reply = resolver.respond(packet, ASKER, UDP)
    except NotLoaded:
        reply = await resolver.resolve(packet, ASKER, UDP)
    assert reply is not None
    message = dns.message.from_wire(reply)
    ports = [record.port for rrset in message.answer for record in rrset if kind == "SRV"]
    return dns.rcode.to_text(message.rcode()), ports


class Asking:
    """Asks for hot names all the time while it is entered, and looks at what it costs."""

    def __init__(self, resolver: Resolver, consul: ConsulServer) -> None:
        self._resolver = resolver
        self._port = consul.http_port
        self.codes: set[str] = set()
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._ask())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _ask(self) -> None:
        while True:
            for number in range(HOT):
                self.codes.add((await ask(self._resolver, f"svc-{number}.service.consul"))[0])
                if not number % 10:
                    await asyncio.sleep(0.01)
            self.connections = max(self.connections, connections_to(self._port))


async def seconds_until_answered(consul: ConsulServer, resolver: Resolver, service: str, port: int) -> float:
    """Give a service another port, and measure from just before the write until an answer has it."""
    started = time.perf_counter()
    await asyncio.to_thread(consul.put, "/v1/txn", [definition(service, port)])
    async with asyncio.timeout(10):
        while (await ask(resolver, f"{service}.service.consul"))[1] != [port]:
            await asyncio.sleep(0.001)
    return time.perf_counter() - started


async def test_of_5000_services_300_are_hot(crowd: ConsulServer) -> None:
    """At most 100 connections, no error; watched names follow before the others, these within two seconds."""
    async with front(crowd.url) as (catalog, resolver), Asking(resolver, crowd) as asking:
        await eventually(lambda: catalog._directory._cold and asking.connections, 20)
        hot, cold = list(catalog._directory._hot), list(catalog._directory._cold)
        assert len(hot) == directory.HOT_LIMIT <= 96
        watched = [
            await seconds_until_answered(crowd, resolver, random.choice(hot), 1000 + n) for n in range(60)
        ]
        others = await asyncio.gather(
            *(seconds_until_answered(crowd, resolver, name, 2000) for name in random.sample(cold, 10))
        )
    log.info(
        "watched: median %.1f ms; others: worst %.2f s; connections: %d",
        median(watched) * 1000,
        max(others),
        asking.connections,
    )
    assert median(watched) < median(others)
    assert max(others) < directory.STALE + 1.0
    assert asking.connections <= MAX_CONNECTIONS == 100
    assert asking.codes == {"NOERROR"}


# Floods ---------------------------------------------------------------------


def word() -> str:
    return f"{random.getrandbits(40):010x}"


FREE = {  # kinds of made-up names that cost no request
    "a service": lambda: f"{word()}.service.consul",
    "a tag": lambda: f"{word()}.svc-7.service.consul",
    "tags": lambda: f"{word()}.{word()}.svc-7.service.consul",
    "a protocol": lambda: f"_svc-7._{word()}.service.consul",
    "a service by RFC 2782": lambda: f"_{word()}._tcp.service.consul",
    "a node": lambda: f"{word()}.node.consul",
    "an address": lambda: f"{random.getrandbits(32):08x}.addr.consul",
    "a datacenter": lambda: f"svc-7.service.{word()}.consul",
    "a node elsewhere": lambda: f"{word()}.node.{word()}.consul",
    "a mesh service": lambda: f"{word()}.connect.consul",
    "an ingress": lambda: f"{word()}.ingress.consul",
    "a kind": lambda: f"{word()}.{word()}.consul",
    "outside": lambda: f"{word()}.example.org",
}


async def flood(resolver: Resolver, kinds: list[Callable[[], str]], number: int) -> set[str]:
    """Ask for made-up names; the response codes seen."""
    codes = set()
    for n in range(number):
        codes.add((await ask(resolver, kinds[n % len(kinds)](), "A"))[0])
        if not n % 50:
            await asyncio.sleep(0)
    return codes


def resident() -> int:
    """The memory of this process in KiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


async def test_made_up_names_cost_no_request_and_no_memory(crowd: ConsulServer) -> None:
    """Services, tags, nodes, addresses, datacenters, outside: nothing of it reaches Consul or stays."""
    proxy = Proxy(crowd.url)
    try:
        async with front(proxy.url) as (catalog, resolver):
            assert (await ask(resolver, "svc-7.service.consul"))[0] == "NOERROR"
            kinds = list(FREE.values())
            await flood(resolver, kinds, FLOOD // 4)  # fills what has a cap
            before, requests = resident(), requests_of_lookups(proxy)
            kept = resolver._replies.octets
            codes = await flood(resolver, kinds, FLOOD)
            assert codes == {"NOERROR", "NXDOMAIN", "REFUSED"}
            assert requests_of_lookups(proxy) == requests
            assert resident() - before < 4096
            assert resolver._replies.octets == kept  # they drive out nothing that exists
            assert len(resolver._replies) < MISSING_LIMIT + 10
            assert not catalog._directory._cold
    finally:
        proxy.close()


def requests_of_lookups(proxy: Proxy) -> int:
    """Requests but for the watches' own, which go on from an index."""
    return len(proxy.requests) - proxy.count(r"index=[1-9]")


async def test_reverse_names_cost_one_reading_of_the_nodes(crowd: ConsulServer) -> None:
    """Whatever address is asked for, the index of all of them answers."""
    proxy = Proxy(crowd.url)
    try:
        async with front(proxy.url) as (_, resolver):
            requests = requests_of_lookups(proxy)
            assert (await ask(resolver, "6.0.0.10.in-addr.arpa", "PTR"))[0] == "NOERROR"
            octets = [lambda: f"{'.'.join(str(random.randrange(256)) for _ in range(4))}.in-addr.arpa"]
            assert await flood(resolver, octets, 500) == {"NXDOMAIN"}
            assert requests_of_lookups(proxy) - requests <= 2  # one node, in ten seconds
    finally:
        proxy.close()


async def test_made_up_prepared_queries_have_a_rate(crowd: ConsulServer) -> None:
    """Only Consul knows whether a query exists; those that are known are answered during a flood."""
    proxy = Proxy(crowd.url)
    try:
        async with front(proxy.url) as (_, resolver):
            assert (await ask(resolver, "asked.query.consul"))[1] == [1]
            began = time.monotonic()
            codes = await flood(resolver, [lambda: f"{word()}.query.consul"], 1000)
            allowed = selections.MISSES_AT_ONCE + (time.monotonic() - began + 1) * selections.MISSES
            assert proxy.count("/v1/query/") <= allowed
            assert codes == {"NXDOMAIN", "SERVFAIL"}
            await asyncio.sleep(selections.FRESH)  # what is known is asked for again, flood or not
            assert (await ask(resolver, "asked.query.consul"))[1] == [1]
    finally:
        proxy.close()


async def test_made_up_names_elsewhere_cost_a_list_a_second(crowd: ConsulServer) -> None:
    """A datacenter's list of names answers for those that are not on it; one that is lost is not overrun."""
    proxy = Proxy(crowd.url)
    try:
        with (
            proxy.failing("/v1/catalog/datacenters", status(200, '["dc1", "dc2", "dc3"]')),
            proxy.failing("/v1/catalog/services.dc=dc2", status(200, '{"web": []}')),
        ):
            async with front(proxy.url) as (catalog, resolver):
                await eventually(lambda: catalog.snapshot and len(catalog.snapshot.datacenters) == 3)
                began = time.monotonic()
                assert await flood(resolver, [lambda: f"{word()}.service.dc2.consul"], 1000) == {"NXDOMAIN"}
                seconds = time.monotonic() - began
                assert 1 <= proxy.count("/v1/catalog/services.dc=dc2") <= 2 + seconds / selections.FRESH
                # Consul knows no way to dc3, and says so at each request.
                began = time.monotonic()
                names = [lambda: f"{word()}.service.dc3.consul", lambda: f"{word()}.node.dc3.consul"]
                assert await flood(resolver, names, 1000) == {"SERVFAIL"}
                allowed = selections.MISSES_AT_ONCE + (time.monotonic() - began + 1) * selections.MISSES
                assert proxy.count("dc=dc3") <= allowed
    finally:
        proxy.close()


# Consul slow, or lost -------------------------------------------------------


KNOWN = ("svc-3.service.consul", "asked.query.consul", "6.0.0.10.in-addr.arpa")


async def test_what_is_known_is_answered_though_consul_hangs(
    crowd: ConsulServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first ask needs Consul and fails without; what was known needs half a second at most."""
    monkeypatch.setattr(directory, "HOT_LIMIT", 0)
    monkeypatch.setattr(directory, "STALE", 0.0)
    monkeypatch.setattr(selections, "FRESH", 0.0)
    monkeypatch.setattr(selections, "INDEX_FRESH", 0.0)
    proxy = Proxy(crowd.url)
    try:
        async with front(proxy.url) as (catalog, resolver):
            for name in KNOWN:
                assert (await ask(resolver, name, "ANY"))[0] == "NOERROR"
            await eventually(lambda: catalog.snapshot and "svc-3" not in catalog.snapshot.services)
            with proxy.failing("/v1/health/service/|/v1/query/|/v1/catalog/node/", HANG):
                for name in KNOWN:
                    await took(ask(resolver, name, "ANY"), "NOERROR", 2.0)
                monkeypatch.setattr(resolver_module, "LOAD_TIMEOUT", 0.5)
                await took(ask(resolver, "svc-4.service.consul"), "SERVFAIL", 5.0)
    finally:
        proxy.close()


async def test_what_was_read_a_moment_ago_is_answered_at_once_while_it_is_read_anew(
    crowd: ConsulServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lookup of a service without a watch does not wait for Consul; the next ones have the news."""
    monkeypatch.setattr(directory, "HOT_LIMIT", 0)
    monkeypatch.setattr(directory, "FRESH", 0.1)
    monkeypatch.setattr(directory, "STALE", 30.0)
    proxy = Proxy(crowd.url)
    try:
        async with front(proxy.url) as (catalog, resolver):
            assert (await ask(resolver, "svc-4000.service.consul"))[1] == [1]
            await eventually(lambda: catalog.snapshot and not catalog.snapshot.services)
            await asyncio.to_thread(crowd.put, "/v1/txn", [definition("svc-4000", 2)])
            with proxy.failing("/v1/health/service/", Fault(delay=2.0)):
                began = time.monotonic()
                assert (await ask(resolver, "svc-4000.service.consul"))[1] == [1]
                assert time.monotonic() - began < 1.5
                async with asyncio.timeout(10):
                    while (await ask(resolver, "svc-4000.service.consul"))[1] != [2]:
                        await asyncio.sleep(0.01)
    finally:
        proxy.close()


async def took(asked: Awaitable[tuple[str, list[int]]], code: str, within: float) -> None:
    """Fail unless a question is answered by this code in time."""
    async with asyncio.timeout(within):
        assert (await asked)[0] == code


async def test_max_stale_ends_what_is_known(consul: ConsulServer) -> None:
    """While Consul is away answers go on, but not beyond --max-stale; with Consul they are back."""
    async with running(consul.url, max_stale=2.0) as catalog:
        resolver = Resolver(catalog, Zone.named("consul"), view_of=lambda _: OUTSIDE, stats=Stats())
        node = {"Node": NODE, "Address": "10.0.0.5"}
        await asyncio.to_thread(consul.put, "/v1/catalog/register", node)
        await asyncio.to_thread(consul.put, "/v1/txn", [definition("web", 1)])
        await eventually(lambda: catalog.snapshot and "web" in catalog.snapshot.names)
        assert (await ask(resolver, "web.service.consul"))[1] == [1]
        await asyncio.to_thread(consul.kill)
        await eventually(lambda: catalog.age > 0)
        assert (await ask(resolver, "web.service.consul"))[1] == [1]
        assert 0 < told_age(catalog) < 2
        await eventually(lambda: catalog.snapshot is None)
        assert (await ask(resolver, "web.service.consul"))[0] == "SERVFAIL"
        assert told_age(catalog) >= 2
        with pytest.raises(Unavailable, match="max-stale"):
            await catalog.load("web")
        await asyncio.to_thread(consul.restart)
        await eventually(lambda: catalog.snapshot)
        assert told_age(catalog) == 0


def told_age(catalog: ConsulCatalog) -> float:
    """The age in the metrics."""
    text = Metrics(Stats(), catalog).render().decode()
    (line,) = [line for line in text.splitlines() if line.startswith("registrator_snapshot_age_seconds ")]
    return float(line.split()[1])
