"""The agents themselves: replaced while all are asked, and what they say when something is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from scripts.demo.steps import DemoError
from scripts.lab.lab import Lab
from scripts.lab.waiting import until
from tests.lab.clients import calling
from tests.lab.services import Service, service
from tests.lab.truth import AGENTS, agent_of, agree

pytestmark = [pytest.mark.engine, pytest.mark.consul, pytest.mark.lab]


def test_an_update_of_the_agents_fails_no_lookup(lab: Lab, measured: Callable[[str], None]) -> None:
    """`service update` starts a new agent on each node, which takes over; containers everywhere go on asking.

    For brevity's sake on all nodes at once; the stack file has them one by one.
    """
    before = {agent_of(node) for node in lab.nodes}
    with calling(lab.nodes, "whoami", port="none", network="demo_backend") as clients:
        for agents in (Service(lab, name) for name in AGENTS):
            agents.update("--force", "--update-parallelism", "0")
            agents.updated()
        until(lambda: not before & {agent_of(node) for node in lab.nodes}, "the old ones gone")
        agree(lab)
    measured(f"agents replaced on all nodes: {clients}")
    assert not clients.failures, clients


def findings(lab: Lab) -> dict[str, str]:
    """What `registrator doctor` says in the manager's agent: by subject, what is so and the remedy."""
    agent = agent_of(lab.manager)
    script = "registrator doctor --json || true"
    told = json.loads(lab.manager.docker("exec", agent, "sh", "-c", script))
    return {each["about"]: f"{each['what']}; {each['remedy']}" for each in told}


def test_doctor_names_the_seeds_of_trouble(lab: Lab) -> None:
    """A label that no node has, a limit too small to start: in the manager's own words, with what to do."""
    with (
        service(lab, "--constraint", "node.labels.disk == ssd") as nowhere,
        service(lab, "--limit-memory", "4M") as small,
    ):

        def told() -> tuple[str, str]:
            found = findings(lab)
            try:
                return found[f"service {nowhere.name}"], found[f"service {small.name}"]
            except KeyError as missing:
                raise DemoError(f"{missing} is not among {sorted(found)}") from None

        of_nowhere, of_small = until(told, "doctor's word on both", 30)
    assert "no suitable node" in of_nowhere
    assert "--label-add" in of_nowhere
    assert "limits.memory" in of_small
