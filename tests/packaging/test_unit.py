"""packaging/registrator.service: how much it leaves the agent, and that this is enough."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.query
import dns.rcode
import pytest

from tests.packaging import confined
from tests.support import unavailable
from tests.support.agent import AgentProcess
from tests.support.consul import ConsulServer
from tests.support.engine import Docker, wait_for

UNIT = Path(__file__).resolve().parents[2] / "packaging/registrator.service"
LINK_LOCAL = "169.254.53.77"
KILLED = -signal.SIGSYS


def analyze(*arguments: str) -> str:
    """What systemd-analyze prints, 252 or later: it need not run here."""
    if shutil.which("systemd-analyze") is None:
        unavailable("systemd-analyze is missing; run: apt-get install systemd")
    return subprocess.run(
        ("systemd-analyze", *arguments), capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    ).stdout


def directives(name: str) -> list[str]:
    """The values of a directive, in order."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def allowed() -> list[str]:
    """The system calls that the unit allows: groups resolved, the last line about each decides."""
    found: dict[str, None] = {}
    for line in directives("SystemCallFilter"):
        names = [call for name in line.removeprefix("~").split() for call in calls(name)]
        if line.startswith("~"):
            found = {name: None for name in found if name not in names}
        else:
            found.update(dict.fromkeys(names))
    return [*found, *calls("@default")]


def calls(name: str) -> Iterator[str]:
    if not name.startswith("@"):
        yield name
        return
    for line in analyze("syscall-filter", name).splitlines()[1:]:
        if (inner := line.strip()) and not inner.startswith("#"):
            yield from calls(inner)


def confine() -> list[str]:
    """The beginning of a command line that runs what follows as the unit does."""
    try:
        confined.numbers()
    except OSError as error:
        unavailable(f"the numbers of system calls are missing ({error}); run: apt-get install musl-tools")
    (keep,) = directives("CapabilityBoundingSet")
    kept = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in keep.split())
    limit = directives("LimitNOFILE")[0]
    return [
        *("prlimit", f"--nofile={limit}:{limit}"),
        *("setpriv", f"--inh-caps=-all,{kept}", f"--bounding-set=-all,{kept}", "--no-new-privs"),
        *(sys.executable, confined.__file__, ",".join(allowed())),
    ]


def test_its_exposure_is_at_most_two() -> None:
    """By systemd's own measure, from 0 (nothing left) to 10."""
    told = analyze("security", "--offline=true", str(UNIT))
    found = re.search(r"Overall exposure level for registrator.service: ([\d.]+)", told)
    assert found, told
    assert float(found[1]) <= 2.0, told


def test_systemd_understands_all_of_it() -> None:
    """Unknown names and values would be passed over with a warning."""
    done = subprocess.run(
        ("systemd-analyze", "verify", "--man=no", str(UNIT)), capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stderr.splitlines() if "is not executable" not in line]
    assert not lines


@pytest.mark.parametrize(
    "program",
    [
        "import os; os.setpriority(os.PRIO_PROCESS, 0, 5)",
        "import os; os.chroot('/')",
        "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "import mmap; mmap.mmap(-1, 4096, prot=7)",
        "import ctypes; ctypes.CDLL(None).unshare(0x10000000)",
    ],
)
def test_the_confinement_of_these_tests_confines(program: str) -> None:
    """As a control: what the unit forbids ends the process."""
    done = subprocess.run([*confine(), sys.executable, "-c", program], check=False, capture_output=True)
    assert done.returncode == KILLED, done.stderr


def test_the_agent_works_under_it(tmp_path: Path, docker: Docker, engine_url: str) -> None:
    """All that it does: checks, DNS over both transports, link-local, recursor, HTTP, hand-over, end."""
    options = ("--docker", engine_url, "--reuse-port", "--recursor", "system", "--dns-link-local", LINK_LOCAL)
    first, second = (AgentProcess(tmp_path, *options, enter=confine()) for _ in range(2))
    second.dns_port, second.http_port = first.dns_port, first.http_port
    try:
        first.start_ready()
        docker.run(env={"SERVICE_NAME": "web", "SERVICE_PORT": "80"})
        probe = {"SERVICE_CHECK_TCP": "true", "SERVICE_CHECK_INTERVAL": "1s"}
        serve = ["httpd", "-f", "-p", "80"]
        docker.run(command=serve, env={"SERVICE_NAME": "probed", "SERVICE_PORT": "80", **probe})
        wait_for(lambda: first.ask("web") != ["NXDOMAIN"], "the container in lookups")
        query = dns.message.make_query("web.service.consul", "SRV")
        assert dns.query.tcp(query, "127.0.0.1", 5, first.dns_port).rcode() == dns.rcode.NOERROR
        dns.query.udp(dns.message.make_query("localhost.invalid", "A"), LINK_LOCAL, 10)
        wait_for(lambda: first.ask("probed") != ["NXDOMAIN"], "the check passed", 20)
        for path in ("/metrics", "/lookup/web", "/v1/catalog/services", "/"):
            assert first.status(path) == 200, path
        second.start()
        wait_for(lambda: "taking over" in second.log, "the second agent")
        assert first.stop() == 0
        wait_for(second.ready, "the second agent's readiness")
        assert second.stop() == 0
    finally:
        first.close()
        second.close()
    assert "Traceback" not in first.log


def test_the_agent_works_under_it_with_consul(
    tmp_path: Path, docker: Docker, engine_url: str, consul: ConsulServer
) -> None:
    """With the client, which is loaded for Consul only."""
    agent = AgentProcess(tmp_path, "--docker", engine_url, "--consul", consul.url, enter=confine())
    try:
        agent.start_ready()
        docker.run(env={"SERVICE_NAME": "web", "SERVICE_PORT": "80"})
        wait_for(lambda: agent.ask("web") != ["NXDOMAIN"], "the container in lookups")
        assert agent.stop() == 0
    finally:
        agent.close()
