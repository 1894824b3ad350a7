"""All services of an agent at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from registrator.commands.client import AgentClient, Declined, NotThere, path_of
from registrator.commands.tables import table
from registrator.model import CRITICAL, PASSING, SEVERITY


def overview(client: AgentClient) -> list[dict[str, Any]]:
    """Every service by name: its tags, and its instances' ids by status. Raises Failure.

    The shape: [{name, tags, passing: [id], warning: [id], critical: [id]}]. A
    service of which the agent says no more than its name has an `error` too.
    """
    found = []
    for name, tags in sorted(client.get("/v1/catalog/services").items()):
        by_status: dict[str, list[str]] = {status: [] for status in SEVERITY}
        try:
            entries = client.get(path_of("/v1/health/service", name))
        except NotThere:
            continue  # it has gone meanwhile
        except Declined as failure:
            found.append({"name": name, "tags": sorted(tags), **by_status, "error": str(failure)})
            continue
        for entry in entries:
            by_status[status_of(entry["Checks"])].append(entry["Service"]["ID"])
        found.append({"name": name, "tags": sorted(tags), **by_status})
    return found


def status_of(checks: Sequence[dict[str, Any]]) -> str:
    """The worst status among an instance's checks; one that Consul does not have counts as critical."""
    told = [check["Status"] if check["Status"] in SEVERITY else CRITICAL for check in checks]
    return max(told, key=SEVERITY.__getitem__, default=PASSING)


def overview_table(known: Sequence[dict[str, Any]]) -> str:
    """The overview for people."""
    rows = [(s["name"], *(_count(s, status) for status in SEVERITY), ", ".join(s["tags"])) for s in known]
    return table(("SERVICE", *(status.upper() for status in SEVERITY), "TAGS"), rows)


def _count(service: dict[str, Any], status: str) -> str:
    return "?" if "error" in service else str(len(service[status]))
