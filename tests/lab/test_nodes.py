"""What becomes of nodes: paused, drained, gone, dead, cut off, restarted."""

from __future__ import annotations

import json
import shutil
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import pytest

from scripts.lab.lab import Lab
from scripts.lab.node import Node
from scripts.lab.waiting import until
from tests.lab.clients import calling
from tests.lab.programs.client import TIMEOUT
from tests.lab.services import HEALTH_CHECK, service
from tests.lab.truth import agree, answered, registered

pytestmark = [pytest.mark.engine, pytest.mark.consul, pytest.mark.lab]

LINGER = 1.0  # seconds that a well-behaved server goes on after SIGTERM


def seconds_without(node: Node, asked: Sequence[Node], name: str, limit: float = 60.0) -> float:
    """How long from now until none of the asked answers with an instance of a service on a node."""
    began = time.monotonic()
    until(
        lambda: not any(where == node.name for one in asked for _, where, _ in answered(one, [name])),
        f"{node.name} out of the lookups of {name}",
        limit,
        pause=0.02,
    )
    return time.monotonic() - began


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


@contextmanager
def availability(lab: Lab, node: Node, value: str) -> Iterator[None]:
    """A node paused or drained meanwhile, and active again, with all that it runs, afterwards."""
    lab.manager.docker("node", "update", "--availability", value, node.name)
    try:
        yield
    finally:
        lab.manager.docker("node", "update", "--availability", "active", node.name)


def test_a_paused_node_keeps_its_tasks_and_a_drained_one_fails_nobody(
    lab: Lab, measured: Callable[[str], None]
) -> None:
    """Paused: its tasks stay in lookups, and no new ones come. Drained: they leave, and nobody notices.

    Drained or scaled down, each instance is out of all nodes' lookups before its
    server stops taking connections, though a drained node stops its agent and
    its Consul at the same time.
    """
    first, second, third = lab.nodes
    told = lab.folder / "told"
    shutil.rmtree(told, ignore_errors=True)
    told.mkdir()
    options = (
        *("--placement-pref", "spread=node.hostname"),
        *("--mount", f"type=bind,source={told},target=/told"),
    )
    with (
        service(lab, *HEALTH_CHECK, *options, replicas=3, linger=LINGER) as made,
        ExitStack() as stack,
        calling([first, second], made.name) as clients,
    ):
        watches = [stack.enter_context(Watch(node, made.name)) for node in lab.nodes]
        before = agree(lab, names=[made.name])
        with availability(lab, third, "pause"):
            made.scale(5)
            paused = agree(lab, names=[made.name])
            assert before < paused
            assert third.name not in {node for _, node, _ in paused - before}
        with availability(lab, third, "drain"):
            drained = made.settled(5, nodes=[first, second])
            assert {node for _, node, _ in drained} == {first.name, second.name}
            until(lambda: not third.api.containers(), "no task on the drained node")
            assert "169.254.53.53" not in third.run("ip", "address", "show", "dev", "lo")
        agree(lab)
        made.scale(1)
    measured(f"node paused, drained, active again, service scaled down: {clients}")
    assert not clients.failures, clients
    leads = [LINGER - delay for delay in delays(told, watches)]
    measured(
        f"drain: out of every node's lookups {(LINGER - statistics.median(leads)) * 1000:.0f} ms after the "
        f"stop signal (median of {len(leads)}, longest {(LINGER - min(leads)) * 1000:.0f} ms)"
    )
    assert len(leads) >= 4
    assert min(leads) > 0


def delays(told: Path, watches: Sequence[Watch]) -> list[float]:
    """Seconds from each server's stop signal until it was last answered with (programs/server.py tells)."""
    stops = {file.name: json.loads(file.read_text()) for file in told.iterdir()}
    return [
        max(watch.last.get(address, 0.0) for watch in watches) - times["told"]
        for address, times in stops.items()
        if any(address in watch.last for watch in watches)
    ]


def test_a_node_that_leaves_the_swarm_is_out_of_lookups_and_may_come_back(
    lab: Lab, measured: Callable[[str], None]
) -> None:
    """`swarm leave` kills its tasks, agent and Consul at once; it comes back as another node of the Swarm."""
    first, second, third = lab.nodes
    with service(lab, *HEALTH_CHECK, "--mode", "global", replicas=3) as made:
        left = time.monotonic()
        third.docker("swarm", "leave")
        seconds_without(third, [first, second], made.name)
        gone = time.monotonic() - left
        lab.manager.docker("node", "rm", "--force", third.name)
        agree(lab, nodes=[first, second])
        lab.join(third)
        made.settled(3)
        agree(lab)
    measured(f"node left the swarm: out of lookups after {gone:.1f} s")


def test_a_killed_node_is_out_of_lookups_as_soon_as_serf_says_so(
    lab: Lab, measured: Callable[[str], None]
) -> None:
    """The plug is pulled: engine, Consul, agent and tasks end at once. Then it boots again.

    Its Consul has kept what it knew, and its agent must come to say what died:
    for that moment the dead may be answered with. Never later.
    """
    first, second, third = lab.nodes
    with (
        service(lab, *HEALTH_CHECK, "--mode", "global", replicas=3) as made,
        calling([first, second], made.name) as clients,
    ):
        dead = time.time()
        third.kill()
        gone = seconds_without(third, [first, second], made.name)
        booting = time.time()
        third.start()
        made.settled(3)
        agree(lab)
        back = time.time()
    # A turn may have begun a moment before.
    late = [failure for failure in clients.failures if not dead - TIMEOUT < failure.at < back]
    measured(
        f"node killed: out of lookups after {gone:.1f} s; all agree {back - booting:.1f} s after it is "
        f"switched on; {clients}"
    )
    assert not late, clients


def test_a_manager_restarted_fails_nobody_on_the_others(lab: Lab, measured: Callable[[str], None]) -> None:
    """The only manager boots anew: workers' lookups go on, and what managers alone know is told again."""
    first, second, third = lab.nodes
    away = ("--constraint", "node.role == worker")
    with (
        service(lab, *HEALTH_CHECK, *away, replicas=2) as made,
        calling([second, third], made.name) as clients,
    ):
        first.kill()
        # No machine is back before the others have missed it.
        until(lambda: not any(node == first.name for _, node, _ in registered(second)), "its end")
        first.start()
        booted = time.monotonic()
        until(lambda: lab.state(third) == "ready", "the manager has its Swarm again")
        made.settled(2)
        agree(lab)
        back = time.monotonic() - booted
        made.scale(3)
    measured(f"manager restarted: all agree {back:.1f} s after it booted; {clients}")
    assert not clients.failures, clients
