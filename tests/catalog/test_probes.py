"""Probes run on real servers, and Consul's rules for what their answers mean."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from registrator.catalog import probes, shares
from registrator.catalog.probes import Prober
from registrator.model import CRITICAL, PASSING, WARNING, Check
from registrator.settings import join_host_port
from registrator.stats import Stats
from tests.catalog.servers import answer, eventually, self_signed, serving

Result = tuple[str, str]
UNUSED = 1  # a port of loopback where nobody listens


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks run at once and may be as frequent as a test likes."""
    monkeypatch.setattr(probes, "MIN_INTERVAL", 0.0)
    monkeypatch.setattr(probes, "FIRST_WITHIN", 0.0)


pytestmark = pytest.mark.usefixtures("quick")


def http(target: str, interval: float = 60.0, **more: object) -> Check:
    return Check("c", "a check", "http", target, interval, **more)  # type: ignore[arg-type]


def tcp(target: str, interval: float = 60.0, timeout: float = 0.0) -> Check:
    return Check("c", "a check", "tcp", target, interval, timeout)


@asynccontextmanager
async def probing(stats: Stats | None = None) -> AsyncIterator[Prober]:
    prober = Prober(stats or Stats())
    running = asyncio.create_task(prober.run())
    try:
        yield prober
    finally:
        running.cancel()
        await asyncio.wait([running])


async def first_result(check: Check) -> Result:
    """What the first run of a check says."""
    said: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    async with probing() as prober, asyncio.timeout(10):
        probe = prober.start(check, "", lambda status, output: said.set_result((status, output)))
        try:
            return await said
        finally:
            probe.stop()


@pytest.mark.parametrize(
    ("path", "status", "output"),
    [
        pytest.param("/200", PASSING, "200 OK Output: hello", id="200 is passing"),
        pytest.param("/204", PASSING, "204 No Content Output: ", id="any 2xx is passing"),
        pytest.param("/299", PASSING, "299  Output: hello", id="an unknown 2xx is passing"),
        pytest.param("/304", CRITICAL, "304 Not Modified Output: ", id="3xx that leads nowhere is critical"),
        pytest.param("/404", CRITICAL, "404 Not Found Output: hello", id="404 is critical"),
        pytest.param("/429", WARNING, "429 Too Many Requests Output: hello", id="429 is a warning"),
        pytest.param("/430", CRITICAL, "430  Output: hello", id="430 is critical"),
        pytest.param("/500", CRITICAL, "500 Internal Server Error Output: hello", id="500 is critical"),
        pytest.param("/moved", PASSING, "200 OK Output: hello", id="a redirect is followed"),
        pytest.param("/long", PASSING, f"200 OK Output: {'a' * 4089}the end", id="4 KB are kept"),
        pytest.param("/bytes", PASSING, "200 OK Output: \ufffdabc\ufffd", id="what is no text is replaced"),
        pytest.param("/cut", PASSING, "200 OK Output: a part", id="a body cut short is judged by its status"),
    ],
)  # fmt: skip
async def test_http_answers(path: str, status: str, output: str) -> None:
    """An HTTP answer's code is the status, code and body are the output."""
    async with serving(answer) as base:
        assert await first_result(http(base + path)) == (status, f"HTTP GET {base}{path}: {output}")


async def test_http_body_without_end() -> None:
    """An answer whose body goes on until the timeout is judged by its status."""
    async with serving(answer) as base:
        status, output = await first_result(http(f"{base}/endless", timeout=0.2))
    assert (status, output) == (PASSING, f"HTTP GET {base}/endless: 200 OK Output: begun")


async def test_http_redirects_without_end() -> None:
    """The eleventh redirect is not followed."""
    async with serving(answer) as base:
        assert await first_result(http(f"{base}/round")) == (
            CRITICAL,
            f'Get "{base}/round": stopped after 10 redirects',
        )


async def test_http_timeout() -> None:
    """No answer in time is critical, and says how long was waited."""
    async with serving(answer) as base:
        result = await first_result(http(f"{base}/slow", timeout=0.1))
    assert result == (CRITICAL, f'Get "{base}/slow": no answer within 0.1 s')


@pytest.mark.parametrize(
    ("target", "output"),
    [
        (f"http://127.0.0.1:{UNUSED}/", f"dial tcp 127.0.0.1:{UNUSED}: connect: connection refused"),
        ("nonsense", "not a URL that can be asked; write for instance http://10.0.0.5:8080/health"),
        ("http://", "not a URL that can be asked; write for instance http://10.0.0.5:8080/health"),
        ("ftp://127.0.0.1/", "not a URL that can be asked; write for instance http://10.0.0.5:8080/health"),
        (
            "http://127.0.0.1:99999/",
            "not a URL that can be asked; write for instance http://10.0.0.5:8080/health",
        ),
    ],
)
async def test_http_that_cannot_be_asked(target: str, output: str) -> None:
    """Where nobody answers, or nobody can be asked, the check is critical and says why."""
    assert await first_result(http(target)) == (CRITICAL, f'Get "{target}": {output}')


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_http_request(host: str) -> None:
    """The definition's method, header and body are sent as they stand, over both families."""
    seen: list[tuple[object, ...]] = []

    async def note(request: web.Request) -> web.Response:
        headers = request.headers
        seen.append((request.method, headers["Host"], headers.getall("X-Two"), await request.text()))
        seen.append((headers.get("Content-Type"), headers["Connection"], headers["Accept"]))
        return web.Response()

    async with serving(note, host) as base:
        check = http(
            base, method="POST", body="ping", header=(("Host", ("web.test",)), ("X-Two", ("a", "b")))
        )
        assert (await first_result(check))[0] == PASSING
    assert seen == [("POST", "web.test", ["a", "b"], "ping"), (None, "close", "text/plain, text/*, */*")]


@pytest.mark.parametrize(("skip_verify", "status"), [(True, PASSING), (False, CRITICAL)])
async def test_tls(tmp_path: Path, skip_verify: bool, status: str) -> None:  # noqa: FBT001
    """A certificate that nobody vouches for is critical unless the check says not to verify."""
    async with serving(answer, tls=self_signed(tmp_path)) as base:
        result = await first_result(http(f"{base}/200", tls_skip_verify=skip_verify))
    assert result[0] == status
    if status == CRITICAL:
        assert "self-signed certificate" in result[1] or "self signed certificate" in result[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_tcp_connects(host: str) -> None:
    """A tcp check is passing when the port takes a connection, which is then closed."""
    closed = asyncio.Event()

    async def see_it_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b""
        writer.close()
        closed.set()

    server = await asyncio.start_server(see_it_end, host, 0)
    async with server:
        target = join_host_port(host, server.sockets[0].getsockname()[1])
        assert await first_result(tcp(target)) == (PASSING, f"TCP connect {target}: Success")
        await asyncio.wait_for(closed.wait(), 5)


@pytest.mark.parametrize(
    ("target", "output"),
    [
        (f"127.0.0.1:{UNUSED}", f"dial tcp 127.0.0.1:{UNUSED}: connect: connection refused"),
        (f"[::1]:{UNUSED}", f"dial tcp [::1]:{UNUSED}: connect: connection refused"),
        ("127.0.0.1", "dial tcp: address 127.0.0.1: missing port in address"),
        ("127.0.0.1:http", "dial tcp: address 127.0.0.1:http: missing port in address"),
        ("127.0.0.1:99999", "dial tcp 127.0.0.1:99999: connect: "),
        ("localhost:80", "dial tcp localhost:80: connect: 'localhost' does not appear to be an IPv4 or IPv6"),
        ("", "dial tcp: address : missing port in address"),
    ],
)
async def test_tcp_that_cannot_be_reached(target: str, output: str) -> None:
    """Where no connection can be made the check is critical and says why."""
    status, said = await first_result(tcp(target))
    assert status == CRITICAL
    assert said.startswith(output)


async def test_tcp_timeout() -> None:
    """A port that does not answer in time is critical."""
    with socket.socket() as server, socket.socket() as filler:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        filler.setblocking(False)  # noqa: FBT003
        filler.connect_ex(
            server.getsockname()
        )  # takes the only place in the queue; Linux drops what comes then
        target = join_host_port(*server.getsockname())
        assert await first_result(tcp(target, timeout=0.1)) == (CRITICAL, f"dial tcp {target}: i/o timeout")


@pytest.mark.parametrize(
    ("answers", "success", "failures", "statuses"),
    [
        pytest.param("+-+", 0, 0, "PCP", id="without thresholds each result counts"),
        pytest.param("+", 3, 3, "P", id="the very first result counts at once: success"),
        pytest.param("-", 3, 3, "C", id="the very first result counts at once: failure"),
        pytest.param("+--+--", 0, 3, "P..P..", id="failures must come in a row"),
        pytest.param("+---", 0, 3, "P..C", id="the third failure in a row counts"),
        pytest.param("-++", 2, 0, "C.P", id="the second success in a row counts"),
        pytest.param("-+-++", 2, 0, "C.C.P", id="successes must come in a row"),
        pytest.param("-!!", 2, 0, "C.W", id="a warning is a success"),
    ],
)
async def test_thresholds(answers: str, success: int, failures: int, statuses: str) -> None:
    """A status changes when as many results in a row say so as the definition asks for."""
    said: list[str] = []
    check = Check("c", "c", "http", success_before_passing=success, failures_before_critical=failures)
    probe = probes.Probe(check, "", lambda status, _: said.append(status[0].upper()))
    for sign in answers:
        before = len(said)
        probe.conclude({"+": PASSING, "-": CRITICAL, "!": WARNING}[sign], "")
        if len(said) == before:
            said.append(".")
    assert "".join(said) == statuses


async def test_a_stopped_check_asks_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """After `stop` no request is made, and the result of the one under way is dropped."""
    monkeypatch.setattr(probes.Probe, "timeout", 10.0)  # whatever the interval
    asked, go_on, said = asyncio.Semaphore(0), asyncio.Event(), []

    async def hold(_: web.Request) -> web.Response:
        asked.release()
        await go_on.wait()
        return web.Response()

    async with serving(hold) as base, probing() as prober:
        probe = prober.start(http(base, interval=0.01), "", lambda *result: said.append(result))
        other = prober.start(http(base, interval=0.01), "", lambda *_: None)
        await asked.acquire()
        await asked.acquire()
        probe.stop()
        go_on.set()
        for _ in range(5):  # the other one is asked on; this one has the same interval
            await asked.acquire()
        other.stop()
        assert probe.runs <= 1
        assert said == []


async def test_not_too_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many checks are due, only so many probes are under way, and all get their turn."""
    monkeypatch.setattr(shares, "AT_ONCE", 4)
    under_way, most, done = 0, 0, set[int]()

    async def count(_: web.Request) -> web.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return web.Response()

    async with serving(count) as base, probing() as prober:
        running = [prober.start(http(base), "", lambda *_, n=n: done.add(n)) for n in range(30)]
        await eventually(lambda: len(done) == 30)
        for probe in running:
            probe.stop()
    assert most == 4


async def test_a_probe_that_breaks_leaves_the_others_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that nobody foresaw makes its own check critical, and no other."""

    async def broken(target: str, timeout: float, allowance: object) -> Result:
        if target == "broken:1":
            raise RuntimeError("boom")
        return PASSING, "fine"

    monkeypatch.setattr(probes, "connect", broken)
    said: dict[str, Result] = {}

    def note(target: str, status: str, output: str) -> None:
        said[target] = (status, output)

    async with probing() as prober:
        for target in ("broken:1", "fine:1"):
            prober.start(tcp(target), "", partial(note, target))
        await eventually(lambda: len(said) == 2)
    assert said["broken:1"] == (CRITICAL, "the check could not be run: RuntimeError('boom')")
    assert said["fine:1"] == (PASSING, "fine")
    assert "report this" in caplog.text
