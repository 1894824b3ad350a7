"""What must agree: the engines, the catalogs and the lookups of all nodes.

The truth is what the three engines say that they run; nothing here reads it by
the product's own code. The catalog is what the three Consul servers say, and
the lookups are what the three agents answer.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

from scripts.demo.proof import fetch
from scripts.demo.steps import DemoError
from scripts.lab.lab import Lab
from scripts.lab.node import Node
from scripts.lab.waiting import until

AGENTS = ("demo_registrator", "demo_registrator-worker")
Running = frozenset[tuple[str, str, str]]  # service, node, container id


def get(node: Node, port: int, path: str) -> Any:
    """A JSON document from a node's Consul (8500, as its operator) or agent (8580). Raises OSError."""
    token = Lab().token if port == 8500 else ""
    status, body = node.call(fetch, f"http://127.0.0.1:{port}{path}", token)
    if status != 200:
        raise OSError(f"{node.name}:{port}{path} answered {status}: {body.strip()}")
    return json.loads(body)


def alive(node: Node) -> bool:
    """Whether the node's engine answers."""
    try:
        return bool(node.api.ping())
    except Exception:  # noqa: BLE001 - the SDK raises its own, requests' and urllib3's
        return False


def overlay(service: str, network: str) -> list[str]:
    """Where a service's containers are on an overlay, by what the engines of all nodes say."""
    label = {"label": f"SERVICE_NAME={service}"}
    return [
        container["NetworkSettings"]["Networks"][network]["IPAddress"]
        for node in filter(alive, Lab().nodes)
        for container in node.api.containers(filters=label)
    ]


def desired(nodes: Sequence[Node]) -> Running:
    """Every healthy container that names its service, by what the engines say."""
    return frozenset(
        (container["Labels"]["SERVICE_NAME"], node.name, container["Id"])
        for node in nodes
        for container in node.api.containers()
        if "SERVICE_NAME" in container["Labels"]
        and container["State"] == "running"
        and ("(" not in container["Status"] or "(healthy)" in container["Status"])
    )


def registered(node: Node, names: Collection[str] = ()) -> Running:
    """Every passing instance of ours, by this node's Consul server; or those of some names.

    By what that very server has (`stale`): else it would hand the question to its leader.
    """
    return frozenset(
        (name, entry["Node"]["Node"], entry["Service"]["Meta"]["registrator-container"])
        for name in names or get(node, 8500, "/v1/catalog/services?stale")
        for entry in get(node, 8500, f"/v1/health/service/{name}?passing&stale")
        if "registrator-container" in entry["Service"]["Meta"]
    )


def answered(node: Node, names: Collection[str]) -> Running:
    """Every instance that lookups of these names give, by this node's agent."""
    found = set()
    for name in names:
        status, body = node.call(fetch, f"http://127.0.0.1:8580/lookup/{name}")
        if status == 404:  # no such service: an answer as well
            continue
        if status != 200:
            raise OSError(f"{node.name} answered {status} for {name}: {body.strip()}")
        for instance in json.loads(body)["instances"]:
            found.add((name, instance["node"], instance["meta"]["registrator-container"]))
    return frozenset(found)


def agree(
    lab: Lab, seconds: float = 30.0, nodes: Sequence[Node] = (), names: Collection[str] = ()
) -> Running:
    """Wait until engines, catalogs and lookups say the same on all nodes; what they say.

    With `names`, about those services alone; else about all that run, and the
    catalogs may hold no other. Raises DemoError with the differences.
    """
    asked = nodes or lab.nodes

    def same() -> Running:
        truth = frozenset(each for each in desired(asked) if not names or each[0] in names)
        for node in asked:
            known = names or {name for name, _, _ in truth}
            for what, found in (("catalog", registered(node, names)), ("lookups", answered(node, known))):
                if found != truth:
                    lacking, besides = brief(truth - found), brief(found - truth)
                    raise DemoError(f"{what} of {node.name}: lacking {lacking}, too many {besides}")
        return truth

    (truth,) = until(lambda: [same()], "engines, catalogs and lookups agree", seconds)
    return truth


def container_of(node: Node, service: str) -> str:
    """The id of a Swarm service's container on a node. Raises DemoError where there is none, or several."""
    name = f"label=com.docker.swarm.service.name={service}"
    found = node.docker("ps", "--quiet", "--no-trunc", "--filter", name).split()
    if len(found) != 1:
        raise DemoError(f"{len(found)} containers of {service} on {node.name}")
    return found[0]


def agent_of(node: Node) -> str:
    """The id of the agent's container on a node: of the managers' service, or the workers'."""
    for service in AGENTS:
        with suppress(DemoError):
            return container_of(node, service)
    raise DemoError(f"no agent runs on {node.name}")


def brief(running: Running) -> str:
    """A set of instances, short enough for a line."""
    return ", ".join(f"{name}@{node}:{container[:6]}" for name, node, container in sorted(running)) or "none"


def count(running: Running, service: str) -> int:
    """How many instances a service has in one of the sets above."""
    return sum(name == service for name, _, _ in running)
