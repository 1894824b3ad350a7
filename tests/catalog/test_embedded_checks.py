"""Checks in the embedded catalog: TTLs, probes, what a new registration keeps, reaping."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiohttp import web

from registrator.catalog import embedded, embedded_checks, probes
from registrator.catalog.embedded import EmbeddedCatalog
from registrator.model import CRITICAL, PASSING, WARNING, Check, CheckResult, Health, Instance, Node, Service
from registrator.stats import Stats
from tests.catalog.servers import eventually, serving

HEALTH = Check("web:docker", "Docker health", "ttl", ttl=600.0)


class Server:
    """An HTTP server that answers `code` and `text` and counts how often it was asked."""

    def __init__(self) -> None:
        self.base = ""
        self.code, self.text, self.asked = 200, "hello", 0

    async def answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(status=self.code, text=self.text)

    def check(self, interval: float = 0.02) -> Check:
        return Check("c", "a check", "http", self.base, interval)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    async with serving(server.answer) as server.base:
        yield server


@pytest.fixture
async def catalog(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EmbeddedCatalog]:
    """A settled catalog that runs its checks, as frequently as a test likes."""
    monkeypatch.setattr(probes, "MIN_INTERVAL", 0.0)
    monkeypatch.setattr(probes, "FIRST_WITHIN", 0.0)
    monkeypatch.setattr(probes.Probe, "timeout", 10.0)  # whatever the interval
    monkeypatch.setattr(embedded, "HOUSEKEEPING", 0.02)
    async with EmbeddedCatalog(Stats()) as catalog:
        catalog.identify(Node("n", "10.0.0.1"))
        catalog.settled()
        running = asyncio.create_task(catalog.run())
        yield catalog
        running.cancel()
        await asyncio.wait([running])


def web_with(*checks: Check, health: Health | None = None) -> Instance:
    return Instance("web", "web", "127.0.0.1", 80, checks=checks, health=health)


def service(catalog: EmbeddedCatalog) -> Service:
    assert catalog.snapshot is not None
    return catalog.snapshot.services["web"]


def result(catalog: EmbeddedCatalog) -> CheckResult:
    """The instance's first check as it is shown."""
    return service(catalog).entries[0].checks[1]


async def until(catalog: EmbeddedCatalog, status: str, output: str = "") -> None:
    """Wait until the first check is shown with this status, and with this text in its output."""
    await catalog.load("web")
    await eventually(lambda: result(catalog).status == status and output in result(catalog).output)


@pytest.mark.parametrize(
    ("said", "output"),
    [("", "TTL expired"), ("fine", "TTL expired (last output before timeout follows): fine")],
)
async def test_a_ttl_that_nobody_refreshes_is_critical(
    catalog: EmbeddedCatalog, said: str, output: str
) -> None:
    """When its time is over a TTL check is critical, is reported so to the bridge, and may be revived."""
    await catalog.register(web_with(replace(HEALTH, ttl=0.05), health=Health(PASSING, said)))
    await until(catalog, PASSING, said)
    await until(catalog, CRITICAL)
    assert result(catalog).output == output
    assert (await catalog.owned(""))["web"].health == Health(CRITICAL, output)
    await catalog.report("web", Health(PASSING, "back"))
    await until(catalog, PASSING, "back")


@pytest.mark.parametrize("by", ["report", "register"])
async def test_a_ttl_that_is_refreshed_stays(catalog: EmbeddedCatalog, by: str) -> None:
    """A report begins the time to live anew, and so does a registration."""
    written = web_with(replace(HEALTH, ttl=0.6), health=Health(PASSING, ""))
    await catalog.register(written)
    index = (await catalog.load("web")).services["web"].index
    for _ in range(5):
        await asyncio.sleep(0.15)
        await (catalog.report("web", Health(PASSING, "")) if by == "report" else catalog.register(written))
    assert (result(catalog).status, service(catalog).index) == (PASSING, index)


async def test_an_app_s_own_ttl_starts_with_its_initial_status(catalog: EmbeddedCatalog) -> None:
    """A TTL check that is not the agent's own has the definition's status until it expires."""
    await catalog.register(web_with(Check("c", "c", "ttl", ttl=0.05, status=WARNING)))
    await until(catalog, WARNING)
    await until(catalog, CRITICAL, "TTL expired")


async def test_a_probe_moves_its_check(catalog: EmbeddedCatalog, server: Server) -> None:
    """A check is critical until its first result, then as the server answers; each move moves the index."""
    await catalog.register(web_with(server.check()))
    await catalog.load("web")
    first = service(catalog).index
    assert (result(catalog).status, result(catalog).output) == (CRITICAL, "")
    await until(catalog, PASSING, "200 OK Output: hello")
    second = service(catalog).index
    server.code = 503
    await until(catalog, CRITICAL, "503")
    assert service(catalog).index > second > first


async def test_an_initial_status_holds_until_the_first_result(
    catalog: EmbeddedCatalog, server: Server
) -> None:
    """A definition that says so starts as passing."""
    server.code = 500
    await catalog.register(web_with(replace(server.check(), status=PASSING)))
    await until(catalog, PASSING)
    await until(catalog, CRITICAL, "500")


async def test_another_output_alone_is_shown_without_a_new_index(
    catalog: EmbeddedCatalog, server: Server
) -> None:
    """The same status with another output comes in a later snapshot and wakes no blocking query."""
    await catalog.register(web_with(server.check()))
    await until(catalog, PASSING, "hello")
    index = service(catalog).index
    server.text = "good day"
    await until(catalog, PASSING, "good day")
    assert service(catalog).index == index


async def test_deregistered_is_not_probed(catalog: EmbeddedCatalog, server: Server) -> None:
    """After `deregister` the server is asked no more, while another instance's check goes on."""
    other = Server()
    async with serving(other.answer) as other.base:
        await catalog.register(web_with(server.check(0.01)))
        await catalog.register(replace(web_with(other.check(0.01)), id="other"))
        await eventually(lambda: server.asked > 2)
        await catalog.deregister("web")
        await asyncio.sleep(0)
        asked, others = server.asked, other.asked
        await eventually(lambda: other.asked > others + 5)
        assert server.asked <= asked + 1  # one may have been under way
        await catalog.deregister("other")


async def test_a_check_that_is_taken_away_is_not_probed(catalog: EmbeddedCatalog, server: Server) -> None:
    """A registration without the check ends its probe."""
    await catalog.register(web_with(server.check(0.01)))
    await eventually(lambda: server.asked > 2)
    await catalog.register(web_with())
    snapshot = await catalog.load("web")
    assert [check.id for check in snapshot.services["web"].entries[0].checks] == ["serfHealth"]
    asked = server.asked
    await catalog.wait("web", service(catalog).index, 0.1)
    assert server.asked <= asked + 1


async def test_an_unchanged_check_goes_on_whatever_is_written(
    catalog: EmbeddedCatalog, server: Server
) -> None:
    """Registrations more frequent than its interval neither reset nor starve a check."""
    server.code = 500
    check = replace(server.check(0.2), failures_before_critical=3, status=PASSING)
    seen = set()
    async with asyncio.timeout(10):
        while server.asked < 4:
            await catalog.register(replace(web_with(check), tags=(str(server.asked),)))
            await catalog.load("web")
            seen.add(result(catalog).status)
            await asyncio.sleep(0.01)
    assert seen == {PASSING, CRITICAL}
    assert result(catalog).status == CRITICAL


async def test_critical_for_too_long_is_removed(
    catalog: EmbeddedCatalog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An instance whose check is critical beyond its limit is removed, others stay, the log says why."""
    monkeypatch.setattr(embedded_checks, "MIN_DEREGISTER_AFTER", 0.1)
    dead = Check("c", "a check", "ttl", ttl=600.0, deregister_after=0.01)
    await catalog.register(web_with(dead))
    await catalog.register(replace(web_with(replace(dead, status=PASSING)), id="well"))
    await catalog.register(replace(web_with(replace(dead, deregister_after=0.0)), id="not asked for"))
    begun = asyncio.get_running_loop().time()
    await catalog.load("web")
    await eventually(lambda: len(service(catalog).entries) == 2)
    assert asyncio.get_running_loop().time() - begun > 0.1
    assert [entry.instance.id for entry in service(catalog).entries] == ["not asked for", "well"]
    assert "web: removed, check 'a check' was critical" in caplog.text


async def test_the_end_leaves_nothing_running(server: Server) -> None:
    """When the context is left, no timer of any check remains and nothing is asked any more."""
    async with EmbeddedCatalog(Stats()) as catalog:
        catalog.identify(Node("n", "10.0.0.1"))
        catalog.settled()
        await catalog.register(web_with(HEALTH, server.check(0.01), health=Health(PASSING, "")))
        probe = catalog._registered["web"].checks["c"]._keeper
        assert isinstance(probe, probes.Probe)
    assert probe.stopped
    assert probe.timer is not None
    assert probe.timer.cancelled()
