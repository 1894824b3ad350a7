"""Which of an instance's addresses an asker is given: one that it can reach. Pure.

In this order: an address on a network that the asker is on; for an asker on
any container network, the node's published address; else the registered
address, as Consul would answer. Networks are the same by id, never by name.
Instances that the asker can never reach are left out, if others remain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from registrator.lookup.records import packed
from registrator.model import Address, Entry, Node, View


def reach(entry: Entry, view: View) -> tuple[Address, ...]:
    """The addresses of one instance for one asker: at most one of each family, the preferred first.

    Where the registered address is a host name, that name alone stands in `ip`.
    """
    own = entry.instance.addresses
    if not own and entry.instance.address:  # a foreign service, most of the time
        return (Address("", "", entry.instance.address, entry.instance.port),)
    shared = [a for a in own if a.network_id and a.network_id in view.networks]
    published = [a for a in own if not a.network_id] if view.networks else []
    candidates = shared or published or registered(entry)
    preferred = entry.address
    return _one_per_family(sorted(candidates, key=lambda a: a.ip != preferred))


def within_reach(entries: Sequence[Entry], view: View) -> Sequence[Entry]:
    """The instances of one service for one asker: those out of its reach are left out, if others remain.

    An instance whose addresses are all on a Swarm's networks is met by nobody
    who is on none of them: so two services of one name on two overlays do not
    mix. Of networks of other kinds there may be a route. An asker that is on
    no network known here may be anybody, and has all.
    """
    if not view.networks:
        return entries
    return [entry for entry in entries if not _is_shut_off(entry, view)] or entries


def _is_shut_off(entry: Entry, view: View) -> bool:
    own = entry.instance.addresses
    if not own or entry.instance.address not in [a.ip for a in own]:
        return False
    return all(a.of_swarm and a.network_id not in view.networks for a in own)


def registered(entry: Entry) -> list[Address]:
    """The registered address, then its siblings: the same place's address of the other family."""
    instance = entry.instance
    if not instance.address:
        return node_addresses(entry)
    home = next((a for a in instance.addresses if a.ip == instance.address), None)
    siblings = [a for a in instance.addresses if home and a.network_id == home.network_id]
    return [Address("", "", instance.address, instance.port), *siblings]


def node_addresses(entry: Entry) -> list[Address]:
    """The addresses of the instance's node, with the instance's registered port."""
    return [Address("", "", ip, entry.instance.port) for ip in node_ips(entry.node)]


def node_ips(node: Node) -> tuple[str, ...]:
    """A node's addresses, of both families where it has them; the registered one may be a host name."""
    tagged = (node.tagged_addresses.get(key, "") for key in ("lan_ipv4", "lan_ipv6"))
    return tuple(dict.fromkeys(ip for ip in (node.address, *tagged) if ip))


def by_address(nodes: Iterable[Node]) -> dict[str, list[Node]]:
    """Nodes by each of their addresses, in the order of their names."""
    found: dict[str, list[Node]] = {}
    for node in sorted(nodes, key=lambda node: node.name):
        for ip in node_ips(node):
            found.setdefault(ip, []).append(node)
    return found


def _one_per_family(addresses: Iterable[Address]) -> tuple[Address, ...]:
    """The first address of each family; a host name only where no IP address comes before it."""
    chosen: dict[int, Address] = {}
    for address in addresses:
        octets = packed(address.ip)
        if octets is None:
            return tuple(chosen.values()) or (address,)
        chosen.setdefault(len(octets), address)
    return tuple(chosen.values())
