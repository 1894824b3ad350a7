"""SERVICE_CHECK_*: what each key becomes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.bridge.checks import parse_checks
from registrator.duration import parse_duration
from registrator.model import Check, Instance
from registrator.policy import Policy

AT = Instance("i", "web", "10.0.0.5", 80)
ALLOWED = Policy(allow_script_checks=True)

ROWS = [
    (
        "an HTTP check at the instance's own address",
        {"check_http": "/health"},
        Check("i:http", "HTTP /health", "http", "http://10.0.0.5:80/health"),
    ),
    (
        "a path may lack its slash",
        {"check_http": "health?x=1"},
        Check("i:http", "HTTP health?x=1", "http", "http://10.0.0.5:80/health?x=1"),
    ),
    (
        "with method, interval, timeout and first status",
        {
            "check_http": "/",
            "check_http_method": "head",
            "check_interval": "1m30s",
            "check_timeout": "500ms",
            "check_initial_status": "passing",
        },
        Check(
            "i:http",
            "HTTP /",
            "http",
            "http://10.0.0.5:80/",
            method="HEAD",
            interval=90,
            timeout=0.5,
            status="passing",
        ),
    ),
    ("HTTPS", {"check_https": "/"}, Check("i:https", "HTTPS /", "http", "https://10.0.0.5:80/")),
    (
        "any value asks for a TCP check",
        {"check_tcp": "1"},
        Check("i:tcp", "TCP 10.0.0.5:80", "tcp", "10.0.0.5:80"),
    ),
    (
        "Consul's least interval is a second",
        {"check_tcp": "1", "check_interval": "10ms"},
        Check("i:tcp", "TCP 10.0.0.5:80", "tcp", "10.0.0.5:80", interval=1.0),
    ),
]


@pytest.mark.parametrize(("keys", "check"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_checks(keys: dict[str, str], check: Check) -> None:
    assert parse_checks(keys, AT, "c" * 64, ALLOWED) == ((check,), [])


def test_several_checks_on_one_instance() -> None:
    checks, _ = parse_checks({"check_http": "/", "check_tcp": "true"}, AT, "c" * 64, ALLOWED)
    assert [c.id for c in checks] == ["i:http", "i:tcp"]


def test_an_ipv6_address_is_bracketed() -> None:
    checks, _ = parse_checks(
        {"check_http": "/", "check_tcp": "true"}, replace(AT, address="fd00::5"), "c" * 64, ALLOWED
    )
    assert [c.target for c in checks] == ["http://[fd00::5]:80/", "[fd00::5]:80"]


@pytest.mark.parametrize(
    ("keys", "subject"),
    [
        ({"check_http": "/", "check_interval": "soon"}, "SERVICE_CHECK_INTERVAL"),
        ({"check_http": "/", "check_timeout": "-5s"}, "SERVICE_CHECK_TIMEOUT"),
        ({"check_http": "/", "check_initial_status": "fine"}, "SERVICE_CHECK_INITIAL_STATUS"),
    ],
)
def test_nonsense_is_said_and_the_default_used(keys: dict[str, str], subject: str) -> None:
    checks, problems = parse_checks(keys, AT, "c" * 64, ALLOWED)
    assert checks == (Check("i:http", "HTTP /", "http", "http://10.0.0.5:80/"),)
    assert [p.subject for p in problems] == [subject]


def test_without_a_port_there_is_nothing_to_probe() -> None:
    checks, problems = parse_checks({"check_tcp": "1"}, replace(AT, port=0), "c" * 64, ALLOWED)
    assert checks == ()
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("1m30s", 90),
        ("500ms", 0.5),
        ("15", 15),
        ("1.5h", 5400),
        ("", None),
        ("0s", None),
        ("9" * 400 + "h", None),
        ("10 s", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds


@given(st.text() | st.from_regex(r"[0-9.a-zµ]+"))
def test_any_text_is_a_duration_or_none(text: str) -> None:
    seconds = parse_duration(text)
    assert seconds is None or seconds > 0
