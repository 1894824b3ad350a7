"""Swarm services of a test's own, made and changed by the commands that operators use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.demo.steps import DemoError
from scripts.lab.lab import Lab
from scripts.lab.node import Node
from scripts.lab.waiting import until
from tests.lab.truth import Running, agree, count, desired
from tests.support.engine import unique

PROGRAM = Path(__file__).parent / "programs/server.py"
NETWORK = "apps"  # an attachable overlay on all nodes
TOOLS = "registrator/lab-tools"
LINK_LOCAL = "169.254.53.53"
# Without one, a task is answered with from its start, before its server listens.
HEALTH_CHECK = ("--health-cmd", "curl -sf http://127.0.0.1:8000", "--health-interval", "1s")
STORIES = {"web": 5, "redis": 1, "whoami": 3}  # what compose/stack.yml has, and how many of each


@dataclass(frozen=True)
class Service:
    """A Swarm service; its name is the name that it is looked up by, too."""

    lab: Lab
    name: str

    def docker(self, command: str, *options: str) -> str:
        """`docker service COMMAND OPTIONS... NAME`."""
        return self.lab.manager.docker("service", command, *options, self.name)

    def update(self, *options: str) -> None:
        """`docker service update`, without waiting for its end: see `updated`."""
        self.docker("update", "--detach", "--quiet", *options)

    def updated(self, state: str = "completed", seconds: float = 60.0) -> None:
        """Wait until the last update has come to this end: completed, rollback_completed, paused."""
        until(
            lambda: self.inspect().get("UpdateStatus", {}).get("State") == state,
            f"the update of {self.name} {state}",
            seconds,
        )

    def scale(self, replicas: int) -> None:
        """`docker service scale`; wait until as many run and all agree."""
        self.lab.manager.docker("service", "scale", "--detach", f"{self.name}={replicas}")
        self.settled(replicas)

    def settled(self, replicas: int, seconds: float = 60.0, nodes: Sequence[Node] = ()) -> Running:
        """Wait until as many tasks run as wanted, and these nodes (else all) agree on as many instances."""

        def so() -> Running:
            found = agree(self.lab, 1, nodes, [self.name])
            if (len(self.tasks()), len(found)) != (replicas, replicas):
                raise DemoError(f"{len(self.tasks())} tasks, {len(found)} instances")
            return found

        return until(so, f"{replicas} tasks and instances of {self.name}", seconds)

    def tasks(self) -> list[dict[str, Any]]:
        """Its tasks that run, and are to (the manager's word)."""
        return [
            task
            for task in self.lab.manager.api.tasks({"service": self.name})
            if task["DesiredState"] == task["Status"]["State"] == "running"
        ]

    def versions(self) -> Counter[str]:
        """How many of its running tasks have which VERSION in their environment."""
        return Counter(
            variable.partition("=")[2]
            for task in self.tasks()
            for variable in task["Spec"]["ContainerSpec"].get("Env", [])
            if variable.startswith("VERSION=")
        )

    def inspect(self) -> dict[str, Any]:
        """The manager's document about it."""
        document: dict[str, Any] = self.lab.manager.api.inspect_service(self.name)
        return document

    def remove(self) -> None:
        """`docker service rm`; wait until nobody runs it and nobody answers for it."""
        self.docker("rm")
        until(lambda: count(desired(self.lab.nodes), self.name) == 0, f"the last container of {self.name}")
        assert not agree(self.lab, names=[self.name])


@contextmanager
def service(
    lab: Lab, *options: str, replicas: int = 0, linger: float = 2.0, endpoint: str = "dnsrr"
) -> Iterator[Service]:
    """A service of well-behaved servers on port 8000 (programs/server.py), made with further options.

    With `replicas` it is there and answered for at once; else the test waits for it.
    One of mode global has its three replicas by itself.
    """
    made = Service(lab, unique("svc"))
    number = ("--replicas", str(replicas)) if replicas and "global" not in options else ()
    lab.manager.docker(
        *("service", "create", "--detach", "--quiet", "--no-resolve-image", "--name", made.name),
        *("--network", NETWORK, "--endpoint-mode", endpoint, "--env", "VERSION=1"),
        *("--restart-delay", "500ms"),  # 5 s is the default
        *("--container-label", f"SERVICE_NAME={made.name}", "--container-label", "SERVICE_PORT=8000"),
        *number,
        *options,
        *(TOOLS, "python3", "-c", PROGRAM.read_text(), f"{linger:g}"),
    )
    try:
        if replicas:
            made.settled(replicas)
        yield made
    finally:
        made.remove()
