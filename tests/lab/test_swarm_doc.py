"""docs/swarm.md leads from three machines to a resolving counter: its twelve commands set this lab up."""

from __future__ import annotations

import re

import pytest

from scripts.demo.images import LABEL, make_base
from scripts.demo.steps import ROOT, run
from scripts.lab.images import NAMES, PROJECT
from scripts.lab.lab import Lab
from tests.lab.conftest import DONE
from tests.lab.document import DOCUMENT, Done, commands
from tests.lab.services import STORIES

pytestmark = [pytest.mark.engine, pytest.mark.consul, pytest.mark.lab]


@pytest.fixture
def done(lab: Lab, request: pytest.FixtureRequest) -> list[Done]:
    """What the commands printed when the lab was set up; each has been held to what it must print."""
    if DONE not in request.config.stash:
        pytest.skip("the lab is one that make lab left: it was not set up by the document")
    return request.config.stash[DONE]


def test_twelve_commands_lead_there(done: list[Done]) -> None:
    """All of the document's, in its order, on all three nodes; the last is the counter's answer."""
    assert [(each.node, each.command) for each in done] == commands()
    assert len(done) == 12
    assert {each.node for each in done} == {"n1", "n2", "n3"}
    assert done[-1].output.startswith("Hello, visitor ")


def test_the_listings_of_the_swarm_and_of_registrator_agree(done: list[Done]) -> None:
    """`docker stack services` and `registrator services`: as many tasks as instances, of each story."""
    listed = next(each.output for each in done if "stack services" in each.command)
    known = next(each.output for each in done if "registrator services" in each.command)
    replicas = {line.split()[1].removeprefix("demo_"): line.split()[3] for line in listed.splitlines()[1:]}
    passing = {line.split()[0]: line.split()[1] for line in known.splitlines()[1:]}
    assert {name: replicas[name] for name in STORIES} == {
        name: f"{number}/{number}" for name, number in STORIES.items()
    }
    assert {name: passing[name] for name in STORIES} == {
        name: str(number) for name, number in STORIES.items()
    }


@pytest.mark.usefixtures("lab")
def test_its_builds_make_the_images_of_the_stack() -> None:
    """Of the base that the lab has, since no registry is at hand, and under names of the test's own."""
    builds = re.findall(r"^\$ (docker build .*) -t (registrator/\S+) \.$", DOCUMENT.read_text(), re.MULTILINE)
    assert {f"{name}:latest" for _, name in builds} == {
        name for name in NAMES if name.startswith("registrator/")
    }
    base, made = make_base(PROJECT), []
    try:
        for command, name in builds:
            made.append(f"{PROJECT}/documented-{name.partition('/')[2]}")
            own = f"--quiet --build-arg BASE={base} --label {LABEL}={PROJECT} -t {made[-1]}"
            run("bash", "-ec", f"cd {ROOT}; {command} {own} .")
    finally:
        run("docker", "image", "rm", "--force", *made)
