"""The SERVICE_* grammar: a container's environment and labels -> what each port asks for.

A key is `SERVICE_<key>`, `SERVICE_<port>_<key>` or `SERVICE_<port>_<proto>_<key>`,
the most specific wins; labels win over the environment at equal specificity.
`<port>` is the container's own port. `SERVICE_<first>-<last>_IGNORE` ignores a
range. Keys are case-insensitive after the prefix. What is not known to the
grammar becomes Consul Meta.

Whatever is refused comes back as a `Problem`; nothing here raises on input.
A container has so many keys, of so many octets (`limits`); all that is done
with them is linear in what is kept.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field

from registrator.bridge.bounds import beyond, longer_than, octets, result_of
from registrator.limits import (
    ID_OCTETS,
    NAME_OCTETS,
    NAMES,
    SERVICE_KEY_OCTETS,
    SERVICE_KEYS,
    SERVICE_OCTETS,
    SERVICE_VALUE_OCTETS,
    Limit,
)
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

STEP = 64  # keys that are read before others can have their turn

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
    """A container's SERVICE_* keys by scope, and the ranges of ports to ignore.

    `meta` are those that become Meta, by scope too. The ranges are sorted, and
    apart from one another.
    """

    by_scope: Mapping[Scope, Mapping[str, str]] = field(default_factory=dict)
    ignored: tuple[tuple[int, int], ...] = ()
    meta: Mapping[Scope, Mapping[str, str]] = field(default_factory=dict)

    def scopes(self, port: int, protocol: str) -> tuple[Scope, ...]:
        """The scopes whose keys hold for a port, the most specific last."""
        return tuple(s for s in ((0, ""), (port, ""), (port, protocol)) if s in self.by_scope)

    def at(self, port: int, protocol: str) -> Mapping[str, str]:
        """All keys that hold for a port, the most specific value of each."""
        return _merged(self.by_scope, self.scopes(port, protocol))

    def meta_at(self, port: int, protocol: str) -> Mapping[str, str]:
        """The keys that become Meta at a port."""
        return _merged(self.meta, self.scopes(port, protocol))

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
        for scope in reversed(self.scopes(port, protocol)):
            if (value := self.by_scope[scope].get("ignore")) is not None:
                if value:
                    return True
                break
        before = bisect_right(self.ignored, (port, MAX_PORT))
        return before > 0 and self.ignored[before - 1][1] >= port


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
    return result_of(collect_keys(env, labels))


def collect_keys(
    env: Mapping[str, str], labels: Mapping[str, str]
) -> Generator[None, None, tuple[Keys, list[Problem]]]:
    """Like `parse_keys`, in short steps."""
    by_scope: dict[Scope, dict[str, str]] = {}
    ignored: list[tuple[int, int]] = []
    problems: list[Problem] = []
    told = yield from _within_limits(env, labels, problems)
    for number, (name, value) in enumerate(told, 1):
        if number % STEP == 0:
            yield
        rest = name[len(PREFIX) :].lower()
        match = SCOPED.fullmatch(rest)
        if match is None:
            by_scope.setdefault((0, ""), {})[rest] = value
            continue
        first, last, protocol, key = match.groups()
        begin = _port(first)
        end = begin if last is None else _port(last)
        if begin is None or end is None:
            remedy = "correct the number or drop the label"
            problems.append(Problem(short(name), f"a port is a number from 1 to {MAX_PORT}", remedy))
        elif last is None:
            by_scope.setdefault((begin, protocol or ""), {})[key] = value
        elif key != "ignore":
            what = "a range of ports can only be ignored"
            problems.append(Problem(short(name), what, "name each port by itself"))
        elif value:
            ignored.append((begin, end))
    meta: dict[Scope, Mapping[str, str]] = {}
    for number, (scope, keys) in enumerate(by_scope.items(), 1):
        if number % STEP == 0:
            yield
        meta[scope] = _meta(keys, problems)
    return Keys(by_scope, _apart(ignored), meta), problems


def _within_limits(
    env: Mapping[str, str], labels: Mapping[str, str], problems: list[Problem]
) -> Generator[None, None, list[tuple[str, str]]]:
    """The SERVICE_* keys that are read, the environment's first, so that labels win."""
    number = total = 0
    kept: tuple[list[tuple[str, str]], ...] = ([], [])
    for source, into in zip((labels, env), kept, strict=True):
        for name, value in source.items():
            if not name.startswith(PREFIX) or name == PREFIX:
                continue
            number += 1
            if number % STEP == 0:
                yield
            long = _too_long(name, value)
            if long is not None:
                problems.append(beyond(long, short(name), "shorten it"))
                continue
            total += octets(name) + octets(value)
            if number > SERVICE_KEYS.value or total > SERVICE_OCTETS.value:
                limit = SERVICE_KEYS if number > SERVICE_KEYS.value else SERVICE_OCTETS
                problems.append(beyond(limit, "SERVICE_*", "drop some"))
                return [*kept[1], *kept[0]]
            into.append((name, value))
    return [*kept[1], *kept[0]]


def _too_long(name: str, value: str) -> Limit | None:
    """The limit that a key or its value is beyond, if it is."""
    if longer_than(SERVICE_KEY_OCTETS.value, name):
        return SERVICE_KEY_OCTETS
    return SERVICE_VALUE_OCTETS if longer_than(SERVICE_VALUE_OCTETS.value, value) else None


def _merged(by_scope: Mapping[Scope, Mapping[str, str]], scopes: tuple[Scope, ...]) -> Mapping[str, str]:
    """The keys of some scopes, the last of which wins; not copied where there is only one."""
    if len(scopes) == 1:
        return by_scope[scopes[0]]
    merged: dict[str, str] = {}
    for scope in scopes:
        merged.update(by_scope[scope])
    return merged


def _apart(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Ranges in order, those that overlap made one."""
    apart: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if apart and first <= apart[-1][1]:
            apart[-1] = (apart[-1][0], max(last, apart[-1][1]))
        elif first <= last:
            apart.append((first, last))
    return tuple(apart)


def parse_wishes(keys: Keys, port: int, protocol: str) -> tuple[Wishes, list[Problem]]:
    """Read what the keys ask for at one port."""
    problems: list[Problem] = []
    at = keys.at(port, protocol)
    own_name = keys.of_port(port, protocol, "name")
    wishes = Wishes(
        names=_names(at.get("name", ""), problems),
        own_name=bool(own_name),
        id=_id(at, problems),
        own_id=bool(keys.of_port(port, protocol, "id").strip()),
        tags=at.get("tags", ""),
        ip=at.get("ip", "").strip(),
        weights=Weights(
            _weight(at, "weight_passing", 1, problems),  # Consul refuses 0
            _weight(at, "weight_warning", 0, problems),
        ),
        enable_tag_override=read_flag(at, "enable_tag_override", problems),
        meta=_few(keys.meta_at(port, protocol), problems),
    )
    return wishes, problems


def parse_port(keys: Keys) -> tuple[int, list[Problem]]:
    """SERVICE_PORT, the port of a container that exposes none; 0 where it is not given."""
    text = keys.of_container("port").strip()
    if not text:
        return 0, []
    port = _port(text)
    if port is None:
        return 0, [
            Problem("SERVICE_PORT", f"{short(text)!r} is no port", f"give a number from 1 to {MAX_PORT}")
        ]
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
    return UNSAFE_IN_DNS.sub("-", name[: NAME_OCTETS.value]).strip("-")[:MAX_LABEL].strip("-")


def _port(text: str) -> int | None:
    if not text.isascii() or not text.isdigit() or len(text) > len(str(MAX_PORT)):
        return None
    return int(text) if 0 < int(text) <= MAX_PORT else None


def _names(text: str, problems: list[Problem]) -> tuple[str, ...]:
    names: list[str] = []
    parts = [part for part in map(str.strip, text.split(",")) if part]
    if len(parts) > NAMES.value:
        problems.append(beyond(NAMES, "SERVICE_NAME", "give fewer names"))
    for wanted in parts[: NAMES.value]:
        name = dns_safe(wanted)
        if name != wanted:
            outcome = f"it is registered as {name!r}" if name else "it is left out"
            problems.append(
                Problem(
                    "SERVICE_NAME",
                    f"{short(wanted)!r} is no name that DNS can hold, {outcome}",
                    f"use letters, digits, - and _, at most {MAX_LABEL} of them",
                    NAME_OCTETS.name if len(wanted) > NAME_OCTETS.value else "",
                )
            )
        if name:
            names.append(name)
    return tuple(dict.fromkeys(names))


def _id(at: Mapping[str, str], problems: list[Problem]) -> str:
    wanted = at.get("id", "").strip()
    if longer_than(ID_OCTETS.value, wanted):
        problems.append(beyond(ID_OCTETS, "SERVICE_ID", "choose a shorter one"))
        return ""
    return wanted


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


def _meta(keys: Mapping[str, str], problems: list[Problem]) -> Mapping[str, str]:
    """Of the keys of one scope every one that the grammar does not know, within Consul's limits."""
    meta: dict[str, str] = {}
    for key, value in keys.items():
        if key in RESERVED or key.startswith(CHECK_PREFIX):
            continue
        if (fault := _meta_fault(key, value)) is None:
            meta[key] = value
        else:
            problems.append(Problem(PREFIX + short(key).upper(), *fault))
    return _few(meta, problems)


def _few(meta: Mapping[str, str], problems: list[Problem]) -> Mapping[str, str]:
    """As many pairs as Consul holds, by name, without those that the agent adds."""
    most = MAX_META_PAIRS - OWN_META_PAIRS
    if len(meta) <= most:
        return meta
    problems.append(
        Problem(
            "SERVICE_*",
            f"Consul holds {MAX_META_PAIRS} metadata pairs; of {len(meta)} the first {most} by name are kept",
            "drop some SERVICE_ keys",
        )
    )
    return {key: meta[key] for key in sorted(meta)[:most]}


def _meta_fault(key: str, value: str) -> tuple[str, str] | None:
    """Why Consul would refuse a metadata pair, and what to do; None when it would not."""
    if not META_KEY.fullmatch(key):
        return "no key of service metadata, left out", "use letters, digits, - and _, at most 128 of them"
    if key.startswith(("consul-", "registrator-")):
        return "this prefix is reserved, the key is left out", "choose another key"
    if longer_than(MAX_META_VALUE, value):
        return f"the value is longer than {MAX_META_VALUE} bytes, left out", "shorten it"
    return None


def short(text: str) -> str:
    """A text that fits in a log line."""
    return text if len(text) <= 40 else text[:37] + "..."
