"""Never wrong for longer than a second: bursts of starts, kills and lives that end at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.consul import ConsulServer
from tests.support.engine import Docker
from tests.support.truth import Stage, at_once

pytestmark = [pytest.mark.engine, pytest.mark.consul]


@pytest.fixture
def stage(tmp_path: Path, docker: Docker, consul: ConsulServer) -> Iterator[Stage]:
    stage = Stage(tmp_path, docker, consul)
    try:
        stage.agent.start_ready()
        yield stage
    finally:
        stage.close()


def lives(count: int) -> list[dict[str, Any]]:
    """Every tenth on the bridge, where starting and dying take longer; five services."""
    return [
        {"service": f"churn-{n % 5}", **({"network_mode": "bridge"} if n % 10 == 0 else {})}
        for n in range(count)
    ]


@pytest.mark.parametrize("run", [1, 2])
def test_a_hundred_starts_and_a_hundred_kills_four_at_a_time(stage: Stage, run: int) -> None:
    at_once(lambda life: stage.start(**life), lives(20), 4)
    stage.settle()
    stage.churn(lives(100), workers=4)
    stage.settle()


def test_two_hundred_containers_that_exit_at_once_eight_at_a_time(stage: Stage) -> None:
    at_once(lambda life: stage.start(**life, command=["true"]), lives(200), 8)
    stage.start("survivor")
    stage.settle()
