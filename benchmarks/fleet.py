"""Containers by the hundred: made and removed four at a time, and never left behind."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tests.support.engine import IMAGE, LABEL, Docker

T = TypeVar("T")

AT_ONCE = 4  # the engine gains nothing from more on two cores
SETTLE = 5.0  # seconds that the engine has for what it does after so many starts
SERVICES = 20  # names that a fleet's containers share


@contextlib.contextmanager
def created(
    docker: Docker, number: int, labels: Mapping[str, str], command: Sequence[str], name: str = ""
) -> Iterator[list[str]]:
    """Containers that are not started yet; `name` is the prefix of their names ("": the engine's choice)."""
    ids: list[str] = []

    def create(index: int) -> None:
        container = docker.api.create_container(
            IMAGE,
            list(command),
            name=f"{name}-{index}" if name else None,
            labels={LABEL: "1", **{key: value.format(index % SERVICES) for key, value in labels.items()}},
            host_config=docker.api.create_host_config(network_mode="bridge"),
            ports=["80"],
        )
        ids.append(container["Id"])

    try:
        in_parallel(create, range(number))
        yield ids
    finally:
        in_parallel(docker.remove, ids)


@contextlib.contextmanager
def running(docker: Docker, number: int, name: str) -> Iterator[None]:
    """A fleet of containers that do nothing, each with one port, on the default bridge."""
    labels = {"SERVICE_NAME": f"{name}-{{}}", "SERVICE_TAGS": "bench,v1"}
    with created(docker, number, labels, ["sleep", "100000"], name) as ids:
        in_parallel(docker.start, ids)
        time.sleep(SETTLE)
        yield


def in_parallel(work: Callable[[T], None], items: Sequence[T]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(work, items))
