"""What is given to Prometheus and Grafana: sound, tried, and about metrics that the agent has."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registrator.lookup.metrics import Metrics
from registrator.stats import Stats
from tests.lookup.fakes import FakeDirectory, entry, snapshot_of
from tests.support import unavailable
from tests.support.agent import AgentProcess
from tests.support.engine import Docker, unique, wait_for

MONITORING = Path(__file__).resolve().parents[2] / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana-dashboard.json").read_text())
ALERTS = (MONITORING / "alerts.yml").read_text()
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
# `up` is Prometheus' own; process_* come from the client library.
METRIC = re.compile(r"\b(?:registrator|process)_[a-z_]+")


def expressions() -> Iterator[str]:
    """Every query of the dashboard, with Grafana's variables filled in."""
    for panel in PANELS:
        for target in panel.get("targets", ()):
            yield target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")


def promtool(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool, or skip where it is missing."""
    tool = shutil.which("promtool")
    if tool is None:
        unavailable("needs promtool; run scripts/test-tools.sh")
    return subprocess.run(
        [tool, *arguments], input=text, capture_output=True, text=True, timeout=60, check=False
    )


def scrape(agent: AgentProcess) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{agent.http_port}/metrics", timeout=10) as reply:
        return str(reply.read().decode())


def busy() -> str:
    """What an agent shows that has counted something of every kind."""
    stats = Stats(ready=True)
    stats.events["start"] = stats.http_requests["/livez", 200] = 1
    stats.dns_queries["A", "NOERROR", "udp", "container"] = 1
    return Metrics(stats, FakeDirectory(snapshot_of(entry("web")))).render().decode()


# The alerts -----------------------------------------------------------------


def test_every_alert_fires_when_it_should_and_only_then() -> None:
    checked = promtool("check", "rules", str(MONITORING / "alerts.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tried = promtool("test", "rules", str(MONITORING / "alerts_test.yml"))
    assert tried.returncode == 0, tried.stdout + tried.stderr


def test_every_alert_is_tried_and_says_what_to_do() -> None:
    names = re.findall(r"- alert: (\w+)", ALERTS)
    tried = (MONITORING / "alerts_test.yml").read_text()
    assert names
    assert [name for name in names if name not in tried] == []
    assert ALERTS.count("summary: ") == ALERTS.count("description: ") == len(names)


# The dashboard --------------------------------------------------------------


def test_every_query_of_the_dashboard_is_one(tmp_path: Path) -> None:
    """As recording rules, which promtool parses; JSON is YAML."""
    rules = [{"record": f"query:{number}", "expr": text} for number, text in enumerate(expressions())]
    assert len(rules) > 20
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = promtool("check", "rules", str(file))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_panels_have_titles_and_ids_and_places_of_their_own() -> None:
    assert all(panel["title"] for panel in PANELS)
    assert len({panel["id"] for panel in PANELS}) == len({panel["title"] for panel in PANELS}) == len(PANELS)
    for one, other in itertools.combinations((panel["gridPos"] for panel in PANELS), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


# The metrics ----------------------------------------------------------------


def test_dashboard_and_alerts_name_only_metrics_that_there_are() -> None:
    there = set(re.findall(r"^(\w+)[ {]", busy(), re.MULTILINE))
    expected = set(METRIC.findall(" ".join((*expressions(), ALERTS))))
    assert "registrator_ready" in expected
    assert expected <= there


def test_every_metric_of_ours_is_on_the_dashboard() -> None:
    families = set(re.findall(r"^# TYPE (registrator_\w+)", busy(), re.MULTILINE))
    # The version; and what no agent that works lacks (an alert watches it).
    families -= {"registrator_info", "registrator_snapshot_present"}
    shown = " ".join(expressions())
    # Turns of the loop are for who works on the agent; its lateness is on the dashboard.
    missing = [family for family in sorted(families) if family not in shown and "_turn" not in family]
    assert missing == []


@pytest.mark.engine
def test_a_real_agents_metrics_please_promtool_and_tell_what_happened(
    agent: AgentProcess, docker: Docker
) -> None:
    agent.start_ready()
    name = unique("web")
    container = docker.run(labels={"SERVICE_NAME": name}, expose=["80"])
    wait_for(lambda: name in agent.get("/v1/catalog/services"), "the service")
    agent.ask(name)
    docker.stop(container)
    wait_for(lambda: name not in agent.get("/v1/catalog/services"), "the end")
    wait_for(lambda: agent.metric("registrator_event_lag_seconds_count") >= 2, "the lag of both events")
    text = scrape(agent)
    checked = promtool("check", "metrics", text=text)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    # Within what a slow machine needs: that it is measured at all is the point.
    assert agent.metric("registrator_event_lag_seconds_sum") < 30
    assert agent.metric("registrator_drained_containers_total") >= 1
    assert agent.metric("registrator_reconcile_round_seconds_count") >= 1
    assert agent.metric("registrator_http_request_seconds_count") >= 1
    assert agent.metric("registrator_loop_lag_seconds_count") >= 1
