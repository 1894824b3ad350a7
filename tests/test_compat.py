"""gliderlabs/registrator's command line becomes ours, option by option."""

from __future__ import annotations

import pytest

from registrator.bridge.instances import instances
from registrator.cli import cli
from registrator.compat import NAME_BY_IMAGE, CompatError, consul_url, is_compat, translate
from registrator.policy import Policy
from tests.bridge.build import HOST, container, exposed
from tests.test_cli import run

URI = "consul://localhost:8500"
CONSUL = ["--consul", "http://localhost:8500"]

ROWS = [
    ("the URI alone", [URI], CONSUL),
    ("one dash", ["-internal", URI], ["--internal", *CONSUL]),
    ("or two", ["--internal", URI], ["--internal", *CONSUL]),
    ("a switch with a value", ["-internal=true", "-explicit=false", URI], ["--internal", *CONSUL]),
    ("-ip", ["-ip", "10.0.0.5", URI], ["--ip", "10.0.0.5", *CONSUL]),
    ("-ip with an equals sign", ["-ip=10.0.0.5", URI], ["--ip", "10.0.0.5", *CONSUL]),
    ("-ip without a value is none", ["-ip", "", URI], CONSUL),
    ("-tags", ["-tags", "a,{{.Name}}", URI], ["--tags", "a,{{.Name}}", *CONSUL]),
    ("-explicit", ["-explicit", URI], ["--explicit", *CONSUL]),
    ("-useIpFromLabel", ["-useIpFromLabel", "ip", URI], ["--ip-from-label", "ip", *CONSUL]),
    ("-useIpFromNetwork", ["-useIpFromNetwork", "lan", URI], ["--ip-from-network", "lan", *CONSUL]),
    ("-deregister", ["-deregister", "on-success", URI], ["--deregister", "on-success", *CONSUL]),
    ("-resync", ["-resync", "30", URI], ["--resync", "30", *CONSUL]),
    ("-resync 0 is the default", ["-resync", "0", URI], CONSUL),
    ("-cleanup is what always happens", ["-cleanup", URI], CONSUL),
    ("a TTL does nothing with Consul", ["-ttl", "60", "-ttl-refresh", "30", URI], CONSUL),
    ("retries are for ever", ["-retry-attempts", "-1", "-retry-interval", "2000", URI], CONSUL),
]


@pytest.mark.parametrize(("old", "ours"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_the_old_command_line(old: list[str], ours: list[str]) -> None:
    assert is_compat(old, ("agent",))
    assert translate(old) == ["agent", *ours]


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        ("consul://10.0.0.1:8500", "http://10.0.0.1:8500"),
        ("consul://10.0.0.1:8500/ignored/path", "http://10.0.0.1:8500"),
        ("consul:", "http://127.0.0.1:8500"),
        ("consul://", "http://127.0.0.1:8500"),
        ("consul-tls://c.example:8501", "https://c.example:8501"),
        ("consul-unix:///var/run/consul.sock", "unix:///var/run/consul.sock"),
        ("consul-unix://var/run/consul.sock", "unix:///var/run/consul.sock"),
    ],
)
def test_registry_uris(uri: str, url: str) -> None:
    assert consul_url(uri) == url


@pytest.mark.parametrize("store", ["etcd", "consulkv", "skydns2", "zookeeper", "eureka"])
def test_a_store_that_is_not_spoken_is_said_in_one_line(store: str) -> None:
    result = run(f"{store}://127.0.0.1:2379/prefix")
    assert result.returncode == 2
    assert f"{store}:// is not spoken here" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "old",
    [
        ["-internal"],
        ["-internal", URI, URI],
        [URI, "-internal"],
        ["-nonsense", URI],
        ["-ip"],
        ["-resync", "often", URI],
        ["-ttl", "60", URI],
        ["-ttl", "30", "-ttl-refresh", "60", URI],
        ["-retry-interval", "0", URI],
        ["-internal=maybe", URI],
        ["nonsense://x"],
    ],
)
def test_what_registrator_would_refuse_is_refused_in_one_line(old: list[str]) -> None:
    with pytest.raises(CompatError) as caught:
        translate(old)
    assert "\n" not in str(caught.value)


def test_a_bad_value_of_an_old_option_is_a_usage_error() -> None:
    for old in (["-deregister", "sometimes", URI], ["-ip", "nowhere", URI]):
        result = run(*old)
        assert result.returncode == 2
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("redis", "redis"),
        ("redis:7", "redis"),
        ("registry.example:5000/team/redis:7", "redis"),
        ("team/redis@sha256:0123", "redis"),
        ("redis:7@sha256:0123", "redis"),
    ],
)
def test_what_names_no_service_has_its_images_name(image: str, name: str) -> None:
    """As with registrator, and unlike `agent`, whatever Swarm or Compose call it."""
    found, problems = instances(
        container(exposed(80), image=image, compose_service="front"),
        HOST,
        Policy(name_template=NAME_BY_IMAGE),
    )
    assert [instance.service for instance in found] == [name]
    assert not problems


def test_our_own_commands_are_not_mistaken_for_the_old_ones() -> None:
    for ours in (["agent", "--consul", "http://c:8500"], ["--help"], ["--version"], ["-h"], []):
        assert not is_compat(ours, tuple(cli.commands))
