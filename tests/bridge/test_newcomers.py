"""Askers that may be too new to be known: who waits, for what, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from registrator.bridge import newcomers
from registrator.bridge.lanes import Lanes
from registrator.bridge.newcomers import MAX_STRANGERS, MAX_WAITING, STRANGER_FOR, Newcomers
from registrator.bridge.views import Views
from registrator.model import Attachment, Container

IP = "10.0.1.5"
NEW = Container(
    id="e" * 64, name="new", image="i", state="running", networks=(Attachment("app", "f" * 64, IP),)
)


class Scene:
    """Lanes whose looks end when they are told to, and then know the new container."""

    def __init__(self) -> None:
        self.now = 0.0
        self.views = Views()
        self.answered = asyncio.Event()
        self.lanes = Lanes(self._look)
        self.newcomers = Newcomers(self.views, self.lanes, lambda: self.now)

    async def _look(self, key: str) -> bool:
        await self.answered.wait()
        if key == NEW.id:
            self.views.put(NEW)
        return False


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    yield scene
    await scene.lanes.close()


async def test_nobody_waits_while_nothing_is_looked_at(scene: Scene) -> None:
    assert not scene.newcomers.may_be(IP)


async def test_a_container_is_known_when_the_look_at_it_is_over(scene: Scene) -> None:
    scene.lanes.touch(NEW.id)
    assert scene.newcomers.may_be(IP)
    waiting = asyncio.create_task(scene.newcomers.wait(IP))
    await asyncio.sleep(0)
    assert not waiting.done()
    scene.answered.set()
    await waiting
    assert scene.views.knows(IP)
    scene.lanes.touch("another")
    assert not scene.newcomers.may_be(IP), "it is known now"


async def test_a_host_waits_once_in_a_while(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is no container has to wait only once in ten seconds, and never long, whatever the engine does."""
    monkeypatch.setattr(newcomers, "PATIENCE", 0.01)
    scene.lanes.touch("stuck")
    await scene.newcomers.wait(IP)
    assert not scene.newcomers.may_be(IP)
    scene.now = STRANGER_FOR
    assert scene.newcomers.may_be(IP)


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1", "8.8.8.8", "2600::1", "nonsense", ""])
async def test_whose_address_is_no_containers_never_waits(scene: Scene, ip: str) -> None:
    scene.lanes.touch("stuck")
    assert not scene.newcomers.may_be(ip)


async def test_a_crowd_does_not_wait(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few wait at a time, and few are remembered: the others are answered at once, as hosts are."""
    monkeypatch.setattr(newcomers, "PATIENCE", 0.01)
    scene.lanes.touch("stuck")
    crowd = [asyncio.create_task(scene.newcomers.wait(f"10.1.{n >> 8}.{n & 255}")) for n in range(2000)]
    await asyncio.sleep(0)
    assert not scene.newcomers.may_be(IP)
    await asyncio.gather(*crowd)
    assert scene.newcomers.may_be(IP)
    assert len(scene.newcomers._strangers) == MAX_STRANGERS
    assert len(crowd) > MAX_WAITING
