"""Who asks: from an address on this node to what its container can reach."""

from __future__ import annotations

from registrator.bridge.addresses import INGRESS, SHORT_ID, reachable_networks
from registrator.model import OUTSIDE, Container, View


class Views:
    """The addresses of this node's containers, each with the networks its container is on."""

    def __init__(self) -> None:
        self._by_ip: dict[str, View] = {}
        self._claims: dict[str, dict[str, View]] = {}  # of whom an address was told, the latest last
        self._ips: dict[str, tuple[str, ...]] = {}
        self._by_id: dict[str, tuple[str, View]] = {}  # name and view of every container that is up

    def of(self, ip: str) -> View:
        """The view of the asker at `ip`; an address that is no container's sees from outside."""
        return self._by_ip.get(ip, OUTSIDE)

    def knows(self, ip: str) -> bool:
        """Whether the address is a container's."""
        return ip in self._by_ip

    def of_container(self, name_or_id: str) -> View | None:
        """The view of a container that is up, by its name or the beginning of its id; None for another."""
        for container_id, (name, view) in self._by_id.items():
            if name_or_id == name or (len(name_or_id) >= SHORT_ID and container_id.startswith(name_or_id)):
                return view
        return None

    def names(self) -> list[str]:
        """The names of the containers that are up, sorted."""
        return sorted(name for name, _ in self._by_id.values())

    def put(self, container: Container) -> None:
        """Take in a container as it is now (one that is not up has no addresses)."""
        self.drop(container.id)
        networks = reachable_networks(container) if container.up else ()
        view = View(frozenset(network.network_id[:SHORT_ID] for network in networks))
        if container.up:
            self._by_id[container.id] = (container.name, view)
        # On a Swarm's network it asks from docker_gwbridge, where it meets nobody: no part of its view.
        places = (place for place in container.networks if place.network != INGRESS)
        ips = tuple(ip for place in places for ip in place.addresses) if container.up else ()
        if ips:
            self._ips[container.id] = ips
            for ip in ips:
                self._claims.setdefault(ip, {})[container.id] = view
                self._by_ip[ip] = view

    def drop(self, container_id: str) -> None:
        """Forget a container, but not an address that another has taken over from it.

        Which of the two was looked at last does not matter: a look at the
        former one may have begun before its end, and be over after the other's.
        """
        self._by_id.pop(container_id, None)
        for ip in self._ips.pop(container_id, ()):
            claims = self._claims[ip]
            del claims[container_id]
            if claims:
                self._by_ip[ip] = next(reversed(claims.values()))
            else:
                del self._claims[ip], self._by_ip[ip]
