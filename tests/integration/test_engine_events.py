"""What happens to containers on a real engine arrives as wake-ups, and survives the engine itself."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator

import pytest

from registrator.engine import DockerEngine, Unreachable
from registrator.engine.subscription import FILTERS
from registrator.model import Event
from registrator.stats import Stats
from tests.integration.engine_watch import Watch, watching
from tests.support.engine import STUBBORN, Docker, PrivateEngine, health, unique, wait_for

pytestmark = pytest.mark.engine


@pytest.fixture
def stats() -> Stats:
    return Stats()


@pytest.fixture
async def watch(engine_url: str, stats: Stats) -> AsyncIterator[Watch]:
    async with DockerEngine(engine_url, stats=stats) as engine, watching(engine) as watch:
        yield watch


async def test_a_containers_life(docker: Docker, watch: Watch, stats: Stats) -> None:
    """Start, pause, unpause, rename, update, kill with its signal, die and destroy arrive in order."""
    container = await asyncio.to_thread(docker.run)
    await watch.expect(Event(container, "start"))
    await asyncio.to_thread(docker.pause, container)
    await asyncio.to_thread(docker.unpause, container)
    await asyncio.to_thread(docker.rename, container, unique("renamed"))
    await asyncio.to_thread(docker.api.update_container, container, cpu_shares=512)
    await asyncio.to_thread(docker.kill, container, signal.SIGTERM)
    await watch.expect(*(Event(container, action) for action in ("pause", "unpause", "rename", "update")))
    await watch.expect(Event(container, "kill", signal.SIGTERM), Event(container, "die"))
    await asyncio.to_thread(docker.remove, container)
    await watch.expect(Event(container, "destroy"))
    assert stats.events["start"] >= 1
    assert stats.events["kill"] >= 1


async def test_stop_of_a_stubborn_container(docker: Docker, watch: Watch) -> None:
    """`docker stop` is a kill by the stop signal first, which is when draining begins."""
    container = await asyncio.to_thread(docker.run, command=STUBBORN, stop_signal="SIGQUIT")
    await asyncio.to_thread(docker.stop, container, 1)
    await watch.expect(Event(container, "kill", signal.SIGQUIT), Event(container, "kill", signal.SIGKILL))
    await watch.expect(Event(container, "die"))


async def test_network_connect_and_disconnect(docker: Docker, watch: Watch) -> None:
    """A network's events wake the container that joined or left."""
    network = await asyncio.to_thread(docker.network)
    container = await asyncio.to_thread(docker.run)
    await watch.expect(Event(container, "start"))
    await asyncio.to_thread(docker.connect, network, container)
    await watch.expect(Event(container, "connect"))
    await asyncio.to_thread(docker.disconnect, network, container)
    await watch.expect(Event(container, "disconnect"))


async def test_health_transitions(docker: Docker, watch: Watch) -> None:
    """Each transition of a container's health arrives."""
    check = health("test -e /tmp/well")
    container = await asyncio.to_thread(docker.run, healthcheck=check)
    await watch.expect(Event(container, "start"), Event(container, "health_status"))
    await asyncio.to_thread(docker.exec, container, "touch", "/tmp/well")
    await watch.expect(Event(container, "health_status"))


async def test_the_noise_of_health_checks_stays_in_the_engine(docker: Docker) -> None:
    """The engine itself holds back the exec_* events of health checks, and lets their outcome through."""
    begin = time.time()
    container = await asyncio.to_thread(docker.run, healthcheck=health("true"))
    await asyncio.to_thread(docker.wait_health, container)

    def actions(**options: object) -> set[str]:
        """The kinds of events that the engine has to tell of the container since the test began."""
        past = docker.api.events(since=f"{begin:.9f}", until=f"{time.time():.9f}", decode=True, **options)
        return {event["Action"] for event in past if event["Actor"]["ID"] == container}

    everything = await asyncio.to_thread(actions)
    passed = await asyncio.to_thread(actions, filters=FILTERS)
    assert any(action.startswith("exec_") for action in everything)
    # The engine filters by name alone: a Swarm service's create lets a container's through.
    assert passed == {"create", "start", "health_status: healthy"}


async def test_closing_is_quick(engine_url: str) -> None:
    """An engine is let go of within a fraction of a second, while its events are being waited for."""
    loop = asyncio.get_running_loop()
    async with DockerEngine(engine_url, stats=Stats()) as engine, watching(engine):
        begin = loop.time()
    assert loop.time() - begin < 0.4


async def test_the_engine_is_killed_and_comes_back(
    private_engine: PrivateEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """A killed engine fails reads; when it is back there is an empty event, and all later ones."""
    caplog.set_level(logging.INFO, "registrator.engine")
    docker = Docker(private_engine.url)
    try:
        async with DockerEngine(private_engine.url, stats=Stats()) as engine, watching(engine) as watch:
            before = await asyncio.to_thread(docker.run)
            await watch.expect(Event(before, "start"))
            await asyncio.to_thread(private_engine.kill)
            with pytest.raises(Unreachable):
                await engine.containers()
            await asyncio.to_thread(wait_for, lambda: caplog.messages, "complaint")
            await asyncio.to_thread(private_engine.start)
            await watch.expect(Event(), timeout=5)
            assert before not in [listed.id for listed in await engine.containers()]
            after = await asyncio.to_thread(docker.run)
            await watch.expect(Event(after, "start"))
    finally:
        docker.cleanup()
    assert caplog.messages[-1] == f"the Docker engine at {private_engine.url} is back"
