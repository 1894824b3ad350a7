"""What becomes of nodes: paused, drained, gone, dead, cut off, restarted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from scripts.lab.lab import Lab
from scripts.lab.node import Node
from scripts.lab.waiting import until
from tests.lab.clients import calling
from tests.lab.services import HEALTH_CHECK, service
from tests.lab.truth import agree, answered, registered

pytestmark = [pytest.mark.engine, pytest.mark.consul, pytest.mark.lab]


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
    """Paused: its tasks stay in lookups, and no new ones come. Drained: they leave, and nobody notices."""
    first, second, third = lab.nodes
    spread = ("--placement-pref", "spread=node.hostname")
    with (
        service(lab, *HEALTH_CHECK, *spread, replicas=3) as made,
        calling([first, second], made.name) as clients,
    ):
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
    measured(f"node paused, drained, active again: {clients}")
    assert not clients.failures, clients


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
        until(lambda: lab.state(third) == "down", "the manager knows")
        lab.manager.docker("node", "rm", third.name)
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
    for that moment the dead may be answered with. At no other time.
    """
    first, second, third = lab.nodes
    with (
        service(lab, *HEALTH_CHECK, "--mode", "global", replicas=3) as made,
        calling([first, second], made.name) as clients,
    ):
        dead = time.time()
        third.kill()
        gone = seconds_without(third, [first, second], made.name)
        until(lambda: lab.state(third) == "down", "the manager knows")
        booting = time.time()
        third.start()
        made.settled(3)
        agree(lab)
        back = time.time()
    allowed = (dead - 1, dead + gone + 1), (booting - 1, back)  # a turn may have begun a moment before
    late = [f for f in clients.failures if not any(begin <= f.at <= end for begin, end in allowed)]
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
