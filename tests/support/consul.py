"""A real Consul for tests: one `consul agent -dev` on loopback, on ports of its own.

A fresh one costs 0.2 to 0.5 s, so a test that breaks it takes the fixture
`consul`; one that only writes to it takes `consul_shared`. Where there is no
binary the test is skipped, or fails when REGISTRATOR_REQUIRE_ALL is set.

The methods block. A coroutine calls those that take time (`start`, `restart`,
`get`, `put`) through `asyncio.to_thread`, so that the loop it tests goes on.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

READY_WITHIN = 20.0  # seconds; it takes 0.2 to 0.5 on an idle machine
ATTEMPTS = 5  # a port may be taken between our look and Consul's bind


class ConsulServer:
    """One agent in development mode, in memory; it is its own server and leader.

    It is at `host`; `enter` is the beginning of its command line, where it is
    to run in a namespace other than ours.

    `config` is merged over the configuration written below (Consul's own keys,
    for instance {"acl": {...}}). `token` goes with the helper's own requests;
    `tls` makes them, and the readiness check, use `https`. A `persistent` one
    keeps its data in its folder, and is a server only where `config` says so.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any] | None = None,
        *,
        token: str = "",
        tls: ssl.SSLContext | None = None,
        persistent: bool = False,
        host: str = "127.0.0.1",
        enter: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.host = host
        self._enter = list(enter)
        self.token = token
        self._mode = ["-data-dir", str(folder / "data")] if persistent else ["-dev"]
        self._config = dict(config or {})
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        self.http_port = self.https_port = self.dns_port = 0
        self.ports: dict[str, int] = {}

    @property
    def url(self) -> str:
        """The base of its HTTP API, without a final slash."""
        if self._tls:
            return f"https://{self.host}:{self.https_port}"
        return f"http://{self.host}:{self.http_port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        """Start it; it is killed at the end of the block."""
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it on free ports and wait until it answers with its own node in the catalog."""
        for _ in range(ATTEMPTS):
            self.choose_ports()
            self.launch()
            if self.wait_ready():
                return
            self.kill()
        pytest.fail(f"consul did not start:\n{self._log().read_text()[-2000:]}")

    def restart(self) -> None:
        """Start it again on the ports it had, empty unless persistent, and wait until it is ready."""
        self.launch()
        if not self.wait_ready():
            self.kill()
            pytest.fail(f"consul did not come back on its ports:\n{self._log().read_text()[-2000:]}")

    def kill(self) -> None:
        """End it with SIGKILL, also when it is stopped; nothing is left of it afterwards."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Freeze it (SIGSTOP): connections are accepted by the kernel, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)
        threads = list(Path(f"/proc/{self.pid}/task").iterdir())
        while any(_state(thread) != "T" for thread in threads):
            time.sleep(0.001)

    def cont(self) -> None:
        """Let it run on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def get(self, path: str) -> Any:
        """GET a path of its API and parse the answer; raises OSError when it fails."""
        return self._request("GET", path, None)

    def put(self, path: str, document: Any = None) -> Any:
        """PUT a document (JSON) to a path of its API."""
        return self._request("PUT", path, document)

    def post(self, path: str, document: Any = None) -> Any:
        """POST a document (JSON) to a path of its API."""
        return self._request("POST", path, document)

    def _request(self, method: str, path: str, document: Any) -> Any:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if document is None else json.dumps(document).encode(),
            headers={"X-Consul-Token": self.token} if self.token else {},
        )
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if self._tls:
            handlers.append(urllib.request.HTTPSHandler(context=self._tls))
        with urllib.request.build_opener(*handlers).open(request, timeout=10) as response:
            body = response.read()
        return json.loads(body) if body.strip() else None

    def choose_ports(self) -> None:
        """Take free ports for the next launch."""
        names = ("http", "https", "dns", "serf_lan", "serf_wan", "server")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.http_port, self.dns_port = self.ports["http"], self.ports["dns"]
        if self._tls:
            self.https_port = self.ports["https"]
        else:
            self.ports["https"] = -1

    def configure(self, config: Mapping[str, Any]) -> None:
        """Change its configuration, from the next `launch` or `restart` on."""
        self._config.update(config)

    def launch(self) -> None:
        """Start it on the ports it has; do not wait until it is ready."""
        document = {
            "node_name": "consul-test",
            "bind_addr": self.host,
            "client_addr": self.host,
            "check_update_interval": "0s",  # a check's output is written at once, not every 5 min
            "disable_update_check": True,
            "enable_local_script_checks": False,
            "log_level": "warn",
            "ports": {**self.ports, "grpc": -1},
            **self._config,
        }
        file = self.folder / "consul.json"
        file.write_text(json.dumps(document))
        with self._log().open("ab") as log:
            self._process = subprocess.Popen(
                [*self._enter, find_binary(), "agent", *self._mode, "-config-file", str(file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={"PATH": os.environ.get("PATH", ""), "HOME": str(self.folder)},
                start_new_session=True,  # a Ctrl-C for the tests is not for it
            )

    def wait_ready(self) -> bool:
        """Whether it got ready; False as soon as its process is over."""
        assert self._process is not None
        give_up = time.monotonic() + READY_WITHIN
        while time.monotonic() < give_up and self._process.poll() is None:
            try:
                if self.get("/v1/catalog/nodes"):
                    return True
            except OSError:
                pass
            time.sleep(0.01)
        return False

    def _log(self) -> Path:
        return self.folder / "consul.log"


def find_binary() -> str:
    """The path of a Consul binary: on the PATH, else where scripts/consul.sh puts one."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cached = cache / "registrator" / "bin" / "consul"
    found = shutil.which("consul") or (str(cached) if os.access(cached, os.X_OK) else "")
    if not found:
        reason = f"no consul on the PATH nor at {cached}; run scripts/consul.sh"
        if os.environ.get("REGISTRATOR_REQUIRE_ALL"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def free_ports(count: int) -> list[int]:
    """Ports that nobody has on loopback, neither TCP nor UDP.

    They lie below the range from which the kernel gives ports to outgoing
    connections, so that a server can come back to its port after a kill.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.randint(10_000, 30_000)
        if port not in ports and _is_free(port):
            ports.append(port)
    return ports


def _state(thread: Path) -> str:
    """The state of a thread in /proc: R, S, T (stopped) and so on; T as well when it is over."""
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "T"


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


@pytest.fixture(scope="session")
def consul_binary() -> str:
    """For fixtures that start a Consul with options: their tests are known by it to need one."""
    return find_binary()


@pytest.fixture
def consul(tmp_path: Path) -> Iterator[ConsulServer]:
    """A fresh Consul of the test's own, which it may break."""
    with ConsulServer(tmp_path) as server:
        yield server


@pytest.fixture(scope="session")
def consul_shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulServer]:
    """One Consul for the whole session: use names of your own and clean up after you."""
    with ConsulServer(tmp_path_factory.mktemp("consul")) as server:
        yield server
