"""One demo for this folder, under a project name and on addresses of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from scripts.demo.__main__ import Demo
from scripts.demo.proof import Front
from tests.support import unavailable
from tests.support.consul import free_ports

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "registrator-demo-test"
LINK_LOCAL = "169.254.53.54"


class Stage:
    """The demo, brought into the state that a test asks for; what is so already costs nothing.

    All methods block. `catalog` is what it runs on now, "" when it is down.
    """

    def __init__(self) -> None:
        dns, http = free_ports(2)
        self.demo = Demo(PROJECT, f"127.0.0.1:{dns}", f"127.0.0.1:{http}", LINK_LOCAL)
        self.catalog = ""

    @property
    def front(self) -> Front:
        return self.demo.front

    def up(self, catalog: str = "embedded") -> None:
        """Have the demo up on that catalog."""
        if self.catalog != catalog:
            self.make_demo(catalog)

    def make_demo(self, catalog: str = "embedded") -> str:
        """Run `make demo`; return what it printed on standard output."""
        # Until it has succeeded it is neither up nor down.
        self.catalog = "unknown"
        printed = self._run("make", "--silent", "demo", f"CATALOG={catalog}")
        self.catalog = catalog
        return printed

    def down(self) -> None:
        """What `make demo-down` does, except that the engine stays, whoever started it."""
        self._run(sys.executable, "-m", "scripts.demo", "down")
        self.catalog = ""

    def containers(self, service: str) -> list[str]:
        """The names of a service's running containers."""
        return run_docker(
            *("ps", "--format", "{{.Names}}", "--filter", f"label=com.docker.compose.project={PROJECT}"),
            *("--filter", f"label=com.docker.compose.service={service}"),
        ).split()

    def scale(self, service: str, replicas: int) -> None:
        """Have that many containers of a service."""
        catalog = self.demo.consul.url if self.catalog == "consul" else ""
        how = ("--detach", "--no-build", "--no-recreate", "--scale", f"{service}={replicas}")
        self.demo.compose("up", *how, service, catalog=catalog)

    def _run(self, *command: str) -> str:
        settings = {
            "DEMO_PROJECT": self.demo.project,
            "DEMO_DNS": self.demo.dns,
            "DEMO_HTTP": self.demo.http,
            "DEMO_LINK_LOCAL": self.demo.link_local,
        }
        result = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, f"{command} failed:\n{result.stdout}\n{result.stderr}"
        return result.stdout


@pytest.fixture(scope="package")
def stage(engine_url: str) -> Iterator[Stage]:
    """The demo of this folder's tests; removed at their end."""
    running = run_docker("ps", "--quiet", "--filter", "label=com.docker.compose.project=registrator-demo")
    if running:
        unavailable("a demo is up, and its services have the names of the one tested here: make demo-down")
    stage = Stage()
    stage.down()  # what a run that crashed has left
    try:
        yield stage
    finally:
        stage.down()


def run_docker(*arguments: str) -> str:
    """Run the docker command; return what it prints, stripped."""
    return subprocess.run(("docker", *arguments), capture_output=True, text=True, check=True).stdout.strip()


def seconds_until(condition: Callable[[], bool], since: float, limit: float = 10.0) -> float:
    """How many seconds after `since` (Unix time) the condition came true, looking every 10 ms."""
    while time.time() < since + limit:
        try:
            if condition():
                return time.time() - since
        except OSError:
            pass
        time.sleep(0.01)
    pytest.fail(f"not so within {limit:g} s")


def started_at(container: str) -> float:
    """When the engine started a container, in Unix time."""
    text = run_docker("inspect", "--format", "{{.State.StartedAt}}", container)
    return datetime.fromisoformat(text).timestamp()
