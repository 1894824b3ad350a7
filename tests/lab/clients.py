"""Clients in containers that call a service without pause, and what they met."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.lab.node import Node
from scripts.lab.waiting import until
from tests.lab.services import LINK_LOCAL, NETWORK, TOOLS
from tests.lab.truth import alive, overlay
from tests.support.engine import unique

PROGRAM = Path(__file__).parent / "programs/client.py"


@dataclass(frozen=True)
class Failure:
    """A turn that failed: when it began (Unix time), the client's node, lookup or connect, with what."""

    at: float
    node: str
    stage: str
    where: tuple[str, int] | None
    error: str

    def __str__(self) -> str:
        return f"{self.at:.2f} {self.stage} from {self.node} to {self.where}: {self.error}"


@dataclass
class Clients:
    """One client on each node; what they met is told when they have stopped."""

    failures: list[Failure] = field(default_factory=list)
    served: list[dict[str, int]] = field(default_factory=list)  # by each: the answer, how often
    longest_gap: float = 0.0  # the longest time that one had to do without an answer, in seconds

    def tell(self, node: Node, report: dict[str, Any]) -> None:
        """Take in a client's report (programs/client.py)."""
        self.served.append(report["served"])
        self.longest_gap = max(self.longest_gap, report["longest_gap"])
        for at, stage, where, error in report["failures"]:
            self.failures.append(Failure(at, node.name, stage, where and tuple(where), error))

    @property
    def turns(self) -> int:
        """How many lookups were made, and connections to what they said."""
        return len(self.failures) + sum(sum(answers.values()) for answers in self.served)

    def __str__(self) -> str:
        """What they met; the first failures in full."""
        lines = [
            f"{self.turns} connections, {len(self.failures)} failed, longest wait {self.longest_gap:.2f} s"
        ]
        return "\n".join([*lines, *map(str, sorted(self.failures, key=lambda failure: failure.at)[:60])])


@contextmanager
def calling(
    nodes: Sequence[Node], name: str, port: str = "8000", network: str = NETWORK
) -> Iterator[Clients]:
    """Have a client on each node call a service meanwhile; by its overlay, if no other network is named.

    They begin when each has reached each instance at the address that its
    engine tells. An overlay lacks some ways for up to half a minute after a
    node was lost, and that is none of what is measured here.
    """
    clients, label = Clients(), unique("client")
    known = overlay(name, network) if port.isdigit() else []
    try:
        for node in nodes:
            node.docker(
                *("run", "--detach", "--name", label, "--network", network, "--dns", LINK_LOCAL, TOOLS),
                *("python3", "-c", PROGRAM.read_text(), f"{name}.service.consul", port, *known),
            )
        for node in nodes:
            until(lambda: "ready" in node.docker("logs", label), f"a client on {node.name}", 60)  # noqa: B023
        yield clients
        for node in nodes:
            node.docker("stop", "--time", "10", label)
            clients.tell(node, json.loads(node.docker("logs", label).splitlines()[-1]))
    finally:
        for node in filter(alive, nodes):
            node.docker("rm", "--force", label)
