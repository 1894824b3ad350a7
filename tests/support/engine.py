"""A real Docker engine for tests: a tiny image, containers that clean up after themselves.

Fixtures:

    engine_url      the URL of the engine that is there (session)
    busybox         the name of a tiny image, made on this engine when it lacks it (session)
    docker          a `Docker` on that engine; what it made is removed at the test's end
    private_engine  a dockerd of the test's own, which it may kill and restart

`Docker` blocks, as the SDK does. In a test whose event loop must go on
meanwhile, call it by `await asyncio.to_thread(docker.run, ...)`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import requests
from docker.api import APIClient
from docker.errors import APIError, DockerException, NotFound
from docker.types import EndpointConfig, IPAMConfig, IPAMPool

from tests.support import unavailable

IMAGE = "registrator-test/busybox:1"
LABEL = "registrator.test"
STATIC_BUSYBOX = Path("/bin/busybox")

T = TypeVar("T")


def until_told(command: str) -> list[str]:
    """A container command that ends at once on SIGTERM, which process 1 otherwise ignores."""
    return ["sh", "-c", f"trap 'exit 0' TERM; {command} & wait"]


SLEEP = until_told("sleep 100000")
STUBBORN = ["sleep", "100000"]  # deaf to SIGTERM: lives on until SIGKILL
HTTPD = until_told("httpd -f -p 80 -h /www")  # answers "ok" on port 80, both families


def wait_for(condition: Callable[[], T], what: str, timeout: float = 10.0) -> T:
    """Return the first true value of `condition`, asked every 10 ms; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"no {what} within {timeout:g} s")
        time.sleep(0.01)
    return value


class Docker:
    """Containers and networks of one test, on a real engine; `cleanup` removes them all.

    Every container carries the label `registrator.test=1`. All methods block.
    `api` is the SDK's low-level client, for what is not wrapped here.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.api = APIClient(base_url=url, version="auto", timeout=30)
        self._containers: list[str] = []
        self._networks: list[str] = []

    def run(
        self,
        name: str | None = None,
        *,
        image: str = IMAGE,
        command: Sequence[str] = SLEEP,
        labels: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        ports: Mapping[str, Any] | None = None,
        expose: Sequence[str] = (),
        networks: Sequence[str] = (),
        network_mode: str | None = None,
        healthcheck: Mapping[str, Any] | None = None,
        stop_signal: str | None = None,
        stop_timeout: int | None = None,
        **host: Any,
    ) -> str:
        """Create and start a container; return its full id.

        `ports` maps "80/tcp" to a host port (0: any), to an (ip, port) or to a
        list of these; `expose` names ports that are not published. The first of
        `networks` is the container's network mode, the others are connected
        before it starts. `healthcheck` is what `health` below returns. Other
        arguments go to the SDK's `create_host_config` (`dns`, `binds`, ...).
        """
        networks = list(networks)
        created = self.api.create_container(
            image,
            list(command),
            name=name,
            labels={LABEL: "1", **(labels or {})},
            environment=dict(env or {}),
            ports=[tuple(port.split("/")) for port in (*(ports or {}), *expose)],
            healthcheck=dict(healthcheck) if healthcheck else None,
            stop_signal=stop_signal,
            host_config=self.api.create_host_config(
                port_bindings=dict(ports or {}),
                network_mode=network_mode or (networks[0] if networks else "bridge"),
                **host,
            ),
            networking_config={"EndpointsConfig": {networks[0]: EndpointConfig(self.api.api_version)}}
            if networks
            else None,
            **({"stop_timeout": stop_timeout} if stop_timeout is not None else {}),
        )
        container_id = str(created["Id"])
        self._containers.append(container_id)
        for network in networks[1:]:
            self.connect(network, container_id)
        self.api.start(container_id)
        return container_id

    def inspect(self, container: str) -> dict[str, Any]:
        """The engine's own document on a container."""
        document: dict[str, Any] = self.api.inspect_container(container)
        return document

    def address(self, container: str, network: str = "bridge") -> str:
        """A container's IPv4 address on a network."""
        return str(self.inspect(container)["NetworkSettings"]["Networks"][network]["IPAddress"])

    def published(self, container: str, port: str) -> int:
        """The host port on which "80/tcp" of a container is published."""
        return int(self.inspect(container)["NetworkSettings"]["Ports"][port][0]["HostPort"])

    def start(self, container: str) -> None:
        self.api.start(container)

    def stop(self, container: str, grace: int = 10) -> None:
        """`docker stop`: the stop signal, then SIGKILL after `grace` seconds."""
        self.api.stop(container, timeout=grace)

    def kill(self, container: str, signum: int = signal.SIGKILL) -> None:
        self.api.kill(container, signal=int(signum))

    def restart(self, container: str) -> None:
        self.api.restart(container)

    def pause(self, container: str) -> None:
        self.api.pause(container)

    def unpause(self, container: str) -> None:
        self.api.unpause(container)

    def rename(self, container: str, name: str) -> None:
        self.api.rename(container, name)

    def remove(self, container: str) -> None:
        """`docker rm --force`; a container that is gone already is no error."""
        try:
            self.api.remove_container(container, force=True)
        except NotFound:
            pass
        except APIError as error:
            if error.status_code != requests.codes.conflict:  # its removal is under way already
                raise

    def exec(self, container: str, *command: str) -> str:
        """Run a command in a container; return its output."""
        job = self.api.exec_create(container, list(command))
        return bytes(self.api.exec_start(job["Id"])).decode()

    def network(self, *, ipv6: bool = False, name: str | None = None, **options: Any) -> str:
        """Create a bridge network (with a random unique local IPv6 subnet if asked); return its name."""
        name = name or unique("net")
        pools = [IPAMPool(subnet=f"fd{secrets.token_hex(1)}:{secrets.token_hex(2)}::/64")] if ipv6 else []
        self._networks.append(
            self.api.create_network(
                name,
                driver="bridge",
                enable_ipv6=ipv6,
                ipam=IPAMConfig(pool_configs=pools) if pools else None,
                labels={LABEL: "1"},
                **options,
            )["Id"],
        )
        return name

    def connect(self, network: str, container: str) -> None:
        self.api.connect_container_to_network(container, network)

    def disconnect(self, network: str, container: str) -> None:
        self.api.disconnect_container_from_network(container, network)

    def wait_health(self, container: str, status: str = "healthy") -> None:
        """Wait until the container's own health check says `status`."""
        wait_for(
            lambda: self.inspect(container)["State"].get("Health", {}).get("Status") == status,
            f"health {status!r}",
            30,
        )

    def cleanup(self) -> None:
        """Remove what was made here, and let go of the engine."""
        for container in self._containers:
            self.remove(container)
        for network in self._networks:
            with contextlib.suppress(NotFound):
                self.api.remove_network(network)
        self.api.close()


def unique(prefix: str) -> str:
    """A name that no other test has: for containers, networks and services."""
    return f"{prefix}-{secrets.token_hex(4)}"


def health(test: str, *, interval: float = 0.1, retries: int = 1, timeout: float = 2.0) -> dict[str, Any]:
    """A HEALTHCHECK made of a shell command; durations in seconds."""
    return {
        "Test": ["CMD-SHELL", test],
        "Interval": int(interval * 1e9),
        "Timeout": int(timeout * 1e9),
        "Retries": retries,
    }


@pytest.fixture(scope="session")
def engine_url() -> str:
    """The URL of a Docker engine that answers."""
    url = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if not answers(url):
        unavailable(f"needs a Docker engine at {url} (start dockerd, or set DOCKER_HOST)")
    return url


@pytest.fixture(scope="session")
def busybox(engine_url: str) -> str:
    """The name of a tiny image that holds busybox alone, made on the engine when it lacks it."""
    make_busybox(engine_url)
    return IMAGE


@pytest.fixture
def docker(engine_url: str, busybox: str) -> Iterator[Docker]:
    """A real engine; what the test makes on it by this object goes at its end."""
    docker = Docker(engine_url)
    try:
        yield docker
    finally:
        docker.cleanup()


def answers(url: str) -> bool:
    """Whether an engine answers at `url`."""
    try:
        if url.startswith("unix://"):  # the SDK leaks a socket that does not connect
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(url.removeprefix("unix://"))
        APIClient(base_url=url, version="auto", timeout=10).close()
    except (OSError, DockerException):
        return False
    return True


def make_busybox(url: str) -> None:
    """Import the tiny image into the engine at `url` unless it is there."""
    api = APIClient(base_url=url, version="auto", timeout=30)
    try:
        if not api.images(IMAGE, quiet=True):
            repository, _, tag = IMAGE.partition(":")
            api.import_image_from_data(_busybox_filesystem(), repository=repository, tag=tag)
    finally:
        api.close()


def _busybox_filesystem() -> bytes:
    """A tar archive of a root file system: a static busybox, its applets, a page for its httpd."""
    binary = STATIC_BUSYBOX.read_bytes() if STATIC_BUSYBOX.exists() else b""
    if not binary or b"/ld-linux" in binary:
        unavailable(f"needs a static {STATIC_BUSYBOX} (Debian: apt-get install busybox-static)")
    applets = subprocess.run([STATIC_BUSYBOX, "--list"], capture_output=True, text=True, check=True)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for folder in ("bin", "etc", "tmp", "www"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(entry)
        for path, content, mode in (("bin/busybox", binary, 0o755), ("www/index.html", b"ok\n", 0o644)):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
        for applet in applets.stdout.split():
            if applet != "busybox":
                entry = tarfile.TarInfo(f"bin/{applet}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(entry)
    return archive.getvalue()


class PrivateEngine:
    """A dockerd in namespaces of its own (network, mounts, processes), so that it may be killed.

    All of it ends with the process that made it, even by SIGKILL: the kernel
    ends a pid namespace with its first process, which dies with this one.
    `url` is valid at all times; something answers there between `start` and `kill`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"unix://{folder}/docker.sock"
        self._daemon: subprocess.Popen[bytes] | None = None
        self._log = (folder / "dockerd.log").open("ab")
        # A shell waits as process 1, since it reaps: dockerd takes a dead containerd's zombie for alive.
        # An /etc/docker of its own gives the engine an id of its own.
        mounts = "mkdir -p /etc/docker && mount -t tmpfs tmpfs /etc/docker && mount -t tmpfs tmpfs /run"
        setup = f"{mounts} && ip link set lo up && echo ready && {{ sleep infinity & wait; }}"
        unshare = "unshare --net --mount --uts --pid --fork --kill-child --mount-proc --propagation private"
        self._namespace = subprocess.Popen(
            [*f"setpriv --pdeathsig KILL {unshare} sh -c".split(), setup],
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        assert self._namespace.stdout
        if not self._namespace.stdout.readline():
            self.close()
            unavailable("needs the right to make namespaces for a private dockerd (run the tests as root)")

    @property
    def pid(self) -> int:
        """A process in all of the namespaces."""
        return _child(self._namespace.pid)

    @property
    def enter(self) -> list[str]:
        """The beginning of a command line that is to run on this engine's network."""
        return ["nsenter", "--target", str(self.pid), "--net"]

    @property
    def enter_mounts(self) -> list[str]:
        """The same, among its mounts: that is where containers' own networks can be entered."""
        return [*self.enter, "--mount"]

    def configure(self, document: Mapping[str, Any]) -> None:
        """Write its daemon.json, which it reads when it starts."""
        write = [*self.enter_mounts, "tee", "/etc/docker/daemon.json"]
        subprocess.run(write, input=json.dumps(document).encode(), stdout=subprocess.DEVNULL, check=True)

    def start(self) -> None:
        """Start dockerd and wait until it answers."""
        enter = f"nsenter --target {self.pid} --net --mount --uts --pid"
        paths = {"--data-root": "data", "--exec-root": "exec", "--pidfile": "docker.pid"}
        options = [f"{option}={self.folder / path}" for option, path in paths.items()]
        self._daemon = subprocess.Popen(
            [*f"{enter} dockerd --host {self.url} --storage-driver vfs".split(), *options],
            stdout=self._log,
            stderr=self._log,
        )
        wait_for(
            self._answers, f"answer from the private dockerd ({shlex.quote(self._log.name)} says why)", 30
        )

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End dockerd and wait until it is gone; SIGTERM ends its containers too, by SIGKILL they live on."""
        assert self._daemon
        os.kill(_child(self._daemon.pid), number)
        self._daemon.wait(30)

    def rename_host(self, name: str) -> None:
        """Give the machine that it believes to be on another host name."""
        enter = f"nsenter --target {_child(self._namespace.pid)} --uts"
        subprocess.run([*enter.split(), "hostname", name], check=True)

    def close(self) -> None:
        """End everything."""
        self._namespace.kill()
        for process in (self._namespace, self._daemon):
            if process:
                process.wait(10)
        if self._namespace.stdout:
            self._namespace.stdout.close()
        self._log.close()

    def _answers(self) -> bool:
        assert self._daemon
        if self._daemon.poll() is not None:
            unavailable(f"needs a dockerd that starts in namespaces: {self._log.name} says why it did not")
        return answers(self.url)


@contextlib.contextmanager
def private_engine_at(folder: Path, document: Mapping[str, Any] | None = None) -> Iterator[PrivateEngine]:
    """A dockerd with its files in `folder` and this daemon.json, started, with the tiny image."""
    engine = PrivateEngine(folder)
    try:
        engine.configure(document or {})
        engine.start()
        make_busybox(engine.url)
        yield engine
    finally:
        engine.close()


@pytest.fixture
def private_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    """A dockerd of the test's own, started, with the tiny image: kill and start it at will."""
    with private_engine_at(tmp_path_factory.mktemp("dockerd")) as engine:
        yield engine


def _child(pid: int) -> int:
    """The first child of a process: what `unshare --fork` and `nsenter --pid` run for us."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return int(wait_for(lambda: children.read_text().split(), f"child of process {pid}")[0])
