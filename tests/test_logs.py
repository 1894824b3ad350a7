"""The log: one line a record whatever it holds, stable keys for machines, no harm from a full disk."""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from registrator.logs import JsonFormatter, TextFormatter, count_lines
from tests.commands.run import REGISTRATOR, environment
from tests.support.agent import AgentProcess
from tests.support.consul import free_ports
from tests.support.engine import Docker, unique, wait_for

FORGED = "x\n2026-01-01 00:00:00,000 INFO registered evil at 10.6.6.6:80\r\x1b[2K\x1b[31m\x9b0m\u2028\u202e"
RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) \S")


def record(
    message: str = "%s", *args: object, error: Exception | None = None, **fields: str
) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error else None
    made = logging.LogRecord("registrator.test", logging.WARNING, __file__, 1, message, args, info)
    made.__dict__.update(fields)
    return made


def raised() -> Exception:
    try:
        int(FORGED)
    except ValueError as error:
        return type(error)(FORGED).with_traceback(error.__traceback__)
    raise AssertionError


def is_harmless(line: str) -> bool:
    return all(character.isprintable() for character in line)


# What a record becomes ------------------------------------------------------


def test_a_message_stays_on_its_line_and_sends_nothing_to_a_terminal() -> None:
    (line,) = TextFormatter().format(record("container %s", FORGED)).splitlines()
    assert is_harmless(line)
    assert line.endswith(r"\r\x1b[2K\x1b[31m\x9b0m\u2028\u202e")


def test_a_traceback_cannot_look_like_a_record() -> None:
    first, *others = TextFormatter().format(record("it failed", error=raised())).splitlines()
    assert RECORD.match(first)
    assert any("ValueError" in line for line in others)
    assert any("registered evil" in line for line in others)
    assert all(line.startswith("    ") and is_harmless(line) for line in others)


def test_json_is_one_object_a_line_in_ascii_with_these_keys() -> None:
    text = JsonFormatter().format(record("container %s", FORGED))
    assert text.isascii()
    assert is_harmless(text)
    line = json.loads(text)
    assert line.keys() == {"time", "level", "logger", "message"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])
    assert (line["level"], line["logger"]) == ("warning", "registrator.test")
    assert line["message"] == f"container {FORGED}"


def test_json_tells_errors_and_what_changed_by_keys_of_their_own() -> None:
    line = json.loads(
        JsonFormatter().format(record("it failed", error=raised(), event="registered", other="x"))
    )
    assert line.keys() == {"time", "level", "logger", "message", "error", "event"}
    assert "ValueError" in line["error"]


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, as it was at the end."""
    logger = logging.getLogger()
    handlers = list(logger.handlers)
    yield logger
    logger.handlers[:] = handlers


def test_lines_of_trouble_are_counted_by_level(root: logging.Logger) -> None:
    lines: Counter[str] = Counter()
    count_lines(lines)
    log = logging.getLogger("registrator.test")
    for number in (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        log.log(number, "x")
    assert lines == {"warning": 1, "error": 2}


# What an agent writes -------------------------------------------------------


@pytest.mark.engine
def test_labels_cannot_forge_lines(agent: AgentProcess, docker: Docker) -> None:
    """A hostile name, tag and check reach the log, and every line of it is a record of the agent's own."""
    name = unique("web")
    docker.run(
        labels={
            "SERVICE_NAME": name,
            "SERVICE_TAGS": FORGED,
            "SERVICE_CHECK_TCP": "1",
            "SERVICE_CHECK_INTERVAL": FORGED,
        },
        expose=["80"],
    )
    docker.run(labels={"SERVICE_NAME": FORGED, "SERVICE_ID": FORGED}, expose=["81"])
    agent.start_ready()
    wait_for(lambda: "registered evil" in agent.log, "the hostile words")
    lines = agent.log.splitlines()
    assert all(RECORD.match(line) and is_harmless(line) for line in lines)
    assert not any(re.match(r"2026-01-01", line) for line in lines)


@pytest.mark.engine
def test_changes_are_one_line_each_in_words_and_lookups_none(agent: AgentProcess, docker: Docker) -> None:
    agent.start_ready()
    name = unique("web")
    container = docker.run(labels={"SERVICE_NAME": name}, expose=["80"])
    wait_for(lambda: name in agent.get("/v1/catalog/services"), "the service")
    address = docker.address(container)
    for _ in range(20):
        agent.ask(name)
        agent.get(f"/lookup/{name}")
    assert agent.log.count(name) == agent.log.count(f"registered {name}") == 1
    docker.kill(container)
    wait_for(lambda: f"deregistered {name}" in agent.log, "the line")
    own = [line for line in agent.log.splitlines() if name in line]
    assert f"INFO registered {name} at {address}:80 (bridge) as " in own[0]
    assert own[1].endswith("its container died") or own[1].endswith("its container was told to stop")
    assert len(own) == 2


@pytest.mark.engine
def test_json_lines_of_changes_have_fields(tmp_path: Path, engine_url: str, docker: Docker) -> None:
    agent = AgentProcess(tmp_path, "--docker", engine_url, "--log-format", "json")
    try:
        agent.start_ready()
        name = unique("web")
        container = docker.run(labels={"SERVICE_NAME": name}, expose=["80"])
        wait_for(lambda: f"registered {name}" in agent.log, "the registration")
        docker.kill(container)
        wait_for(lambda: f"deregistered {name}" in agent.log, "the end")
    finally:
        agent.stop()
        agent.close()
    lines = [json.loads(line) for line in agent.log.splitlines()]
    mine = [line for line in lines if line.get("service") == name]
    assert [line["event"] for line in mine] == ["registered", "deregistered"]
    assert {line["container"] for line in mine} == {container}
    assert len({line["instance"] for line in mine}) == 1


@pytest.mark.engine
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_log_on_a_full_disk_ends_no_agent(
    engine_url: str, docker: Docker, tmp_path: Path, form: str
) -> None:
    """With /dev/full as its standard error it registers, answers and ends as ever."""
    agent = AgentProcess(tmp_path)
    dns, http = f"127.0.0.1:{agent.dns_port}", f"127.0.0.1:{agent.http_port}"
    command = [
        *REGISTRATOR,
        "agent",
        "--docker",
        engine_url,
        "--dns",
        dns,
        "--http",
        http,
        "--log-format",
        form,
    ]
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen([*command, "--log-level", "debug"], stderr=full, env=environment())
    try:
        wait_for(agent.ready, "readiness", 20)
        name = unique("web")
        docker.run(labels={"SERVICE_NAME": name}, expose=["80"])
        wait_for(lambda: name in agent.get("/v1/catalog/services"), "the service")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()


def test_an_error_of_one_line_is_told_even_where_nobody_reads_it() -> None:
    """A closed standard error changes no exit code."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "registrator", "services", "--agent", f"http://127.0.0.1:{port}"]
    with Path("/dev/full").open("w") as full:
        assert (
            subprocess.run(command, stderr=full, env=environment(), check=False, timeout=30).returncode == 1
        )
