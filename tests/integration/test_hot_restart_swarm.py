"""A Swarm's rolling update of the agent itself, start-first: no lookup fails."""

from __future__ import annotations

import sys
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from docker.types import ContainerSpec, Healthcheck, Mount, ServiceMode, TaskTemplate, UpdateConfig

from tests.support.askers import DnsPerf, HttpLoop, nothing_is_missing
from tests.support.engine import IMAGE, wait_for
from tests.support.swarm import OneNodeSwarm

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
DNS_PORT, HTTP_PORT = 8053, 8580
LINK_LOCAL = "169.254.53.53"
SECOND = 1_000_000_000  # in the engine's nanoseconds
UPDATES = 2


def agent_service(swarm: OneNodeSwarm) -> None:
    """The agent as a global service on the host's network: this checkout, run by this Python, mounted."""
    folders = {sys.prefix, sys.base_prefix, "/usr", "/lib", "/lib64", str(ROOT)}
    socket = swarm.url.removeprefix("unix://")
    listen = (
        "--dns-link-local",
        LINK_LOCAL,
        "--dns",
        f"0.0.0.0:{DNS_PORT}",
        "--http",
        f"0.0.0.0:{HTTP_PORT}",
    )
    agent = ContainerSpec(
        IMAGE,
        [sys.executable, "-m", "registrator", "agent", "--docker", swarm.url, "--reuse-port", *listen],
        env=[f"PYTHONPATH={ROOT}", "PYTHONDONTWRITEBYTECODE=1"],
        mounts=[
            *(
                Mount(path, path, type="bind", read_only=True)
                for path in sorted(folders)
                if Path(path).is_dir()
            ),
            Mount(socket, socket, type="bind"),
        ],
        labels={"SERVICE_IGNORE": "1"},
        cap_add=["CAP_NET_ADMIN"],  # for the address on the loopback
        healthcheck=Healthcheck(
            test=["CMD", sys.executable, str(ROOT / "docker/agent/healthcheck.py")],
            interval=SECOND,
            timeout=3 * SECOND,
            retries=10,
        ),
    )
    swarm.api.create_service(
        TaskTemplate(agent, networks=["host"]),
        name="registrator",
        mode=ServiceMode("global"),
        update_config=UpdateConfig(parallelism=1, order="start-first", monitor=SECOND // 10),
    )
    swarm.await_tasks("registrator", 1)
    wait_for(lambda: answers(swarm, "/v1/health/service/web?passing"), "an agent that knows of web", 30)


def answers(swarm: OneNodeSwarm, path: str) -> bool:
    """Whether an agent answers, with something."""
    try:
        with urllib.request.urlopen(f"http://{swarm.address}:{HTTP_PORT}{path}", timeout=5) as reply:
            return bool(reply.read(8).strip() != b"[]")
    except OSError:
        return False


def rolling_update(swarm: OneNodeSwarm) -> None:
    """`docker service update --force`: each task is replaced; return when that is over."""
    (before,) = swarm.containers("registrator")
    template: dict[str, Any] = swarm.api.inspect_service("registrator")["Spec"]["TaskTemplate"]
    swarm.update("registrator", TaskTemplate=template | {"ForceUpdate": template["ForceUpdate"] + 1})

    def over() -> bool:
        state = swarm.api.inspect_service("registrator").get("UpdateStatus", {}).get("State")
        found = swarm.containers("registrator")
        return state == "completed" and len(found) == 1 and found != [before]

    wait_for(over, "end of the rolling update", 60)


def test_no_lookup_fails_during_the_agents_own_rolling_update(swarm: OneNodeSwarm, tmp_path: Path) -> None:
    swarm.overlay("backend")
    swarm.service("web", networks=["backend"], mesh={8080: 80})
    agent_service(swarm)
    names = tmp_path / "names"
    names.write_text("web.service.consul A\nweb.service.consul SRV\n")
    path = "/v1/health/service/web?passing"
    with ExitStack() as stack:
        clients: list[DnsPerf | HttpLoop] = [
            DnsPerf(names, swarm.address, DNS_PORT, "udp", 1500),
            DnsPerf(names, LINK_LOCAL, 53, "udp", 400, enter=swarm.enter),
            DnsPerf(names, swarm.address, DNS_PORT, "tcp", 400, clients=4),
            HttpLoop(swarm.address, HTTP_PORT, path, keep=False),
            HttpLoop(swarm.address, HTTP_PORT, path, keep=True),
        ]
        for client in clients:
            stack.callback(client.close)
        for _ in range(UPDATES):
            rolling_update(swarm)
        nothing_is_missing(clients)
