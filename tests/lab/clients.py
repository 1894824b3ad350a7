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
from tests.lab.truth import alive
from tests.support.engine import unique

PROGRAM = Path(__file__).parent / "programs/client.py"


@dataclass(frozen=True)
class Report:
    """What one client met; see programs/client.py. A failure is [Unix time, stage, where, error]."""

    served: dict[str, int]
    failures: list[list[Any]]
    longest_gap: float


@dataclass
class Clients:
    """One client on each node; their reports are there when they have stopped."""

    reports: list[Report] = field(default_factory=list)

    @property
    def failures(self) -> list[list[Any]]:
        return [failure for report in self.reports for failure in report.failures]

    @property
    def turns(self) -> int:
        return sum(sum(report.served.values()) + len(report.failures) for report in self.reports)

    @property
    def longest_gap(self) -> float:
        """The longest time in which some client got no answer, in seconds."""
        return max(report.longest_gap for report in self.reports)

    def __str__(self) -> str:
        return (
            f"{self.turns} lookups and connections, {len(self.failures)} failed, "
            f"longest wait {self.longest_gap * 1000:.0f} ms"
        )


@contextmanager
def calling(
    nodes: Sequence[Node], name: str, port: str = "8000", network: str = NETWORK
) -> Iterator[Clients]:
    """Have a client on each node call a service meanwhile; by its overlay, if no other network is named."""
    clients, label = Clients(), unique("client")
    try:
        for node in nodes:
            node.docker(
                *("run", "--detach", "--name", label, "--network", network, "--dns", LINK_LOCAL, TOOLS),
                *("python3", "-c", PROGRAM.read_text(), f"{name}.service.consul", port),
            )
        for node in nodes:
            until(lambda: "ready" in node.docker("logs", label), f"a client on {node.name}", 10)  # noqa: B023
        yield clients
        for node in nodes:
            node.docker("stop", "--time", "10", label)
            clients.reports.append(Report(**json.loads(node.docker("logs", label).splitlines()[-1])))
    finally:
        for node in filter(alive, nodes):
            node.docker("rm", "--force", label)
