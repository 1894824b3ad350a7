"""The demo: `up` sets it up, shows that it works and leaves it running; `down` removes it.

    make demo [CATALOG=consul]        make demo-down

A Flask app, twice, counts its visitors in a Redis that it finds by the name
redis.service.consul; three whoami answer with their container's id. The agent
registers them all and answers for them, from its embedded catalog or a Consul.

All that is made belongs to one Compose project; another name, with addresses
of its own, makes a second demo beside the first (tests/demo does that).
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

from scripts.demo import images
from scripts.demo.consul import Consul
from scripts.demo.proof import Front, prove, wait_until_answered
from scripts.demo.steps import CACHE, DemoError, run, step


@dataclass(frozen=True)
class Demo:
    """One demo: its Compose project, and where its agent listens (ADDR:PORT, ADDR:PORT, ADDR)."""

    project: str
    dns: str
    http: str
    link_local: str

    @property
    def front(self) -> Front:
        """Where its agent is asked."""
        return Front(self.dns, self.http)

    @property
    def consul(self) -> Consul:
        """Its Consul, running or not."""
        return Consul(CACHE / "demo" / self.project)

    def compose(self, *arguments: str, catalog: str = "") -> None:
        """Run docker compose (2, or 1.29) on the project; `catalog` is Consul's URL or ""."""
        plugin = subprocess.run(("docker", "compose", "version"), capture_output=True, check=False)
        run(
            *(("docker", "compose") if plugin.returncode == 0 else ("docker-compose",)),
            *("--file", "compose/demo.yml", "--project-name", self.project),
            *arguments,
            env={
                "DEMO_PROJECT": self.project,
                "DEMO_DNS": self.dns,
                "DEMO_HTTP": self.http,
                "DEMO_LINK_LOCAL": self.link_local,
                "DEMO_CONSUL": catalog,
                "DEMO_SOCKET": engine_socket(),
            },
        )

    def containers(self, service: str) -> list[str]:
        """The names of a service's containers, running or not, in the order of their numbers."""
        found = run(
            *("docker", "ps", "--all", "--format", "{{.Names}}"),
            *("--filter", f"label=com.docker.compose.project={self.project}"),
            *("--filter", f"label=com.docker.compose.service={service}"),
        )
        return sorted(found.split())


def up(demo: Demo, catalog: str, started: float) -> None:
    """Set everything up, prove it and leave it running. Raises DemoError."""
    if not any(demo.containers("agent")):
        see_free(demo)
    images.build(demo.project)
    url = ""
    if catalog == "consul":
        demo.consul.start()
        url = demo.consul.url
    with step("Demo: starting the agent, redis, 2 counters and 3 whoami"):
        demo.compose("up", "--detach", "--no-build", "--remove-orphans", catalog=url)
    if not url:
        demo.consul.stop()
    wait_ready(demo)
    prove(demo.front)
    tell(demo, catalog)
    print(f"\nReady after {time.time() - started:.0f} s. To remove it all: make demo-down")


def wait_ready(demo: Demo) -> None:
    """Return when the agent answers for all; else show its log and raise DemoError."""
    (agent,) = demo.containers("agent")

    def restarts() -> str:
        """How often the engine has started the agent again, since it ended by itself."""
        return run("docker", "inspect", "--format", "{{.RestartCount}}", agent)

    wanted = {"redis": 1, "counter": 2, "whoami": 3}
    before = restarts()
    try:
        with step("Demo: waiting until the agent answers for all of them"):
            wait_until_answered(demo.front, wanted, lambda: restarts() == before)
    except DemoError:
        subprocess.run(("docker", "logs", "--tail", "10", agent), stdout=sys.stderr, check=False)
        raise


def tell(demo: Demo, catalog: str) -> None:
    """Print where everything is, and how to look for oneself."""
    counter = demo.containers("counter")[0]
    address, port = demo.dns.rsplit(":", 1)
    inside = "import socket; print(socket.gethostbyname('redis.service.consul'))"
    print(f"""
Where to look:
  DNS      dig @{address} -p {port} whoami.service.consul SRV
  HTTP     curl http://{demo.http}/lookup/whoami
           curl http://{demo.http}/metrics
  inside   docker exec {counter} python3 -c "{inside}"
  try      docker kill {demo.containers("whoami")[0]}, then ask again""")
    if catalog == "consul":
        services = demo.consul.get("/v1/catalog/services")
        print(f"  Consul   {demo.consul.url}/ui/  (services: {', '.join(sorted(services))})")
        print(f"           dig @127.0.0.1 -p {demo.consul.dns_port} whoami.service.consul")


def see_free(demo: Demo) -> None:
    """Raise DemoError where somebody else has an address that the agent is to listen on."""
    for variable, text in (("DEMO_DNS", demo.dns), ("DEMO_HTTP", demo.http)):
        host, _, port = text.rpartition(":")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, int(port)))
            except OSError as error:
                advice = f"choose another: make demo {variable}=ADDR:PORT"
                raise DemoError(f"{text} cannot be had ({error.strerror}); {advice}") from None


def engine_socket() -> str:
    """The path of the engine's socket, for the agent's container. Raises DemoError for a remote engine."""
    url = run("docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
    if not url.startswith("unix://"):
        raise DemoError(f"the demo needs an engine on this machine, not {url}; unset DOCKER_HOST")
    return url.removeprefix("unix://")


def down(demo: Demo) -> None:
    """Remove the containers, the network, the volume, the images, the Consul: all that `up` made."""
    with step("Demo: removing its containers, network and volume"):
        demo.compose("down", "--volumes", "--remove-orphans")
    demo.consul.stop()
    with step("Demo: removing its images"):
        images.remove(demo.project)
    shutil.rmtree(CACHE / "demo" / demo.project, ignore_errors=True)
    print(f"Kept for a quick next time: .venv and build here (make clean), and {CACHE}")


def main() -> None:
    """Read the command line; DEMO_* variables give the defaults."""
    parser = argparse.ArgumentParser(description="The demo: set it up and show it, or remove it.")
    parser.add_argument("action", choices=("up", "down"))
    parser.add_argument("--catalog", choices=("embedded", "consul"), default="embedded")
    parser.add_argument("--started", type=float, default=time.time(), help="Unix time of the set-up")
    for name, default in (
        ("project", "registrator-demo"),
        ("dns", "127.0.0.1:8053"),
        ("http", "127.0.0.1:8580"),
        ("link-local", "169.254.53.53"),
    ):
        variable = f"DEMO_{name.upper().replace('-', '_')}"
        parser.add_argument(f"--{name}", default=os.environ.get(variable, default))
    options = parser.parse_args()
    demo = Demo(options.project, options.dns, options.http, options.link_local)
    try:
        if options.action == "up":
            up(demo, options.catalog, options.started)
        else:
            down(demo)
    except DemoError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
