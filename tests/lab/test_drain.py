"""How long before a server stops taking connections its instance is out of lookups, on every node."""

from __future__ import annotations

import json
import shutil
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

import pytest

from scripts.lab.lab import Lab
from scripts.lab.node import Node
from tests.lab.services import HEALTH_CHECK, service

pytestmark = [pytest.mark.engine, pytest.mark.consul, pytest.mark.lab]

LINGER = 1.0  # seconds that a well-behaved server goes on after SIGTERM
REPLICAS = 6


class Watch:
    """When each address was last among the answers of a node's DNS (Unix time)."""

    def __init__(self, node: Node, name: str) -> None:
        self.last: dict[str, float] = {}
        self._node, self._name = node, name
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.005):
            asked = time.time()
            try:
                found = self._node.call(self._node.front.addresses, self._name)
            except OSError:  # the agent of a drained node is gone in the end
                return
            self.last.update(dict.fromkeys(found, asked))


def test_a_stopping_task_is_out_of_lookups_long_before_it_stops(
    lab: Lab, measured: Callable[[str], None]
) -> None:
    """When it is scaled down, and when its node is drained, whose agent and Consul are stopped as well."""
    told = lab.folder / "told"
    shutil.rmtree(told, ignore_errors=True)
    told.mkdir()
    mount = ("--mount", f"type=bind,source={told},target=/told")
    with service(lab, *HEALTH_CHECK, *mount, replicas=REPLICAS, linger=LINGER) as made, ExitStack() as stack:
        watches = [stack.enter_context(Watch(node, made.name)) for node in lab.nodes]
        made.scale(REPLICAS // 2)
        lab.manager.docker("node", "update", "--availability", "drain", "n3")
        try:
            made.settled(REPLICAS // 2, nodes=lab.nodes[:2])
        finally:
            lab.manager.docker("node", "update", "--availability", "active", "n3")
    stops = {file.name: json.loads(file.read_text()) for file in told.iterdir()}
    delays = [
        max(watch.last[address] for watch in watches) - times["told"]
        for address, times in stops.items()
        if all(address in watch.last for watch in watches)
    ]
    assert len(delays) > REPLICAS // 2
    leads = [LINGER - delay for delay in delays]
    measured(
        f"drain: out of every node's lookups {statistics.median(delays) * 1000:.0f} ms after the stop signal "
        f"(median of {len(delays)}, longest {max(delays) * 1000:.0f} ms): a server that goes on for "
        f"{LINGER:g} s is out for {min(leads):.2f} s or more before it stops"
    )
    assert min(leads) > 0
