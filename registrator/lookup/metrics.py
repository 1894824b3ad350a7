"""Prometheus' text of what the agent counted: a collector over `Stats`, made when it is asked for.

Importing prometheus_client takes 12 ms and 1 MB, so this module is
imported by the first scrape and not by the agent's start. The names follow
https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from registrator import __version__
from registrator.catalog import Directory
from registrator.limits import all_limits
from registrator.printable import printable
from registrator.stats import Histogram, Stats


class Metrics:
    """Everything that `/metrics` shows, in a registry of its own."""

    def __init__(self, stats: Stats, directory: Directory) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(StatsCollector(stats, directory))
        ProcessCollector(registry=self._registry)

    def families(self) -> Iterator[Metric]:
        """Yield one metric family after the other, for `exposition`."""
        return iter(self._registry.collect())

    def render(self) -> bytes:
        """All of them."""
        return b"".join(map(exposition, self.families()))


def exposition(family: Metric) -> bytes:
    """One family in the exposition, version 0.0.4 of the text format."""
    return generate_latest(_One(family))


class _One(CollectorRegistry):
    """A registry that holds one family, already collected."""

    def __init__(self, family: Metric) -> None:
        super().__init__(auto_describe=False)
        self._family = family

    def collect(self) -> Iterator[Metric]:
        """Yield it."""
        yield self._family


class StatsCollector(Collector):
    """Reads `Stats` and the directory's state at each scrape; keeps nothing."""

    def __init__(self, stats: Stats, directory: Directory) -> None:
        self._stats = stats
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        """Yield one metric family after the other."""
        info = InfoMetricFamily("registrator", "The running version.")
        info.add_metric([], {"version": __version__})
        yield info
        yield from self._counters()
        yield from self._histograms()
        yield from self._gauges()

    def _counters(self) -> Iterator[Metric]:
        stats = self._stats
        results, kinds = ("ok", "failed"), ("register", "deregister", "report")
        yield _counter("events", "Events received from the Docker engine.", ["action"], stats.events)
        yield _counter("reconcile_rounds", "Full reconciles.", ["result"], stats.rounds, results)
        yield _counter("catalog_writes", "Writes to the catalog.", ["kind"], stats.writes, kinds)
        yield _counter("catalog_write_failures", "Writes that failed.", ["kind"], stats.write_failures, kinds)
        yield _counter(
            "dns_queries",
            "DNS queries answered.",
            ["type", "rcode", "transport", "source"],
            stats.dns_queries,
        )
        yield _counter("dns_renders", "DNS replies that were not in the cache.", [], {(): stats.dns_renders})
        actions = ("slipped", "dropped")
        yield _counter(
            "dns_limited", "DNS queries over the rate limit.", ["action"], stats.dns_limited, actions
        )
        outcomes = ("answered", "missing", "failed", "crowded")
        yield _counter(
            "recursor_queries", "Questions forwarded to recursors.", ["outcome"], stats.recursions, outcomes
        )
        yield _counter(
            "recursor_cache_hits", "Questions that their cache answered.", [], {(): stats.recursor_hits}
        )
        yield _counter("http_requests", "HTTP requests answered.", ["route", "status"], stats.http_requests)
        yield _counter(
            "directory_loads", "Services read from Consul for a lookup.", ["result"], stats.loads, results
        )
        yield _counter(
            "long_loop_turns", "Turns of the event loop with over 1 ms of work.", [], {(): stats.long_turns}
        )
        yield _counter(
            "drained_containers", "Containers taken out on their stop signal.", [], {(): stats.drained}
        )
        levels = ("warning", "error")
        yield _counter("log_lines", "Log lines that tell of trouble.", ["level"], stats.logged, levels)
        sources = ("consul", "engine")
        yield _counter(
            "malformed",
            "Elements of documents, or whole ones, that could not be used.",
            ["source"],
            stats.malformed,
            sources,
        )
        known = [limit.name for limit in all_limits()]
        yield _counter("limited", "Inputs that went over a limit.", ["limit"], stats.limited, known)

    def _histograms(self) -> Iterator[Metric]:
        stats = self._stats
        yield _histogram(
            "dns_seconds",
            "DNS queries; those answered at once each count with the time of their whole burst.",
            stats.dns_seconds,
        )
        yield _histogram(
            "http_request_seconds", "HTTP requests, without blocking queries and streams.", stats.http_seconds
        )
        yield _histogram("reconcile_round_seconds", "Full reconciles that succeeded.", stats.round_seconds)
        yield _histogram(
            "event_lag_seconds", "From the engine's own time of an event to the catalog.", stats.event_lag
        )
        yield _histogram(
            "loop_lag_seconds", "How late a timer of the event loop is, at each sample.", stats.loop_lag
        )

    def _gauges(self) -> Iterator[Metric]:
        stats = self._stats
        snapshot = self._directory.snapshot
        yield _gauge("ready", "1 when the first complete reconcile is over.", stats.ready)
        yield _gauge("containers", "Containers of this node that are running or paused.", stats.containers)
        yield _gauge("instances", "Instances registered from this node.", stats.instances)
        yield _gauge(
            "longest_loop_turn_seconds", "The longest turn of the event loop so far.", stats.longest_turn
        )
        yield _gauge("draining", "Containers told to stop that have not ended yet.", stats.draining)
        yield _gauge("dns_cached_replies", "Rendered DNS replies that are kept.", stats.dns_replies)
        yield _gauge(
            "dns_cached_reply_octets", "About how much memory they take, in octets.", stats.dns_reply_octets
        )
        yield _gauge("recursor_cached_replies", "Replies of recursors that are kept.", stats.recursor_cached)
        yield _gauge(
            "recursor_cached_octets", "About how much memory they take, in octets.", stats.recursor_octets
        )
        yield _gauge("directory_watches", "Services with a blocking query of their own.", stats.watched)
        yield _gauge(
            "snapshot_present", "1 when lookups have a snapshot of the catalog.", snapshot is not None
        )
        yield _gauge("services", "Service names in the snapshot.", len(snapshot.names) if snapshot else 0)
        yield _gauge(
            "snapshot_age_seconds",
            "Seconds since the snapshot was last known to be true; 0 while in contact.",
            self._directory.age,
        )


def _counter(
    name: str,
    text: str,
    labels: Sequence[str],
    values: Mapping[Any, int],
    known: Iterable[str] = (),
) -> Metric:
    """A counter by its label values; those `known` beforehand start at 0, so that a first one is a rise."""
    family = CounterMetricFamily(f"registrator_{name}", text, labels=labels)
    for key, value in {**dict.fromkeys(known, 0), **values}.items():
        parts = [key] if isinstance(key, str) else [str(part) for part in key]
        family.add_metric([printable(part) for part in parts], value)
    return family


def _histogram(name: str, text: str, value: Histogram) -> Metric:
    """A histogram with Prometheus' cumulative buckets."""
    bounds = [*map(floatToGoString, value.bounds), "+Inf"]
    buckets = list(zip(bounds, itertools.accumulate(value.counts), strict=True))
    return HistogramMetricFamily(f"registrator_{name}", text, buckets=buckets, sum_value=value.total)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"registrator_{name}", text, value=value)
