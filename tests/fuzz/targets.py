"""The table of parsers of text from outside: one `Target` each, by name.

A target takes octets, as they come from outside. What it raises of `refusals`
is its way to say no; anything else is a fault. A parser that moves or gets
another edge is changed here, in one line.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl

from registrator.bridge import instances, template
from registrator.bridge.addresses import Host
from registrator.catalog import CatalogError
from registrator.catalog.consul import facts
from registrator.catalog.consul.client import ConsulClient
from registrator.catalog.consul.http import Reply
from registrator.compat import CompatError, translate
from registrator.duration import parse_duration
from registrator.engine.endpoint import resolve
from registrator.engine.engine import DockerEngine
from registrator.engine.errors import EngineError
from registrator.engine.subscription import Subscription
from registrator.lookup import consul_api, consul_filter, lookup_api, recursor_message
from registrator.lookup.ask import NotLoaded
from registrator.lookup.http import HttpFront
from registrator.lookup.http_server import HttpServer
from registrator.model import OUTSIDE, Attachment, Container, Port
from registrator.policy import Policy
from registrator.settings import (
    ConsulAddress,
    Listen,
    SettingError,
    parse_constraint,
    parse_domain,
    parse_listen,
    parse_meta,
    parse_seconds,
)
from registrator.spoilt import Spoilt
from registrator.stats import Stats
from tests.engine.documents import event, inspected, listed, network
from tests.lookup import fuzzing
from tests.lookup.fakes import FakeDirectory, entry, snapshot_of
from tests.lookup.messages import query

CATALOG = snapshot_of(entry("web", tags=("a", "b")), entry("db"))
LONGEST = 16_384  # octets of an input, where a target has no limit of its own


@dataclass(frozen=True)
class Target:
    """One parser.

    `plain` is a sound input, to which others' cost is compared; `seeds` are
    more sound inputs, `words` pieces of the language, `hostile` inputs that
    once cost a lot. `document`: the input is JSON. `scales`: one of twice the
    length may cost twice as much.
    """

    name: str
    call: Callable[[bytes], object]
    plain: bytes
    refusals: tuple[type[Exception], ...] = ()
    seeds: tuple[bytes, ...] = ()
    words: tuple[bytes, ...] = ()
    hostile: tuple[bytes, ...] = ()
    document: bool = False
    longest: int = LONGEST
    scales: bool = True

    def run(self, data: bytes) -> None:
        """Give it an input, and take its no for an answer."""
        with contextlib.suppress(*self.refusals):
            self.call(data)


def text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


@functools.cache
def loop() -> asyncio.AbstractEventLoop:
    """A loop for what is asynchronous, the same for all inputs."""
    return asyncio.new_event_loop()


def waited(awaitable: Awaitable[Any]) -> object:
    return loop().run_until_complete(asyncio.wait_for(awaitable, 30))


# HTTP ---------------------------------------------------------------------------


class Hasty(FakeDirectory):
    """Lets no blocking query block."""

    async def wait(self, service: str | None, index: int, timeout: float) -> Any:
        await asyncio.sleep(0)
        return CATALOG


@functools.cache
def http_port() -> int:
    """The port of a front that runs whenever the loop does."""
    front = HttpFront(Hasty(CATALOG), stats=Stats(ready=True), view_of=lambda _: OUTSIDE, domain="consul")
    server = HttpServer(front, [Listen("127.0.0.1", 0)])
    waited(server.start())
    return server.addresses[0].port


async def exchange(data: bytes) -> None:
    """Send octets and read what comes back, without end: a blocking query is left alone."""
    reader, writer = await asyncio.open_connection("127.0.0.1", http_port())
    try:
        writer.write(data)
        async with asyncio.timeout(0.05):
            await reader.read()
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


def http(data: bytes) -> None:
    http_port()
    waited(exchange(data))


def request(path: str, *lines: str) -> bytes:
    return "\r\n".join(
        (f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *lines, "", "")
    ).encode()


def http_query(data: bytes) -> None:
    consul_api.parse_query(parse_qsl(text(data), keep_blank_values=True), "dc1")


def http_filter(data: bytes) -> None:
    test = consul_filter.parse(text(data), consul_filter.HEALTH_SERVICE)
    test(
        {
            "Node": {"Node": "n", "Meta": {}},
            "Service": {"Service": "web", "Tags": ["a"], "Port": 80},
            "Checks": [],
        }
    )


# Labels -------------------------------------------------------------------------

HOST = Host("owner", "node1", ("192.0.2.1",))
POLICY = Policy(allow_script_checks=True)
CONTAINER = Container(
    id="4f66ad9e0b2c" + "0" * 52,
    name="web",
    image="nginx:1",
    state="running",
    ports=(Port(80, "tcp"), Port(443, "tcp")),
    networks=(Attachment("bridge", "n1", "172.17.0.2"),),
    network_mode="bridge",
)


def labels(data: bytes) -> None:
    """Lines of KEY=VALUE, as labels and as environment."""
    pairs = dict(line.partition("=")[::2] for line in text(data).split("\n") if line)
    instances.instances(replace(CONTAINER, labels=pairs), HOST, POLICY)
    instances.instances(replace(CONTAINER, env=pairs), HOST, POLICY)


def templates(data: bytes) -> None:
    template.render(text(data), CONTAINER)


# DNS ----------------------------------------------------------------------------


@functools.cache
def resolver() -> Any:
    return fuzzing.front()


def dns_packet(data: bytes) -> None:
    """Over UDP and over TCP; without the loop, whose own cost would hide a packet's."""
    for transport in ("udp", "tcp"):
        with contextlib.suppress(NotLoaded):
            resolver().respond(data, fuzzing.ASKER, transport)
    resolver().quick(data, fuzzing.ASKER, resolver().snapshot, 0.0)


def with_extra(kind: int, rdata: bytes, number: int = 1) -> bytes:
    """A query with additional records of a type."""
    plain = query("web.service.consul", "A")
    record = b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 0, len(rdata)) + rdata
    return plain[:10] + struct.pack("!H", number) + plain[12:] + record * number


ASKED = query("www.example.org", "A")
INQUIRY = recursor_message.Inquiry(ASKED[12:])


def recursor(data: bytes) -> None:
    recursor_message.read(data, 7, INQUIRY)


def upstream(*records: bytes) -> bytes:
    """A recursor's reply."""
    return struct.pack("!HHHHHH", 7, 0x8180, 1, len(records), 0, 0) + ASKED[12:] + b"".join(records)


A_RECORD = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes(4)


# Consul and the engine ----------------------------------------------------------


def consul(*calls: Callable[[ConsulClient], Awaitable[object]]) -> Callable[[bytes], None]:
    """Let a client read a body as the answer to some requests."""

    def read(data: bytes) -> None:
        client = ConsulClient(ConsulAddress("http://127.0.0.1:1"))

        async def get(*_: object, **__: object) -> Reply:
            return Reply(7, data.decode("utf-8", "replace"))

        client.http.get = get
        for call in calls:
            with contextlib.suppress(CatalogError):
                waited(call(client))

    return read


class Answer:
    """An answer of status 200, as far as its body is read."""

    status = 200

    def __init__(self, body: bytes) -> None:
        self.headers: dict[str, str] = {}
        self.content = self
        self._body = body

    async def iter_any(self) -> AsyncIterator[bytes]:
        yield self._body

    def close(self) -> None:
        """It has no connection."""


class Session:
    """Answers every request with the same body."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    @contextlib.asynccontextmanager
    async def get(self, _url: str, **_: object) -> AsyncIterator[Answer]:
        yield Answer(self._body)


def engine(*calls: Callable[[DockerEngine], Awaitable[object]]) -> Callable[[bytes], None]:
    """Let an engine's client read a body as the answer to some requests."""

    def read(data: bytes) -> None:
        docker = DockerEngine("unix:///nowhere", stats=Stats())
        docker._client.version = "1.41"
        docker._client._session = Session(data)  # type: ignore[assignment]  # as much of one as is used
        for call in calls:
            with contextlib.suppress(EngineError):
                waited(call(docker))

    return read


def engine_event(data: bytes) -> None:
    endpoint = resolve("unix:///nowhere")
    spoilt = Spoilt("engine", Stats(), logging.getLogger("fuzz"))
    waited(Subscription(None, endpoint, 0, spoilt)._parsed(data))  # type: ignore[arg-type]  # it asks nobody


def options(data: bytes) -> None:
    for parse in (parse_constraint, parse_meta, parse_domain, parse_listen):
        with contextlib.suppress(SettingError):
            parse(text(data))


def document(value: object) -> bytes:
    return json.dumps(value).encode()


NODE: dict[str, object] = {
    "ID": "x",
    "Node": "n1",
    "Address": "10.0.0.1",
    "Datacenter": "dc1",
    "TaggedAddresses": None,
    "Meta": {},
}
SERVICE = {
    "ID": "web-1",
    "Service": "web",
    "Tags": ["a"],
    "Address": "10.0.0.5",
    "TaggedAddresses": {"lan_ipv4": {"Address": "10.0.0.5", "Port": 80}},
    "Meta": {"registrator-owner": "x"},
    "Port": 80,
    "Weights": {"Passing": 1, "Warning": 1},
    "Proxy": {"Config": {}},
}
CHECK = {
    "Node": "n1",
    "CheckID": "c",
    "Name": "c",
    "Status": "passing",
    "Notes": "",
    "Output": "",
    "ServiceID": "web-1",
    "ServiceName": "web",
    "ServiceTags": [],
}
HEALTH = document([{"Node": NODE, "Service": SERVICE, "Checks": [CHECK]}])
NESTED = b'[{"a":' * 1200 + b"1" + b"}]" * 1200
ODD = (b"null", b"[null]", b'{"a": null}', b"5", b'"x"', b"[5]", NESTED, b"[" * 8000, b'{"a":' * 8000)
HUGE = b"9" * 400


def with_nested(sound: bytes) -> bytes:
    return sound.replace(b'"Config": {}', b'"Config": ' + b'{"a":' * 1200 + b"1" + b"}" * 1200)


FILTERS = (
    b"Service.Tags",
    b"Node.Meta.x",
    b"==",
    b"!=",
    b" in ",
    b" not in ",
    b" is empty",
    b" and ",
    b" or ",
    b"not ",
    b"(",
    b")",
    b'"a"',
    b"`a`",
    b"a",
    b" matches ",
    b" contains ",
)
GRAMMAR = (
    b"{{",
    b"}}",
    b"|",
    b".",
    b"index ",
    b".Config.Labels",
    b"replace ",
    b"-1",
    b'"a"',
    b'"aaaaaaaaaa"',
    b"split ",
    b"join ",
    b"toUpper",
    b"toLower",
    b"(",
    b")",
    b"splitIndex 0 ",
    b"mIndex ",
    b" ",
    b"if ",
)
KEYS = (
    b"SERVICE_NAME=",
    b"SERVICE_TAGS=",
    b"SERVICE_80_NAME=",
    b"SERVICE_443_CHECK_HTTP=/",
    b"SERVICE_CHECK_TTL=",
    b"SERVICE_ID=",
    b"SERVICE_IP=",
    b"SERVICE_PORT=",
    b"SERVICE_CHECK_INTERVAL=",
    b"\n",
    b",",
    b"web",
    b"a=b",
    b"SERVICE_META_x=",
    b"SERVICE_WEIGHT_PASSING=",
    b"SERVICE_CHECK_CMD=",
    b"{{.ID}}",
    b"11s",
    b"x/../y",
)

TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target(
            "HTTP requests",
            http,
            request("/v1/health/service/web?passing&tag=a"),
            seeds=(
                request("/metrics"),
                request("/lookup/web"),
                request("/v1/catalog/services?index=1&wait=1s"),
                request("/explain/web?as=10.0.0.1"),
                request("/events", "Last-Event-ID: 5"),
                request("/", "Accept-Encoding: gzip", "If-None-Match: x"),
            ),
            words=(
                b"\r\n",
                b"GET ",
                b"/v1/",
                b"?",
                b"&",
                b"=",
                b"%00",
                b"Host: ",
                b"HTTP/1.1",
                b"Content-Length: 5",
                b"Transfer-Encoding: chunked",
                b"5\r\nhello\r\n",
                b"0\r\n\r\n",
                b"X: y\r\n",
            ),
            hostile=(
                request("/v1/catalog/services?wait=" + "11s" * 40 + "x"),
                request("/v1/catalog/services?wait=" + "1" * 7900),
                request("/", *(f"X-{n}: y" for n in range(1000))),
                request("/", "X: " + "y" * 7000),
                request("/v1/health/service/web?" + "tag=a&" * 1200),
                b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 8000 + b"\r\n",
            ),
        ),
        Target(
            "HTTP query strings",
            http_query,
            b"index=5&wait=10s&tag=a&passing&near=_agent&node-meta=a:b",
            (consul_api.BadQuery,),
            seeds=(b"dc=dc1&filter=Service.Port==80", b"wait=1h2m3.5s", b"stale&consistent"),
            words=(
                b"wait=",
                b"11s",
                b"1.5ms",
                b"index=",
                b"9",
                b"&",
                b"tag=",
                b"passing=",
                b"%zz",
                b"node-meta=a:",
                b"x",
            ),
            hostile=(
                b"wait=" + b"11s" * 40 + b"x",
                b"wait=" + b"1" * 7900,
                b"index=" + b"9" * 7900,
                b"tag=a&" * 2600,
            ),
        ),
        Target(
            "filter expressions",
            http_filter,
            b'Service.Tags contains "a" and not Node.Meta.x == "y" or Service.Port == 80',
            (consul_filter.BadFilter,),
            seeds=(
                b'"a" in Service.Tags',
                b"Checks is not empty",
                b'(Service.Meta["k"] != `v`)',
                b'Node.Node matches "n.*"',
            ),
            words=FILTERS,
            hostile=(
                b"(" * 8000,
                b"not " * 2000 + b"Checks is empty",
                b'Node.Node matches "(a*)*b"',
                b"a " * 8000,
                b'"' + b"\\" * 8000,
            ),
        ),
        Target(
            "labels",
            labels,
            b"SERVICE_NAME=web\nSERVICE_TAGS=a,b\nSERVICE_80_NAME=x\nSERVICE_CHECK_HTTP=/h\nSERVICE_CHECK_INTERVAL=5s",
            seeds=(
                b"SERVICE_80_CHECK_TCP=true\nSERVICE_80_ID=x\nSERVICE_IP=10.0.0.9",
                b"SERVICE_CHECK_CMD=/bin/x\nSERVICE_META_a=b\nSERVICE_WEIGHT_PASSING=5",
                b"SERVICE_CHECK_TTL=30s\nSERVICE_CHECK_DEREGISTER_AFTER=10m\nSERVICE_IGNORE=x",
                b"SERVICE_TAGS={{.Config.Hostname}}\nSERVICE_PORT=90",
            ),
            words=KEYS,
            hostile=(
                b"SERVICE_TAGS=" + b'{{"a"' + b'|replace -1 "a" "aaaaaaaaaa"' * 9 + b"}}",
                b"\n".join(b"SERVICE_%d_NAME=a" % n for n in range(600)),
                b"\n".join(b"SERVICE_%d_NAME=a\nSERVICE_%d_TAGS=b" % (n, n) for n in range(400)),
                b"SERVICE_TAGS=" + b"{{" * 2048,
                b"SERVICE_NAME=" + b",".join(b"n%d" % n for n in range(2500)),
                b"SERVICE_TAGS=" + b",".join(b"%d" % n for n in range(3000)),
                b"SERVICE_ID=" + b"x" * 16_000,
                b"SERVICE_CHECK_HTTP=/\nSERVICE_CHECK_INTERVAL=" + b"11s" * 40 + b"x",
            ),
        ),
        Target(
            "templates",
            templates,
            b'{{index .Config.Labels "app"}}-{{.Name | toUpper}}-{{strSlice .ID 0 5}}',
            (template.TemplateError,),
            seeds=(
                b'{{.Config.Hostname | replace -1 "a" "b"}}',
                b'{{.Name | split "." | join ","}}',
                b"{{slice .ID 0 12}}",
            ),
            words=GRAMMAR,
            hostile=(
                b'{{"a"' + b'|replace -1 "a" "aaaaaaaaaa"' * 9 + b"}}",
                b"{{" * 2048,
                b"{{" + b"(" * 4000,
                b'{{"a"' + b"|toUpper" * 2000 + b"}}",
                b'{{"a"' + b'|split "" |join "aaaaaaaaaa"' * 9 + b"}}",
                b"{{.Name}}" * 1500,
            ),
        ),
        Target(
            "DNS packets",
            dns_packet,
            query("web.service.consul", "SRV", 1232),
            scales=False,  # who sends one pays for its octets; who answers must not
            seeds=tuple(fuzzing.sound_packets()[::40]),
            words=(b"\xc0\x0c", b"\x00", b"\x3f", b"\x07service\x06consul\x00", b"\x00\x29", b"\xff"),
            hostile=(
                with_extra(47, b"\x00" + b"".join(bytes((n, 1, 1)) for n in range(256)), 1),
                with_extra(47, b"\xc0\x0c" + b"".join(bytes((n, 1, 1)) for n in range(255)), 5),
                with_extra(16, b"\x00" * 1400),
                with_extra(16, b"\x00" * 4000, 4),
                with_extra(1, bytes(4), 1000),
                query("many.service.consul", "HINFO"),
                query("x1.many.service.consul", "A"),
                query("300.2.2.10.in-addr.arpa", "PTR"),
            ),
        ),
        Target(
            "recursors' answers",
            recursor,
            upstream(*[A_RECORD] * 3),
            (recursor_message.Unsound, recursor_message.Unrelated),
            seeds=(
                upstream(),
                upstream(A_RECORD, b"\xc0\x0c" + struct.pack("!HHIH", 5, 1, 60, 2) + b"\xc0\x10"),
            ),
            words=(b"\xc0\x0c", b"\x00", b"\x3f", b"\xc0\xff", A_RECORD, b"\x00\x05\x00\x01"),
            hostile=(
                upstream(*[A_RECORD] * 1000),
                upstream() + b"\xc0\x0c" * 8000,
                upstream(*[b"\xc0\x0c" + struct.pack("!HHIH", 5, 1, 60, 2) + b"\xc0\x0c"] * 1000),
                upstream(*[b"\x01a" * 100 + b"\x00" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes(4)] * 60),
            ),
        ),
        Target(
            "Consul's lists of instances",
            consul(
                lambda c: c.entries("web", 0, 0),
                lambda c: c.query("web", "dc1"),
                lambda c: c.found("service", "w", ""),
            ),
            HEALTH,
            document=True,
            hostile=(*ODD, with_nested(HEALTH), HEALTH.replace(b": 80", b": " + HUGE)),
        ),
        Target(
            "Consul's nodes, names and datacenters",
            consul(
                lambda c: c.nodes(0, 0),
                lambda c: c.names(0, 0),
                lambda c: c.datacenters(),
                lambda c: c.names_in("dc2"),
            ),
            document([NODE]),
            seeds=(document({"web": ["a"], "db": []}), document(["dc1"])),
            document=True,
            hostile=(*ODD, document({"web": None, "db": 5})),
        ),
        Target(
            "Consul's agent",
            consul(
                lambda c: c.own_node(), lambda c: c.services(), lambda c: c.checks(), lambda c: c.node("n1")
            ),
            document(
                {
                    "Config": {"NodeName": "n1", "Datacenter": "dc1"},
                    "Member": {"Name": "n1", "Addr": "10.0.0.1"},
                }
            ),
            seeds=(
                document({"web-1": SERVICE}),
                document({"c": CHECK}),
                document({"Node": NODE, "Services": {"x": SERVICE}}),
            ),
            document=True,
            hostile=(*ODD, with_nested(document({"web-1": SERVICE}))),
        ),
        Target(
            "Consul's keys",
            consul(lambda c: c.keys("registrator/", 0, 0)),
            document([{"Key": "registrator/swarm/x/y", "ModifyIndex": 5, "Value": "e30="}]),
            document=True,
            hostile=(*ODD, document([{"Key": 5, "Value": "%%%", "ModifyIndex": "x"}])),
        ),
        Target(
            "facts about a Swarm's services",
            lambda data: (facts.decode(text(data)), facts.is_later(text(data))),
            document({"schema": 1, "service": {"id": "s", "name": "web", "labels": {"a": "b"}, "ports": []}}),
            document=True,
            hostile=(*ODD, document({"schema": 10**400})),
        ),
        Target(
            "the engine's containers",
            engine(lambda e: e.inspect("x"), lambda e: e.containers()),
            document(inspected(networks={"bridge": network("n1", "172.17.0.2")}, ports={"80/tcp": None})),
            seeds=(document([listed()]), document(inspected(config={"Env": ["A=b"], "StopTimeout": 5}))),
            document=True,
            hostile=(
                *ODD,
                document([listed(Labels=[5], Ports="x", Names=5)]),
                document({"Id": "x", "Config": {"StopTimeout": 10**400}}),
            ),
        ),
        Target(
            "the engine's own facts and services",
            engine(lambda e: e.info(), lambda e: e.services()),
            document({"ID": "x", "Name": "n", "Swarm": {"NodeID": "y", "NodeAddr": "10.0.0.1"}}),
            seeds=(
                document([{"ID": "s", "Spec": {"Name": "web", "Labels": {}}, "Endpoint": {"Ports": []}}]),
            ),
            document=True,
            hostile=ODD,
        ),
        Target(
            "the engine's events",
            engine_event,
            document(event("container", "start")),
            (EngineError,),
            seeds=(
                document(event("container", "kill", signal="15")),
                document(event("network", "connect", container="x")),
            ),
            document=True,
            hostile=(*ODD, document(event("container", "start")).replace(b"1795201557000000042", HUGE)),
        ),
        Target(
            "durations",
            lambda data: (parse_duration(text(data)), parse_seconds(text(data))),
            b"1h30m",
            (SettingError,),
            seeds=(b"90s", b"1.5h", b"100ms", b"0"),
            words=(b"1", b"11s", b".", b"h", b"ms", b"9" * 20, b"-", b" "),
            hostile=(b"11s" * 40 + b"x", b"1" * 8000, b"1." * 4000, b"9" * 400 + b"h"),
        ),
        Target(
            "constraints and other options",
            options,
            b"com.example.key!=value",
            seeds=(b"!key", b"key=value", b"a.b.example.org", b"[::1]:8053"),
            words=(b"=", b"!", b"a", b".", b":", b"[", b" ", b"\n"),
            hostile=(b"=" * 8000, b"!" * 8000, b"a." * 8000, b" " * 16_000 + b"=", b"[" * 8000),
        ),
        Target(
            "registrator's old command line",
            lambda data: translate(text(data).split("\0")),
            b"-ip\x0010.0.0.1\x00-tags\x00a,b\x00consul://localhost:8500",
            (CompatError,),
            words=(b"-ip\x00", b"-resync\x00", b"consul://", b"-deregister=", b"\x00", b"9"),
            hostile=(b"-" * 8000, b"-resync\x00" + b"9" * 8000, b"consul://" + b"[" * 8000),
        ),
        Target(
            "Host headers and names of services",
            lambda data: (
                lookup_api.named_host(text(data)),
                lookup_api.find_service(text(data), CATALOG, (b"consul",)),
            ),
            b"web.service.consul:8580",
            seeds=(b"localhost", b"[::1]:80", b"a.web.service.consul", b"10.0.0.1"),
            words=(b".", b"service", b"consul", b":", b"[", b"_tcp", b"a"),
            hostile=(b"." * 8000, b"a." * 8000, b"[" * 8000, b":" * 8000, b"1" * 8000),
        ),
    )
}
