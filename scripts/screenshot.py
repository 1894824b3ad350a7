"""Writes docs/page.png: the page over a made-up catalog of 3 nodes, in a real Chromium."""

from __future__ import annotations

import sys
from pathlib import Path

from registrator.journal import DEREGISTERED, REGISTERED
from registrator.model import CRITICAL, PASSING, WARNING, CheckResult, Entry, Instance, Node, Snapshot
from tests.lookup.fakes import snapshot_of
from tests.page.page import Page
from tests.page.served import served
from tests.support.browser import chromium, missing
from tests.support.engine import wait_for

TARGET = Path(__file__).parent.parent / "docs" / "page.png"

SAYS = {
    PASSING: "HTTP GET http://10.0.1.4:8080/health: 200 OK",
    WARNING: "HTTP GET http://10.0.1.4:8080/health: 429 Too Many Requests",
    CRITICAL: 'Get "http://10.0.1.9:8080/health": connection refused',
}
# By node: service, container, port, status.
WORLD = {
    "swarm-1": [
        ("api", "api-1", 8080, PASSING),
        ("api", "api-4", 8080, PASSING),
        ("postgres", "db-primary", 5432, PASSING),
        ("redis", "redis-1", 6379, PASSING),
        ("web", "web-1", 80, PASSING),
    ],
    "swarm-2": [
        ("api", "api-2", 8080, WARNING),
        ("billing", "billing-1", 9000, PASSING),
        ("postgres", "db-replica", 5432, PASSING),
        ("web", "web-2", 80, PASSING),
        ("worker", "worker-1", 0, PASSING),
    ],
    "swarm-3": [
        ("api", "api-3", 8080, CRITICAL),
        ("mail", "mail-1", 25, PASSING),
        ("redis", "redis-2", 6379, PASSING),
        ("web", "web-3", 80, PASSING),
        ("worker", "worker-2", 0, PASSING),
    ],
}


def world() -> Snapshot:
    """3 nodes with 15 instances of 7 services."""
    entries = []
    for number, (name, containers) in enumerate(WORLD.items(), 1):
        node = Node(name, f"192.168.10.{number}")
        for position, (service, container, port, status) in enumerate(containers, 2):
            instance = Instance(f"{name}:{container}:{port}", service, f"10.0.{number}.{position}", port)
            check = CheckResult(
                f"{instance.id}:1", "HTTP /health", status, SAYS[status], "", instance.id, service, "http"
            )
            entries.append(Entry(node, instance, (check,)))
    return snapshot_of(*entries)


def main() -> int:
    """Take the picture; 1 where something is missing."""
    if lacking := missing():
        sys.stderr.write(f"{lacking} not installed; scripts/test-tools.sh installs it\n")
        return 1
    with served(world()) as front, chromium("--window-size=1200,640") as driver:
        front.tell(REGISTERED, "registered api at 10.0.3.2:8080 (webnet)", "api")
        front.tell(DEREGISTERED, "deregistered web: its container was told to stop", "web")
        page = Page(driver)
        page.open(front.url)
        wait_for(lambda: len(page.tiles()) == 15, "15 tiles")
        driver.save_screenshot(str(TARGET))
    sys.stdout.write(f"{TARGET.relative_to(Path.cwd())}: {TARGET.stat().st_size // 1024} kB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
