"""`watch`: what it draws, on a real terminal, and what it writes where there is none."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from registrator.commands.watch import END_OF_LINE, END_OF_SCREEN, HOME, screen
from tests.commands.run import REGISTRATOR, environment
from tests.support.agent import AgentProcess
from tests.support.engine import Docker, unique, wait_for

MINE = unique("watch")
PATIENCE = 30.0  # seconds for what is to happen on however busy a machine

SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A command on a terminal of its own, of 24 lines with 80 columns; `close` ends it."""

    def __init__(self, *arguments: str, env: Mapping[str, str]) -> None:
        self.fd, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        # A controlling terminal, so that Ctrl-C is a signal; setsid becomes the command itself.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *REGISTRATOR, *arguments],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env=environment({"TERM": "xterm", **env}),
        )
        os.close(inner)
        self.raw = ""

    def read(self) -> None:
        """Take in what was written since."""
        with contextlib.suppress(OSError):  # the command has ended
            while select.select([self.fd], [], [], 0)[0]:
                chunk = os.read(self.fd, 65536)
                if not chunk:
                    return
                self.raw += chunk.decode()

    def picture(self) -> str:
        """What was drawn last, as text."""
        self.read()
        frames = self.raw.split(HOME)
        complete = [frame for frame in frames if END_OF_SCREEN in frame]
        return SEQUENCE.sub("", complete[-1]) if complete else ""

    def shows(self, pattern: str) -> None:
        wait_for(lambda: re.search(pattern, self.picture(), re.MULTILINE), f"{pattern!r}", PATIENCE)

    def drawn(self) -> int:
        """How many pictures were drawn so far."""
        self.read()
        return self.raw.count(END_OF_SCREEN)

    def press(self, key: str) -> None:
        os.write(self.fd, key.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        os.close(self.fd)


@pytest.fixture
def agent(tmp_path: Path, engine_url: str) -> Iterator[AgentProcess]:
    """An agent that knows our containers alone: those of others would push them off the screen."""
    process = AgentProcess(tmp_path, "--docker", engine_url, "--constraint", f"test={MINE}")
    try:
        yield process
    finally:
        process.close()


def run_service(docker: Docker) -> tuple[str, str]:
    """A service of one container, which is up: its name, and the container."""
    name = unique("web")
    return name, run_instance(docker, name)


def run_instance(docker: Docker, name: str) -> str:
    return docker.run(labels={"SERVICE_NAME": name, "test": MINE}, expose=["80"])


@pytest.fixture
def terminal(agent: AgentProcess) -> Iterator[Terminal]:
    """`watch` on a terminal, asking an agent that is ready."""
    agent.start_ready()
    terminal = Terminal("watch", "--agent", f"http://127.0.0.1:{agent.http_port}", env={})
    try:
        yield terminal
    finally:
        terminal.close()


@pytest.mark.engine
def test_a_kill_is_seen_in_the_next_picture(terminal: Terminal, agent: AgentProcess, docker: Docker) -> None:
    """Each second there is one, or less often where the agent is slow: pictures are counted, not seconds."""
    name, first = run_service(docker)
    run_instance(docker, name)
    terminal.shows(rf"^{name} +2 +0 +0")
    begin = time.monotonic()
    docker.kill(first)
    wait_for(lambda: len(agent.get(f"/v1/health/service/{name}")) == 1, "the agent to know")
    drawn = terminal.drawn()
    terminal.shows(rf"^{name} +1 +0 +0")
    print(f"seen after {time.monotonic() - begin:.2f} s")  # noqa: T201
    assert terminal.drawn() - drawn <= 2, "one was begun before the agent knew, and one may have followed"


@pytest.mark.engine
def test_control_c_ends_it_with_130_and_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    terminal.shows("^SERVICE")
    terminal.press("\x03")
    assert terminal.process.wait(PATIENCE) == 130
    terminal.read()
    assert "Traceback" not in terminal.raw
    assert terminal.raw.rstrip().endswith("\x1b[?7h")


@pytest.mark.engine
def test_it_stays_while_the_agent_is_away_and_says_so(
    terminal: Terminal, agent: AgentProcess, docker: Docker
) -> None:
    name, _ = run_service(docker)
    terminal.shows(f"^{name} ")
    agent.stop(signal.SIGTERM)
    terminal.shows("^no agent answers at ")
    assert name in terminal.picture()
    agent.start_ready()
    terminal.shows(rf"^\d\d:\d\d:\d\d .*\n(.*\n)+{name} ")
    assert terminal.process.poll() is None


@pytest.mark.engine
@pytest.mark.parametrize("plain", [False, True])
def test_colours_unless_no_color_is_set(agent: AgentProcess, plain: bool) -> None:  # noqa: FBT001
    agent.start_ready()
    env = {"NO_COLOR": "1"} if plain else {}
    terminal = Terminal("watch", "--agent", f"http://127.0.0.1:{agent.http_port}", env=env)
    try:
        terminal.shows("^SERVICE")
        assert ("\x1b[1m" in terminal.raw) != plain
    finally:
        terminal.close()


@pytest.mark.engine
def test_without_a_terminal_it_is_a_json_line_for_each_change(agent: AgentProcess, docker: Docker) -> None:
    agent.start_ready()
    command = [*REGISTRATOR, "watch", "--every", "0.1", "--agent", f"http://127.0.0.1:{agent.http_port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            assert process.stdout
            json.loads(process.stdout.readline())
            name, _ = run_service(docker)
            for line in process.stdout:
                if any(service["name"] == name and service["passing"] for service in json.loads(line)):
                    break
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130
        finally:
            process.kill()


def service(name: str) -> dict[str, object]:
    return {"name": name, "tags": [], "passing": ["1"], "warning": [], "critical": []}


def lines(text: str) -> list[str]:
    return SEQUENCE.sub("", text).splitlines()


def test_a_table_longer_than_the_terminal_says_how_much_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "10")
    monkeypatch.setenv("COLUMNS", "80")
    drawn = screen([service(f"s{number}") for number in range(20)])
    assert len(lines(drawn)) == 9
    shown = sum(line.startswith("s") for line in lines(drawn))
    assert lines(drawn)[-1] == f"... and {20 - shown} more: registrator services"


def test_every_line_is_cleared_to_its_end_and_the_rest_of_the_screen_too() -> None:
    drawn = screen([service("web")], "no agent\x1b[2J answers")
    assert drawn.startswith(HOME)
    assert drawn.endswith(END_OF_SCREEN)
    assert drawn.count(END_OF_LINE) == len(lines(drawn))
    assert lines(drawn)[0] == r"no agent\x1b[2J answers"
