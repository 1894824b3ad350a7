"""The demo's own Consul: one `consul agent -dev -ui` on loopback, ended by its process id."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.demo.steps import DemoError, ask, step

START_SECONDS = 20.0
# Consul's usual ports; where one is taken, a free one is used instead.
PORTS = {"http": 8500, "dns": 8600, "serf_lan": 8301, "serf_wan": 8302, "server": 8300}


@dataclass(frozen=True)
class Consul:
    """A Consul that belongs to one demo; its files are in `folder`."""

    folder: Path

    @property
    def url(self) -> str:
        """Where its HTTP API is, by the configuration that it was started with."""
        return f"http://127.0.0.1:{self._ports()['http']}"

    @property
    def dns_port(self) -> int:
        return self._ports()["dns"]

    def start(self) -> None:
        """Start it and wait until it is ready; nothing to do where it runs."""
        if self._pid():
            return
        binary = ask("scripts/consul.sh")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._config.write_text(json.dumps(configuration()))
        with step("Consul: starting one in development mode"):
            self._wait_ready(self._launch(binary))

    def stop(self) -> None:
        """End it and forget it; nothing to do where it does not run."""
        pid = self._pid()
        if pid:
            with step("Consul: stopping the demo's agent"):
                os.kill(pid, signal.SIGTERM)
                give_up = time.monotonic() + START_SECONDS
                while self._pid():
                    if time.monotonic() > give_up:
                        raise DemoError(f"Consul (process {pid}) does not stop; end it by: kill -9 {pid}")
                    time.sleep(0.05)
        for name in ("consul.pid", "consul.json", "consul.log"):
            (self.folder / name).unlink(missing_ok=True)

    def get(self, path: str) -> Any:  # noqa: ANN401 - whatever JSON holds
        """GET a path of its API; raises OSError where that fails."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.url + path, timeout=5) as response:
            return json.load(response)

    def _launch(self, binary: str) -> subprocess.Popen[bytes]:
        with (self.folder / "consul.log").open("wb") as log:
            process = subprocess.Popen(
                (binary, "agent", "-dev", "-ui", "-config-file", str(self._config)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # it outlives this script, and a Ctrl-C
            )
        self._pidfile.write_text(str(process.pid))
        return process

    @property
    def _config(self) -> Path:
        return self.folder / "consul.json"

    @property
    def _pidfile(self) -> Path:
        return self.folder / "consul.pid"

    def _ports(self) -> dict[str, int]:
        ports: dict[str, int] = json.loads(self._config.read_text())["ports"]
        return ports

    def _pid(self) -> int:
        """Its process id, or 0: the number in the file may long be somebody else's."""
        try:
            pid = int(self._pidfile.read_text())
            arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        except (OSError, ValueError):
            return 0
        return pid if str(self._config) in arguments else 0

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Return when its own node is in its catalog."""
        give_up = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up and process.poll() is None:
            try:
                if self.get("/v1/catalog/nodes"):
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise DemoError(f"Consul did not get ready; see {self.folder}/consul.log")


def configuration() -> dict[str, object]:
    """Consul's configuration: loopback alone, its usual ports where they are free."""
    return {
        "node_name": "demo",
        "bind_addr": "127.0.0.1",
        "client_addr": "127.0.0.1",
        "disable_update_check": True,
        "ports": {**{name: free_port(usual) for name, usual in PORTS.items()}, "grpc": -1},
    }


def free_port(usual: int) -> int:
    """The usual port if nobody has it on loopback, else any that is free."""
    for port in (usual, 0):
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", tcp.getsockname()[1]))
            except OSError:
                continue
            return int(tcp.getsockname()[1])
    return free_port(usual)
