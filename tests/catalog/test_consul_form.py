"""The translation to and from Consul's JSON, by itself and against what a real Consul accepts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from registrator.catalog.consul import form
from registrator.documents import Element
from registrator.model import Address, Check, CheckResult, Health, Instance, health_check_id
from tests.support.consul import ConsulServer

PLAIN = Instance("web:1", "web", "10.0.0.5", 80)

CHECKS: list[tuple[str, Check, dict[str, Any]]] = [
    (
        "an http check with all that one may have",
        Check(
            "web:1:http",
            "web answers",
            "http",
            "https://10.0.0.5:80/health",
            interval=15,
            timeout=2.5,
            status="warning",
            method="POST",
            header=(("Accept", ("text/plain", "text/html")), ("Host", ("web",))),
            body="ping",
            tls_skip_verify=True,
            deregister_after=5400,
        ),
        {
            "CheckID": "web:1:http",
            "Name": "web answers",
            "Status": "warning",
            "HTTP": "https://10.0.0.5:80/health",
            "Interval": "15s",
            "Timeout": "2500ms",
            "Method": "POST",
            "Header": {
                "Accept-Encoding": ["identity"],
                "Accept": ["text/plain", "text/html"],
                "Host": ["web"],
            },
            "Body": "ping",
            "TLSSkipVerify": True,
            "DeregisterCriticalServiceAfter": "5400s",
        },
    ),
    (
        "a tcp check to an IPv6 address, steadied",
        Check("t", "t", "tcp", "[fd00::5]:80", success_before_passing=2, failures_before_critical=3),
        {
            "CheckID": "t",
            "Name": "t",
            "Status": "critical",
            "TCP": "[fd00::5]:80",
            "Interval": "10s",
            "SuccessBeforePassing": 2,
            "FailuresBeforeCritical": 3,
        },
    ),
    (
        "a grpc check over TLS",
        Check("g", "g", "grpc", "10.0.0.5:80/web", grpc_use_tls=True, tls_skip_verify=True),
        {
            "CheckID": "g",
            "Name": "g",
            "Status": "critical",
            "GRPC": "10.0.0.5:80/web",
            "Interval": "10s",
            "GRPCUseTLS": True,
            "TLSSkipVerify": True,
        },
    ),
    (
        "a docker check",
        Check("d", "d", "docker", "0123456789ab", shell="/bin/sh", args=("-c", "true")),
        {
            "CheckID": "d",
            "Name": "d",
            "Status": "critical",
            "DockerContainerID": "0123456789ab",
            "Shell": "/bin/sh",
            "Args": ["-c", "true"],
            "Interval": "10s",
        },
    ),
    (
        "a script check",
        Check("s", "s", "script", args=("check", "10.0.0.5", "80")),
        {
            "CheckID": "s",
            "Name": "s",
            "Status": "critical",
            "Args": ["check", "10.0.0.5", "80"],
            "Interval": "10s",
        },
    ),
    (
        "a TTL that the app keeps itself",
        Check("a", "a", "ttl", ttl=90, status="passing"),
        {"CheckID": "a", "Name": "a", "Status": "passing", "TTL": "90s"},
    ),
]


@pytest.mark.parametrize(("check", "wanted"), [row[1:] for row in CHECKS], ids=[row[0] for row in CHECKS])
def test_checks(check: Check, wanted: dict[str, Any]) -> None:
    """Each kind of check has its own fields; what is left at Consul's default is left out."""
    assert form.check_definition(check, PLAIN) == wanted


def test_the_agents_own_check_starts_with_the_health() -> None:
    """An instance is never shown with another status than Docker's, not even at first."""
    own = Check(health_check_id("web:1"), "Docker health", "ttl", ttl=600, status="critical")
    sick = replace(PLAIN, checks=(own,), health=Health("warning", "hm"))
    (check,) = form.definition(sick)["Checks"]
    assert check == {"CheckID": "web:1:docker", "Name": "Docker health", "Status": "warning", "TTL": "600s"}


@pytest.fixture
def scripted(tmp_path: Path, consul_binary: str) -> Iterator[ConsulServer]:
    """A Consul that runs scripts."""
    with ConsulServer(tmp_path, {"enable_script_checks": True}) as server:
        yield server


async def test_consul_takes_every_kind_of_check(scripted: ConsulServer) -> None:
    """A real Consul accepts all these definitions and knows each check for what it is."""
    definition = form.definition(replace(PLAIN, checks=tuple(check for _, check, _ in CHECKS)))
    await asyncio.to_thread(scripted.put, "/v1/agent/service/register", definition)
    reported = await asyncio.to_thread(scripted.get, "/v1/agent/checks")
    assert {check_id: check["Type"] for check_id, check in reported.items()} == {
        check.id: check.kind for _, check, _ in CHECKS
    }


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [(10, "10s"), (0.5, "500ms"), (2.25, "2250ms"), (86400.0, "86400s"), (31536000, "31536000s")],
)
def test_durations(seconds: float, wanted: str) -> None:
    """Go's notation, never with an exponent."""
    assert form.duration(seconds) == wanted


def test_foreign_tagged_addresses_are_ignored() -> None:
    """Consul's own and other people's are not networks of ours."""
    foreign = ["lan", "wan", "lan_ipv4", "wan_ipv6", "virtual", "a/b/ipv4", "a/0123456789ab/ipv5", "ipv4"]
    tagged = {key: {"Address": "10.0.0.1", "Port": 1} for key in foreign}
    ours = {"team/net/0123456789ab/ipv4": {"Address": "10.1.0.1", "Port": 2}}
    assert form.addresses(tagged | ours) == (Address("team/net", "0123456789ab", "10.1.0.1", 2),)


def test_what_others_registered_may_lack_nearly_everything() -> None:
    """Null and missing fields are read as Consul means them."""
    entry = form.entry(
        {
            "Node": {"Node": "n1", "Address": "10.0.0.1", "Meta": None, "TaggedAddresses": None},
            "Service": {"ID": "redis", "Service": "redis", "Tags": None, "Meta": None, "Weights": None},
            "Checks": [{"CheckID": "serfHealth", "Status": "passing", "ServiceTags": None}],
        }
    )
    assert entry.instance == Instance("redis", "redis", "", 0)
    assert entry.checks == (CheckResult("serfHealth", "", "passing"),)
    assert entry.address == "10.0.0.1"


def test_names_that_differ_in_case_alone_are_one() -> None:
    """As DNS has it; their tags are put together."""
    pairs = [form.named(Element(*item)) for item in [("Web", ["b", "a"]), ("web", ["c", "a"]), ("db", None)]]
    assert form.names(pairs) == {"web": ("a", "b", "c"), "db": ()}
