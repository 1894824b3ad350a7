"""A real Swarm of one node: a private dockerd with an address of its own, which this machine reaches.

Its tasks are real, and so are overlays, docker_gwbridge and the ingress network.
What several nodes do to one another is tested on the lab.
"""

from __future__ import annotations

import random
import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from docker.api import APIClient
from docker.types import ContainerSpec, EndpointSpec, NetworkAttachmentConfig, ServiceMode, TaskTemplate

from tests.support import unavailable
from tests.support.engine import HTTPD, IMAGE, PrivateEngine, private_engine_at, wait_for


class OneNodeSwarm:
    """An engine at `address`; `init` makes it a Swarm's only node. All methods block.

    `api` is the SDK's client. `enter` begins a command line that is to run on
    the node's network.
    """

    def __init__(self, engine: PrivateEngine) -> None:
        self.url = engine.url
        self.enter = engine.enter
        self._engine = engine
        self.address = self._connect()
        self.api = APIClient(base_url=engine.url, version="auto", timeout=30)

    def _connect(self) -> str:
        """A link from here to the engine's network namespace; it goes with the namespace."""
        subnet = f"10.{random.randint(200, 249)}.{random.randint(0, 255)}"
        link, ours, theirs = f"reg{secrets.token_hex(4)}", f"{subnet}.1", f"{subnet}.2"
        commands = [
            [
                "ip",
                "link",
                "add",
                link,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                str(self._engine.pid),
            ],
            ["ip", "address", "add", f"{ours}/30", "dev", link],
            ["ip", "link", "set", link, "up"],
            [*self.enter, "ip", "address", "add", f"{theirs}/30", "dev", "eth0"],
            [*self.enter, "ip", "link", "set", "eth0", "up"],
        ]
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                unavailable(f"needs the right to make network links ({done.stderr.strip()})")
        return theirs

    def init(self) -> None:
        """`docker swarm init`: a manager, and the only node."""
        self.api.init_swarm(advertise_addr=self.address)

    def leave(self) -> None:
        """`docker swarm leave --force`: services and tasks are gone."""
        self.api.leave_swarm(force=True)

    def overlay(self, name: str) -> str:
        """An attachable overlay; returns its id."""
        return str(self.api.create_network(name, driver="overlay", attachable=True)["Id"])

    def service(
        self,
        name: str,
        *,
        command: Sequence[str] = HTTPD,
        replicas: int = 1,
        networks: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        deploy: Mapping[str, str] | None = None,
        mesh: Mapping[int, int] | None = None,
        host: Mapping[int, int] | None = None,
        grace: int | None = None,
    ) -> str:
        """Create a service and wait for its tasks; returns its id.

        `labels` are its containers', `deploy` the service's own; `mesh` and
        `host` map published ports to those of the tasks. `grace` is its
        stop_grace_period in seconds.
        """
        ports: dict[int, Any] = {
            published: (target, "tcp", mode)
            for mode, mapped in (("ingress", mesh), ("host", host))
            for published, target in (mapped or {}).items()
        }
        spec = ContainerSpec(IMAGE, list(command), labels=dict(labels or {}))
        if grace is not None:
            spec["StopGracePeriod"] = grace * 10**9
        created = self.api.create_service(
            TaskTemplate(spec, networks=[NetworkAttachmentConfig(network) for network in networks]),
            name=name,
            labels=dict(deploy or {}),
            mode=ServiceMode("replicated", replicas),
            endpoint_spec=EndpointSpec(ports=ports),
        )
        self.await_tasks(name, replicas)
        return str(created["ID"])

    def update(self, name: str, **changes: Any) -> None:
        """Change parts of a service's specification: Labels, Mode, EndpointSpec."""
        service = self.api.inspect_service(name)
        spec = {**service["Spec"], **changes}
        self.api._result(
            self.api._post_json(
                self.api._url("/services/{0}/update", service["ID"]),
                data=spec,
                params={"version": service["Version"]["Index"]},
            )
        )

    def remove(self, name: str) -> None:
        """Remove a service; its tasks end some seconds later."""
        self.api.remove_service(name)

    def containers(self, name: str) -> list[str]:
        """The ids of a service's containers that run."""
        chosen = {"label": f"com.docker.swarm.service.name={name}"}
        return [c["Id"] for c in self.api.containers(filters=chosen)]

    def await_tasks(self, name: str, count: int) -> list[str]:
        """Wait until so many of its containers run; returns their ids."""
        wait_for(lambda: len(self.containers(name)) == count, f"{count} running tasks of {name}", 30)
        return self.containers(name)

    def run_in(self, container: str, *command: str) -> str:
        """Run a command of this machine on a container's network; returns its output."""
        sandbox = self.api.inspect_container(container)["NetworkSettings"]["SandboxKey"]
        inside = [*self._engine.enter_mounts, "nsenter", f"--net={sandbox}", *command]
        return subprocess.run(inside, capture_output=True, text=True, check=False, timeout=20).stdout

    def close(self) -> None:
        self.api.close()


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNodeSwarm]:
    """A Swarm of one node, for a module: its tests remove their services."""
    with private_engine_at(tmp_path_factory.mktemp("swarm")) as engine:
        node = OneNodeSwarm(engine)
        try:
            node.init()
            yield node
        finally:
            node.close()
