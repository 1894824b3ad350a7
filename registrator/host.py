"""Who this node is: the engine's word, and the addresses at which others reach the node."""

from __future__ import annotations

import ipaddress
import logging
import socket
from dataclasses import replace

from registrator.bridge.addresses import Host
from registrator.model import Engine, Node
from registrator.settings import Settings

log = logging.getLogger(__name__)

# Any address outside would do: a datagram socket that is connected sends
# nothing, it only learns which of the node's addresses the route would use.
OUTSIDE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}


class Identity:
    """Who this node is, asked again and again: it may join a Swarm, or get another address."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: Host | None = None

    @property
    def owner(self) -> str:
        """What its instances are owned by; "" before the engine was asked."""
        return self._known.owner if self._known else ""

    def of(self, engine: Engine) -> Host:
        """The node as it is now; one that has just lost all of its addresses keeps those it had."""
        found = host(engine, self._settings)
        if not found.ips and self._known is not None:
            found = replace(found, ips=self._known.ips)
        elif not found.ips:
            log.warning(
                "this node has no address that others reach; give one by --ip, or published ports stay out"
            )
        self._known = found
        return found


def host(engine: Engine, settings: Settings) -> Host:
    """The node as the bridge knows it: the operator's addresses, else Swarm's, else the default route's."""
    if settings.ips:
        return Host(engine.id, engine.name, settings.ips, forced=True)
    found = {":" in ip: ip for ip in reversed(default_route_addresses())}
    if usable(engine.swarm_address):
        found[":" in engine.swarm_address] = engine.swarm_address
    return Host(engine.id, engine.name, tuple(found[six] for six in (False, True) if six in found))


def node(engine: Engine, known: Host) -> Node:
    """The node as the embedded catalog shows it."""
    tagged = {f"lan_ipv{6 if ':' in ip else 4}": ip for ip in known.ips}
    address = known.ips[0] if known.ips else "127.0.0.1"
    return Node(name=known.name, address=address, id=engine.id, tagged_addresses=tagged)


def default_route_addresses() -> tuple[str, ...]:
    """The node's own addresses towards the outside, IPv4 first; a family without a route is absent."""
    found = []
    for family, outside in OUTSIDE.items():
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((outside, 9))
            except OSError:
                continue
            found.append(probe.getsockname()[0])
    return tuple(ip for ip in found if usable(ip))


def usable(ip: str) -> bool:
    """Whether others can connect to an address: not absent, loopback, link-local or unspecified."""
    if not ip:
        return False
    address = ipaddress.ip_address(ip)
    return not (address.is_loopback or address.is_unspecified or address.is_link_local)
