"""Consul's own UI (1.8.7) on what the agent registers: what an operator reads there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from tests.support.agent import AgentProcess
from tests.support.consul import ConsulServer
from tests.support.engine import Docker, health, unique, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.engine, pytest.mark.consul]

MINE = unique("ui")


@pytest.fixture
def ui(tmp_path: Path) -> Iterator[ConsulServer]:
    """A Consul with its UI."""
    with ConsulServer(tmp_path, {"ui": True}) as server:
        yield server


@pytest.fixture
def registering(tmp_path: Path, ui: ConsulServer, engine_url: str) -> Iterator[AgentProcess]:
    """An agent that registers our container there alone: the UI shows as many as have room."""
    options = ["--docker", engine_url, "--consul", ui.url, "--constraint", f"test={MINE}"]
    agent = AgentProcess(tmp_path, *options)
    try:
        agent.start_ready()
        yield agent
    finally:
        agent.close()


def shows(chrome: Chrome, *texts: str) -> str:
    """Wait until the page shows all of these; returns its whole text."""

    def found() -> str:
        text = str(chrome.execute_script("return document.body.innerText"))
        return text if all(part in text for part in texts) else ""

    return wait_for(found, f"{texts} in Consul's UI", 20)


def click(chrome: Chrome, text: str) -> None:
    """Click on the first link, or tab, that says this."""
    script = """const wanted = [...document.querySelectorAll("main a, main label")]
      .find((e) => e.textContent.includes(arguments[0])); wanted?.click(); return Boolean(wanted)"""
    wait_for(lambda: chrome.execute_script(script, text), f"a link {text!r} in Consul's UI", 20)


def test_from_the_services_to_an_instance_to_its_checks(
    chrome: Chrome, docker: Docker, ui: ConsulServer, registering: AgentProcess
) -> None:
    """Why a container is unhealthy is read there, in its own check's words; its tags, meta and node too."""
    name = unique("shop")
    labels = {
        "test": MINE,
        "SERVICE_NAME": name,
        "SERVICE_PORT": "80",
        "SERVICE_TAGS": "blue,v2",
        "SERVICE_TEAM": "data",
        "SERVICE_CHECK_TCP": "true",
        "SERVICE_CHECK_INTERVAL": "1s",
    }
    container = unique("cart")
    docker.run(container, labels=labels, healthcheck=health("echo the disk is full; exit 1"))
    chrome.get(f"{ui.url}/ui/dc1/services")
    shows(chrome, name, "blue", "v2")
    click(chrome, name)
    shows(chrome, container, "consul-test", "All service checks failing")
    click(chrome, container)
    shows(chrome, "Docker health", "the disk is full", "TCP ", "connection refused", "Serf Health Status")
    click(chrome, "Tags & Meta")
    shows(chrome, "blue", "v2", "team", "data")
