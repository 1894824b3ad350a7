"""The DNS servers that are compared: each started with the same names, and pinned to one core."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import dns.message
import dns.query

from tests.support.consul import ConsulServer, free_ports

Data = dict[str, list[str]]  # service -> its instances' addresses

READY_WITHIN = 60.0  # seconds
TICK = 1 / os.sysconf("SC_CLK_TCK")
OWN = Path(__file__).parent / "dns_own.py"


class Missing(Exception):
    """A peer is not installed."""


class Server(ABC):
    """A DNS server on a port of loopback; `stop` gives what it has to tell."""

    name: str
    kinds: Sequence[str] = ("A", "SRV")

    def __init__(self, folder: Path, data: Data) -> None:
        self.folder = folder
        self.data = data
        self.port = free_ports(1)[0]
        self.process: subprocess.Popen[str] | None = None
        folder.mkdir()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, core: int) -> None:
        """Start it on one core and wait until it answers."""
        with (self.folder / "log").open("w") as log:
            command = ["taskset", "-c", str(core), *self.command()]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self.await_answer()

    @abstractmethod
    def command(self) -> list[str]:
        """Write its configuration; how to start it."""

    def stop(self) -> str:
        """End it; what it printed."""
        process, self.process = self.process, None
        if process is None:
            return ""
        process.terminate()
        return process.communicate()[0]

    def cpu(self) -> float:
        """Seconds of CPU that it has used, all of its threads together."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK

    def await_answer(self) -> None:
        """Wait until it answers the last name that it was given, with EDNS as it may have many instances."""
        name = f"{list(self.data)[-1]}.service.consul"
        give_up = time.monotonic() + READY_WITHIN
        while time.monotonic() < give_up:
            try:
                reply = dns.query.udp(
                    dns.message.make_query(name, "A", payload=4096), "127.0.0.1", 0.5, self.port
                )
            except (OSError, dns.exception.Timeout):
                time.sleep(0.1)
                continue
            if reply.answer:
                return
            time.sleep(0.1)
        raise TimeoutError(f"{self.name} did not answer; see {self.folder}/log")


class Ours(Server):
    """Our front."""

    name = "registrator"
    changes = 0

    def command(self) -> list[str]:
        """See `Server.command`."""
        file = self.folder / "data.json"
        file.write_text(json.dumps(self.data))
        return [sys.executable, str(OWN), str(self.port), str(file), str(self.changes)]


class OursChanging(Ours):
    """Our front, while its catalog changes."""

    name = "registrator, 50 changes/s"
    changes = 50


class Unbound(Server):
    """unbound with one thread, the names as local data."""

    name = "unbound"

    def command(self) -> list[str]:
        """See `Server.command`."""
        (self.folder / "data").write_text("".join(f"local-data: '{record}'\n" for record in self._records()))
        settings = {
            "interface": "127.0.0.1", "port": self.port, "do-daemonize": "no", "username": '""',
            "chroot": '""', "directory": f'"{self.folder}"', "pidfile": '""', "use-syslog": "no",
            "num-threads": 1, "module-config": '"iterator"', "max-udp-size": 4096, "edns-buffer-size": 4096,
            "rrset-roundrobin": "yes", "local-zone": '"consul." static', "include": f'"{self.folder}/data"',
        }  # fmt: skip
        lines = "".join(f"    {key}: {value}\n" for key, value in settings.items())
        (self.folder / "conf").write_text(f"server:\n{lines}remote-control:\n    control-enable: no\n")
        return [find("unbound"), "-c", str(self.folder / "conf")]

    def _records(self) -> Iterator[str]:
        for service, ips in self.data.items():
            for ip in ips:
                target = f"{socket.inet_aton(ip).hex()}.addr.dc1.consul."
                yield f"{service}.service.consul. 0 IN A {ip}"
                yield f"{service}.service.consul. 0 IN SRV 1 1 80 {target}"
                yield f"{target} 0 IN A {ip}"


class Dnsmasq(Server):
    """dnsmasq with the names as hosts; it looks for SRV records one after the other, so for A alone."""

    name = "dnsmasq"
    kinds = ("A",)

    def command(self) -> list[str]:
        """See `Server.command`."""
        hosts = "".join(f"{ip} {name}.service.consul\n" for name, ips in self.data.items() for ip in ips)
        (self.folder / "hosts").write_text(hosts)
        return [
            find("dnsmasq"), "--keep-in-foreground", f"--port={self.port}", "--listen-address=127.0.0.1",
            "--bind-interfaces", "--no-resolv", "--no-hosts", f"--addn-hosts={self.folder}/hosts",
            "--conf-file=/dev/null", "--pid-file", "--user=root", "--local=/consul/",
            "--edns-packet-max=4096", "--dns-loop-detect",
        ]  # fmt: skip


class Consul(Server):
    """A Consul agent in development mode."""

    name = "Consul"

    def command(self) -> list[str]:
        """Not used: the tests' helper starts it."""
        raise NotImplementedError

    def start(self, core: int) -> None:
        """See `Server.start`."""
        self._server = ConsulServer(self.folder)
        self._server.start()
        self.port = self._server.dns_port
        taskset = ["taskset", "-acp", str(core), str(self._server.pid)]
        subprocess.run(taskset, check=True, stdout=subprocess.DEVNULL)
        rows = [(name, ip) for name, ips in self.data.items() for ip in ips]
        for start in range(0, len(rows), 64):
            self._server.put("/v1/txn", [_operation(name, ip) for name, ip in rows[start : start + 64]])
        self.await_answer()

    @property
    def pid(self) -> int:
        """See `Server.pid`."""
        return self._server.pid

    def stop(self) -> str:
        """See `Server.stop`."""
        self._server.kill()
        return ""


def _operation(name: str, ip: str) -> dict[str, object]:
    service = {"ID": f"{name}-{ip}", "Service": name, "Address": ip, "Port": 80}
    return {"Service": {"Verb": "set", "Node": "consul-test", "Service": service}}


def find(program: str) -> str:
    """The path of a program; raises Missing."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if not path:
        raise Missing(f"{program} is not installed; on Debian: apt-get install {program}")
    return path


def started(
    stack: ExitStack, kinds: Sequence[type[Server]], folder: Path, data: Data, core: int
) -> list[Server]:
    """Start servers; the stack ends them."""
    servers = []
    for number, kind in enumerate(kinds):
        server = kind(folder / str(number), data)
        stack.callback(server.stop)
        server.start(core)
        servers.append(server)
    return servers
