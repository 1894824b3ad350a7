"""What labels cannot make of a check: another host, another request, or one that never ends."""

from __future__ import annotations

import json
from dataclasses import fields
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.bridge.checks import parse_checks
from registrator.bridge.instances import instances
from registrator.catalog.consul import form
from registrator.limits import CHECK_PATH, CHECK_TEXT, CHECK_TIMEOUT, CHECKS_OF_CONTAINER, INSTANCES
from registrator.model import META_CHECKS, Check, Instance, Problem, health_check_id
from registrator.policy import Policy
from tests.bridge.build import HOST, container, exposed

AT = Instance("i", "web", "10.0.0.5", 80)


def read(**keys: str) -> tuple[tuple[Check, ...], list[Problem]]:
    return parse_checks({f"check_{key}": value for key, value in keys.items()}, AT, "c" * 64, Policy())


def assert_own(check: Check) -> None:
    """Its URL leads to the container's own address and port, for Python and in plain sight."""
    scheme = urlsplit(check.target).scheme
    assert check.target.startswith(f"{scheme}://10.0.0.5:80/")
    assert (urlsplit(check.target).hostname, urlsplit(check.target).port) == ("10.0.0.5", 80)
    assert check.target.isascii()
    assert check.target.isprintable()
    assert " " not in check.target
    assert "\\" not in check.target


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("@evil/", "/@evil/"),
        ("//evil/x", "//evil/x"),
        (":8500/v1/kv", "/:8500/v1/kv"),
        ("\\\\evil\\x", "/%5C%5Cevil%5Cx"),
        ("/\\evil", "/%5Cevil"),
        ("http://evil/", "/http://evil/"),
        ("http://a:b@127.0.0.1:8500/", "/http://a:b@127.0.0.1:8500/"),
        ("/../../x", "/../../x"),
        ("/a b\u00e9", "/a%20b%C3%A9"),
        ("?x=http://evil", "/?x=http://evil"),
        ("/x\u2025y", "/x%E2%80%A5y"),
    ],
)
@pytest.mark.parametrize("key", ["http", "https"])
def test_a_path_stays_a_path(key: str, path: str, asked: str) -> None:
    (check,), problems = read(**{key: path})
    assert_own(check)
    assert check.target == f"{key}://10.0.0.5:80{asked}"
    assert problems == []


@pytest.mark.parametrize("mark", ["\r\n", "\n", "\r", "\0", "\x1b", "\x7f", "\x85", "\u2028", "\ud800"])
@pytest.mark.parametrize("key", ["http", "https", "grpc"])
def test_a_path_is_one_line(key: str, mark: str) -> None:
    """A second line in it would be a header of its own, or a second request."""
    checks, problems = read(**{key: f"/a{mark}Host: evil"})
    assert checks == ()
    assert [p.subject for p in problems] == [f"SERVICE_CHECK_{key.upper()}"]


@given(st.text(max_size=40), st.sampled_from(["http", "https"]))
def test_any_path_stays_a_path(path: str, key: str) -> None:
    for check in read(**{key: path})[0]:
        assert_own(check)


@pytest.mark.parametrize(
    "method",
    ["GET / HTTP/1.1\r\nX: y\r\n\r\nGET", "A B", "CONNECT", "connect", "A:B", "\x00", "M" * 21, "GÉT", "-"],
)
def test_a_method_is_one_word(method: str) -> None:
    (check,), problems = read(http="/", method=method)
    assert check.method == ""
    assert [p.subject for p in problems] == ["SERVICE_CHECK_METHOD"]


@pytest.mark.parametrize(
    "header",
    [
        {"Content-Length": "100"},
        {"content-length": "100"},
        {"Transfer-Encoding": "chunked"},
        {"TRANSFER-encoding": ["chunked"]},
        {"Connection": "keep-alive"},
        {"Upgrade": "h2c"},
        {"HTTP2-Settings": "x"},
        {"Expect": "100-continue"},
        {"TE": "trailers"},
        {"Trailer": "x"},
        {"Accept-Encoding": "gzip"},
        {"X\r\nHost": "evil"},
        {"X": "a\r\nHost: evil"},
        {"X": ["a", "b\nc"]},
        {"X: y": "z"},
        {"X ": "z"},
        {"": "z"},
        {"Hé": "z"},
        {"Host": "a", "host": "b"},
        {"Host": ["a", "b"]},
        {"X": "a\x00b"},
        {"X": "a\u2028b"},
        {"X": "\ud800"},
        {"X": [["a"]]},
    ],
)
def test_a_header_that_changes_the_request_is_left_out(header: object) -> None:
    """Framing, hop-by-hop fields, a second Host, and whatever would be a line of its own."""
    (check,), problems = read(http="/", header=json.dumps(header))
    assert check.header == ()
    assert [p.subject for p in problems] == ["SERVICE_CHECK_HEADER"]


@pytest.mark.parametrize("key", ["http", "https", "grpc", "tcp", "header", "body", "method", "ttl"])
def test_what_is_too_long_is_left_out(key: str) -> None:
    """One line of the log, and no check of that kind (or none of that field)."""
    long = "/" * (CHECK_TEXT.value + 1)
    if key == "body":
        long = "x" + " " * CHECK_TEXT.value
    checks, problems = read(**{"http": "/", key: long})
    assert [p.limit for p in problems] == [CHECK_TEXT.name] * len(problems)
    assert {p.subject for p in problems} == {f"SERVICE_CHECK_{key.upper()}"}
    assert len(checks) == (0 if key == "http" else 1)
    assert sum(len(str(getattr(c, f.name))) for c in checks for f in fields(c)) < 500


@pytest.mark.parametrize("key", ["http", "https", "grpc"])
@pytest.mark.parametrize("letter", ["a", "\u00e9", "\U0001f600"])
def test_a_target_is_short_enough_to_be_shown_everywhere(key: str, letter: str) -> None:
    """What counts is its length when it is quoted."""
    quoted = {"a": 1, "\u00e9": 6, "\U0001f600": 12}[letter]
    fits = letter * ((CHECK_PATH.value - 1) // quoted)
    (check,), problems = read(**{key: fits})
    assert problems == []
    assert len(check.target) < CHECK_PATH.value + 100
    checks, problems = read(**{key: fits + letter * 2})
    assert checks == ()
    assert [p.limit for p in problems] == [CHECK_PATH.name]


@pytest.mark.parametrize(
    ("keys", "interval", "timeout"),
    [
        ({"timeout": "8760h"}, 10.0, 10.0),
        ({"interval": "8760h", "timeout": "8760h"}, 86400.0, CHECK_TIMEOUT.value),
        ({"interval": "5s"}, 5.0, 5.0),
        ({"interval": "1ns"}, 1.0, 1.0),
        ({"interval": "30s", "timeout": "20s"}, 30.0, 20.0),
        ({"interval": "30s"}, 30.0, 0.0),
        ({"timeout": "1ns"}, 10.0, 0.01),
        ({"interval": "1e300s", "timeout": "NaN"}, 10.0, 0.0),
        ({"interval": "inf", "timeout": "9" * 400 + "h"}, 10.0, 0.0),
    ],
)
def test_a_timeout_is_at_most_the_interval(keys: dict[str, str], interval: float, timeout: float) -> None:
    (check,), _ = read(tcp="1", **keys)
    assert (check.interval, check.timeout) == (interval, timeout)


DURATIONS = st.from_regex(r"([0-9]{1,400}(\.[0-9]{1,20})?(ns|us|ms|s|m|h)){1,3}", fullmatch=True)


@given(DURATIONS, DURATIONS, DURATIONS, DURATIONS)
def test_any_durations_are_some_that_consul_takes(interval: str, timeout: str, ttl: str, after: str) -> None:
    """None is 0 in Consul's form, and none overflows its 64 bits of nanoseconds."""
    checks, _ = read(tcp="1", interval=interval, timeout=timeout, ttl=ttl, deregister_after=after)
    for check in checks:
        assert 0 <= check.timeout <= check.interval <= 86400
        said = form.check_definition(check, AT)
        for key in ("Interval", "Timeout", "TTL", "DeregisterCriticalServiceAfter"):
            if key in said:
                number, milliseconds = said[key].rstrip("ms"), said[key].endswith("ms")
                assert 0 < int(number) * (10**6 if milliseconds else 10**9) < 2**63


@pytest.mark.parametrize("ports", [100, 200])
def test_a_container_has_so_many_checks(ports: int) -> None:
    """Beyond them checks are left out, with one line; Docker's own word on its health is not."""
    labels = {"SERVICE_CHECK_HTTP": "/", "SERVICE_CHECK_TCP": "1"}
    subject = container(*(exposed(n) for n in range(1, ports + 1)), labels=labels, health="healthy")
    found, problems = instances(subject, HOST, Policy())
    probed = [c for i in found for c in i.checks if c.id != health_check_id(i.id)]
    assert len(probed) == CHECKS_OF_CONTAINER.value
    assert all(i.checks[-1].id == health_check_id(i.id) for i in found)
    assert [p.limit for p in problems if p.limit != INSTANCES.name] == [CHECKS_OF_CONTAINER.name]
    # Plans compare this digest: instances with the same checks are the same.
    assert len({i.meta[META_CHECKS] for i in found}) == len({i.checks for i in found})


def test_consul_shows_nothing_of_what_is_not_the_containers_own() -> None:
    """One octet of a body is the least that Consul can be told to keep; nothing compressed is asked for."""
    keys = {"check_http": "/", "check_header": '{"X": "y"}'}
    (own,), _ = parse_checks(keys, AT, "c" * 64, Policy())
    (foreign,), _ = parse_checks(keys, AT, "c" * 64, Policy(), own=False)
    (confined,), _ = parse_checks(keys, AT, "c" * 64, Policy(own_checks_only=True))
    plain, terse, closed = (form.check_definition(check, AT) for check in (own, foreign, confined))
    assert "OutputMaxSize" not in plain
    assert "DisableRedirects" not in plain
    assert terse == {**plain, "OutputMaxSize": 1}
    assert closed == {**plain, "OutputMaxSize": 1, "DisableRedirects": True}
    assert plain["Header"] == {"Accept-Encoding": ["identity"], "X": ["y"]}
