"""What everything is measured on: a real engine, a real Consul, agents of the benchmark's own."""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.observers import ROOT
from benchmarks.recorded import SERVICE
from tests.support.agent import AgentProcess
from tests.support.consul import ConsulServer
from tests.support.engine import Docker, answers, make_busybox

EMBEDDED, CONSUL = "embedded", "consul"


@dataclass(frozen=True)
class Laboratory:
    """The engine, a Consul and a folder for what is written."""

    docker: Docker
    consul: ConsulServer
    folder: Path

    def agent(self, catalog: str, *options: str, docker: str = "") -> AgentProcess:
        """An agent that is not started, with a log of its own; `docker` is another engine's URL."""
        consul = ["--consul", self.consul.url] if catalog == CONSUL else []
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        return AgentProcess(folder, "--docker", docker or self.docker.url, *consul, *options)

    @contextmanager
    def recorded(self, number: int) -> Iterator[str]:
        """The URL of an engine that replays a real container `number` times, in a process of its own."""
        labels = {"SERVICE_NAME": SERVICE}
        container = self.docker.run(command=["sleep", "100000"], labels=labels, expose=["80/tcp"])
        path = Path(tempfile.mkdtemp(dir=self.folder)) / "docker.sock"
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.recorded", path, self.docker.url, container, str(number)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        try:
            assert process.stdout
            if not process.stdout.readline():
                raise OSError("the recorded engine did not start")
            yield f"unix://{path}"
        finally:
            process.kill()
            process.communicate()
            self.docker.remove(container)

    def empty_consul(self) -> None:
        """Begin with a Consul that knows nothing."""
        self.consul.kill()
        self.consul.restart()


@contextmanager
def laboratory() -> Iterator[Laboratory]:
    """Set it up; all of it is gone afterwards. Raises OSError without an engine."""
    url = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if not answers(url):
        raise OSError(f"no Docker engine answers at {url}; start dockerd, or set DOCKER_HOST")
    make_busybox(url)
    # An installed package has its byte code beside it; a checkout may have none, or be forbidden to write it.
    compileall.compile_dir(ROOT / "registrator", quiet=1)
    with tempfile.TemporaryDirectory() as name:
        docker, consul = Docker(url), ConsulServer(Path(name))
        try:
            consul.start()
            yield Laboratory(docker, consul, Path(name))
        finally:
            consul.kill()
            docker.cleanup()
