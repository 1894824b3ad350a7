"""The commands against a running agent, on a real engine and with both catalogs."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from registrator import __version__
from registrator.cli import cli
from tests.commands.run import REGISTRATOR, environment, error_of, run
from tests.support.agent import AgentProcess
from tests.support.consul import ConsulServer, free_ports
from tests.support.engine import Docker, health, unique, wait_for

COMMANDS = sorted(cli.commands)
EXAMPLE = re.compile(r"^ *Example: registrator (.+)$", re.MULTILINE)


@pytest.fixture(params=["embedded", pytest.param("consul", marks=pytest.mark.consul)])
def known(request: pytest.FixtureRequest, tmp_path: Path, engine_url: str) -> Iterator[AgentProcess]:
    """A ready agent with either catalog."""
    options = ["--docker", engine_url]
    if request.param == "consul":
        server: ConsulServer = request.getfixturevalue("consul_shared")
        options += ["--consul", server.url]
    agent = AgentProcess(tmp_path, *options)
    try:
        agent.start_ready()
        yield agent
    finally:
        agent.stop()
        agent.close()


def at(agent: AgentProcess) -> dict[str, str]:
    """The environment in which commands ask this agent."""
    return {"REGISTRATOR_AGENT": f"http://127.0.0.1:{agent.http_port}"}


def registered(agent: AgentProcess, name: str) -> None:
    wait_for(lambda: name in agent.get("/v1/catalog/services"), f"service {name}")


# What people ask ------------------------------------------------------------


@pytest.mark.engine
def test_a_service_is_looked_up_explained_and_listed(known: AgentProcess, docker: Docker) -> None:
    name = unique("web")
    container = docker.run(unique("c"), labels={"SERVICE_NAME": name, "SERVICE_TAGS": "blue"}, expose=["80"])
    registered(known, name)
    address = f"{docker.address(container)}:80"

    found = run("lookup", name, env=at(known))
    assert (found.returncode, found.stderr) == (0, "")
    heading, line = found.stdout.splitlines()
    assert heading.split() == ["ADDRESS", "NETWORK", "NODE", "STATUS"]
    assert line.split()[0] == address

    why = run("explain", name, env=at(known))
    assert why.returncode == 0
    assert why.stdout.startswith(f"{name}, asked by 127.0.0.1")
    assert "answered" in why.stdout
    assert address in why.stdout

    listed = run("services", env=at(known))
    row = next(line.split() for line in listed.stdout.splitlines() if line.startswith(f"{name} "))
    assert row[1:] == ["1", "0", "0", "blue"]


@pytest.mark.engine
def test_json_is_a_document_with_stable_keys(known: AgentProcess, docker: Docker) -> None:
    name = unique("web")
    docker.run(labels={"SERVICE_NAME": name}, expose=["80"])
    registered(known, name)
    (instance,) = json.loads(run("lookup", name, "--json", env=at(known)).stdout)
    assert instance.keys() == {"id", "node", "status", "answered", "why", "addresses"}
    document = json.loads(run("explain", name, "--json", env=at(known)).stdout)
    assert document.keys() >= {"service", "asker", "answered", "left_out", "instances"}
    listed = json.loads(run("services", "--json", env=at(known)).stdout)
    (service,) = (one for one in listed if one["name"] == name)
    assert service["passing"] == [instance["id"]]
    assert service.keys() == {"name", "tags", "passing", "warning", "critical"}


@pytest.mark.engine
def test_what_is_left_out_is_explained_and_a_lookup_without_answer_is_exit_1(
    known: AgentProcess, docker: Docker
) -> None:
    name = unique("sick")
    docker.run(labels={"SERVICE_NAME": name}, expose=["80"], healthcheck=health("echo no disk left; exit 1"))
    registered(known, name)
    wait_for(lambda: "no disk left" in run("explain", name, env=at(known)).stdout, "the reason in words")
    found = run("lookup", name, env=at(known))
    assert (found.returncode, found.stdout) == (1, "")
    assert f"registrator explain {name}" in error_of(found)
    assert json.loads(run("lookup", name, "--json", env=at(known)).stdout) == []
    why = run("explain", name, env=at(known))
    assert why.returncode == 0
    assert "left out" in why.stdout


@pytest.mark.engine
def test_an_answer_is_the_askers_own(known: AgentProcess, docker: Docker) -> None:
    """With --from a container on the same network its address there is told, and why."""
    name, asker, network = unique("web"), unique("asker"), docker.network()
    container = docker.run(labels={"SERVICE_NAME": name}, expose=["80"], networks=["bridge", network])
    docker.run(asker, networks=[network])
    registered(known, name)
    wait_for(lambda: asker in known.get("/askers")["containers"], "the asker")
    address = f"{docker.address(container, network)}:80"
    assert address in run("lookup", name, "--from", asker, env=at(known)).stdout
    assert f"{address}: both are on network {network}" in run(
        "explain", name, "--from", asker, env=at(known)
    ).stdout  # fmt: skip
    stranger = run("lookup", name, "--from", "nobody-of-that-name", env=at(known))
    assert stranger.returncode == 1
    assert "nobody-of-that-name" in error_of(stranger)


@pytest.mark.engine
def test_a_type_asks_dns(known: AgentProcess, docker: Docker) -> None:
    name = unique("web")
    container = docker.run(labels={"SERVICE_NAME": name}, expose=["80"])
    registered(known, name)
    server = ["--dns", f"127.0.0.1:{known.dns_port}"]
    (record,) = run("lookup", f"{name}:a", *server).stdout.splitlines()
    assert record.split()[-2:] == ["A", docker.address(container)]
    (full,) = json.loads(run("lookup", f"{name}.service.consul:SRV", "--json", *server).stdout)
    assert " SRV " in " ".join(full.split())
    absent = run("lookup", "no-such-name:A", *server)
    assert absent.returncode == 1
    assert error_of(absent) == "no-such-name.service.consul A: NXDOMAIN, no records"


@pytest.mark.engine
def test_an_unknown_name_is_exit_1_with_what_was_meant(known: AgentProcess, docker: Docker) -> None:
    name = unique("web")
    docker.run(labels={"SERVICE_NAME": name}, expose=["80"])
    registered(known, name)
    for command in ("lookup", "explain"):
        result = run(command, name[:-1], env=at(known))
        assert (result.returncode, result.stdout) == (1, "")
        assert f"did you mean {name}" in error_of(result)


@pytest.mark.engine
def test_hostile_tags_and_outputs_stay_on_their_line(agent: AgentProcess, docker: Docker) -> None:
    name = unique("web")
    labels = {"SERVICE_NAME": name, "SERVICE_TAGS": "a\nb,\x1b[31mred"}
    docker.run(labels=labels, expose=["80"], healthcheck=health("printf '\\033[2Jgone\\n'; exit 1"))
    agent.start_ready()
    registered(agent, name)
    wait_for(lambda: "gone" in run("explain", name, env=at(agent)).stdout, "the output")
    for arguments in (["services"], ["explain", name], ["services", "--json"], ["explain", name, "--json"]):
        out = run(*arguments, env=at(agent)).stdout
        assert "\x1b" not in out
        assert all(character.isprintable() or character == "\n" for character in out)
    rows = [line for line in run("services", env=at(agent)).stdout.splitlines() if name in line]
    assert len(rows) == 1


# How they fail --------------------------------------------------------------


@pytest.mark.parametrize("command", [["services"], ["lookup", "x"], ["explain", "x"], ["watch"]])
def test_no_agent_is_exit_1_and_one_line(command: list[str]) -> None:
    (port,) = free_ports(1)
    result = run(*command, "--agent", f"http://127.0.0.1:{port}")
    assert (result.returncode, result.stdout) == (1, "")
    assert f"127.0.0.1:{port}" in error_of(result)


ROWS = [
    ("an agent's address that is none", ["services", "--agent", "ftp://x"], "--agent"),
    ("a type that DNS does not have", ["lookup", "x:NOPE"], "x:NOPE cannot be asked"),
    ("--from beside a type", ["lookup", "x:A", "--from", "y"], "--from goes with a plain NAME"),
    ("a DNS address that is none", ["lookup", "x:A", "--dns", "x"], "--dns"),
    ("a zone that is none", ["lookup", "x:A", "--domain", ".."], "--domain"),
    ("a pause of nothing", ["watch", "--every", "0"], "--every"),
    ("no name", ["explain"], "Missing argument"),
]


@pytest.mark.parametrize(("arguments", "words"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_a_question_that_makes_no_sense_is_exit_2(arguments: list[str], words: str) -> None:
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert words in error_of(result)


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    result = subprocess.run(
        f"{shlex.join(REGISTRATOR)} --help | true",
        shell=True,
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert "Traceback" not in result.stderr


# Help, version, completion --------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_that_is_understood(name: str) -> None:
    result = run(name, "--help")
    assert result.returncode == 0
    assert result.stdout.startswith(f"Usage: registrator {name} ")
    examples = EXAMPLE.findall(result.stdout)
    assert examples
    for example in examples:
        command, *arguments = example.replace('"', "").split()
        assert command == name
        if name != "maintenance":  # its reason is several words
            assert isinstance(cli.commands[name].make_context(name, arguments), click.Context)


def test_version_is_the_packages() -> None:
    assert run("version").stdout == f"registrator {__version__}\n"


def completed(words: str, env: dict[str, str]) -> set[str]:
    """What bash is offered for a line that ends in its last word."""
    instruction = {
        "_REGISTRATOR_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    result = run(env=env | instruction)
    assert result.returncode == 0
    return {line.partition(",")[2] for line in result.stdout.splitlines() if line}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_for_each_shell(shell: str) -> None:
    result = run(env={"_REGISTRATOR_COMPLETE": f"{shell}_source"})
    assert result.returncode == 0
    assert "_REGISTRATOR_COMPLETE" in result.stdout


def test_commands_and_options_are_completed() -> None:
    assert {"lookup", "services", "explain", "watch", "doctor", "version"} <= completed("registrator ", {})
    assert completed("registrator exp", {}) == {"explain"}
    assert "--from" in completed("registrator lookup --", {})


def test_completion_without_an_agent_offers_nothing_and_says_nothing() -> None:
    (port,) = free_ports(1)
    assert completed("registrator lookup x", {"REGISTRATOR_AGENT": f"http://127.0.0.1:{port}"}) == set()


@pytest.mark.engine
def test_names_and_containers_are_completed_from_the_agent(agent: AgentProcess, docker: Docker) -> None:
    name, asker = unique("web"), unique("asker")
    docker.run(asker, labels={"SERVICE_NAME": name}, expose=["80"])
    agent.start_ready()
    registered(agent, name)
    assert completed(f"registrator explain {name[:-3]}", at(agent)) == {name}
    assert completed(f"registrator lookup {name} --from {asker[:-3]}", at(agent)) == {asker}
