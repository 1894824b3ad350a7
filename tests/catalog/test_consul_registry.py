"""What a registration leaves alone and what it leaves out, on a real Consul."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from registrator.catalog import Unavailable
from registrator.catalog.consul import ConsulCatalog
from registrator.catalog.consul.client import ConsulClient
from registrator.catalog.consul.form import META_LEFT_OUT
from registrator.model import META_CHECKS, META_OWNER, PASSING, Check, Health, Instance, health_check_id
from registrator.settings import ConsulAddress
from registrator.stats import Stats
from tests.support.consul import ConsulServer
from tests.support.engine import unique

pytestmark = pytest.mark.consul

OWNER = "engine-1"
APP, OTHER = (Check(f"web:{key}", key, "ttl", ttl=600.0, status=PASSING) for key in ("app", "other"))
DOCKER = Check(health_check_id("web"), "Docker health", "ttl", ttl=600.0)
SCRIPT = Check("web:script", "a script", "script", interval=1.0, args=("echo", "fine"))
EXEC = Check("web:exec", "a command", "docker", "abc", interval=1.0, args=("sh", "-c", "true"), shell="sh")


def web(*checks: Check, tags: tuple[str, ...] = (), health: Health | None = None) -> Instance:
    digest = {META_CHECKS: "+".join(check.id for check in checks)} if checks else {}
    meta = {META_OWNER: OWNER, **digest}
    return Instance("web", unique("web"), "10.0.0.1", 80, tags=tags, meta=meta, checks=checks, health=health)


def catalog_of(consul: ConsulServer) -> ConsulCatalog:
    return ConsulCatalog(ConsulAddress(consul.url), Stats())


async def checks_of(consul: ConsulServer) -> dict[str, Any]:
    """The checks that Consul's agent has of the instance, by id."""
    checks = await asyncio.to_thread(consul.get, "/v1/agent/checks")
    return {key: check for key, check in checks.items() if check["ServiceID"] == "web"}


@pytest.fixture
def one_consul(consul_shared: ConsulServer) -> Iterator[ConsulServer]:
    yield consul_shared
    if "web" in consul_shared.get("/v1/agent/services"):
        consul_shared.put("/v1/agent/service/deregister/web")


ROWS = [
    # what is registered after it began                              and the checks that then stand there
    ("the same", web(APP), {APP.id}),
    ("other tags", web(APP, tags=("a",)), {APP.id}),
    ("one check more", web(APP, OTHER), {APP.id, OTHER.id}),
    ("another check", web(OTHER), {OTHER.id}),
    ("no check", web(), set()),
    (
        "with a report of its health",
        web(APP, DOCKER, health=Health(PASSING, "healthy")),
        {APP.id, DOCKER.id},
    ),
]


@pytest.mark.parametrize(("then", "ids"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
@pytest.mark.parametrize("life", ["in the same life", "in the next life"])
async def test_a_maintenance_outlives_what_is_registered(
    one_consul: ConsulServer, life: str, then: Instance, ids: set[str]
) -> None:
    """Its check stays with its reason, whatever else goes and comes; so does a check's status."""
    async with catalog_of(one_consul) as catalog, catalog_of(one_consul) as next_life:
        await catalog.register(web(APP))
        enable = "/v1/agent/service/maintenance/web?enable=true&reason=disk"
        await asyncio.to_thread(one_consul.put, enable)
        await (catalog if life == "in the same life" else next_life).register(then)
    checks = await checks_of(one_consul)
    assert checks.pop("_service_maintenance:web")["Notes"] == "disk"
    assert checks.keys() == ids
    assert {check["Status"] for check in checks.values()} <= {PASSING}


async def test_checks_that_others_saw_in_a_reading_go_too(one_consul: ConsulServer) -> None:
    """A reading of what is owned tells of checks that were written elsewhere."""
    async with catalog_of(one_consul) as catalog, catalog_of(one_consul) as other:
        await catalog.register(web(APP))
        await other.register(web(APP, OTHER))
        await catalog.owned(OWNER)
        await catalog.register(web(APP))
    assert (await checks_of(one_consul)).keys() == {APP.id}


async def test_what_was_cut_off_is_begun_anew(
    one_consul: ConsulServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that ends before the old checks are gone leaves a registration that is not the wanted one."""
    wanted = web(OTHER)
    async with catalog_of(one_consul) as catalog:
        await catalog.register(web(APP))
        with monkeypatch.context() as patch:
            patch.setattr(ConsulClient, "deregister_check", cut_off)
            with pytest.raises(Unavailable):
                await catalog.register(wanted)
    async with catalog_of(one_consul) as next_life:
        assert (await next_life.owned(OWNER))["web"].meta != wanted.meta
        await next_life.register(wanted)
        assert (await next_life.owned(OWNER))["web"].meta == wanted.meta
    assert (await checks_of(one_consul)).keys() == {OTHER.id}


async def cut_off(*_: object) -> None:
    raise Unavailable("cut off")


@pytest.mark.parametrize("checks", [(SCRIPT, APP), (EXEC,), (SCRIPT, EXEC, APP)])
async def test_commands_that_consul_refuses_are_left_out_with_one_warning(
    one_consul: ConsulServer, caplog: pytest.LogCaptureFixture, checks: tuple[Check, ...]
) -> None:
    """The instance is registered all the same; the next life asks again."""
    wanted = web(*checks)
    async with catalog_of(one_consul) as catalog:
        with caplog.at_level(logging.WARNING):
            await catalog.register(wanted)
            await catalog.register(wanted)
        assert (await checks_of(one_consul)).keys() == {APP.id} & {check.id for check in checks}
        (record,) = caplog.records
        assert "web: registered without its checks that run a command" in record.message
        assert "set enable_script_checks in the agent's configuration" in record.message
        assert (await catalog.owned(OWNER))["web"].meta == wanted.meta
    async with catalog_of(one_consul) as next_life:
        assert META_LEFT_OUT in (await next_life.owned(OWNER))["web"].meta


async def test_local_scripts_are_not_enough_for_consul(tmp_path: Path) -> None:
    """What comes over the API needs enable_script_checks; the local one is for Consul's own files."""
    consul = ConsulServer(tmp_path, {"enable_local_script_checks": True})
    try:
        await asyncio.to_thread(consul.start)
        async with catalog_of(consul) as catalog:
            await catalog.register(web(SCRIPT))
        assert not await checks_of(consul)
    finally:
        consul.kill()


async def test_a_consul_that_changed_its_mind_is_asked_again(tmp_path: Path) -> None:
    """Restarted with scripts allowed and with its data, Consul gets the checks that it refused before."""
    consul = ConsulServer(tmp_path)
    wanted = web(SCRIPT, APP)
    try:
        await asyncio.to_thread(consul.start)
        async with catalog_of(consul) as catalog:
            await catalog.register(wanted)
            left = await asyncio.to_thread(consul.get, "/v1/agent/service/web")
            consul.kill()
            with pytest.raises(Unavailable):
                await catalog.owned(OWNER)
            consul.configure({"enable_script_checks": True})
            await asyncio.to_thread(consul.restart)
            document = {"ID": "web", "Name": wanted.service, "Meta": left["Meta"]}
            await asyncio.to_thread(consul.put, "/v1/agent/service/register", document)  # it kept its data
            async with asyncio.timeout(5):
                await catalog.owned(OWNER)  # contact is regained: a disturbance
                assert await anext(aiter(catalog.disturbances()))
                found = await catalog.owned(OWNER)
            assert found["web"].meta != wanted.meta
            await catalog.register(wanted)
            assert (await catalog.owned(OWNER))["web"].meta == wanted.meta
        assert SCRIPT.id in await checks_of(consul)
    finally:
        consul.kill()


async def test_what_other_engines_hold_is_told_and_what_nobody_owns_is_not(
    consul_shared: ConsulServer,
) -> None:
    """An id that gliderlabs/registrator left behind is nobody's: its successor carries it on."""
    mine = replace(web(), id=f"node1:{unique('web')}:80", inherits=True)
    theirs = replace(mine, id=unique("web"), meta={META_OWNER: "engine-2"})
    left = {"ID": mine.id, "Name": mine.service, "Port": 1}
    await asyncio.to_thread(consul_shared.put, "/v1/agent/service/register", left)
    async with catalog_of(consul_shared) as catalog:
        assert catalog.taken() == {}
        await catalog.register(theirs)
        assert mine.id not in await catalog.owned(OWNER)
        assert mine.id not in catalog.taken()
        assert catalog.taken()[theirs.id] == "engine-2"
        await catalog.register(mine)
        assert (await catalog.owned(OWNER))[mine.id] == mine
        for instance in (mine, theirs):
            await catalog.deregister(instance.id)
