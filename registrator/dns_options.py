"""The options of the command line about DNS answers, and how they are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import click

from registrator.options import Command, option
from registrator.settings import DnsSettings, SettingError, parse_domain

MAX_TTL = 2**31 - 1  # RFC 2181, 8
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
    )


def parse_service_ttls(texts: tuple[str, ...]) -> dict[str, int]:
    """TTLs by name or pattern, lower-cased, from "NAME=SECONDS" each. Raises SettingError."""
    found = {}
    for text in texts:
        name, _, seconds = text.rpartition("=")
        if not name or not PATTERN.fullmatch(name) or not seconds.isdecimal() or int(seconds) > MAX_TTL:
            raise SettingError(f"{text!r} is no NAME=SECONDS; write for instance web=10, web*=5 or *=1")
        found[name.lower()] = int(seconds)
    return found
