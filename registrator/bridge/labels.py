"""The SERVICE_* grammar: a container's environment and labels -> what each port asks for.

A key is `SERVICE_<key>`, `SERVICE_<port>_<key>` or `SERVICE_<port>_<proto>_<key>`,
the most specific wins; labels win over the environment at equal specificity.
`<port>` is the container's own port. `SERVICE_<first>-<last>_IGNORE` ignores a
range. Keys are case-insensitive after the prefix. What is not known to the
grammar becomes Consul Meta.

Whatever is refused comes back as a `Problem`; nothing here raises on input.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from registrator.model import Problem, Weights

PREFIX = "SERVICE_"
SCOPED = re.compile(r"(\d+)(?:-(\d+))?_(?:(tcp|udp|sctp)_)?(.+)", re.DOTALL)
UNSAFE_IN_DNS = re.compile(r"[^A-Za-z0-9_-]+")
META_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")

# Keys that mean something to the agent and therefore never become Meta.
RESERVED = frozenset(
    ("name", "id", "tags", "ignore", "ip", "port", "weight_passing", "weight_warning", "enable_tag_override")
)
CHECK_PREFIX = "check_"

MAX_PORT = 65535
MAX_LABEL = 63  # octets in a DNS label (RFC 1035, 2.3.4)
MAX_META_PAIRS = 64  # Consul's limits on service metadata
MAX_META_VALUE = 512
MAX_WEIGHT = 65535  # an SRV weight has 16 bits (RFC 2782)
OWN_META_PAIRS = 12  # room that is kept for the agent's own pairs

TRUE = frozenset(("1", "t", "true", "y", "yes", "on"))
FALSE = frozenset(("", "0", "f", "false", "n", "no", "off"))

EQUAL = Weights()

Scope = tuple[int, str]  # (port, protocol); port 0: any, protocol "": any


@dataclass(frozen=True, slots=True)
class Keys:
    """A container's SERVICE_* keys by scope, and the ranges of ports to ignore."""

    by_scope: Mapping[Scope, Mapping[str, str]] = field(default_factory=dict)
    ignored: tuple[tuple[int, int], ...] = ()

    def at(self, port: int, protocol: str) -> dict[str, str]:
        """All keys that hold for a port, the most specific value of each."""
        merged: dict[str, str] = {}
        for scope in ((0, ""), (port, ""), (port, protocol)):
            merged.update(self.by_scope.get(scope, {}))
        return merged

    def of_port(self, port: int, protocol: str, key: str) -> str:
        """The value that a port's own key gives, or ""."""
        own = self.by_scope.get((port, protocol), {}).get(key)
        return own if own is not None else self.by_scope.get((port, ""), {}).get(key, "")

    def of_container(self, key: str) -> str:
        """The value that holds for the whole container, or ""."""
        return self.by_scope.get((0, ""), {}).get(key, "")

    def named_ports(self) -> Iterator[tuple[int, str]]:
        """The ports (with protocol, tcp unless said) that have a name of their own."""
        for (port, protocol), keys in self.by_scope.items():
            if port and keys.get("name"):
                yield port, protocol or "tcp"

    def ignores(self, port: int, protocol: str) -> bool:
        """Whether a port is to be left out: any non-empty IGNORE value means yes."""
        return bool(self.at(port, protocol).get("ignore")) or any(
            first <= port <= last for first, last in self.ignored
        )


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the keys ask for at one port, checked and typed; checks are read elsewhere."""

    names: tuple[str, ...] = ()  # empty: the default name
    own_name: bool = False  # named by the port's own key: no port suffix
    id: str = ""
    own_id: bool = False  # the id is the port's own: no port suffix
    tags: str = ""  # a comma list, perhaps with templates in it
    ip: str = ""
    weights: Weights = EQUAL
    enable_tag_override: bool = False
    meta: Mapping[str, str] = field(default_factory=dict)


def parse_keys(env: Mapping[str, str], labels: Mapping[str, str]) -> tuple[Keys, list[Problem]]:
    """Collect the SERVICE_* keys of a container by scope."""
    by_scope: dict[Scope, dict[str, str]] = {}
    ignored: list[tuple[int, int]] = []
    problems: list[Problem] = []
    for source in (env, labels):
        for name, value in source.items():
            if not name.startswith(PREFIX) or name == PREFIX:
                continue
            rest = name[len(PREFIX) :].lower()
            match = SCOPED.fullmatch(rest)
            if match is None:
                by_scope.setdefault((0, ""), {})[rest] = value
                continue
            first, last, protocol, key = match.groups()
            ports = (_port(first), _port(last or first))
            if None in ports:
                problems.append(
                    Problem(
                        name,
                        f"a port is a number from 1 to {MAX_PORT}",
                        "correct the number or drop the label",
                    )
                )
            elif last is None:
                by_scope.setdefault((int(first), protocol or ""), {})[key] = value
            elif key != "ignore":
                problems.append(
                    Problem(name, "a range of ports can only be ignored", "name each port by itself")
                )
            elif value:
                ignored.append((int(first), int(last)))
    return Keys(by_scope, tuple(ignored)), problems


def parse_wishes(keys: Keys, port: int, protocol: str) -> tuple[Wishes, list[Problem]]:
    """Read what the keys ask for at one port."""
    problems: list[Problem] = []
    at = keys.at(port, protocol)
    own_name = keys.of_port(port, protocol, "name")
    wishes = Wishes(
        names=_names(at.get("name", ""), problems),
        own_name=bool(own_name),
        id=at.get("id", "").strip(),
        own_id=bool(keys.of_port(port, protocol, "id").strip()),
        tags=at.get("tags", ""),
        ip=at.get("ip", "").strip(),
        weights=Weights(
            _weight(at, "weight_passing", 1, problems),  # Consul refuses 0
            _weight(at, "weight_warning", 0, problems),
        ),
        enable_tag_override=read_flag(at, "enable_tag_override", problems),
        meta=_meta(at, problems),
    )
    return wishes, problems


def parse_port(keys: Keys) -> tuple[int, list[Problem]]:
    """SERVICE_PORT, the port of a container that exposes none; 0 where it is not given."""
    text = keys.of_container("port").strip()
    if not text:
        return 0, []
    port = _port(text)
    if port is None:
        return 0, [Problem("SERVICE_PORT", f"{text!r} is no port", f"give a number from 1 to {MAX_PORT}")]
    return port, []


def split_tags(text: str) -> tuple[str, ...]:
    r"""Split a comma list; `\,` is a comma within a tag, empty tags are dropped."""
    parts = re.split(r"(?<!\\),", text)
    return tuple(tag for tag in (part.replace("\\,", ",").strip() for part in parts) if tag)


def dns_safe(name: str) -> str:
    """The nearest name that fits in one DNS label: "" when nothing of it does.

    Underscores stay: Consul answers for them, and people's configurations
    name services by them.
    """
    return UNSAFE_IN_DNS.sub("-", name).strip("-")[:MAX_LABEL].strip("-")


def _port(text: str) -> int | None:
    if not text.isascii() or not text.isdigit() or len(text) > len(str(MAX_PORT)):
        return None
    return int(text) if 0 < int(text) <= MAX_PORT else None


def _names(text: str, problems: list[Problem]) -> tuple[str, ...]:
    names: list[str] = []
    for wanted in filter(None, (part.strip() for part in text.split(","))):
        name = dns_safe(wanted)
        if name != wanted:
            outcome = f"it is registered as {name!r}" if name else "it is left out"
            problems.append(
                Problem(
                    "SERVICE_NAME",
                    f"{short(wanted)!r} is no name that DNS can hold, {outcome}",
                    f"use letters, digits, - and _, at most {MAX_LABEL} of them",
                )
            )
        if name:
            names.append(name)
    return tuple(dict.fromkeys(names))


def _weight(at: Mapping[str, str], key: str, least: int, problems: list[Problem]) -> int:
    text = at.get(key, "").strip()
    if not text:
        return 1
    weight = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_WEIGHT)) else -1
    if not least <= weight <= MAX_WEIGHT:
        remedy = f"give a number from {least} to {MAX_WEIGHT}"
        problems.append(Problem(PREFIX + key.upper(), f"{short(text)!r} is no weight, 1 is used", remedy))
        return 1
    return weight


def read_flag(at: Mapping[str, str], key: str, problems: list[Problem]) -> bool:
    """A key that is yes or no; anything else is said and counts as no."""
    text = at.get(key, "").strip().lower()
    if text not in TRUE | FALSE:
        problems.append(
            Problem(
                PREFIX + key.upper(),
                f"{short(text)!r} is neither yes nor no, no is used",
                "write true or false",
            )
        )
    return text in TRUE


def _meta(at: Mapping[str, str], problems: list[Problem]) -> dict[str, str]:
    """Every key that the grammar does not know, within Consul's limits."""
    meta: dict[str, str] = {}
    for key in sorted(at):
        if key in RESERVED or key.startswith(CHECK_PREFIX):
            continue
        fault = _meta_fault(key, at[key])
        if fault is None and len(meta) >= MAX_META_PAIRS - OWN_META_PAIRS:
            fault = (
                f"Consul holds {MAX_META_PAIRS} metadata pairs and this is one too many",
                "drop some SERVICE_ keys",
            )
        if fault is None:
            meta[key] = at[key]
        else:
            problems.append(Problem(PREFIX + short(key).upper(), *fault))
    return meta


def _meta_fault(key: str, value: str) -> tuple[str, str] | None:
    """Why Consul would refuse a metadata pair, and what to do; None when it would not."""
    if not META_KEY.fullmatch(key):
        return "no key of service metadata, left out", "use letters, digits, - and _, at most 128 of them"
    if key.startswith(("consul-", "registrator-")):
        return "this prefix is reserved, the key is left out", "choose another key"
    if len(value.encode(errors="surrogatepass")) > MAX_META_VALUE:
        return f"the value is longer than {MAX_META_VALUE} bytes, left out", "shorten it"
    return None


def short(text: str) -> str:
    """A text that fits in a log line."""
    return text if len(text) <= 40 else text[:37] + "..."
