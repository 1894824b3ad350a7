"""Whatever an engine's documents hold, a read gives the model's types or fails; an element spoils itself."""

from __future__ import annotations

import contextlib
import json
import logging
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.documents import parse
from registrator.engine import DockerEngine, EngineError
from registrator.engine.endpoint import resolve
from registrator.engine.parse import parse_event, parse_info, parse_inspect, parse_listed
from registrator.engine.subscription import Subscription
from registrator.engine.swarm import parse_gateways, parse_service
from registrator.limits import ENGINE_DOCUMENT, ENGINE_ELEMENT, ENGINE_EVENT
from registrator.model import Event
from registrator.shapes import Malformed
from registrator.stats import Stats
from tests.engine.documents import ID, event, inspected, listed
from tests.engine.fake import fake_engine, http
from tests.support.nasty import HOLE, json_values, spoilt, with_holes

SERVICE = {
    "ID": "s" * 25,
    "Spec": {
        "Name": "web",
        "Labels": {"a": "b"},
        "Mode": {"Replicated": {"Replicas": 2}},
        "TaskTemplate": {"ContainerSpec": {"StopGracePeriod": 10**10}},
    },
    "Endpoint": {
        "Ports": [{"TargetPort": 80, "PublishedPort": 8080, "Protocol": "tcp", "PublishMode": "ingress"}]
    },
}
GATEWAY = {"Id": "g" * 64, "Containers": {ID: {"IPv4Address": "172.18.0.3/16", "IPv6Address": ""}}}
INFO = {"ID": "E1", "Name": "far", "Swarm": {"NodeID": "n", "NodeAddr": "10.0.0.1", "ControlAvailable": True}}
KILLED = {**event("container", "kill", signal="15"), "timeNano": 10**18}

DOCUMENTS: dict[str, tuple[Any, Callable[[object], Any]]] = {
    "/info": (INFO, parse_info),
    "/containers/X/json": (inspected(), parse_inspect),
    "/containers/json": (listed(), parse_listed),
    "/services": (SERVICE, parse_service),
    "/networks": (GATEWAY, parse_gateways),
    "/events": (KILLED, parse_event),
}


@pytest.mark.parametrize(("document", "read"), DOCUMENTS.values(), ids=DOCUMENTS)
def test_every_place_of_every_document_may_hold_anything(
    document: Any, read: Callable[[object], Any]
) -> None:
    """A parser returns what can be encoded, or raises `Malformed` or RecursionError, both expected."""
    for text in spoilt(document):
        with contextlib.suppress(Malformed, RecursionError):
            repr(read(parse(text.encode("utf-8", "surrogatepass")))).encode()


@given(st.data())
def test_any_document_may_come(data: st.DataObject) -> None:
    document, read = data.draw(st.sampled_from(list(DOCUMENTS.values())))
    holed = data.draw(st.sampled_from(list(with_holes(document))))
    text = json.dumps(holed).replace(json.dumps(HOLE), json.dumps(data.draw(json_values)))
    with contextlib.suppress(Malformed):
        read(json.loads(text))


@pytest.fixture
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


BAD = {
    "null": "null",
    "a number": "7",
    "an id that is a number": '{"Id": 5}',
    "nested deep": "[" * 2000 + "]" * 2000,
    "labels nested as deep as can be read": '{"Id": "x", "Labels": ' + "[" * 900 + "]" * 900 + "}",
    "a number of 5000 digits": '{"Id": "x", "Created": ' + "1" * 5000 + "}",
    "broken": '{"Id": tru}',
    "2 MB of labels": json.dumps({"Id": "x", "Labels": {"a": "x" * 2**21}}),
    "too long": json.dumps({"Id": "y", "Labels": {"a": "x" * ENGINE_ELEMENT.value}}),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_a_bad_container_in_a_listing_spoils_itself(tmp_path: Path, bad: str) -> None:
    """The ones before and after it are listed."""
    other = json.dumps({**listed(), "Id": "b" * 64})
    answer = http(f"[{json.dumps(listed())},{bad},{other}]")
    async with (
        fake_engine(tmp_path, {"/containers/json": answer}) as (url, _),
        DockerEngine(url, stats=Stats()) as engine,
    ):
        found = {container.id for container in await engine.containers()}
    assert {ID, "b" * 64} <= found <= {ID, "b" * 64, "x"}


async def test_a_bad_service_fails_the_listing_of_them(tmp_path: Path) -> None:
    """What a manager leaves out is deleted for all agents: so nothing is left out."""
    answer = http(f"[{json.dumps(SERVICE)},null]")
    async with (
        fake_engine(tmp_path, {"/services": answer}) as (url, _),
        DockerEngine(url, stats=Stats()) as engine,
    ):
        with pytest.raises(EngineError, match="/services: number 1 "):
            await engine.services()


READS: dict[str, tuple[str, Callable[[DockerEngine], Awaitable[Any]]]] = {
    "/info": ("/info", lambda engine: engine.info()),
    "/containers/json": ("/containers/json", lambda engine: engine.containers()),
    "/containers/X/json": ("/x/json", lambda engine: engine.inspect("x")),
    "/services": ("/services", lambda engine: engine.services()),
    "/_ping": ("/_ping", lambda engine: engine.info()),
}
ANSWERS = {
    "compressed": http("[]", headers="Content-Encoding: gzip\r\n"),
    "chunks that are none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n[]\r\n",
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: -7\r\n\r\n[]",
    "a deep document": http("[" * 300_000),
    "a long one": http('{"a":"' + "x" * (ENGINE_DOCUMENT.value + 1) + '"}'),
    "a long error": http("\x1b" * 2**20, "500 Internal Server Error"),
    "a deep error": http('{"message":' * 100_000, "500 Internal Server Error"),
    "NaN": http("NaN"),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize(("path", "read"), READS.values(), ids=READS)
async def test_every_answer_is_a_failure_of_that_read(
    tmp_path: Path, path: str, read: Callable[[DockerEngine], Awaitable[Any]], answer: bytes
) -> None:
    """One line that can be printed, and nothing but an EngineError."""
    async with fake_engine(tmp_path, {path: answer}) as (url, _), DockerEngine(url, stats=Stats()) as engine:
        with pytest.raises(EngineError) as caught:
            await read(engine)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "headers",
    [
        f"Api-Version: {'1' * 5000}.41\r\nDate: Fri, 20 Nov 2026 19:05:57 GMT\r\n",
        "Api-Version: 1.41.1\r\nDate: Fri, 20 Nov 2026 19:05:57 GMT\r\n",
        "Api-Version: 1.41\r\nDate: Fri, 20 Nov 99999 19:05:57 GMT\r\n",
        "Api-Version: 1.41\r\n",
        "Date: Fri, 20 Nov 2026 19:05:57 GMT\r\n",
    ],
)
async def test_a_ping_that_makes_no_sense(tmp_path: Path, headers: str) -> None:
    answers = {"/_ping": http("OK", headers=headers)}
    async with fake_engine(tmp_path, answers) as (url, _), DockerEngine(url, stats=Stats()) as engine:
        with pytest.raises(EngineError, match="tells no Docker API version"):
            await engine.info()


def stream(*lines: bytes) -> bytes:
    """An answer of events that does not end."""
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(line), line) for line in lines)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks


LINES = {
    "not JSON": b"<h1>\n",
    "not UTF-8": b"\xff\xfe\n",
    "nested deep": b"[" * 100_000 + b"\n",
    "a time of 5000 digits": b'{"timeNano":' + b"1" * 5000 + b"}\n",
    "too long": b'{"a":"' + b"x" * (2 * ENGINE_EVENT.value) + b'"}\n',
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
async def test_a_bad_event_spoils_itself(tmp_path: Path, line: bytes) -> None:
    """In its place comes one about everything, and the stream goes on."""
    good = json.dumps(event("container", "start")).encode() + b"\n"
    pieces = [line[start : start + 50_000] for start in range(0, len(line), 50_000)]
    stats = Stats()
    async with (
        fake_engine(tmp_path, {"/events": stream(good, *pieces, good)}) as (url, _),
        DockerEngine(url, stats=stats) as engine,
        contextlib.aclosing(engine.events()) as events,
    ):
        seen = [await anext(events) for _ in range(4)]
    assert seen == [Event(), Event(ID, "start"), Event(action="unreadable"), Event(ID, "start")]
    assert stats.malformed == {"engine": 1}


@pytest.mark.parametrize("time", ["1" * 400, "-5", "1e400", '"soon"', "null", "[]", "NaN"])
async def test_an_event_of_a_strange_time_is_an_event_all_the_same(tmp_path: Path, time: str) -> None:
    document = json.dumps({**event("container", "start"), "timeNano": 0})
    line = document.replace('"timeNano": 0', f'"timeNano": {time}').encode() + b"\n"
    async with (
        fake_engine(tmp_path, {"/events": stream(line)}) as (url, _),
        DockerEngine(url, stats=Stats()) as engine,
        contextlib.aclosing(engine.events()) as events,
    ):
        seen = [await anext(events) for _ in range(2)]
    assert seen == [Event(), Event(ID, "start")]
    assert seen[1].time == 0


class Endless:
    """A response whose one line has 20 MB."""

    headers: Mapping[str, str] = {}

    @property
    def content(self) -> Endless:
        return self

    async def iter_any(self) -> AsyncIterator[bytes]:
        for _ in range(320):
            yield b"x" * 2**16
        yield b"\n"


async def test_a_line_without_an_end_is_not_held_in_memory() -> None:
    """Of what does not end no more is kept than an event may have; the reader goes on to its end."""
    subscription = Subscription(cast("Any", None), resolve("unix:///x"), 0, cast("Any", None))
    tracemalloc.start()
    try:
        lines = [line async for line in subscription._lines(cast("Any", Endless()))]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert lines == [None]
    assert peak < 4 * ENGINE_EVENT.value


async def test_the_bridge_of_a_swarm_spoils_no_inspect(tmp_path: Path) -> None:
    """Where docker_gwbridge's document cannot be used, a task's container is inspected without it."""
    place = {"NetworkID": "n" * 25, "IPAddress": "10.0.1.5", "GlobalIPv6Address": ""}
    document = inspected(networks={"front": place})
    answers = {f"/{ID}/json": http(json.dumps(document)), "/docker_gwbridge": http("[" * 100_000)}
    async with fake_engine(tmp_path, answers) as (url, _), DockerEngine(url, stats=Stats()) as engine:
        container = await engine.inspect(ID)
    assert container is not None
    assert [network.network for network in container.networks] == ["front"]
