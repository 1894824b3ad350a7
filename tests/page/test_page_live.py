"""The page of a real agent on a real engine, with either catalog: what Docker does is seen at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from registrator.model import CRITICAL, PASSING
from tests.page.page import Page
from tests.support.agent import AgentProcess
from tests.support.consul import ConsulServer
from tests.support.engine import HTTPD, Docker, health, unique, wait_for

TRIES = 3  # one of which must be quick: whatever else the machine does may hold up the others

pytestmark = [pytest.mark.browser, pytest.mark.engine]


@pytest.fixture(params=["embedded", pytest.param("consul", marks=pytest.mark.consul)])
def url(request: pytest.FixtureRequest, tmp_path: Path, engine_url: str, busybox: str) -> Iterator[str]:
    """The page of an agent that is ready."""
    options = ["--docker", engine_url]
    if request.param == "consul":
        server: ConsulServer = request.getfixturevalue("consul")
        options += ["--consul", server.url]
    agent = AgentProcess(tmp_path, *options)
    try:
        agent.start_ready()
        yield f"http://127.0.0.1:{agent.http_port}"
    finally:
        agent.close()


def statuses(page: Page, service: str) -> list[str]:
    return [status for _, name, status in page.tiles() if name == service]


def seen_to_go(page: Page, docker: Docker, name: str) -> float:
    """Seconds from a container's end to its tile's."""
    container = docker.run(command=HTTPD, labels={"SERVICE_NAME": name}, expose=["80/tcp"])
    wait_for(lambda: statuses(page, name) == [PASSING], "a tile for what was started")
    began = time.monotonic()
    docker.kill(container)
    wait_for(lambda: statuses(page, name) == [], "end of the tile")
    return time.monotonic() - began


def askers(page: Page) -> list[str]:
    """Those that can be chosen, after a reload."""
    page.chrome.refresh()
    return page.texts("#asker option")


def test_what_docker_does_is_seen_within_a_second(page: Page, docker: Docker, url: str) -> None:
    """Started, killed: the tile comes and goes, and the event says why."""
    page.open(url)
    name = unique("web")
    took = [seen_to_go(page, docker, name)]
    while took[-1] >= 1 and len(took) < TRIES:
        took.append(seen_to_go(page, docker, name))
    assert took[-1] < 1, took
    page.until_text("#log li", f"registered {name} at ")
    page.until_text("#log li", f"deregistered {name}: its container ")
    page.assert_clean(url)


def test_an_unhealthy_container_is_shown_with_what_its_check_said_and_since_when_it_runs(
    page: Page, docker: Docker, url: str
) -> None:
    name = unique("ill")
    container = docker.run(
        labels={"SERVICE_NAME": name, "SERVICE_PORT": "80"},
        healthcheck=health("echo the disk is full; exit 1"),
    )
    page.open(url, f"services/{name}")
    page.until_text(".instance pre", "the disk is full")
    assert page.up_since() == [docker.inspect(container)["State"]["StartedAt"].partition(".")[0] + "Z"]
    page.chrome.get(f"{url}/#/nodes")
    wait_for(lambda: statuses(page, name) == [CRITICAL], "the tile")


def test_a_name_is_explained_for_a_real_container(page: Page, docker: Docker, url: str) -> None:
    """One on the same network gets the container's own address, by that network's name."""
    network = docker.network()
    name, asker = unique("web"), unique("asker")
    web = docker.run(labels={"SERVICE_NAME": name, "SERVICE_PORT": "80"}, networks=[network])
    docker.run(asker, networks=[network])
    page.open(url, "names")
    wait_for(lambda: asker in askers(page), "the asker")
    wait_for(lambda: asker in page.texts("#asker option"), "the asker after the last reload")
    page.one("#name").send_keys(name)
    page.one("#asker").send_keys(asker)
    page.one("#ask button").click()
    page.until_text("#answer tbody tr", f"{docker.address(web, network)}:80: both are on network {network}")
