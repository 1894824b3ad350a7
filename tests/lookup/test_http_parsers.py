"""What reads outside text over HTTP takes time in proportion to its length, and has a limit of length."""

from __future__ import annotations

import contextlib
import math
import re
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from registrator import limits
from registrator.compat import CompatError, translate
from registrator.dns_options import parse_service_ttls
from registrator.duration import parse_duration
from registrator.lookup import consul_api, consul_filter
from registrator.lookup.consul_api import BadQuery, parse_query
from registrator.lookup.consul_filter import BadFilter
from registrator.lookup.explain import Likeness, comparable, likeness, nearest
from registrator.lookup.http_places import client_of
from registrator.lookup.http_reply import accepts_gzip
from registrator.lookup.lookup_api import find_service, named_host
from registrator.printable import printable
from registrator.settings import (
    SettingError,
    parse_constraint,
    parse_domain,
    parse_hosts,
    parse_ip,
    parse_listen,
    parse_meta,
    parse_seconds,
)
from tests.lookup.fakes import entry, snapshot_of

SNAPSHOT = snapshot_of(entry("web", tags=("a",)))
ZONE = (b"consul",)
SMALL, LARGE = 2_000, 8_000  # octets: a request line has 8,190 at most
PATIENCE = 5.0  # seconds of CPU, before a parser is taken for one that never ends
FAILURES = (BadQuery, BadFilter, SettingError, CompatError)


def query(name: str) -> Callable[[str], object]:
    return lambda text: parse_query([(name, text)], "dc1")


def queries(name: str) -> Callable[[str], object]:
    """As many parameters as the text has characters, half of them: `a=` is the shortest."""
    return lambda text: parse_query([(name, character) for character in text[: len(text) // 2]], "dc1")


def filtered(text: str) -> object:
    test = consul_filter.parse(text, consul_filter.HEALTH_SERVICE)
    document = consul_api.health_service(SNAPSHOT.services["web"].entries[0], 1)
    return [test(document) for _ in range(10)]


def alike(text: str) -> list[str]:
    names = {f"{text[: n % 60]}-{n}": () for n in range(300)}
    judge: Callable[[str], Likeness | None] = likeness(text)
    return nearest(one for one in map(judge, comparable(text, names)) if one)


PARSERS: dict[str, Callable[[str], object]] = {
    **{
        name: query(name) for name in ("wait", "index", "near", "filter", "node-meta", "dc", "passing", "tag")
    },
    **{f"many {name}": queries(name) for name in ("tag", "node-meta", "index", "wait", "any")},
    "expression": filtered,
    "duration": parse_duration,
    "seconds": parse_seconds,
    "host": named_host,
    "service": lambda text: find_service(text, SNAPSHOT, ZONE),
    "nearest": alike,
    "accept-encoding": accepts_gzip,
    "client": client_of,
    "printable": printable,
    "listen": parse_listen,
    "ip": parse_ip,
    "domain": parse_domain,
    "hosts": lambda text: parse_hosts((text,)),
    "constraint": parse_constraint,
    "meta": parse_meta,
    "service-ttl": lambda text: parse_service_ttls((text,)),
    "compat": lambda text: translate(["-retry-attempts", text, "consul:"]),
}
# Of so many characters each, what patterns with a digit, a space or a quote too many choke on.
HOSTILE: dict[str, Callable[[int], str]] = {
    "11s..x": lambda n: "11s" * (n // 3) + "x",
    "1.1s..x": lambda n: "1.1s" * (n // 4) + "x",
    "digits": lambda n: "9" * n,
    "digits s": lambda n: "9" * n + "s",
    "digits x": lambda n: "9" * n + "x",
    "1.digits": lambda n: "1." + "1" * n + "x",
    "dots": lambda n: "." * n,
    "a.a.": lambda n: "a." * (n // 2),
    "colons": lambda n: ":" * n,
    "host:port": lambda n: "a" * n + ":" + "9" * n,
    ":digits": lambda n: "127.0.0.1:" + "9" * n,
    "=digits": lambda n: "web=" + "9" * n,
    "brackets": lambda n: "[" * n,
    "[a]": lambda n: "[a]" * (n // 3),
    "spaces": lambda n: " " * n,
    "spaces x": lambda n: " " * n + "x",
    "commas": lambda n: "," * n,
    "gzip;q=": lambda n: "x;q=0," * (n // 6) + "gzip;q=" + "0" * n,
    "controls": lambda n: "\x1b" * n,
    "surrogates": lambda n: "\udcff" * n,
    "not": lambda n: "not " * (n // 4),
    "(": lambda n: "(" * n,
    "()": lambda n: "(" * (n // 2) + ")" * (n // 2),
    'unended "': lambda n: '"' + "a" * n,
    "backslashes": lambda n: '"' + "\\" * n,
    "quotes": lambda n: '""' * (n // 2),
    "or": lambda n: " or ".join(['Node.Node=="a"'] * (n // 18)),
    "and (or)": lambda n: " and ".join(["(Checks.Name==a or Checks.Name==b)"] * (n // 39)),
    "selector": lambda n: "Service.Meta" + ".a" * (n // 2) + "==a",
    "Port": lambda n: "Service.Port==" + "9" * n,
    "in": lambda n: "in " * (n // 3),
}


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Ends what takes too much CPU, also a pattern's match, which looks for signals."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"more than {PATIENCE} s of CPU")

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def cost(action: Callable[[str], Any], text: str) -> float:
    """Seconds of CPU, the least of three."""
    least = math.inf
    for _ in range(3):
        begin = time.process_time()
        with contextlib.suppress(*FAILURES):
            action(text)
        least = min(least, time.process_time() - begin)
    return least


@pytest.mark.parametrize("parser", PARSERS)
def test_no_parser_takes_more_than_its_text_is_long(parser: str) -> None:
    """Four times the text takes at most eight times as long; what takes next to nothing is not compared."""
    nothing = cost(lambda text: [ord(character) for character in text], "x" * 100_000)
    with bounded():
        for kind, hostile in HOSTILE.items():
            short, long = (cost(PARSERS[parser], hostile(size)) for size in (SMALL, LARGE))
            assert long <= 8 * short + nothing, (kind, short, long)


@pytest.mark.parametrize("text", ["11s" * 40 + "x", "9" * 7900, "9" * 7900 + "s", "1s" * 33])
def test_a_wait_that_is_too_long_or_not_one_is_refused(text: str) -> None:
    with pytest.raises(BadQuery, match="Invalid wait time"):
        parse_query([("wait", text)], "dc1")
    assert parse_duration(text) is None


@pytest.mark.parametrize("name", ["tag", "node-meta"])
def test_tags_and_meta_are_limited_in_number(name: str) -> None:
    most = limits.HTTP_VALUES.value
    parse_query([(name, str(n)) for n in range(most)], "dc1")
    with pytest.raises(BadQuery, match=f"{most} times"):
        parse_query([(name, str(n)) for n in range(most + 1)], "dc1")


def test_comparisons_in_a_filter_are_limited_in_number() -> None:
    most = limits.FILTER_MATCHES.value
    consul_filter.parse(" or ".join(["Node==a"] * most), consul_filter.NODE)
    with pytest.raises(BadFilter, match=f"more than {most}"):
        consul_filter.parse(" or ".join(["Node==a"] * (most + 1)), consul_filter.NODE)


def test_an_unknown_name_is_compared_with_a_limited_number_of_names() -> None:
    """Those with the same initial come first, and long ones not at all."""
    names = {f"x{n}": () for n in range(20_000)} | {"a" * 65: (), "apple": ()}
    compared = list(comparable("aple", names))
    assert len(compared) == limits.HTTP_NEAREST.value
    assert compared[0] == "apple"
    assert "a" * 65 not in compared
    assert list(comparable("a" * 65, names)) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain and é", "plain and é"),
        ("\x1b[31m", r"\x1b[31m"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\x7f\x80\x9b", r"\x7f\x80\x9b"),
        ("\u202e\u2066\u200b", r"\u202e\u2066\u200b"),
        ("\u2028\u2029\udc1b", r"\u2028\u2029\udc1b"),
    ],
)
def test_what_is_not_printable_is_written_out(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert re.fullmatch(r"[^\x00-\x1f\x7f-\x9f\u2028-\u202e]*", printable(text))
