"""Who asks: from an address on this node to what its container can reach."""

from __future__ import annotations

from registrator.bridge.addresses import SHORT_ID, reachable_networks
from registrator.model import OUTSIDE, Container, View


class Views:
    """The addresses of this node's containers, each with the networks its container is on."""

    def __init__(self) -> None:
        self._by_ip: dict[str, tuple[str, View]] = {}
        self._ips: dict[str, tuple[str, ...]] = {}

    def of(self, ip: str) -> View:
        """The view of the asker at `ip`; an address that is no container's sees from outside."""
        known = self._by_ip.get(ip)
        return known[1] if known else OUTSIDE

    def put(self, container: Container) -> None:
        """Take in a container as it is now (one that is not up has no addresses)."""
        self.drop(container.id)
        networks = reachable_networks(container) if container.up else ()
        view = View(frozenset(network.network_id[:SHORT_ID] for network in networks))
        ips = tuple(ip for network in networks for ip in network.addresses)
        if ips:
            self._ips[container.id] = ips
            self._by_ip.update(dict.fromkeys(ips, (container.id, view)))

    def drop(self, container_id: str) -> None:
        """Forget a container, but not an address that another has taken over from it."""
        for ip in self._ips.pop(container_id, ()):
            if self._by_ip.get(ip, ("",))[0] == container_id:
                del self._by_ip[ip]
