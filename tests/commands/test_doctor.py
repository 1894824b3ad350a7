"""`doctor` on a real engine and real Consuls: what it finds, each with the remedy, and its exit code."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from registrator.commands.examine import (
    clock_finding,
    consul,
    container,
    engine,
    first_server,
)
from registrator.commands.finding import BAD, GOOD, WARNING, Finding
from registrator.commands.rights import rights_finding
from registrator.model import Engine
from registrator.settings import ConsulAddress
from tests.commands.run import environment, error_of, run
from tests.support.agent import AgentProcess
from tests.support.consul import ConsulServer, free_ports
from tests.support.engine import Docker, unique, wait_for
from tests.test_docs import ROOT

FACTS = Engine("id", "consul-test")


def by_about(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.about: finding for finding in findings}


def doctor(agent: AgentProcess, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code and the findings, by what they are about."""
    result = run(
        "doctor", "--json", "--agent", f"http://127.0.0.1:{agent.http_port}", "--dns",
        f"127.0.0.1:{agent.dns_port}", *options,
    )  # fmt: skip
    return result.returncode, {finding["about"]: finding for finding in json.loads(result.stdout)}


# The engine -----------------------------------------------------------------


@pytest.mark.engine
async def test_an_engine_that_answers(engine_url: str) -> None:
    findings, facts = await engine(engine_url)
    assert facts
    assert [finding.level for finding in findings] == [GOOD, GOOD]
    assert facts.name in findings[0].what


async def test_a_socket_that_is_missing() -> None:
    (finding,), facts = await engine("unix:///nowhere/docker.sock")
    assert facts is None
    assert finding.level == BAD
    assert "/nowhere/docker.sock" in finding.what
    assert "dockerd" in finding.remedy


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without rights")
def test_a_socket_that_this_user_may_not_use(tmp_path: Path) -> None:
    """Asked by a process of the user nobody, it says as whom to run."""
    path = tmp_path / "docker.sock"
    nobody = pwd.getpwnam("nobody").pw_uid
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0o600)
        for folder in (tmp_path, *tmp_path.parents):
            if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
                folder.chmod(folder.stat().st_mode | 0o111)
        program = (
            "import asyncio, os; from registrator.commands.examine import engine; import registrator.engine;"
            f"os.setuid({nobody}); (found,), _ = asyncio.run(engine('unix://{path}')); "
            "print(found.level, found.what, '|', found.remedy)"
        )
        asked = asyncio.run(_output(program))
    assert asked.startswith("bad ")
    assert "permission" in asked.lower() or "may not" in asked.lower()
    assert "run as root" in asked.partition("|")[2]


async def _output(program: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, cwd=ROOT, env=environment()
    )
    out, _ = await process.communicate()
    return out.decode()


# Consul ---------------------------------------------------------------------


@pytest.mark.consul
async def test_a_consul_of_this_node_with_acls_off_is_good(consul_shared: ConsulServer) -> None:
    findings = await consul(ConsulAddress(consul_shared.url), FACTS)
    assert {finding.about: finding.level for finding in findings} == dict.fromkeys(
        ("consul", "rights", "clock"), GOOD
    )
    assert "ACLs are off" in by_about(findings)["rights"].what


@pytest.mark.consul
async def test_a_consul_agent_of_another_node_is_a_warning(consul_shared: ConsulServer) -> None:
    findings = await consul(ConsulAddress(consul_shared.url), Engine("id", "node7"))
    (warning,) = (finding for finding in findings if finding.level == WARNING)
    assert "consul-test" in warning.what
    assert "node7" in warning.what
    assert "this very node" in warning.remedy


async def test_a_consul_that_refuses_connections() -> None:
    (port,) = free_ports(1)
    (finding,) = await consul(ConsulAddress(f"http://127.0.0.1:{port}"), FACTS)
    assert finding.level == BAD
    assert "connection refused" in finding.what
    assert "running" in finding.remedy


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulServer]:
    """A Consul that denies what no token allows."""
    acl = {"enabled": True, "default_policy": "deny", "tokens": {"master": "root", "agent": "root"}}
    with ConsulServer(tmp_path_factory.mktemp("acl"), {"acl": acl}, token="root") as server:
        yield server


def token(server: ConsulServer, rules: str) -> str:
    policy = server.put("/v1/acl/policy", {"Name": unique("policy"), "Rules": rules})
    return str(server.put("/v1/acl/token", {"Policies": [{"ID": policy["ID"]}]})["SecretID"])


NODES, AGENTS = 'node_prefix "" { policy = "read" }', 'agent_prefix "" { policy = "read" }'
READ = f"{NODES} {AGENTS}"
ALL = f'{READ} service_prefix "" {{ policy = "write" }}'
KEYS = 'key_prefix "registrator/swarm/"'
READ_KEYS = f'{KEYS} {{ policy = "read" }}'
RIGHTS = [
    ("a token that Consul does not know", None, False, "consul", BAD, "lacks a right"),
    ("a token that may not see its agent", NODES, False, "consul", BAD, "give"),
    ("a token that may see no node", AGENTS, False, "consul", BAD, "give"),
    ("a token that may register nothing", READ, False, "rights", WARNING, 'service_prefix "" write'),
    ("a token with all that is needed outside Swarms", ALL, None, "rights", GOOD, "all that the agent needs"),
    ("a manager's token that may publish nothing", ALL, True, "rights", WARNING, f"{KEYS} write"),
    ("a worker's token that may not read of its Swarm", ALL, False, "rights", WARNING, f"{KEYS} read"),
    ("a worker's token that may", f"{ALL} {READ_KEYS}", False, "rights", GOOD, "all that the agent needs"),
]  # fmt: skip


@pytest.mark.consul
@pytest.mark.parametrize(
    ("rules", "manager", "about", "level", "words"),
    [row[1:] for row in RIGHTS],
    ids=[row[0] for row in RIGHTS],
)
async def test_what_a_token_may_do(
    guarded: ConsulServer, rules: str | None, *, manager: bool | None, about: str, level: str, words: str
) -> None:
    """`manager` is None outside a Swarm."""
    secret = "00000000-dead-beef-0000-000000000000"
    if rules is not None:
        secret = await asyncio.to_thread(token, guarded, rules)
    member = "" if manager is None else "swarm-node"
    facts = Engine("id", "consul-test", swarm_node_id=member, manager=bool(manager))
    finding = by_about(await consul(ConsulAddress(guarded.url, token=secret), facts))[about]
    assert finding.level == level
    assert words in f"{finding.what}; {finding.remedy}"
    assert secret not in f"{finding.what}{finding.remedy}"


def test_rights_that_are_told_are_named() -> None:
    told = [{"Resource": "service", "Access": "write", "Allow": False}]
    assert rights_finding(told).level == WARNING
    assert rights_finding([{**told[0], "Allow": True}]).level == GOOD


@pytest.mark.parametrize(
    ("ahead", "level"), [(0, GOOD), (4, GOOD), (-4, GOOD), (60, WARNING), (-60, WARNING)]
)
def test_clocks_apart_are_a_warning_with_how_much(ahead: int, level: str) -> None:
    ours = float(int(time.time()))
    finding = clock_finding(formatdate(ours + ahead, usegmt=True), ours)
    assert finding.level == level
    assert level == GOOD or f"{ahead:+d} s" in finding.what


# The agent ------------------------------------------------------------------


@pytest.mark.engine
def test_a_machine_where_all_is_well_exits_0(agent: AgentProcess, engine_url: str) -> None:
    agent.start_ready()
    code, found = doctor(agent, "--docker", engine_url)
    assert code == 0
    assert {found[about]["level"] for about in ("engine", "agent", "agent's first reconcile", "dns")} == {
        GOOD
    }


@pytest.mark.engine
def test_no_agent_is_bad_and_exits_1_and_every_bad_finding_has_a_remedy(
    agent: AgentProcess, engine_url: str
) -> None:
    code, found = doctor(agent, "--docker", engine_url, "--dns-link-local", "203.0.113.5")
    assert code == 1
    bad = {about for about, finding in found.items() if finding["level"] == BAD}
    assert bad == {"agent", "dns", "link-local"}
    assert all(finding["remedy"] for finding in found.values() if finding["level"] != GOOD)


def test_ports_that_somebody_else_has_are_told(agent: AgentProcess) -> None:
    """Something that is no agent on the agent's own ports."""
    with (
        socket.socket() as http,
        socket.socket(type=socket.SOCK_DGRAM) as dns,
    ):
        http.bind(("127.0.0.1", agent.http_port))
        http.listen()
        http.settimeout(0)
        dns.bind(("127.0.0.1", agent.dns_port))
        # As patient as a test can be: neither of the two ever answers.
        program = (
            "from registrator.commands import client, examine;"
            "client.AgentClient.__init__.__defaults__ = (0.2,); examine.PATIENCE = 0.2;"
            "from registrator.cli import main; main()"
        )
        found = _doctor_with(program, agent)
    assert found["agent"]["what"].startswith("something that is no agent has the port")
    assert "ss -tlnp" in found["agent"]["remedy"]
    assert found["dns"]["what"].startswith("something has the port")
    assert "ss -ulnp" in found["dns"]["remedy"]


def _doctor_with(program: str, agent: AgentProcess) -> dict[str, dict[str, Any]]:
    url, dns = f"http://127.0.0.1:{agent.http_port}", f"127.0.0.1:{agent.dns_port}"
    options = ["doctor", "--json", "--docker", "unix:///nowhere/x.sock", "--agent", url, "--dns", dns]
    result = subprocess.run(
        [sys.executable, "-c", program, *options], capture_output=True, text=True, check=False,
        timeout=60, env=environment(), cwd=ROOT,
    )  # fmt: skip
    return {finding["about"]: finding for finding in json.loads(result.stdout)}


@pytest.mark.engine
def test_another_zone_than_the_agents_is_told(agent: AgentProcess, engine_url: str) -> None:
    agent.start_ready()
    code, found = doctor(agent, "--docker", engine_url, "--domain", "example.org")
    assert code == 1
    assert "no agent with the zone example.org (REFUSED)" in found["dns"]["what"]


def test_an_agent_that_waits_for_its_engine_is_told(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path, "--docker", "unix:///nowhere/docker.sock")
    try:
        agent.start()
        wait_for(lambda: agent.status("/livez") == 200, "life")
        code, found = doctor(agent, "--docker", "unix:///nowhere/docker.sock")
    finally:
        agent.close()
    assert code == 1
    assert found["agent"]["level"] == GOOD
    assert "not ready" in found["agent's first reconcile"]["what"]


def test_options_that_make_no_sense_are_exit_2() -> None:
    for options in (["--dns", "x"], ["--domain", ".."], ["--consul", "x"], ["--dns-link-local", "x"]):
        result = run("doctor", *options)
        assert result.returncode == 2
        assert "doctor" in error_of(result)


# A container's own resolver -------------------------------------------------


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("# comment\nsearch x\nnameserver 127.0.0.11\nnameserver 10.0.0.1\n", "127.0.0.11"),
        ("nameserver\t::1", ""),
        ("", ""),
    ],
)
def test_the_first_name_server_of_a_file(text: str, server: str) -> None:
    assert first_server(text) == server


@pytest.mark.engine
@pytest.mark.skipif(os.geteuid() != 0, reason="only root enters another network namespace")
async def test_a_container_whose_resolver_finds_the_zone_and_one_whose_does_not(
    agent: AgentProcess, docker: Docker, engine_url: str
) -> None:
    address = "169.254.53.83"
    agent._options = (*agent._options, "--dns-link-local", address)
    await asyncio.to_thread(agent.start_ready)
    network = docker.network()
    rows = [
        ("on the default bridge, with `dns:`", {"dns": [address]}, GOOD),
        ("on a network of its own, by Docker's resolver", {"dns": [address], "networks": [network]}, GOOD),
        ("without `dns:`", {"dns": ["203.0.113.5"], "dns_opt": ["timeout:1"]}, BAD),
    ]
    try:
        for sentence, options, level in rows:
            name = unique("asker")
            await asyncio.to_thread(docker.run, name, **options)  # type: ignore[arg-type]
            finding = await container(engine_url, name, "consul", address)
            assert finding.level == level, f"{sentence}: {finding}"
            assert (f"--dns {address}" in finding.remedy) == (level == BAD)
    finally:
        agent.stop()  # with SIGTERM, so that it takes its address away


@pytest.mark.engine
async def test_a_container_that_is_not_there_or_not_up(docker: Docker, engine_url: str) -> None:
    absent = await container(engine_url, unique("absent"), "consul", "169.254.53.53")
    assert absent.level == BAD
    name = unique("down")
    await asyncio.to_thread(docker.run, name, command=["true"])
    await asyncio.to_thread(docker.api.wait, name)
    down = await container(engine_url, name, "consul", "169.254.53.53")
    assert down.level == WARNING
    assert "start it" in down.remedy
