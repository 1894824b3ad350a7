"""What `doctor` finds out about this machine: its ports, its loopback, its engine's settings, its kernel.

Nothing here is changed, and nothing but files of /proc and /etc is read.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registrator.commands.finding import BAD, GOOD, WARNING, Finding
from registrator.settings import Listen

LINK_LOCAL = "169.254.53.53"  # the address of README's examples
DAEMON = Path("/etc/docker/daemon.json")
IPVS = Path("/proc/net/ip_vs")
SOCKETS = Path("/proc/net")
TCP_LISTEN = "0A"  # linux/tcp_states.h


def is_taken(listen: Listen, kind: str, folder: Path = SOCKETS) -> bool:
    """Whether a socket of this network namespace has the port, on the address or on all (proc(5)).

    `kind` is udp or tcp.
    """
    wanted = {_hexadecimal(listen.host), "0" * 8, "0" * 32}
    for name in (kind, f"{kind}6"):
        try:
            lines = (folder / name).read_text(encoding="ascii").splitlines()[1:]
        except OSError:  # no IPv6 in this kernel, or no /proc
            continue
        for line in lines:
            _, local, _, state, *_ = line.split()
            ip, _, port = local.partition(":")
            if int(port, 16) == listen.port and ip in wanted and (kind == "udp" or state == TCP_LISTEN):
                return True
    return False


def _hexadecimal(host: str) -> str:
    """An address as /proc/net writes it: words in the machine's own byte order."""
    packed = ipaddress.ip_address(host).packed
    return "".join(f"{word:08X}" for word in struct.unpack(f"={len(packed) // 4}I", packed))


def link_local(address: str) -> Finding:
    """Whether the address of `--dns-link-local` is one of this machine's own."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            remedy = (
                f"run the agent with --dns-link-local {address}, on the host's network and with CAP_NET_ADMIN"
            )
            return Finding(BAD, "link-local", f"{address} is not on this machine's loopback", remedy)
    return Finding(GOOD, "link-local", f"{address} is on this machine")


def machine(address: str, daemon: Path = DAEMON, ipvs: Path = IPVS) -> list[Finding]:
    """What the engine's configuration file and the kernel say; `address` is the one for containers."""
    try:
        settings = json.loads(daemon.read_text(encoding="utf-8"))
        settings.get("dns")
    except FileNotFoundError:
        settings = {}
    except (OSError, ValueError, AttributeError) as error:  # AttributeError: JSON, but no object
        remedy = "mend it: with a broken one dockerd does not start again"
        broken = Finding(BAD, "daemon.json", f"{daemon} cannot be read ({error})", remedy)
        return [broken, _virtual_ips(ipvs)]
    return [_default_resolver(settings, address), _virtual_ips(ipvs)]


def _default_resolver(settings: Mapping[str, Any], address: str) -> Finding:
    """Whether the engine hands the agent's address to containers that name no resolver."""
    servers = settings.get("dns") or []
    if not servers or address not in servers:
        return Finding(GOOD, "resolver", f"daemon.json names no agent: containers need `dns: [{address}]`")
    if servers[0] != address:
        what = f"daemon.json has {address} behind {servers[0]}, which denies names that only the agent knows"
        return Finding(WARNING, "resolver", what, f"put {address} first")
    return Finding(GOOD, "resolver", f"every new container asks {address} first (daemon.json)")


def _virtual_ips(table: Path) -> Finding:
    """Swarm's virtual IPs and its ingress mesh are made of IPVS."""
    if table.exists():
        return Finding(GOOD, "ipvs", "the kernel has it: Swarm's virtual IPs and mesh work")
    what = "not loaded: Swarm's virtual IPs and ingress mesh carry no traffic"
    return Finding(WARNING, "ipvs", what, "`modprobe ip_vs`, or use endpoint_mode: dnsrr and host-mode ports")
