"""`make lab` and `make lab-down`."""

import argparse
import sys
import time

from scripts.demo.steps import DemoError, step
from scripts.lab.lab import Lab
from scripts.lab.waiting import until

SERVICES = {"web": 5, "redis": 1, "whoami": 3}  # of compose/stack.yml, with their replicas


def up(lab: Lab) -> None:
    """Set it all up, deploy the stack, and leave it running. Raises DemoError."""
    began = time.monotonic()
    with lab.held():
        lab.up()
        with step("Lab: deploying compose/stack.yml, and waiting until every node answers for it"):
            lab.make_secrets()
            lab.deploy()
            lab.make_tokens()
            until(
                lambda: all(node.counts(*SERVICES) == SERVICES for node in lab.nodes),
                f"{SERVICES} in the lookups of every node",
            )
        lab.kept.touch()
    tell(lab)
    print(f"\nReady after {time.monotonic() - began:.0f} s. To remove it all: make lab-down")


def tell(lab: Lab) -> None:
    """Print how to reach it."""
    first = lab.manager
    inside = f"nsenter --net=/run/netns/{first.name}"
    print(f"""
Three nodes are up: {", ".join(f"{node.name} {node.address}" for node in lab.nodes)}
  engines   export DOCKER_HOST=unix://{first.socket}   (n1 is the manager; docker service ls)
  DNS       {inside} dig @127.0.0.1 -p 8053 web.service.consul SRV
  HTTP      {inside} curl http://127.0.0.1:8580/lookup/web
  Consul    {inside} curl -H "X-Consul-Token: {lab.token}" http://127.0.0.1:8500/v1/catalog/services
  inside    docker -H unix://{first.socket} run --rm --network demo_backend --dns 169.254.53.53 \\
                registrator/lab-tools curl -s http://web.service.consul:8000
  try       docker -H unix://{first.socket} service scale demo_web=2
            nsenter --net=/run/netns/sw ip link set tv3 down   (n3 is cut off; up: it is back)""")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Three nodes on this machine: set them up, or remove them.")
    parser.add_argument("action", choices=("up", "down"))
    lab = Lab()
    try:
        if parser.parse_args().action == "up":
            up(lab)
        else:
            lab.down()
    except DemoError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
