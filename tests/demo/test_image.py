"""The agent's image on the real engine: who it runs as, and that it writes nothing."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from registrator.limits import DESCRIPTORS
from scripts import locks
from scripts.demo import images
from scripts.demo.proof import fetch
from tests.demo.conftest import run_docker, seconds_until
from tests.support.consul import free_ports
from tests.support.engine import unique

pytestmark = [pytest.mark.engine, pytest.mark.demo]

PROJECT = "registrator-image-test"
IMAGE = f"{PROJECT}/agent"
CAPABILITIES = ("NET_ADMIN", "NET_BIND_SERVICE", "SETUID", "SETGID", "SETPCAP")
LEAST = ("--read-only", "--cap-drop=ALL", *(f"--cap-add={name}" for name in CAPABILITIES))
LINK_LOCAL = "169.254.53.55"
STATUS = "print(open('/proc/1/status').read())"
Run = Callable[..., str]


@pytest.fixture(scope="module", autouse=True)
def image(engine_url: str) -> Iterator[None]:
    """The image, of this checkout."""
    images.fetch_wheels("agent", locks.RUN_TIME)
    images.build_one(PROJECT, "agent")
    yield
    images.remove(PROJECT, ["agent"])


@pytest.fixture
def started() -> Iterator[Run]:
    """Runs an agent with options of `docker run`, and waits until its health check is well; its name."""
    names = []

    def run(*options: str, command: tuple[str, ...] = (), volume: str = "/var/run/docker.sock") -> str:
        dns, http = free_ports(2)
        names.append(unique("image"))
        run_docker(
            *("run", "--detach", "--name", names[-1], "--network", "host", "--health-interval", "1s"),
            *(f"--volume=/var/run/docker.sock:{volume}", *options, IMAGE),
            *("agent", "--dns", f"127.0.0.1:{dns}", "--http", f"127.0.0.1:{http}", *command),
        )
        wait(names[-1], http)
        return names[-1]

    yield run
    for name in names:
        with suppress(subprocess.CalledProcessError):
            run_docker("rm", "--force", name)


def wait(name: str, http: int) -> None:
    seconds_until(lambda: fetch(f"http://127.0.0.1:{http}/readyz")[0] == 200, time.time(), 60)
    check = ("/opt/registrator/bin/python3", "/opt/registrator/healthcheck.py")
    run_docker("exec", name, *check)


def status(name: str) -> dict[str, str]:
    """What the kernel says of the agent's process (proc(5))."""
    found = run_docker("exec", "--user", "853", name, "/opt/registrator/bin/python3", "-c", STATUS)
    return dict(line.split(":\t", 1) for line in found.splitlines() if ":\t" in line)


def test_on_a_read_only_root_with_the_least_capabilities(started: Run) -> None:
    """It runs as its own user with two of them, gains no others, changes no file, and ends on SIGTERM."""
    name = started(*LEAST, command=("--dns-link-local", LINK_LOCAL))
    found = status(name)
    assert found["Uid"].split() == ["853"] * 4
    assert found["Gid"].split() == ["853"] * 4
    two = 1 << 12 | 1 << 10
    assert [int(found[key], 16) for key in ("CapEff", "CapPrm", "CapBnd", "CapAmb")] == [two] * 4
    assert found["NoNewPrivs"] == "1"
    assert int(found["FDSize"]) <= DESCRIPTORS.value
    mounted = {"C /run", "A /run/docker.sock"}
    assert set(run_docker("diff", name).splitlines()) <= mounted
    run_docker("stop", "--time", "10", name)
    assert run_docker("inspect", "--format", "{{.State.ExitCode}}", name) == "0"
    assert "Traceback" not in run_docker("logs", name)


def test_no_shell_is_needed(started: Run) -> None:
    """With the image's shells and tools covered, agent, health check and commands work as before."""
    covered = ("sh", "dash", "bash", "setpriv", "stat", "sed", "id")
    name = started(*LEAST, *(f"--volume=/dev/null:/usr/bin/{tool}:ro" for tool in covered))
    with pytest.raises(subprocess.CalledProcessError):
        run_docker("exec", name, "sh", "-c", "true")
    assert run_docker("exec", name, "registrator", "--version").startswith("registrator")


def test_without_capabilities_it_runs_and_keeps_none(started: Run) -> None:
    """NET_ADMIN and NET_BIND_SERVICE are kept only where the container was given them."""
    name = started("--read-only", "--cap-drop=ALL", *(f"--cap-add={each}" for each in CAPABILITIES[2:]))
    assert int(status(name)["CapBnd"], 16) == 0


def test_a_user_that_is_given_is_kept(started: Run) -> None:
    """With --user nothing needs to be changed, and no capability for it."""
    group = str(Path("/var/run/docker.sock").stat().st_gid)
    name = started("--read-only", "--user=1234", f"--group-add={group}", "--cap-drop=ALL")
    assert run_docker("exec", name, "/opt/registrator/bin/python3", "-c", STATUS).find("Uid:\t1234") > 0


def test_gliderlabs_place_of_the_socket(started: Run) -> None:
    """Where their users mount it."""
    started(*LEAST, volume="/tmp/docker.sock")


def test_what_it_lacks_to_change_its_user_is_one_line() -> None:
    command = (
        "docker",
        "run",
        "--rm",
        "--cap-drop=ALL",
        "-v/var/run/docker.sock:/var/run/docker.sock",
        IMAGE,
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("registrator: cannot change to the user registrator")
    assert "SETUID" in done.stderr
    assert len(done.stderr.splitlines()) == 1
