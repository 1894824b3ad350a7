"""The options of the command line about DNS answers, and how they are read."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any

import click

from registrator.options import Command, option
from registrator.settings import DnsSettings, Listen, SettingError, parse_domain, parse_ip, parse_listen

MAX_TTL = 2**31 - 1  # RFC 2181, 8
DNS_PORT = 53
SYSTEM = ("system",)  # the recursors of resolv.conf
SECONDS = re.compile(r"[0-9]{1,10}")
PATTERN = re.compile(r"[^\s*=]*\*?")


OPTIONS: tuple[Callable[[Command], Command], ...] = (
    option("--alt-domain", metavar="NAME", default="", help="A second name of the DNS zone."),
    option(
        "--node-ttl",
        type=click.IntRange(0, MAX_TTL),
        metavar="SECONDS",
        default=0,
        show_default=True,
        help="The TTL of answers about nodes.",
    ),
    option(
        "--service-ttl",
        metavar="NAME=SECONDS",
        multiple=True,
        help="The TTL of answers about a service; repeatable. NAME* is a prefix, of which the longest "
        "counts, and * is for all.  [default: 0]",
    ),
    option("--only-passing", is_flag=True, help="Leave instances in the state warning out of DNS answers."),
    option(
        "--udp-answers",
        type=click.IntRange(1, 100),
        metavar="NUMBER",
        default=3,
        show_default=True,
        help="Instances in an UDP answer to an asker without EDNS.",
    ),
    option(
        "--rate-limit",
        type=click.IntRange(0, 1_000_000),
        metavar="NUMBER",
        default=1000,
        show_default=True,
        help="UDP replies a second to one network (/24, /56) of public addresses; 0 is no limit.",
    ),
    option(
        "--recursor",
        metavar="ADDR[:PORT]",
        multiple=True,
        help="Ask this resolver what is outside the zone; repeatable, the next where one fails; or system, "
        "for the nameservers in the host's /etc/resolv.conf.  [default: none]",
    ),
    option(
        "--recursion-allow",
        metavar="CIDR",
        multiple=True,
        help="Ask recursors for these askers too, beside those on private, loopback and link-local "
        "addresses; repeatable.",
    ),
    option("--near", is_flag=True, help="Put this node's own instances first in DNS answers."),
    option("--bare-names", is_flag=True, help="Answer a name of one label, as redis, as that service."),
)


def dns_options(command: Command) -> Command:
    """Give a command the options about DNS answers."""
    for add in reversed(OPTIONS):
        command = add(command)
    return command


def read_dns(options: Mapping[str, Any], read: Callable[[str, Callable[[Any], Any]], Any]) -> DnsSettings:
    """The DNS settings; `read` parses an option by name and says which one an error is about."""
    return DnsSettings(
        alt_domain=read("alt_domain", parse_domain) or "",
        node_ttl=options["node_ttl"],
        service_ttls=read("service_ttl", parse_service_ttls) or {},
        only_passing=options["only_passing"],
        udp_answers=options["udp_answers"],
        near=options["near"],
        bare_names=options["bare_names"],
        rate_limit=options["rate_limit"],
        recursors=read("recursor", parse_recursors) or (),
        system_recursors=options["recursor"] == SYSTEM,
        recursion_allow=read("recursion_allow", parse_networks) or (),
    )


def parse_service_ttls(texts: tuple[str, ...]) -> dict[str, int]:
    """TTLs by name or pattern, lower-cased, from "NAME=SECONDS" each. Raises SettingError."""
    found = {}
    for text in texts:
        name, _, seconds = text.rpartition("=")
        if (
            not name
            or not PATTERN.fullmatch(name)
            or not SECONDS.fullmatch(seconds)
            or int(seconds) > MAX_TTL
        ):
            raise SettingError(f"{text!r} is no NAME=SECONDS; write for instance web=10, web*=5 or *=1")
        found[name.lower()] = int(seconds)
    return found


def parse_recursors(texts: tuple[str, ...]) -> tuple[Listen, ...]:
    """The addresses of recursors, without repetition; none for "system". Raises SettingError."""
    if texts == SYSTEM:
        return ()
    if "system" in texts:
        raise SettingError('"system" goes alone; drop it or drop the addresses beside it')
    return tuple(dict.fromkeys(map(parse_recursor, texts)))


def parse_recursor(text: str) -> Listen:
    """A resolver's address, by default at port 53; IPv6 with a port is in brackets. Raises SettingError."""
    bare = text.removeprefix("[").removesuffix("]") if text.startswith("[") and text.endswith("]") else text
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        if not re.search(r"[\d\]]:\d+$", text):
            raise SettingError(
                f"{text!r} is no ADDR or ADDR:PORT; write for instance 10.0.0.2, 10.0.0.2:5353, [fd00::2]:53 "
                "or system"
            ) from None
        found = parse_listen(text)
        address = ipaddress.ip_address(found.host)
    else:
        found = Listen(parse_ip(bare), DNS_PORT)
    if address.is_unspecified or address.is_multicast or not found.port:
        raise SettingError(f"no resolver can be asked at {text}; give the address of one")
    return found


def parse_networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Networks in CIDR notation; an address alone is one. Raises SettingError."""
    return tuple(dict.fromkeys(map(parse_network, texts)))


def parse_network(text: str) -> str:
    """A network in canonical form. Raises SettingError."""
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise SettingError(f"{text!r} is no network ({error}); write for instance 203.0.113.0/24") from None
