"""gliderlabs/registrator's command line, put into ours: `registrator [options] <registry URI>`.

Its options are Go flags: one dash or two, `-name value` or `-name=value`, and
all of them before the one URI. What has no meaning any more is accepted and
does nothing, so that a change of the image's name is all that it takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
URI = re.compile(r"([a-z0-9]+(?:-[a-z]+)?):(?://)?(.*)", re.DOTALL)
DEFAULT_ADDRESS = "127.0.0.1:8500"
DOCKER_SOCKET = "/tmp/docker.sock"  # noqa: S108 - where the old image has it mounted
# The name of what names no service, as registrator gives it: the image's, whatever Compose or Swarm call it.
NAME_BY_IMAGE = '{{.Config.Image | splitIndex -1 "/" | splitIndex 0 "@" | splitIndex 0 ":"}}'

TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))

# Switches, with ours; None: accepted, and nothing to be done.
SWITCHES = {
    "internal": "--internal",
    "explicit": "--explicit",
    "cleanup": None,  # what is dangling is always removed, by ownership
}

# Options that become one of ours with the same value.
SAME = {
    "ip": "--ip",
    "tags": "--tags",
    "deregister": "--deregister",
    "useIpFromLabel": "--ip-from-label",
    "useIpFromNetwork": "--ip-from-network",
}

NUMBERS = frozenset(("ttl", "ttl-refresh", "resync", "retry-attempts", "retry-interval"))

OTHER_STORES = frozenset(("consulkv", "consulkv-unix", "etcd", "etcd-tls", "eureka", "skydns2", "zookeeper"))


class CompatError(ValueError):
    """A command line that registrator would not take either: one line."""


@dataclass(slots=True)
class _Read:
    """What the old command line said, on its way into ours."""

    arguments: list[str] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)


def is_compat(arguments: Sequence[str], commands: Sequence[str]) -> bool:
    """Whether this is the old command line: no command of ours, and a registry URI or an old option."""
    if not arguments or arguments[0] in commands or arguments[0] in ("-h", "--help", "--version"):
        return False
    known = SWITCHES.keys() | SAME.keys() | NUMBERS
    first = arguments[0].lstrip("-").partition("=")[0]
    return (arguments[0].startswith("-") and first in known) or any("://" in word for word in arguments)


def translate(arguments: Sequence[str]) -> list[str]:
    """The arguments of our `agent` command that do what the old ones did. Raises CompatError."""
    read = _Read()
    words = iter(arguments)
    uris: list[str] = []
    for word in words:
        if not word.startswith("-") or word == "-":
            uris = [word, *words]
            break
        name, given, value = word.removeprefix("-").removeprefix("-").partition("=")
        _option(read, name, iter((value,)) if given else words, given=bool(given))
    if len(uris) != 1:
        raise CompatError("give exactly one registry URI after the options, as in consul://127.0.0.1:8500")
    _check_numbers(read.numbers)
    if read.numbers.get("resync", 0) > 0:
        read.arguments += ["--resync", str(read.numbers["resync"])]
    return ["agent", *read.arguments, "--consul", consul_url(uris[0])]


def consul_url(uri: str) -> str:
    """Our `--consul` for a registry URI. Raises CompatError."""
    match = URI.fullmatch(uri)
    if match is None:
        raise CompatError(f"{uri!r} is no registry URI; write for instance consul://127.0.0.1:8500")
    scheme, rest = match.groups()
    if scheme in OTHER_STORES:
        raise CompatError(f"{scheme}:// is not spoken here: services go to Consul; give consul://HOST:PORT")
    address = rest.partition("/")[0] or DEFAULT_ADDRESS
    if scheme == "consul":
        return f"http://{address}"
    if scheme == "consul-tls":
        return f"https://{address}"
    if scheme == "consul-unix" and rest:
        return f"unix:///{rest.lstrip('/')}"
    raise CompatError(f"{uri!r} is no registry URI; give consul://, consul-tls:// or consul-unix://")


def _option(read: _Read, name: str, values: Iterator[str], *, given: bool) -> None:
    """Read one option and its value; `given`: it came with it, after an equals sign."""
    if name in SWITCHES:
        text = next(values) if given else "true"
        if text not in TRUE | FALSE:
            raise CompatError(f"-{name} is true or false, not {text!r}")
        ours = SWITCHES[name]
        if ours is not None and text in TRUE:
            read.arguments.append(ours)
    elif name in SAME:
        text = _value(name, values)
        if text:
            read.arguments += [SAME[name], text]
    elif name in NUMBERS:
        text = _value(name, values)
        if not NUMBER.fullmatch(text.strip()):
            raise CompatError(f"-{name} is a number, not {text!r}")
        read.numbers[name] = int(text)
    else:
        raise CompatError(f"-{name} is no option of registrator")


def _value(name: str, values: Iterator[str]) -> str:
    text = next(values, None)
    if text is None:
        raise CompatError(f"-{name} needs a value")
    return text


def _check_numbers(numbers: dict[str, int]) -> None:
    """The rules by which registrator refuses to start."""
    ttl, refresh = numbers.get("ttl", 0), numbers.get("ttl-refresh", 0)
    if bool(ttl) is not bool(refresh):
        raise CompatError("-ttl and -ttl-refresh go together; give both or neither")
    if ttl and ttl <= refresh:
        raise CompatError("-ttl must be greater than -ttl-refresh")
    if "retry-interval" in numbers and numbers["retry-interval"] <= 0:
        raise CompatError("-retry-interval must be greater than 0")
