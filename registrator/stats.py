"""What the agent counts, as plain numbers that any room may raise for nothing.

`lookup.metrics` turns them into Prometheus' text when somebody asks, so that
no hot path pays for a metrics library and nothing heavy is imported at start.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stats:
    """Counters (only ever raised) and gauges (set to what holds now)."""

    # Counters.
    events: Counter[str] = field(default_factory=Counter)  # by Docker's action
    rounds: Counter[str] = field(default_factory=Counter)  # full reconciles: ok, failed
    writes: Counter[str] = field(default_factory=Counter)  # register, deregister, report
    write_failures: Counter[str] = field(default_factory=Counter)  # by the same kinds
    dns_queries: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # type, rcode, udp or tcp
    http_requests: Counter[tuple[str, int]] = field(default_factory=Counter)  # route, status

    # Gauges.
    ready: bool = False  # the first complete reconcile is over
    containers: int = 0  # running or paused on this node
    instances: int = 0  # registered from this node
    draining: int = 0  # containers told to stop that have not died yet
