"""One lab for this folder, with compose/stack.yml on it; each test leaves it as it found it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from scripts.demo.steps import DemoError
from scripts.lab.lab import Lab
from scripts.lab.waiting import until
from tests.lab import document
from tests.lab.services import NETWORK, STORIES
from tests.lab.truth import agree
from tests.support import unavailable

LAST = "test_nodes test_consul"  # modules, in this order
TIMES = pytest.StashKey[list[str]]()
DONE = pytest.StashKey[list[document.Done]]()  # docs/swarm.md's commands, with what they printed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What kills nodes and cuts them off comes last.

    The engines' own gossip needs up to half a minute afterwards, until every
    node reaches every new container again (networkdb's bulk sync).
    """
    places = [place for place, item in enumerate(items) if item.get_closest_marker("lab")]
    ours = sorted((items[place] for place in places), key=lambda item: LAST.find(item.path.stem))
    for place, item in zip(places, ours, strict=True):
        items[place] = item


@pytest.fixture(scope="package")
def lab(engine_url: str, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The lab, set up as docs/swarm.md says; the machine's own engine builds its images.

    With LAB_REUSE set it is the one that `make lab` has left, and stays: for
    work on these tests.
    """
    lab, reuse = Lab(), bool(os.environ.get("LAB_REUSE"))
    if lab.kept.exists() and not reuse:
        unavailable("a lab is up already, and is somebody's: make lab-down")
    try:
        lab.see_possible()
    except DemoError as error:
        unavailable(str(error))
    with lab.held():
        try:
            if not (reuse and lab.kept.exists()):
                lab.boot()
                request.config.stash[DONE] = document.follow(lab)
            if NETWORK not in lab.manager.docker("network", "ls", "--format", "{{.Name}}").split():
                lab.manager.docker("network", "create", "--driver", "overlay", "--attachable", NETWORK)
            until(
                lambda: {name for name, _, _ in agree(lab, 5)} >= set(STORIES), "the stack on all nodes", 90
            )
            yield lab
        finally:
            if not reuse:
                lab.clear()


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Says a line of figures at the end of the run: they are stated in docs/swarm.md."""
    lines = request.config.stash.setdefault(TIMES, [])
    return lines.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = terminalreporter.config.stash.get(TIMES, [])
    if lines:
        terminalreporter.section("measured on the lab")
        for line in lines:
            terminalreporter.write_line(line)
