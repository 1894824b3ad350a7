"""SERVICE_CHECK_*: what each key becomes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.bridge.checks import parse_checks
from registrator.duration import parse_duration
from registrator.model import Check, Instance, health_check_id
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
        "a TCP check",
        {"check_tcp": "true", "check_timeout": "2s"},
        Check("i:tcp", "TCP 10.0.0.5:80", "tcp", "10.0.0.5:80", timeout=2.0),
    ),
    (
        "header, body, method and TLS",
        {
            "check_https": "/",
            "check_header": '{"X-Token": ["a", "b"], "Host": "web"}',
            "check_body": "ping",
            "check_https_method": "POST",
            "check_tls_skip_verify": "true",
        },
        Check(
            "i:https",
            "HTTPS /",
            "http",
            "https://10.0.0.5:80/",
            method="POST",
            header=(("Host", ("web",)), ("X-Token", ("a", "b"))),
            body="ping",
            tls_skip_verify=True,
        ),
    ),
    (
        "thresholds, and when to drop it",
        {
            "check_tcp": "1",
            "check_success_before_passing": "3",
            "check_failures_before_critical": "2",
            "check_deregister_after": "10m",
        },
        Check(
            "i:tcp",
            "TCP 10.0.0.5:80",
            "tcp",
            "10.0.0.5:80",
            success_before_passing=3,
            failures_before_critical=2,
            deregister_after=600.0,
        ),
    ),
    (
        "Consul's least time to drop it is a minute",
        {"check_tcp": "1", "check_deregister_after": "5s"},
        Check("i:tcp", "TCP 10.0.0.5:80", "tcp", "10.0.0.5:80", deregister_after=60.0),
    ),
    ("gRPC", {"check_grpc": "true"}, Check("i:grpc", "gRPC 10.0.0.5:80", "grpc", "10.0.0.5:80")),
    (
        "gRPC of one service, over TLS",
        {"check_grpc": "/shop.Cart", "check_grpc_use_tls": "true", "check_tls_skip_verify": "1"},
        Check(
            "i:grpc",
            "gRPC 10.0.0.5:80/shop.Cart",
            "grpc",
            "10.0.0.5:80/shop.Cart",
            grpc_use_tls=True,
            tls_skip_verify=True,
        ),
    ),
    (
        "a TTL that the app refreshes, under the id that Consul gives an only check",
        {"check_ttl": "30s"},
        Check("service:i", "TTL, refreshed by the app", "ttl", ttl=30.0),
    ),
    (
        "a script, split as a shell does, with the address filled in",
        {"check_script": "curl -s 'http://$SERVICE_IP:$SERVICE_PORT/a b'"},
        Check(
            "i:script",
            "script: curl -s 'http://$SERVICE_IP:$SERVICE_...",
            "script",
            args=("curl", "-s", "http://10.0.0.5:80/a b"),
        ),
    ),
    (
        "the legacy helper",
        {"check_cmd": "/bin/check"},
        Check("i:cmd", "script: /bin/check", "script", args=("check-cmd", "c" * 12, "80", "/bin/check")),
    ),
    (
        "a command in the container",
        {"check_docker": "test -e /ok", "check_shell": "/bin/bash"},
        Check(
            "i:exec",
            "in the container: test -e /ok",
            "docker",
            "c" * 64,
            shell="/bin/bash",
            args=("/bin/bash", "-c", "test -e /ok"),
        ),
    ),
    (
        "Consul's least interval is a second",
        {"check_tcp": "1", "check_interval": "10ms"},
        Check("i:tcp", "TCP 10.0.0.5:80", "tcp", "10.0.0.5:80", interval=1.0, timeout=1.0),
    ),
]


@pytest.mark.parametrize(("keys", "check"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_checks(keys: dict[str, str], check: Check) -> None:
    assert parse_checks(keys, AT, "c" * 64, ALLOWED) == ((check,), [])


@pytest.mark.parametrize("key", ["script", "cmd", "docker"])
def test_a_check_that_runs_a_command_needs_the_operators_leave(key: str) -> None:
    checks, problems = parse_checks({f"check_{key}": "true", "check_tcp": "1"}, AT, "c" * 64, Policy())
    assert [c.kind for c in checks] == ["tcp"]
    assert [p.subject for p in problems] == [f"SERVICE_CHECK_{key.upper()}"]
    assert "--allow-script-checks" in problems[0].remedy


def test_the_operator_may_say_when_to_drop_what_is_critical() -> None:
    checks, _ = parse_checks({"check_tcp": "1"}, AT, "c" * 64, Policy(deregister_after=600))
    assert [c.deregister_after for c in checks] == [600]


def test_docker_health_check_and_a_docker_exec_check_have_ids_of_their_own() -> None:
    checks, _ = parse_checks({"check_docker": "true"}, AT, "c" * 64, ALLOWED)
    assert checks[0].id != health_check_id("i")


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
        ({"check_http": "/", "check_header": "X: y"}, "SERVICE_CHECK_HEADER"),
        ({"check_http": "/", "check_header": '{"a": 1}'}, "SERVICE_CHECK_HEADER"),
        ({"check_http": "/", "check_header": '{"a": ["b\\nc"]}'}, "SERVICE_CHECK_HEADER"),
        ({"check_http": "/", "check_header": "[" * 100000}, "SERVICE_CHECK_HEADER"),
        ({"check_http": "/", "check_success_before_passing": "many"}, "SERVICE_CHECK_SUCCESS_BEFORE_PASSING"),
        ({"check_http": "/", "check_tls_skip_verify": "maybe"}, "SERVICE_CHECK_TLS_SKIP_VERIFY"),
        ({"check_http": "/", "check_deregister_after": "later"}, "SERVICE_CHECK_DEREGISTER_AFTER"),
        ({"check_http": "/", "check_ttl": "never"}, "SERVICE_CHECK_TTL"),
        ({"check_http": "/", "check_script": "a 'b"}, "SERVICE_CHECK_SCRIPT"),
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
