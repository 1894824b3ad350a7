"""Three nodes that are a Swarm, with the images of the stack file, and stacks on them."""

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from scripts.demo.steps import CACHE, ROOT, DemoError, run, step
from scripts.lab import images, network
from scripts.lab.node import CGROUP, Node, remove_cgroups
from scripts.lab.waiting import until

STACK = ROOT / "compose/stack.yml"
CONSUL = ROOT / "compose/consul.sh"
TOKEN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SIZE = 3


def lab_folder() -> Path:
    """Where everything of the lab is: LAB_DIR, else a folder in the user's cache."""
    return Path(os.environ.get("LAB_DIR") or CACHE / "lab").absolute()


class Lab:
    """The lab in a folder; there is one on a machine at a time, for its namespaces have fixed names."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or lab_folder()
        self.nodes = tuple(Node(self.folder, number) for number in range(1, SIZE + 1))
        self.manager = self.nodes[0]

    # Life -------------------------------------------------------------------

    def up(self) -> None:
        """Clear what an earlier run left, start the nodes and make them a Swarm. Raises DemoError."""
        self.boot()
        with step("Lab: making them a Swarm"):
            self.manager.docker("swarm", "init", "--advertise-addr", self.manager.address)
            self.each(self.join, self.nodes[1:])

    def boot(self) -> None:
        """Clear what an earlier run left, and start the nodes: each has its images. Raises DemoError."""
        self.see_possible()
        archive = images.archive(self.folder)
        self.clear()
        with step("Lab: starting three nodes"):
            network.lay_switch()
            self.each(Node.start)
        with step("Lab: loading the images on each"):
            self.each(lambda node: load(node, archive))

    def clear(self) -> None:
        """End and remove all that a lab in this folder has started; built images stay."""
        self.kept.unlink(missing_ok=True)
        self._token.unlink(missing_ok=True)
        self.each(Node.remove)
        remove_cgroups(CGROUP)
        network.remove(network.SWITCH)

    def down(self) -> None:
        """Remove the lab and all that it made."""
        with step("Lab: ending the nodes"):
            self.clear()
        with step("Lab: removing its images"):
            images.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep others from using this lab meanwhile. Raises DemoError where somebody has it already."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DemoError(f"somebody else uses the lab in {self.folder}; wait for its end") from None
            yield

    @property
    def kept(self) -> Path:
        """A file that is there while `make lab` has left the lab up for a person."""
        return self.folder / "kept"

    @property
    def token(self) -> str:
        """The management token of the Consul on it; "" where there is none yet."""
        return self._token.read_text() if self._token.exists() else ""

    @token.setter
    def token(self, token: str) -> None:
        self._token.touch(0o600)
        self._token.write_text(token)

    @property
    def _token(self) -> Path:
        return self.folder / "token"

    def see_possible(self) -> None:
        """Raise DemoError, before anything is made, where a lab cannot be had."""
        if os.geteuid() != 0:
            raise DemoError("the lab makes namespaces and starts engines in them; run it as root")
        for command in ("dockerd", "docker", "ip", "nsenter", "unshare"):
            if shutil.which(command) is None:
                raise DemoError(
                    f"the lab needs the command {command}; install it (Debian: docker.io, iproute2)"
                )
        for node in self.nodes:
            if network.exists(node.name) and not node.folder.exists():
                raise DemoError(
                    f"a network namespace {node.name} is here that is not of a lab in {self.folder}; "
                    f"end what uses it, then: ip netns delete {node.name}"
                )

    # The Swarm --------------------------------------------------------------

    def join(self, node: Node) -> None:
        """Make a node a worker of the Swarm, and wait until the manager finds it ready."""
        token = self.manager.docker("swarm", "join-token", "--quiet", "worker")
        target = f"{self.manager.address}:2377"
        node.docker("swarm", "join", "--token", token, "--advertise-addr", node.address, target)
        until(lambda: self.state(node) == "ready", f"{node.name} ready in the Swarm")

    def state(self, node: Node) -> str:
        """What the manager thinks of a node: ready, down, disconnected, unknown."""
        found = self.manager.docker("node", "inspect", "--format", "{{.Status.State}}", node.name)
        return found.splitlines()[-1]

    def make_secrets(self) -> None:
        """What compose/stack.yml needs before it is deployed."""
        self.manager.run(str(CONSUL), "secrets")

    def make_tokens(self) -> None:
        """Have the stack's Consul accept the tokens of its agents, and keep that of its operator."""
        self.keep_token(self.manager.run(str(CONSUL), "tokens"))

    def keep_token(self, told: str) -> None:
        """Keep the management token that compose/consul.sh told."""
        if found := TOKEN.search(told):
            self.token = found[0]

    def deploy(self, stack: str = "demo", file: Path = STACK, **variables: str) -> None:
        """`docker stack deploy`, as a user would; without asking a registry for digests."""
        run(
            *("docker", "--host", f"unix://{self.manager.socket}", "stack", "deploy"),
            *("--resolve-image", "never", "--compose-file", str(file), stack),
            env=variables,
        )

    def each(self, do: Callable[[Node], object], nodes: tuple[Node, ...] | None = None) -> None:
        """Do something to all nodes at once."""
        nodes = self.nodes if nodes is None else nodes
        with ThreadPoolExecutor(len(nodes)) as threads:
            list(threads.map(do, nodes))


def load(node: Node, archive: Path) -> None:
    """Load the images on a node, under the names of the stack file."""
    node.docker("load", "--quiet", "--input", str(archive))
    for name, built in images.NAMES.items():
        node.docker("tag", f"{images.PROJECT}/{built}", name)
        node.docker("rmi", f"{images.PROJECT}/{built}")
