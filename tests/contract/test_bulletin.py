"""What managers tell and all agents read of a Swarm's services, in both catalogs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace

import pytest

from registrator.catalog import Bulletin
from registrator.model import Failure, MeshPort, SwarmService

WEB = SwarmService(
    "svc-web",
    "shop_web",
    {"SERVICE_NAME": "web", "note": "née «quoted»\n"},
    (MeshPort(53, "udp", 5300), MeshPort(80, "tcp", 8080)),
    "replicated",
    3,
)
AGENT = SwarmService("svc-agent", "agent", mode="global")


def listing(*services: SwarmService) -> Callable[[], Awaitable[list[SwarmService]]]:
    async def read() -> list[SwarmService]:
        return list(services)

    return read


class Reader:
    """Reads what is published, of the test's own services alone: the Consul is shared."""

    def __init__(self, bulletin: Bulletin, token: str) -> None:
        self._published = bulletin.published()
        self._token = token
        self.latest: Mapping[str, SwarmService] = {}

    async def until(self, *services: SwarmService) -> None:
        """Return when exactly these services are published."""
        wanted = {service.id: service for service in services}
        async with asyncio.timeout(5):
            while True:
                everything = await anext(self._published)
                self.latest = {key: s for key, s in everything.items() if key.endswith(self._token)}
                if self.latest == wanted:
                    return


@pytest.fixture
async def bulletin(opened: Bulletin, token: str) -> AsyncIterator[Bulletin]:
    """A catalog in which nothing of the test's clusters is left."""
    yield opened
    for cluster in ("one", "two"):
        await opened.publish(f"{cluster}-{token}", listing())


@pytest.fixture
def reader(bulletin: Bulletin, token: str) -> Reader:
    return Reader(bulletin, token)


@pytest.fixture
def web(token: str) -> SwarmService:
    return replace(WEB, id=f"{WEB.id}-{token}")


@pytest.fixture
def agent(token: str) -> SwarmService:
    return replace(AGENT, id=f"{AGENT.id}-{token}")


async def test_what_is_published_is_read_as_it_was(
    bulletin: Bulletin, reader: Reader, token: str, web: SwarmService, agent: SwarmService
) -> None:
    """Labels in any script, ports, mode and replicas come back equal."""
    await bulletin.publish(f"one-{token}", listing(web, agent))
    await reader.until(web, agent)


async def test_a_change_and_a_removal_follow(
    bulletin: Bulletin, reader: Reader, token: str, web: SwarmService, agent: SwarmService
) -> None:
    """A reader is told of each; a service that the listing leaves out is gone."""
    await bulletin.publish(f"one-{token}", listing(web))
    await reader.until(web)
    changed = replace(web, replicas=5)
    await bulletin.publish(f"one-{token}", listing(changed, agent))
    await reader.until(changed, agent)
    await bulletin.publish(f"one-{token}", listing(agent))
    await reader.until(agent)


async def test_clusters_are_kept_apart(
    bulletin: Bulletin, reader: Reader, token: str, web: SwarmService, agent: SwarmService
) -> None:
    """A complete listing of one cluster says nothing of another's services."""
    await bulletin.publish(f"one-{token}", listing(web))
    await bulletin.publish(f"two-{token}", listing(agent))
    await reader.until(web, agent)
    await bulletin.publish(f"two-{token}", listing())
    await reader.until(web)


async def test_a_listing_that_fails_deletes_nothing(
    bulletin: Bulletin, reader: Reader, token: str, web: SwarmService
) -> None:
    """Its failure is raised, and what was published stays."""

    async def fail() -> list[SwarmService]:
        raise Failure("the swarm does not have a leader")

    await bulletin.publish(f"one-{token}", listing(web))
    with pytest.raises(Failure, match="leader"):
        await bulletin.publish(f"one-{token}", fail)
    await reader.until(web)


async def test_what_is_not_news_is_not_told(bulletin: Bulletin, token: str, web: SwarmService) -> None:
    """Publishing the same again wakes no reader."""
    await bulletin.publish(f"one-{token}", listing(web))
    published = bulletin.published()
    await anext(published)
    next_one = asyncio.ensure_future(anext(published))
    for _ in range(3):
        await bulletin.publish(f"one-{token}", listing(web))
    done, _ = await asyncio.wait([next_one], timeout=0.2)
    next_one.cancel()
    assert not any(web.id in task.result() for task in done)


async def test_a_reader_that_comes_first_is_told_of_nothing_at_once(bulletin: Bulletin) -> None:
    """Nobody waits for managers that do not speak."""
    async with asyncio.timeout(5):
        await anext(bulletin.published())


async def test_managers_that_publish_at_the_same_time_agree(
    bulletin: Bulletin, reader: Reader, token: str, web: SwarmService, agent: SwarmService
) -> None:
    """Seven managers with the same listing, as after one event, leave it published, and none fails."""
    await bulletin.publish(f"one-{token}", listing(web))
    changed = replace(web, replicas=9)
    await asyncio.gather(*(bulletin.publish(f"one-{token}", listing(changed, agent)) for _ in range(7)))
    await reader.until(changed, agent)
