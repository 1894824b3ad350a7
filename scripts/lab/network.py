"""The lab's cables: a bridge in a network namespace of its own, and a namespace for each node.

The bridge cannot be on the host: a dockerd there sets the policy of FORWARD to
DROP, and br_netfilter would then drop the frames between the nodes. No node has
a default route: with one, an engine waits for an image registry to time out.
"""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from scripts.demo.steps import DemoError, run

SWITCH = "sw"
NAMESPACES = Path("/run/netns")
CLONE_NEWNET = 0x40000000  # sched.h; os has setns() only since Python 3.12

P = ParamSpec("P")
R = TypeVar("R")


def exists(namespace: str) -> bool:
    """Whether there is a network namespace of that name."""
    return (NAMESPACES / namespace).exists()


def lay_switch() -> None:
    """Make the bridge that all cables lead to."""
    run("ip", "netns", "add", SWITCH)
    inside(SWITCH, "ip link add br0 type bridge && ip link set br0 up")


def plug_in(node: str, address: str) -> None:
    """Make a node's namespace with `eth0`, that has the address (with its prefix) and leads to the bridge."""
    run("ip", "netns", "add", node)
    # The same hardware address whenever it is plugged in: the others remember it.
    mac = "02:00:" + ":".join(f"{int(part):02x}" for part in address.partition("/")[0].split("."))
    ends = f"eth0 netns {node} address {mac} type veth peer name {cable(node)} netns {SWITCH}"
    run(*f"ip link add {ends}".split())
    inside(SWITCH, f"ip link set {cable(node)} master br0 up")
    inside(node, f"ip link set lo up && ip address add {address} dev eth0 && ip link set eth0 up")


def unplug(node: str) -> None:
    """Remove a node's cable and namespace, whether they are there or not."""
    if exists(SWITCH):  # a namespace that was deleted lives on for a moment, and so would the cable
        inside(SWITCH, f"if ip link show {cable(node)}; then ip link delete {cable(node)}; fi")
    remove(node)


def remove(namespace: str) -> None:
    """Remove a network namespace, whether it is there or not."""
    if exists(namespace):
        run("ip", "netns", "delete", namespace)


def cut(node: str) -> None:
    """Let no frame pass between a node and the others."""
    inside(SWITCH, f"ip link set {cable(node)} down")


def mend(node: str) -> None:
    """Undo `cut`."""
    inside(SWITCH, f"ip link set {cable(node)} up")


def cable(node: str) -> str:
    """The name of a node's cable at the switch: tv1 for n1."""
    return f"tv{node.removeprefix('n')}"


def inside(namespace: str, script: str) -> str:
    """Run a shell script in a network namespace. Raises DemoError.

    nsenter, not `ip netns exec`: that mounts /sys anew, and hides the cgroups.
    """
    return run("nsenter", f"--net={NAMESPACES / namespace}", "sh", "-ec", script)


class Window:
    """Calls Python functions in a network namespace, each in a thread that lives there."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._threads: ThreadPoolExecutor | None = None

    def __call__(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The function's result; sockets that it opens are, and stay, in the namespace."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(8, self._namespace, _enter, (self._namespace,))
        return self._threads.submit(function, *args, **kwargs).result()

    def close(self) -> None:
        """Let go of the namespace; the next call enters the one that has its name then."""
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None


def _enter(namespace: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.open(NAMESPACES / namespace, os.O_RDONLY)
    try:
        if libc.setns(handle, CLONE_NEWNET):
            raise DemoError(f"cannot enter the namespace {namespace}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(handle)
