"""What the agent counts, as plain numbers that any room may raise for nothing.

`lookup.metrics` turns them into Prometheus' text when somebody asks, so that
no hot path pays for a metrics library and nothing heavy is imported at start.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# A rendered reply takes some ten microseconds, one that needs Consul some milliseconds.
LOOKUP = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 3.0)
# A timer may be 1 ms late by itself: epoll's own grain.
STALLS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0)


class Histogram:
    """How often something took how long: `counts[i]` times at most `bounds[i]` seconds, the last longer."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = QUICK) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        """Count one, or `times` that took as long; a clock that was set back gives 0."""
        seconds = max(0.0, seconds)
        self.counts[bisect_left(self.bounds, seconds)] += times
        self.total += seconds * times


@dataclass(slots=True)
class Stats:
    """Counters (only ever raised) and gauges (set to what holds now)."""

    # Counters.
    events: Counter[str] = field(default_factory=Counter)  # by Docker's action
    rounds: Counter[str] = field(default_factory=Counter)  # full reconciles: ok, failed
    writes: Counter[str] = field(default_factory=Counter)  # register, deregister, report
    write_failures: Counter[str] = field(default_factory=Counter)  # by the same kinds
    # By type, response code, transport (udp or tcp) and source (container or outside).
    dns_queries: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    dns_renders: int = 0  # replies that were not in the cache
    dns_limited: Counter[str] = field(default_factory=Counter)  # over the rate limit: slipped, dropped
    http_requests: Counter[tuple[str, int]] = field(default_factory=Counter)  # route, status
    recursions: Counter[str] = field(default_factory=Counter)  # answered, missing, failed, crowded
    recursor_hits: int = 0  # questions that recursors need not be asked again
    loads: Counter[str] = field(default_factory=Counter)  # services read for a lookup: ok, failed
    long_turns: int = 0  # turns of the event loop with over 1 ms of work
    drained: int = 0  # containers that were told to stop
    logged: Counter[str] = field(default_factory=Counter)  # log lines: warning, error
    limited: Counter[str] = field(default_factory=Counter)  # limits that were hit, by `Limit.name`
    malformed: Counter[str] = field(default_factory=Counter)  # documents' elements left out: consul, engine

    # How long things took.
    dns_seconds: Histogram = field(default_factory=lambda: Histogram(LOOKUP))
    http_seconds: Histogram = field(default_factory=Histogram)  # without what waits on purpose
    round_seconds: Histogram = field(default_factory=Histogram)  # full reconciles that succeeded
    event_lag: Histogram = field(default_factory=Histogram)  # the engine's event -> in the catalog
    loop_lag: Histogram = field(default_factory=lambda: Histogram(STALLS))  # a timer's lateness

    # Gauges.
    longest_turn: float = 0.0  # of the event loop since the start, in seconds
    ready: bool = False  # the first complete reconcile is over
    containers: int = 0  # running or paused on this node
    instances: int = 0  # registered from this node
    draining: int = 0  # containers told to stop that have not died yet
    dns_replies: int = 0  # in the cache of rendered replies
    dns_reply_octets: int = 0  # about what they take of memory
    recursor_cached: int = 0  # replies of recursors that are kept
    recursor_octets: int = 0  # about what they take of memory
    watched: int = 0  # services that are kept true by a blocking query of their own
