"""/metrics: every number of Stats in Prometheus' text, by Prometheus' own conventions."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields

from prometheus_client.parser import text_string_to_metric_families

from registrator import __version__
from registrator.lookup.metrics import Metrics
from registrator.stats import Stats
from tests.lookup.fakes import FakeDirectory, entry, snapshot_of
from tests.lookup.web import serve

SNAPSHOT = snapshot_of(entry("web"), entry("db"))


def busy() -> Stats:
    stats = Stats(ready=True, containers=3, instances=4, draining=1)
    stats.events["start"] = 5
    stats.rounds["ok"] = 6
    stats.writes["register"] = 7
    stats.write_failures["register"] = 2
    stats.dns_queries["AAAA", "NXDOMAIN", "udp", "container"] = 8
    stats.http_requests["/lookup/{name}", 200] = 9
    stats.loads["ok"] = 10
    stats.drained = 11
    stats.logged["error"] = 12
    stats.watched = 13
    stats.recursions["missing"] = 14
    stats.recursor_hits, stats.recursor_cached, stats.recursor_octets = 15, 16, 17
    for seconds in (0.0005, 0.003, 0.003, 99.0, -1.0):
        stats.event_lag.observe(seconds)
    return stats


def scrape(stats: Stats, directory: FakeDirectory) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Sample values by name and labels."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(Metrics(stats, directory).render().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_every_counter_and_gauge_is_shown() -> None:
    directory = FakeDirectory(SNAPSHOT)
    directory.age = 1.5
    found = scrape(busy(), directory)
    expected = {
        ("registrator_events_total", (("action", "start"),)): 5,
        ("registrator_reconcile_rounds_total", (("result", "ok"),)): 6,
        ("registrator_catalog_writes_total", (("kind", "register"),)): 7,
        ("registrator_catalog_write_failures_total", (("kind", "register"),)): 2,
        (
            "registrator_dns_queries_total",
            (("rcode", "NXDOMAIN"), ("source", "container"), ("transport", "udp"), ("type", "AAAA")),
        ): 8,
        ("registrator_http_requests_total", (("route", "/lookup/{name}"), ("status", "200"))): 9,
        ("registrator_directory_loads_total", (("result", "ok"),)): 10,
        ("registrator_drained_containers_total", ()): 11,
        ("registrator_log_lines_total", (("level", "error"),)): 12,
        ("registrator_directory_watches", ()): 13,
        ("registrator_recursor_queries_total", (("outcome", "missing"),)): 14,
        ("registrator_recursor_cache_hits_total", ()): 15,
        ("registrator_recursor_cached_replies", ()): 16,
        ("registrator_recursor_cached_octets", ()): 17,
        ("registrator_event_lag_seconds_count", ()): 5,
        ("registrator_event_lag_seconds_bucket", (("le", "0.001"),)): 2,
        ("registrator_event_lag_seconds_bucket", (("le", "0.005"),)): 4,
        ("registrator_event_lag_seconds_bucket", (("le", "10.0"),)): 4,
        ("registrator_event_lag_seconds_bucket", (("le", "+Inf"),)): 5,
        ("registrator_ready", ()): 1,
        ("registrator_containers", ()): 3,
        ("registrator_instances", ()): 4,
        ("registrator_draining", ()): 1,
        ("registrator_snapshot_present", ()): 1,
        ("registrator_services", ()): 2,
        ("registrator_snapshot_age_seconds", ()): 1.5,
        ("registrator_info", (("version", __version__),)): 1,
    }
    assert {(name, labels): found[name][labels] for name, labels in expected} == expected


def test_nothing_in_stats_is_forgotten() -> None:
    """A field added to Stats must come with a metric: the numbers of families and fields go together."""
    text = Metrics(Stats(), FakeDirectory()).render().decode()
    ours = set(re.findall(r"^# TYPE (registrator_\w+)", text, re.MULTILINE))
    of_the_directory = {
        "registrator_snapshot_present",
        "registrator_snapshot_age_seconds",
        "registrator_services",
    }
    assert len(ours - of_the_directory - {"registrator_info"}) == len(fields(Stats))


def test_failures_are_shown_as_zero_before_the_first_so_that_an_alert_sees_the_first() -> None:
    found = scrape(Stats(), FakeDirectory())
    assert found["registrator_reconcile_rounds_total"][("result", "failed"),] == 0
    assert found["registrator_catalog_write_failures_total"][("kind", "register"),] == 0


def test_an_agent_without_a_snapshot_says_so() -> None:
    found = scrape(Stats(), FakeDirectory())
    assert found["registrator_ready"][()] == found["registrator_snapshot_present"][()] == 0


def test_names_and_texts_follow_prometheus_conventions() -> None:
    text = Metrics(busy(), FakeDirectory(SNAPSHOT)).render().decode()
    for family in text_string_to_metric_families(text):
        assert family.documentation.strip().endswith("."), family.name
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name
            assert ("le" in sample.labels) == sample.name.endswith("_bucket")
            assert not {"quantile", "job", "instance"} & set(sample.labels)
    helped = re.findall(r"^# HELP (\S+)", text, re.MULTILINE)
    assert helped == re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert len(helped) == len(set(helped))


async def test_a_scrape_tells_the_process_too_and_counts_the_scrapes_before() -> None:
    async with serve(FakeDirectory(SNAPSHOT)) as web:
        await web.get("/metrics")
        reply = await web.get("/metrics")
    assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "process_resident_memory_bytes" in reply.text
    assert 'registrator_http_requests_total{route="/metrics",status="200"} 1.0' in reply.text


def test_prometheus_client_is_not_imported_before_the_first_scrape() -> None:
    """It costs time and memory that an agent which nobody scrapes must not pay at its start."""
    program = "import sys, registrator.lookup.http_server; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
