"""A stack changed in place, its Redis restarted and moved, a stack removed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.demo.proof import GREETING
from scripts.demo.steps import DemoError
from scripts.lab.lab import STACK, Lab
from scripts.lab.node import Node
from scripts.lab.waiting import until
from tests.lab.clients import calling
from tests.lab.services import LINK_LOCAL, STORIES, TOOLS, Service
from tests.lab.truth import agree, count, get

pytestmark = [pytest.mark.engine, pytest.mark.consul, pytest.mark.lab]

INSIDE = "inside"
HASTY = "parallelism: 2, order: start-first, failure_action: rollback, monitor: 1s"
EXTRA = """
  extra:
    image: registrator/whoami
    networks: [backend]
    labels: { SERVICE_NAME: extra }
    deploy: { mode: global, endpoint_mode: dnsrr }

networks:"""
SMALL = f"""
version: "3.8"
services:
  one:
    image: registrator/whoami
    dns: [{LINK_LOCAL}]
    ports: [{{ target: 8000, published: 18001 }}]
    deploy: {{ replicas: 2, labels: {{ SERVICE_NAME: small-one }} }}
"""


def visit(node: Node, name: str = "web") -> int:
    """Visit a counter from a container on a node; its count. Raises DemoError."""
    said = node.docker("exec", INSIDE, "curl", "-sSf", f"http://{name}.service.consul:8000")
    greeting = GREETING.fullmatch(said)
    if not greeting:
        raise DemoError(said)
    return int(greeting[1])


@pytest.fixture
def inside(lab: Lab) -> Iterator[None]:
    """A container with the tools on each node, on the stack's network."""
    lab.each(
        lambda node: node.docker(
            *("run", "--detach", "--name", INSIDE, "--network", "demo_backend", "--dns", LINK_LOCAL, TOOLS)
        )
    )
    yield
    lab.each(lambda node: node.docker("rm", "--force", INSIDE))


def instances(lab: Lab) -> dict[str, int]:
    """How many instances each service of the stack has, by the word of all nodes. Raises DemoError."""
    running = agree(lab, 5)
    return {name: count(running, name) for name in (*STORIES, "extra")}


def hasty(text: str) -> str:
    """The stack file, with `web` updated two tasks at a time, watched for a second: it saves a minute."""
    return text.replace("parallelism: 1, order: start-first, failure_action: rollback, monitor: 5s", HASTY)


@pytest.fixture
def as_it_was(lab: Lab, tmp_path: Path) -> Iterator[None]:
    """The stack, put back as compose/stack.yml has it."""
    yield
    back = tmp_path / "back.yml"
    back.write_text(hasty(STACK.read_text()))
    lab.deploy(file=back)
    lab.manager.docker("service", "rm", "demo_extra")
    Service(lab, "demo_web").updated(seconds=120)
    lab.deploy()
    until(lambda: instances(lab) == {**STORIES, "extra": 0}, "the stack as it was")


def test_a_stack_changed_in_place_fails_nobody(
    lab: Lab, tmp_path: Path, as_it_was: None, measured: Callable[[str], None]
) -> None:
    """Other replicas, another environment, a new service; then all as it was."""
    changed = tmp_path / "stack.yml"
    text = STACK.read_text().replace("replicas: 5", "replicas: 4").replace("replicas: 3", "replicas: 5")
    text = hasty(re.sub(r"\n(      REDIS_HOST: .*)", r"\n\1\n      CHANGED: '1'", text))
    assert HASTY in text
    changed.write_text(text.replace("\nnetworks:", EXTRA, 1))
    with (
        calling(lab.nodes, "web", network="demo_backend") as web,
        calling(lab.nodes, "whoami", network="demo_backend") as whoami,
    ):
        lab.deploy(file=changed)
        Service(lab, "demo_web").updated(seconds=120)
        until(lambda: instances(lab) == {"web": 4, "redis": 1, "whoami": 5, "extra": 3}, "the changed stack")
    measured(f"stack changed in place: web {web}; whoami {whoami}")
    assert not web.failures, web
    assert not whoami.failures, whoami


def test_the_count_goes_on_when_redis_is_restarted(lab: Lab, inside: None) -> None:
    """Its data are in a volume, and each counter finds the new task by its name."""
    before = visit(lab.nodes[1])
    lab.manager.docker("service", "update", "--force", "--quiet", "--detach", "demo_redis")
    Service(lab, "demo_redis").updated()
    agree(lab)
    after = until(lambda: visit(lab.nodes[2]), "a count from a counter that has found its Redis")
    assert after == before + 1


def test_the_count_goes_on_when_redis_moves_to_another_node(lab: Lab, inside: None) -> None:
    """With its data where both nodes reach them: a folder of this machine stands for storage on a network."""
    shared = lab.folder / "shared"
    shared.mkdir(exist_ok=True)
    shared.chmod(0o777)
    data = f"type=bind,source={shared},target=/data"
    common = (
        "service",
        "create",
        "--detach",
        "--no-resolve-image",
        "--network",
        "demo_backend",
        "--endpoint-mode",
        "dnsrr",
    )
    serve = ("redis-server", "--bind", "*", "--protected-mode", "no", "--dir", "/data", "--appendonly", "yes")
    store, shop = Service(lab, "store"), Service(lab, "shop")
    lab.manager.docker(
        *common,
        *("--name", "store", "--container-label", "SERVICE_NAME=store", "--mount", data),
        *("--update-order", "stop-first", "--constraint", "node.hostname == n2", "redis:7", *serve),
    )
    lab.manager.docker(
        *common,
        *("--name", "shop", "--container-label", "SERVICE_NAME=shop", "--dns", LINK_LOCAL),
        *("--env", "REDIS_HOST=store.service.consul", "registrator/counter"),
    )
    try:
        store.settled(1)
        shop.settled(1)
        before = until(lambda: visit(lab.nodes[0], "shop"), "a first count")
        store.update("--constraint-rm", "node.hostname == n2", "--constraint-add", "node.hostname == n3")
        store.updated()
        assert {node for _, node, _ in store.settled(1)} == {"n3"}
        assert until(lambda: visit(lab.nodes[0], "shop"), "a count after the move") == before + 1
    finally:
        shop.remove()
        store.remove()


def test_a_removed_stack_leaves_nothing_behind(lab: Lab, tmp_path: Path) -> None:
    """Neither instances nor the managers' word of its services, neither containers nor networks."""
    file = tmp_path / "small.yml"
    file.write_text(SMALL)

    def told() -> list[str]:
        return list(get(lab.nodes[2], 8500, "/v1/kv/registrator/swarm/?keys"))

    before = set(told())
    lab.deploy("small", file)
    node = lab.nodes[1]
    until(
        lambda: node.counts("small-one") == {"small-one": 2},
        "the small stack in lookups, by its deploy label",
    )
    assert len(set(told()) - before) == 1
    # It has to be said again where the manager has not noticed yet that the network's last task ended.
    until(lambda: [lab.manager.docker("stack", "rm", "small")], "the stack removed")
    until(lambda: set(told()) == before, "its facts gone")
    until(
        lambda: all(node.counts("small-one") == {"small-one": 0} for node in lab.nodes), "lookups without it"
    )
    assert "small-one" not in get(node, 8500, "/v1/catalog/services")
    until(lambda: not [n for n in lab.nodes if "small_" in n.docker("ps", "--all")], "its containers gone")
    until(lambda: not [n for n in lab.nodes if "small_" in n.docker("network", "ls")], "its network gone")
    agree(lab)
