"""The two catalogs under test: a real Consul 1.8 or later, and the embedded one."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from registrator.catalog import CatalogError
from registrator.catalog.consul import ConsulCatalog
from registrator.catalog.embedded import EmbeddedCatalog
from registrator.model import Node
from registrator.settings import ConsulAddress
from registrator.stats import Stats
from tests.contract.build import Catalog
from tests.support.consul import ConsulServer

NODE = Node("Consul-Test", "127.0.0.1")


@pytest.fixture
def token() -> str:
    """Something that no other test has in its names: the Consul is shared."""
    return secrets.token_hex(4)


@pytest.fixture
def owner(token: str) -> str:
    return f"owner-{token}"


@pytest.fixture
def name(token: str) -> str:
    """A service of this test's own."""
    return f"web-{token}"


@pytest.fixture(params=[pytest.param("consul", marks=pytest.mark.consul), "embedded"])
async def opened(request: pytest.FixtureRequest, owner: str) -> AsyncIterator[Catalog]:
    """A catalog that is open, but neither runs nor has settled."""
    if request.param == "consul":
        server: ConsulServer = request.getfixturevalue("consul_shared")
        async with ConsulCatalog(ConsulAddress(server.url), Stats()) as consul:
            yield consul
            for instance_id in await consul.owned(owner):
                await consul.deregister(instance_id)
    else:
        async with EmbeddedCatalog(Stats()) as embedded:
            embedded.identify(NODE)
            yield embedded


@pytest.fixture
async def catalog(opened: Catalog) -> AsyncIterator[Catalog]:
    """A catalog that runs, with its first snapshot there."""
    running = asyncio.create_task(opened.run())
    opened.settled()
    with suppress(CatalogError):
        await opened.wait(None, 0, 5)
    yield opened
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
