"""A Consul server fails, or is cut off from the two others: what lookups and registrations notice of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from scripts.lab.lab import Lab
from scripts.lab.node import Node
from scripts.lab.waiting import until
from tests.lab.clients import Clients, calling
from tests.lab.services import TOOLS, Service
from tests.lab.truth import agree, answered, container_of, get

LATE = "late"  # the container that is started during an outage


@dataclass
class Outage:
    """What was measured of one, in seconds from its beginning; `clients` only look up, one on each node."""

    clients: Clients = field(default_factory=Clients)
    elected: float = 0.0  # until the other two have a leader, where the server was theirs; else 0
    registered: float = 0.0  # until both answer with what was started on one of them meanwhile
    out: float = 0.0  # until both answer with nothing of the node that is cut off
    converged: float = 0.0  # until all agree, counted from the end of what was done to the server

    def __str__(self) -> str:
        """All figures in a line."""
        elected = f"a leader after {self.elected:.1f} s, " if self.elected else ""
        return (
            f"{elected}what was started meanwhile in lookups after "
            f"{self.registered:.1f} s, all agree {self.converged:.1f} s after its end; "
            f"looked up {self.clients.turns} times on all nodes, {len(self.clients.failures)} failed, "
            f"longest wait {self.clients.longest_gap:.2f} s"
        )


def leader(lab: Lab, asked: Node) -> Node:
    """The node of Consul's leader, by the word of a server. Raises OSError where it knows none."""
    address = get(asked, 8500, "/v1/status/leader").partition(":")[0]
    for node in lab.nodes:
        if node.address == address:
            return node
    raise OSError(f"{asked.name}'s Consul knows no leader")


def worker_leads(lab: Lab) -> Node:
    """See to it that Consul's leader is not on the Swarm's only manager; the leader's node."""
    while leader(lab, lab.nodes[1]) == lab.manager:
        kill_consul(lab.manager)
        until(lambda: leader(lab, lab.nodes[1]) != lab.manager, "another leader")
        until(lambda: leader(lab, lab.manager), "the manager's Consul is back")
    return leader(lab, lab.nodes[1])


def kill_consul(node: Node) -> None:
    """`kill -9` for a node's Consul; Swarm starts it again after a second."""
    node.docker("kill", container_of(node, "demo_consul"))


def killed(lab: Lab, made: Service, *, leading: bool) -> Outage:
    """A server is killed, the leader or another; a container is started at that very moment."""
    first = leader(lab, lab.manager)
    victim = first if leading else next(node for node in reversed(lab.nodes) if node != first)
    others = [node for node in lab.nodes if node != victim]
    with _outage(lab, made) as outage:
        kill_consul(victim)
        began = time.monotonic()
        container = _start(others[0], made)
        if leading:
            outage.elected = _until_led(lab, others, victim, began)
        outage.registered = _until_answered(others, made, container, began)
        agree(lab, 60)
        outage.converged = time.monotonic() - began
    return outage


def cut_off(lab: Lab, made: Service, victim: Node) -> Outage:
    """No frame passes between the leader's node and the others, until they have gone on without it.

    One of its tasks dies meanwhile; then the cable is mended.
    """
    others = [node for node in lab.nodes if node != victim]
    with _outage(lab, made) as outage:
        victim.partition()
        began = time.monotonic()
        try:
            outage.elected = _until_led(lab, others, victim, began)
            outage.registered = _until_answered(others, made, _start(others[0], made), began)
            until(lambda: victim.name not in where(others, made.name), f"{victim.name} out of lookups")
            outage.out = time.monotonic() - began
            lost = victim.docker("ps", "--quiet", "--no-trunc", "--filter", f"name={made.name}")
            victim.docker("kill", lost)
        finally:
            victim.heal()
        healed = time.monotonic()
        agree(lab, 60)
        outage.converged = time.monotonic() - healed
        assert lost not in {key for node in lab.nodes for _, _, key in answered(node, [made.name])}
    return outage


def where(asked: Sequence[Node], name: str) -> set[str]:
    """The nodes of the instances of a service with which any of the asked answers."""
    return {node for one in asked for _, node, _ in answered(one, [name])}


@contextmanager
def _outage(lab: Lab, made: Service) -> Iterator[Outage]:
    """Clients that look a service up on every node meanwhile; what was started is removed in the end."""
    outage = Outage()
    try:
        with calling(lab.nodes, made.name, port="none") as outage.clients:
            yield outage
    finally:
        for node in lab.nodes:
            node.docker("rm", "--force", LATE)


def _start(node: Node, made: Service) -> str:
    """Start one more instance of a service; the container's id."""
    labels = ("--label", f"SERVICE_NAME={made.name}", "--label", "SERVICE_PORT=8000")
    return node.docker("run", "--detach", "--name", LATE, *labels, TOOLS)


def _until_led(lab: Lab, nodes: Sequence[Node], former: Node, began: float) -> float:
    """Seconds from `began` until these nodes' servers have another leader than before."""
    until(lambda: all(leader(lab, node) != former for node in nodes), "another leader", pause=0.02)
    return time.monotonic() - began


def _until_answered(nodes: Sequence[Node], made: Service, container: str, began: float) -> float:
    """Seconds from `began` until these nodes answer with a container."""
    until(
        lambda: all(container in {key for _, _, key in answered(node, [made.name])} for node in nodes),
        "what was started meanwhile, in lookups",
        pause=0.02,
    )
    return time.monotonic() - began
