"""Which askers are neighbours, by their addresses alone. Pure.

Neighbours are on this host, in one of its containers, or on a network that is
not routed on the internet: nobody outside can make replies go there.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

LOCAL = tuple(
    ipaddress.ip_network(text)
    for text in (
        "127.0.0.0/8",
        "10.0.0.0/8",  # RFC 1918
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",  # RFC 6598
        "169.254.0.0/16",  # RFC 3927
        "::1/128",
        "fc00::/7",  # RFC 4193
        "fe80::/10",  # RFC 4291
    )
)
PREFIXES = {4: 24, 6: 56}  # bits that the addresses of one client have in common, as in BIND's limits


@lru_cache(maxsize=4096)
def is_local(source: str) -> bool:
    """Whether an IP address is a neighbour's; what is no address is not."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return False
    return any(address in network for network in LOCAL)


@lru_cache(maxsize=4096)
def client_of(source: str) -> str | None:
    """The network that counts as one client, as text; None for a neighbour."""
    if is_local(source):
        return None
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return ""
    return str(ipaddress.ip_network((address, PREFIXES[address.version]), strict=False))


def peer_of(source: str) -> str:
    """Who counts as one client over TCP, where no source is forged: an address, or its IPv6 network."""
    return (client_of(source) or source) if ":" in source else source
