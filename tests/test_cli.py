"""The command line as a person meets it: one line for what is wrong, and the right exit code."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from registrator.cli import cli
from tests.support.consul import free_ports
from tests.support.engine import wait_for


def run(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command that is expected to end by itself."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("REGISTRATOR_", "CONSUL_", "DOCKER_"))}
    command = [sys.executable, "-m", "registrator", *arguments]
    return subprocess.run(
        command, env={**clean, **(env or {})}, capture_output=True, text=True, timeout=30, check=False
    )


ROWS = [
    ("an unknown option", ["--nonsense"], "no such option"),
    ("a DNS address without a port", ["--dns", "127.0.0.1"], "--dns: '127.0.0.1' is no ADDR:PORT"),
    ("an HTTP address that is none", ["--http", "nowhere:80"], "--http: 'nowhere' is no IP address"),
    ("off beside an address", ["--dns", "off", "--dns", "127.0.0.1:53"], '--dns: "off" goes alone'),
    ("a domain that DNS cannot hold", ["--domain", "a..b"], "--domain: 'a..b' is no DNS zone"),
    ("an empty domain", ["--domain", ""], "--domain: '' is no DNS zone"),
    ("an address that is none", ["--ip", "me"], "--ip: 'me' is no IP address"),
    (
        "a link-local address that is none",
        ["--dns-link-local", "me"],
        "--dns-link-local: 'me' is no IP address",
    ),
    (
        "a Consul URL without a scheme",
        ["--consul", "127.0.0.1:8500"],
        "--consul: '127.0.0.1:8500' is no Consul URL",
    ),
    (
        "--consul env without CONSUL_HTTP_ADDR",
        ["--consul", "env"],
        "--consul: --consul env needs CONSUL_HTTP_ADDR",
    ),
    ("a resync that is no number", ["--resync", "often"], "--resync"),
    ("an engine URL that is none", ["--docker", "gopher://x"], "gopher"),
    ("a log level that is none", ["--log-level", "loud"], "--log-level"),
]


@pytest.mark.parametrize(("options", "words"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_a_command_that_makes_no_sense_is_one_line_and_exit_2(options: list[str], words: str) -> None:
    # Should the options be accepted after all, nothing real is bound or touched.
    result = run(
        "agent", *options, env={"REGISTRATOR_RESYNC": "60", "DOCKER_HOST": "unix:///nowhere/docker.sock"}
    )
    assert result.returncode == 2
    assert words.lower() in result.stderr.lower()
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("registrator: ")


def test_a_port_in_use_is_one_line_and_exit_1() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for options in (
            ["--http", f"127.0.0.1:{port}", "--dns", "off"],
            ["--dns", f"127.0.0.1:{port}", "--http", "off"],
        ):
            result = run("agent", *options, "--docker", "unix:///nowhere/docker.sock")
            errors = [line for line in result.stderr.splitlines() if line.startswith("registrator: ")]
            assert result.returncode == 1
            assert len(errors) == 1
            assert str(port) in errors[0]
            assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("docker", "words"),
    [("unix:///nowhere/docker.sock", "/nowhere/docker.sock"), ("tcp://127.0.0.1:1", "127.0.0.1:1")],
)
def test_an_absent_engine_is_waited_for_and_said_once(tmp_path: Path, docker: str, words: str) -> None:
    log = tmp_path / "log"
    dns, http = (f"127.0.0.1:{port}" for port in free_ports(2))
    with log.open("wb") as out:
        command = [
            sys.executable,
            "-m",
            "registrator",
            "agent",
            "--docker",
            docker,
            "--dns",
            dns,
            "--http",
            http,
        ]
        process = subprocess.Popen(command, stderr=out)
    try:
        wait_for(lambda: _warnings(log), "word about the engine")
        assert process.poll() is None
        (warning,) = _warnings(log)
        assert words in warning
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0


def test_every_option_is_an_environment_variable_too() -> None:
    agent = cli.commands["agent"]
    for parameter in agent.params:
        assert parameter.envvar == "REGISTRATOR_" + parameter.opts[0].removeprefix("--").upper().replace(
            "-", "_"
        )
    result = run("agent", env={"REGISTRATOR_DNS": "nonsense"})
    assert result.returncode == 2
    assert "--dns: 'nonsense' is no ADDR:PORT" in result.stderr


def test_help_and_version_exit_0() -> None:
    assert run("--version").stdout.startswith("registrator, version ")
    for arguments in (["--help"], ["agent", "--help"], ["agent", "-h"]):
        result = run(*arguments)
        assert result.returncode == 0
        assert "Usage: " in result.stdout


def _warnings(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if "WARNING" in line]
