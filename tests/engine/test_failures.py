"""An engine that does not answer as it should is an error of one line, never an empty answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from registrator.engine import DockerEngine, EngineError, Unreachable
from registrator.engine.errors import Refused
from registrator.model import Engine, Event
from registrator.stats import Stats
from tests.engine.documents import ID, LABELS, event, inspected, listed
from tests.engine.fake import HANG, PING, fake_engine, http

READS: list[Callable[[DockerEngine], Awaitable[object]]] = [
    lambda engine: engine.info(),
    lambda engine: engine.containers(),
    lambda engine: engine.inspect("abc"),
]
DATE = "Date: Fri, 20 Nov 2026 19:05:57 GMT\r\n"


@pytest.mark.parametrize("read", READS, ids=["info", "containers", "inspect"])
@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        pytest.param(
            http('{"message":"boom\\nand so on"}', "500 No"),
            Refused,
            r"status 500: boom and so on; ",
            id="status 500",
        ),
        pytest.param(
            http("<h1>gone</h1>", "404 Not Found"), Refused, "status 404: <h1>gone</h1>", id="a proxy's 404"
        ),
        pytest.param(
            http("", "403 Forbidden"), Refused, "let the proxy before it pass", id="a proxy that forbids"
        ),
        pytest.param(
            http('{"message":"page not found"}', "301 Moved"), Refused, "status 301", id="a redirect"
        ),
        pytest.param(http("nonsense"), EngineError, "is no Docker engine", id="no JSON"),
        pytest.param(http('"text"'), EngineError, "is no Docker engine", id="JSON of another kind"),
        pytest.param(http("["), EngineError, "is no Docker engine", id="broken JSON"),
        pytest.param(http("[" * 100_000), EngineError, "is no Docker engine", id="JSON without a bottom"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", EngineError, "is no Docker engine", id="no HTTP"),
        pytest.param(http("[]")[:-1], Unreachable, "no answer in 0.2 s", id="half an answer"),
        pytest.param(b"", Unreachable, "was lost", id="a closed connection"),
        pytest.param(HANG, Unreachable, "gave no answer in 0.2 s", id="silence"),
        pytest.param(http("[]").replace(b"[]", b"\xff\xfe"), EngineError, "no Docker engine", id="no UTF-8"),
    ],
)
async def test_a_bad_answer(
    tmp_path: Path,
    read: Callable[[DockerEngine], Awaitable[object]],
    answer: bytes,
    kind: type[EngineError],
    message: str,
) -> None:
    answers = dict.fromkeys(["/info", "/json"], answer)
    async with (
        fake_engine(tmp_path, answers) as (url, _),
        DockerEngine(url, stats=Stats(), timeout=0.2 if "0.2 s" in message else 10.0) as engine,
    ):
        with pytest.raises(kind, match=message) as caught:
            await read(engine)
    assert "\n" not in str(caught.value)
    assert url in str(caught.value)


async def test_only_the_engines_own_404_means_gone(tmp_path: Path) -> None:
    """A container is gone when the engine itself says that there is none."""
    answers = {"/abc/json": http('{"message":"No such container: abc"}', "404 Not Found")}
    async with fake_engine(tmp_path, answers) as (url, _), DockerEngine(url, stats=Stats()) as engine:
        assert await engine.inspect("abc") is None


@pytest.mark.parametrize(
    "ping",
    [
        pytest.param(http("hello"), id="a web server"),
        pytest.param(http("OK", headers=f"Api-Version: one\r\n{DATE}"), id="a version that is none"),
        pytest.param(
            http("OK", headers="Api-Version: 1.41\r\nDate: yesterday\r\n"), id="a date that is none"
        ),
    ],
)
async def test_what_is_no_docker_api(tmp_path: Path, ping: bytes) -> None:
    async with (
        fake_engine(tmp_path, {"/_ping": ping}) as (url, _),
        DockerEngine(url, stats=Stats()) as engine,
    ):
        with pytest.raises(EngineError, match=r"no Docker engine \(its /_ping tells no Docker API version\)"):
            await engine.info()


@pytest.mark.parametrize(
    ("offered", "spoken"), [("1.41", "1.41"), ("1.52", "1.52"), ("1.99", "1.52"), ("2.0", "1.52")]
)
async def test_the_version_is_one_that_both_know(tmp_path: Path, offered: str, spoken: str) -> None:
    """An engine of the future is spoken to in the newest version that is known here."""
    answers = {"/_ping": PING.replace(b"1.41", offered.encode()), "/info": http('{"ID":"E1","Name":"far"}')}
    async with fake_engine(tmp_path, answers) as (url, fake), DockerEngine(url, stats=Stats()) as engine:
        assert await engine.info() == Engine("E1", "far")
    assert fake.requests == ["/_ping", f"/v{spoken}/info"]


async def test_a_missing_socket(tmp_path: Path) -> None:
    """A socket that does not exist may come: the message says what to start or to set."""
    async with DockerEngine(f"unix://{tmp_path}/none.sock", stats=Stats()) as engine:
        with pytest.raises(
            Unreachable, match=r"no Docker engine at unix:///.*none\.sock: .*start dockerd, or say by"
        ):
            await engine.info()


async def test_a_socket_that_was_left_behind(tmp_path: Path) -> None:
    """A dead daemon's socket refuses connections."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    async with DockerEngine(f"unix://{tmp_path}/dead.sock", stats=Stats()) as engine:
        with pytest.raises(Unreachable, match=r"nothing listens at unix:///.*dead\.sock; start dockerd"):
            await engine.containers()


async def test_a_port_where_nothing_listens() -> None:
    """TCP is said in the operator's own words."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        async with DockerEngine(url, stats=Stats()) as engine:
            with pytest.raises(Unreachable, match=f"nothing listens at {url}"):
                await engine.info()


async def test_a_host_that_does_not_exist() -> None:
    """A name that nobody knows is said as such."""
    async with DockerEngine("tcp://engine.invalid:2375", stats=Stats()) as engine:
        with pytest.raises(
            Unreachable, match=r"tcp://engine\.invalid:2375 cannot be reached: .*; check the address"
        ):
            await engine.info()


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Act as a user without rights, as far as files are concerned."""
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def set_mode(path: Path, mode: int) -> None:
    path.chmod(mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights for a test")
@pytest.mark.parametrize(
    ("mode", "folder_mode", "advice"),
    [
        pytest.param(
            0o660, 0o755, "run as root or in the group root (in a container: --group-add 0)", id="group"
        ),
        pytest.param(0o600, 0o755, "run as root", id="the owner alone"),
        pytest.param(0o660, 0o700, "run as root", id="a closed folder"),
    ],
)
async def test_no_permission(mode: int, folder_mode: int, advice: str) -> None:
    """Who may use the socket is said by name."""
    with tempfile.TemporaryDirectory() as base:  # pytest's own is closed to others
        folder = Path(base)
        set_mode(folder, folder_mode)
        async with fake_engine(folder, {}) as (url, _), DockerEngine(url, stats=Stats()) as engine:
            set_mode(folder / "docker.sock", mode)
            with pytest.raises(EngineError) as caught, nobody():
                await engine.info()
    assert str(caught.value) == f"no permission to use {url}; {advice}"
    assert not isinstance(caught.value, Unreachable)


# Events -------------------------------------------------------------------


@contextlib.asynccontextmanager
async def first_event(engine: DockerEngine) -> AsyncIterator[asyncio.Task[Event]]:
    """Wait for an engine's first event in the background; stop waiting at the end."""
    async with contextlib.aclosing(engine.events()) as events:
        task = asyncio.create_task(anext(events))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_lost_engine_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the engine is away the log says so once, then every tenth time, and once when it is back."""
    monkeypatch.setattr("registrator.engine.engine.LONGEST_PAUSE", 0.02)
    caplog.set_level(logging.INFO, "registrator.engine")
    stream = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    url = f"unix://{tmp_path}/docker.sock"
    async with DockerEngine(url, stats=Stats()) as engine, first_event(engine) as first:
        await until(lambda: len(caplog.messages) >= 2)
        assert not first.done()
        async with fake_engine(tmp_path, {"/events": stream}):
            assert await first == Event()
    assert caplog.messages[0].startswith(f"no Docker engine at {url}: ")
    assert caplog.messages[1].endswith("; trying again (11 times by now)")
    assert caplog.messages[-1] == f"the Docker engine at {url} is back"


async def test_events_that_are_forbidden(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A proxy that lets no events through is told from an engine that is away, and nobody is woken."""
    answers = {"/events": http("denied", "403 Forbidden")}
    async with (
        fake_engine(tmp_path, answers) as (url, _),
        DockerEngine(url, stats=Stats()) as engine,
        first_event(engine) as first,
    ):
        await until(lambda: caplog.messages)
        assert not first.done()
    assert "/events with status 403: denied; let the proxy before it pass this path" in caplog.messages[0]


async def test_events_that_hang_are_given_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An engine that never answers /events is asked again and again."""
    async with (
        fake_engine(tmp_path, {"/events": HANG}) as (url, fake),
        DockerEngine(url, stats=Stats(), timeout=0.05) as engine,
        first_event(engine),
    ):
        await until(lambda: sum("/events" in path for path in fake.requests) >= 3)
    assert "gave no answer in 0.05 s" in caplog.messages[0]


async def test_a_silent_stream_ends_when_a_read_finds_the_engine_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream that says nothing may be dead: a read without an answer makes a new one."""
    stream = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with (
        fake_engine(tmp_path, {"/events": stream, "/info": HANG}) as (url, _),
        DockerEngine(url, stats=Stats(), timeout=0.2) as engine,
        contextlib.aclosing(engine.events()) as events,
    ):
        assert await anext(events) == Event()
        with pytest.raises(Unreachable):
            await engine.info()
        assert await anext(events) == Event()
    assert "ended its event stream" in caplog.messages[0]


async def test_every_subscription_starts_at_the_engines_own_second(tmp_path: Path) -> None:
    """Whatever its events say: what is old is in the listing, and a clock that stepped back hides nothing."""
    line = json.dumps(event("container", "start")) + "\n"
    stream = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{len(line):x}\r\n{line}\r\n0\r\n\r\n"
    stats = Stats()
    async with (
        fake_engine(tmp_path, {"/events": stream.encode()}) as (url, fake),
        DockerEngine(url, stats=stats) as engine,
        contextlib.aclosing(engine.events()) as events,
    ):
        seen = [await anext(events) for _ in range(2)]
        fake.answers["/_ping"] = PING.replace(b"19:05:57", b"18:05:57")
        seen += [await anext(events) for _ in range(2)]
    assert seen == [Event(), Event(ID, "start")] * 2
    assert stats.events == {"start": 2}
    queries = [parse_qs(urlsplit(path).query) for path in fake.requests if "/events" in path]
    assert [query["since"] for query in queries[:2]] == [["1795201557"], ["1795197957"]]


async def test_events_in_pieces_and_what_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A line may come in any pieces; one that is not JSON stands for an event about everything."""
    line = json.dumps(event("container", "start"))
    pieces = (line[:7], line[7:] + "\n\n" + line[:9], line[9:] + "\n<h1>", "gone</h1>\n")
    chunks = "".join(f"{len(piece):x}\r\n{piece}\r\n" for piece in pieces)
    stream = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
    async with (
        fake_engine(tmp_path, {"/events": stream.encode()}) as (url, _),
        DockerEngine(url, stats=Stats()) as engine,
        contextlib.aclosing(engine.events()) as events,
    ):
        seen = [await anext(events) for _ in range(4)]
    assert seen == [Event(), *[Event(ID, "start")] * 2, Event(action="unreadable")]
    assert "it is not JSON; all are compared" in caplog.messages[0]


TASK_LIST = "/containers/json"


@pytest.mark.parametrize(
    ("answer", "is_task"),
    [
        (http(json.dumps([listed()])), True),
        (http("[]"), False),
        (http(json.dumps([listed(Id="f" * 64)])), False),
        (http('{"message":"invalid filter"}', "400 Bad Request"), False),
    ],
    ids=["the engine says so", "it has a task's labels alone", "another is", "an engine without tasks"],
)
async def test_a_task_is_what_the_engine_lists_as_one(tmp_path: Path, answer: bytes, is_task: bool) -> None:  # noqa: FBT001
    """Labels are anybody's. The engine is asked once in a container's life, and of no other container."""
    document = http(json.dumps(inspected(config={"Labels": LABELS})))
    answers = {f"/{ID}/json": document, TASK_LIST: answer}
    async with fake_engine(tmp_path, answers) as (url, fake), DockerEngine(url, stats=Stats()) as engine:
        for _ in range(3):
            container = await engine.inspect(ID)
            assert container is not None
            assert (container.task is not None) is is_task
        asked = [path for path in fake.requests if TASK_LIST in path]
        assert len(asked) == 1
        filters = json.loads(parse_qs(urlsplit(asked[0]).query)["filters"][0])
        assert filters == {"is-task": ["true"], "id": [ID]}
        fake.answers[f"/{ID}/json"] = http(json.dumps(inspected()))
        assert (await engine.inspect(ID)) is not None
        assert len([path for path in fake.requests if TASK_LIST in path]) == 1


async def test_a_task_that_cannot_be_proven_now_is_not_looked_at_yet(tmp_path: Path) -> None:
    """A read that failed is not an answer: neither a task nor none."""
    document = http(json.dumps(inspected(config={"Labels": LABELS})))
    answers = {f"/{ID}/json": document, TASK_LIST: http('{"message":"busy"}', "500 No")}
    async with fake_engine(tmp_path, answers) as (url, _), DockerEngine(url, stats=Stats()) as engine:
        with pytest.raises(Refused):
            await engine.inspect(ID)
