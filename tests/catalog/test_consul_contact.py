"""A Consul that dies, comes back empty or freezes, and what lookups and the bridge see of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from registrator.catalog import Unavailable
from registrator.catalog.consul import directory, http
from registrator.model import META_OWNER, Instance
from tests.catalog.consul_catalogs import Disturbed, eventually, running
from tests.support.consul import ConsulServer

MINE = Instance("web:1", "web", "10.0.0.5", 80, meta={META_OWNER: "me"})


async def test_killed_and_back_empty(consul: ConsulServer) -> None:
    """The loss is seen at once, the snapshot stays, the return is told within a second."""
    async with running(consul.url) as catalog, Disturbed(catalog) as disturbed:
        await catalog.register(MINE)
        await eventually(lambda: catalog.snapshot and "web" in catalog.snapshot.names)
        before = await catalog.load("web")
        await asyncio.sleep(0.1)
        assert (catalog.age, disturbed.reasons) == (0, [])

        await asyncio.to_thread(consul.kill)
        await eventually(lambda: catalog.age > 0, within=0.5)
        with pytest.raises(Unavailable):
            await catalog.owned("me")
        age = catalog.age
        await asyncio.sleep(0.5)
        assert catalog.age >= age + 0.45
        assert catalog.snapshot is before
        assert (await catalog.load("web")).services["web"].entries
        assert (await catalog.wait("web", before.services["web"].index, 0.05)) is before

        await asyncio.to_thread(consul.restart)
        started = time.monotonic()
        await eventually(lambda: disturbed.reasons)
        assert time.monotonic() - started < 1
        await eventually(lambda: catalog.snapshot and "web" not in catalog.snapshot.names, within=3)
        await eventually(lambda: catalog.age == 0, within=1)
        assert await catalog.owned("me") == {}
        await catalog.register(MINE)
        await eventually(lambda: catalog.snapshot and "web" in catalog.snapshot.names)
        after = await catalog.load("web")
        assert after.services["web"].index > before.services["web"].index
        assert after.index > before.index


@pytest.mark.parametrize("later", [0.1, 1.0], ids=["at once", "by an agent that was slow to notice"])
async def test_what_is_registered_again_was_never_missed(consul: ConsulServer, later: float) -> None:
    """Consul is back empty, and its services are back a moment later: no lookup sees the moment between.

    Each agent has to notice, and a Consul that has only just begun may be slow to pass things on.
    """
    async with running(consul.url) as catalog, Disturbed(catalog) as disturbed:
        await catalog.register(MINE)
        await eventually(lambda: catalog.snapshot and "web" in catalog.snapshot.names)
        await catalog.load("web")
        await asyncio.to_thread(consul.kill)
        await asyncio.to_thread(consul.restart)

        async def watch() -> None:
            while True:
                snapshot = catalog.snapshot
                assert snapshot
                assert "web" in snapshot.names
                assert (await catalog.load("web")).services["web"].entries
                await asyncio.sleep(0.001)

        watching = asyncio.create_task(watch())
        await eventually(lambda: disturbed.reasons)
        await asyncio.sleep(later)
        await catalog.register(MINE)
        await asyncio.sleep(1)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
        await catalog.deregister(MINE.id)
        await eventually(lambda: catalog.snapshot and "web" not in catalog.snapshot.names)


async def test_absent_at_the_start(consul: ConsulServer) -> None:
    """A catalog that is opened before its Consul finds it when it comes, within a second."""
    consul.kill()
    async with running(consul.url, within=0.3) as catalog, Disturbed(catalog) as disturbed:
        assert catalog.snapshot is None
        await asyncio.to_thread(consul.restart)
        started = time.monotonic()
        await eventually(lambda: catalog.snapshot and disturbed.reasons)
        assert time.monotonic() - started < 1


async def test_frozen(consul: ConsulServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lookups go on from the snapshot while nothing is answered; that is noticed, and so is the thaw."""
    monkeypatch.setattr(directory, "VITAL_WAIT", 0.5)
    monkeypatch.setattr(http, "MARGIN", 0.5)
    monkeypatch.setattr(http, "REQUEST_TIMEOUT", 0.5)
    async with running(consul.url) as catalog, Disturbed(catalog) as disturbed:
        await catalog.register(MINE)
        await catalog.register(replace(MINE, id="db:1", service="db"))
        await eventually(lambda: catalog.snapshot and {"web", "db"} <= set(catalog.snapshot.names))
        await catalog.load("web")
        consul.stop()
        started = time.monotonic()
        assert (await catalog.load("web")).services["web"].entries
        assert catalog.snapshot is not None
        assert time.monotonic() - started < http.REQUEST_TIMEOUT / 2
        with pytest.raises(Unavailable):
            await catalog.load("db")
        await eventually(lambda: catalog.age > 0, within=3)
        started = time.monotonic()
        with pytest.raises(Unavailable, match="has been away"):
            await catalog.load("db")
        assert time.monotonic() - started < http.REQUEST_TIMEOUT / 2
        assert (await catalog.load("web")).services["web"].entries

        consul.cont()
        await eventually(lambda: disturbed.reasons)
        assert "db" in (await catalog.load("db")).services


async def test_only_writes_fail(consul: ConsulServer) -> None:
    """Contact lost and found by writes alone is a disturbance too: lookups need not run for it."""
    async with running(consul.url) as catalog, Disturbed(catalog) as disturbed:
        await catalog.register(MINE)
        await asyncio.to_thread(consul.kill)
        with pytest.raises(Unavailable):
            await catalog.register(MINE)
        await asyncio.to_thread(consul.restart)
        await catalog.register(MINE)
        await eventually(lambda: disturbed.reasons, within=1)


async def test_ordinary_life_disturbs_nobody(consul: ConsulServer) -> None:
    """Indexes of a healthy Consul do not seem to go back, however services come and go."""
    async with running(consul.url) as catalog, Disturbed(catalog) as disturbed:
        for number in range(40):
            await catalog.register(replace(MINE, id=f"web:{number}", service=f"web-{number % 4}"))
            await asyncio.sleep(0.012)
            if number % 3:
                await catalog.deregister(f"web:{number - 1}")
        await asyncio.sleep(0.1)
        assert disturbed.reasons == []
        assert catalog.age == 0
