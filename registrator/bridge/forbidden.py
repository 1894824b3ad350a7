"""Addresses that no label may name: those at which a node trusts whoever asks from it.

A check is a request from the node, so one at the node's loopback, on its link
or at its cloud's metadata service would reach what the container itself does
not. Such an address can also be written as an IPv6 address that contains it
(RFC 4291, 3056, 6052, 8215, 4380, 5214, 2765).
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

LONGEST = 45  # characters of an IPv6 address, at most

# Where clouds tell a machine its secrets, beyond 169.254.0.0/16 (AWS, Google, Alibaba, Azure, Oracle).
METADATA = "cloud metadata"
DISGUISED = "disguised IPv4"

_KINDS_4 = {
    "0.0.0.0/8": "unspecified",
    "127.0.0.0/8": "loopback",
    "169.254.0.0/16": "link-local",
    "224.0.0.0/4": "multicast",
    "255.255.255.255/32": "broadcast",
    "100.100.100.200/32": METADATA,
    "168.63.129.16/32": METADATA,
    "192.0.0.192/32": METADATA,
}
_KINDS_6 = {
    "::/128": "unspecified",
    "::1/128": "loopback",
    "fe80::/10": "link-local",
    "ff00::/8": "multicast",
    "fd00:ec2::/32": METADATA,
    "fd20:ce::254/128": METADATA,
    # These mean an IPv4 address and nothing else: it has to be written as one.
    "::/96": DISGUISED,
    "::ffff:0:0/96": DISGUISED,
    "::ffff:0:0:0/96": DISGUISED,  # SIIT
    "64:ff9b:1::/48": DISGUISED,  # NAT64 of one's own, which splits the address in one of four ways
    "2001::/32": DISGUISED,  # Teredo
}
FORBIDDEN_4 = {IPv4Network(network): kind for network, kind in _KINDS_4.items()}
FORBIDDEN_6 = {IPv6Network(network): kind for network, kind in _KINDS_6.items()}

SIX_TO_FOUR = IPv6Network("2002::/16")  # the IPv4 address follows the first 16 bits
NAT64 = IPv6Network("64:ff9b::/96")
ISATAP = frozenset((0x00005EFE, 0x02005EFE))  # before the IPv4 address in an interface identifier
WORD = 0xFFFFFFFF


def read_address(text: str) -> str:
    """An IP address in canonical form, "" for what is none: host names, other notations, zones."""
    if len(text) > LONGEST or "%" in text:
        return ""
    try:
        return str(ip_address(text))
    except ValueError:
        return ""


def forbidden(address: str) -> str:
    """What kind of address it is that no label may name, as "loopback"; "" for any other address."""
    ip = ip_address(address)
    if isinstance(ip, IPv4Address):
        return _kind_4(ip)
    kind = next((kind for network, kind in FORBIDDEN_6.items() if ip in network), "")
    return kind or next(filter(None, map(_kind_4, _contained(ip))), "")


def _kind_4(ip: IPv4Address) -> str:
    return next((kind for network, kind in FORBIDDEN_4.items() if ip in network), "")


def _contained(ip: IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that an IPv6 address may contain."""
    bits = int(ip)
    if ip in SIX_TO_FOUR:
        yield IPv4Address(bits >> 80 & WORD)
    if ip in NAT64 or bits >> 32 & WORD in ISATAP:
        yield IPv4Address(bits & WORD)
