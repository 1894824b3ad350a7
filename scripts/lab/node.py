"""One machine of the lab: namespaces, with a dockerd in them, that live and die as a machine does.

A node is a pid namespace too, whose first process reaps and waits. To kill that
one is to pull the plug: the kernel ends engine, containers and all. Every
process is a child of nobody here, and is found again by the node's folder in its
command line, so that what an earlier run left can be ended by any later one.
"""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from docker.api import APIClient
from docker.errors import DockerException

from scripts.demo.proof import Front
from scripts.demo.steps import DemoError, run
from scripts.lab import network
from scripts.lab.network import Window
from scripts.lab.waiting import until

CGROUPS = Path("/sys/fs/cgroup")
CGROUP = "registrator-lab"  # the parent of all that the lab's containers are in
MARK = "registrator-lab-node"

# The machine's own engine has mounts below these; a copy of them here would keep
# its containers from being removed (one that goes just now is no error). An own
# /run gives an own docker.sock, an own /etc/docker an own engine id: no two
# machines have the same.
INIT = """
awk '$2 ~ "^/(run|var/lib/docker)/" { print $2 }' /proc/mounts | sort -r | xargs -r umount -l || true
hostname "$1"; mount -t tmpfs tmpfs /run; mkdir -p /run/docker
mkdir -p "$2/etc" /etc/docker; mount --bind "$2/etc" /etc/docker
echo up >"$2/up"; sleep infinity & wait
"""

P = ParamSpec("P")
R = TypeVar("R")


class Node:
    """A machine named n1, n2 or n3; nothing of it need exist yet."""

    def __init__(self, lab: Path, number: int) -> None:
        self.name = f"n{number}"
        self.address = f"10.78.0.{number}"
        self.folder = lab / self.name
        self.socket = self.folder / "docker.sock"
        self._window = Window(self.name)
        self._api: APIClient | None = None
        self._known_pid = 0

    # Life -------------------------------------------------------------------

    def start(self) -> None:
        """Plug it in, boot it, and wait until its engine answers. Raises DemoError."""
        network.plug_in(self.name, f"{self.address}/24")
        self._boot()
        self.start_engine()

    def kill(self) -> None:
        """Pull the plug: every process ends at once, and the network is gone with what was in it."""
        self._let_go()
        if pid := self._pid():
            os.kill(pid, signal.SIGKILL)
            until(lambda: not self._pid(), f"{self.name}'s end", pause=0.01)
        network.unplug(self.name)

    def restart(self) -> None:
        """Pull the plug, and boot it again with the disk that it had."""
        self.kill()
        self.start()

    def remove(self) -> None:
        """Kill it, and forget its disk."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        remove_cgroups(self._cgroup)

    def start_engine(self) -> None:
        """Start dockerd, and wait until it answers. Raises DemoError."""
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        command = (
            *("dockerd", "--data-root", f"{self.folder}/data", "--storage-driver", "overlay2"),
            *("-H", "unix:///var/run/docker.sock", "-H", f"unix://{self.socket}"),
            *("--cgroup-parent", f"/{self._cgroup}", "--log-level", "warn"),
        )
        with (self.folder / "log").open("ab") as log:
            self._detached(*self._enter, *command, log=log.fileno())
        until(self._engine_answers, f"an engine on {self.name} (its log: {self.folder}/log)", pause=0.05)

    def kill_engine(self) -> None:
        """Kill dockerd as a crash would; its containers run on until it is started again."""
        self._let_go()
        self.run("sh", "-c", "pid=$(cat /run/docker.pid); kill -9 $pid; while [ -d /proc/$pid ]; do :; done")

    def partition(self) -> None:
        """Cut it off from the other nodes."""
        network.cut(self.name)

    def heal(self) -> None:
        """Connect it with them again."""
        network.mend(self.name)

    # Asking it --------------------------------------------------------------

    def docker(self, *arguments: str) -> str:
        """Run the docker command on its engine; what it prints. Raises DemoError."""
        return run("docker", "--host", f"unix://{self.socket}", *arguments)

    @property
    def api(self) -> APIClient:
        """The SDK's client of its engine."""
        if self._api is None:
            self._api = APIClient(base_url=f"unix://{self.socket}", version="auto", timeout=30)
        return self._api

    @property
    def front(self) -> Front:
        """Where its agent is asked, from the node itself (`call`)."""
        return Front("127.0.0.1:8053", "127.0.0.1:8580")

    def counts(self, *services: str) -> dict[str, int]:
        """How many instances of each service its agent's DNS answers with now. Raises OSError."""
        return {service: self.call(self.front.instances, service) for service in services}

    def run(self, *command: str) -> str:
        """Run a command as if logged in on it; what it prints. Raises DemoError."""
        return run(*self._enter, *command)

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a Python function in its network namespace, in a thread: its sockets are the node's."""
        return self._window(function, *args, **kwargs)

    # How --------------------------------------------------------------------

    @property
    def _cgroup(self) -> str:
        return f"{CGROUP}/{self.name}"

    @property
    def _enter(self) -> tuple[str, ...]:
        """The start of a command that runs in all of the node's namespaces."""
        pid = self._pid()
        if not pid:
            raise DemoError(f"{self.name} is not running; see: make lab")
        return ("nsenter", f"--target={pid}", "--net", "--uts", "--mount", "--pid", "--")

    def _boot(self) -> None:
        """Start the node's first process, and wait until its namespaces are as they should be."""
        self.folder.mkdir(parents=True, exist_ok=True)
        up = self.folder / "up"
        up.unlink(missing_ok=True)
        unshare = "unshare --uts --mount --pid --fork --kill-child --mount-proc --propagation private"
        self._detached(
            *("nsenter", f"--net={network.NAMESPACES / self.name}", *unshare.split()),
            *("sh", "-ec", INIT, MARK, self.name, str(self.folder)),
        )
        until(up.exists, f"{self.name}'s namespaces (is this root?)", seconds=10, pause=0.01)

    def _pid(self) -> int:
        """The process id, seen from here, of the node's first process; 0 where it does not run.

        Looked for, not remembered: an earlier run that crashed left no word of it.
        """
        if not self._is_init(self._known_pid):
            pids = (int(process.name) for process in Path("/proc").glob("[0-9]*"))
            self._known_pid = next(filter(self._is_init, pids), 0)
        return self._known_pid

    def _is_init(self, pid: int) -> bool:
        """Whether a process is the first one of this node's pid namespace (proc(5): NSpid)."""
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            status = Path(f"/proc/{pid}/status").read_text()
        except (OSError, UnicodeDecodeError):
            return False
        ours = arguments[0] == "sh" and MARK in arguments and str(self.folder) in arguments
        return ours and "\t1\n" in status.partition("NSpid:")[2].partition("\n")[0] + "\n"

    def _engine_answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:  # the SDK leaks one that does not connect
            probe.connect(str(self.socket))
        try:
            client = APIClient(base_url=f"unix://{self.socket}", version="auto", timeout=30)
        except DockerException as error:
            raise DemoError(str(error)) from None
        self._let_go()
        self._api = client
        return True

    def _let_go(self) -> None:
        """Close what is open towards the node."""
        self._window.close()
        if self._api is not None:
            self._api.close()
            self._api = None

    @staticmethod
    def _detached(*command: str, log: int = subprocess.DEVNULL) -> None:
        """Start a process that is nobody's child."""
        subprocess.run(
            ("setsid", "--fork", *command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True
        )


def remove_cgroups(path: str) -> None:
    """Remove a control group and those below it from every hierarchy; their processes have ended."""
    for hierarchy in (CGROUPS, *CGROUPS.glob("*/")):  # version 2 has one, version 1 several
        for cgroup in sorted((hierarchy / path).glob("**/"), reverse=True):
            cgroup.rmdir()
