"""Addresses that a label may not name, in every notation, and what is registered and checked instead."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.bridge.addresses import Host
from registrator.bridge.forbidden import forbidden, read_address
from registrator.bridge.instances import instances
from registrator.limits import SERVICE_VALUE_OCTETS
from registrator.model import Container, Instance, Problem
from registrator.policy import Policy
from tests.bridge.build import DUAL, HOST, POLICY, container, exposed, published

FORBIDDEN = [
    *("127.0.0.1", "127.1.2.3", "0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.0.1", "224.0.0.1"),
    *("239.255.255.255", "255.255.255.255", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    *("::", "::1", "fe80::1", "febf::1", "ff02::1", "ff0e::1", "fd00:ec2::254", "fd00:ec2::253"),
    *("fd20:ce::254", "FD00:0EC2:0:0:0:0:0:254"),
    *("::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::ffff:10.0.0.5", "::127.0.0.1", "::ffff:0:127.0.0.1"),
    *("64:ff9b::7f00:1", "64:ff9b::169.254.169.254", "64:ff9b:1::7f00:1", "2002:7f00:1::1"),
    *("2002:a9fe:a9fe::", "2001:0:a00:1::80ff:fffe", "fd00::5efe:127.0.0.1", "fd00::200:5efe:a9fe:a9fe"),
]
NO_ADDRESSES = [
    *("2130706433", "0x7f000001", "0x7f.1", "127.1", "127.0.1", "0177.0.0.1", "017700000001", "127.0.0.01"),
    *("localhost", "metadata.google.internal", "fe80::1%lo", "fd00::5%1", "::1%0", "[::1]", "127.0.0.1:80"),
    *(
        "127.0.0.1/8",
        "127.0.0.1.",
        "\uff11\uff12\uff17.0.0.1",
        "127\u30020\u30020\u30021",
        "10.0.0.5@127.0.0.1",
    ),
    *("10.0.0.5\n127.0.0.1", "#", "1" * 100_000, "::" + "0" * 100_000),
]
ALLOWED = [
    *("10.0.0.5", "192.0.2.7", "172.17.0.1", "1.1.1.1", "100.64.0.1", "fd00::5", "2001:db8::7"),
    *("64:ff9b::10.0.0.5", "2002:a00:1::1"),
]
PLACES = [
    pytest.param("SERVICE_IP", Policy(), id="SERVICE_IP"),
    pytest.param("SERVICE_80_IP", Policy(), id="SERVICE_<port>_IP"),
    pytest.param("SERVICE_80_TCP_IP", Policy(), id="SERVICE_<port>_<protocol>_IP"),
    pytest.param("lan", Policy(ip_from_label="lan"), id="--ip-from-label"),
]


def found(
    subject: Container, policy: Policy = POLICY, host: Host = HOST
) -> tuple[Instance, tuple[Problem, ...]]:
    registered, problems = instances(subject, host, policy)
    (instance,) = registered
    return instance, problems


@pytest.mark.parametrize("text", [*FORBIDDEN, *NO_ADDRESSES])
@pytest.mark.parametrize(("label", "policy"), PLACES)
def test_the_default_address_is_registered_and_checked(text: str, label: str, policy: Policy) -> None:
    """Whatever names the node itself is ignored with one line; service and check stay with the container."""
    labels = {label: text, "SERVICE_CHECK_HTTP": "/", "SERVICE_CHECK_TCP": "1", "SERVICE_CHECK_GRPC": "1"}
    instance, problems = found(container(published(80, 32768), labels=labels), policy)
    assert (instance.address, instance.port) == ("192.0.2.7", 32768)
    assert {check.target.removeprefix("http://").rstrip("/") for check in instance.checks} == {
        "192.0.2.7:32768"
    }
    assert len(problems) == 1
    assert "ignored" in problems[0].what or problems[0].limit == SERVICE_VALUE_OCTETS.name
    assert len(str(problems[0])) < 300


@pytest.mark.parametrize("text", ALLOWED)
@pytest.mark.parametrize(("label", "policy"), PLACES)
def test_any_other_address_is_registered(text: str, label: str, policy: Policy) -> None:
    """As gliderlabs/registrator has it: an address that the container does not have, too."""
    instance, problems = found(container(published(80, 32768), labels={label: text}), policy)
    assert (instance.address, problems) == (str(ipaddress.ip_address(text)), ())


def test_where_there_is_no_other_address_nothing_is_registered() -> None:
    """A container without a network is not registered at the node's loopback."""
    subject = container(networks=(), network_mode="none", labels={"SERVICE_NAME": "x", "SERVICE_IP": "::1"})
    registered, problems = instances(subject, HOST, Policy())
    assert registered == ()
    assert [problem.subject for problem in problems] == ["SERVICE_IP", "c1"]


def test_the_operators_own_loopback_may_be_named() -> None:
    """With `--ip 127.0.0.1` a label may say so too, at the port that this container publishes."""
    host = Host("E", "node1", ("127.0.0.1",), forced=True)
    subject = container(published(80, 32768), labels={"SERVICE_IP": "127.0.0.1"})
    instance, problems = found(subject, host=host)
    assert ((instance.address, instance.port), problems) == (("127.0.0.1", 32768), ())
    unpublished = container(exposed(8500), labels={"SERVICE_IP": "127.0.0.1"})
    instance, problems = found(unpublished, host=host)
    assert (instance.address, len(problems)) == ("172.20.0.5", 1)


@given(st.ip_addresses(v=4).filter(lambda ip: not forbidden(str(ip))))
def test_python_agrees(ip: ipaddress.IPv4Address) -> None:
    """What is not forbidden is not loopback, link-local, multicast or unspecified for Python either."""
    assert not any((ip.is_loopback, ip.is_link_local, ip.is_multicast, ip.is_unspecified))


@given(st.text(max_size=60) | st.ip_addresses(v=6).map(str))
def test_any_text_is_an_address_or_none(text: str) -> None:
    read = read_address(text)
    assert not read or str(ipaddress.ip_address(read)) == read
    assert not read or isinstance(forbidden(read), str)


# Whose a target is --------------------------------------------------------------------------

CHECK = {"SERVICE_CHECK_HTTP": "/"}
OWN = [
    ("a published port at the node", container(published(80, 32768), labels=CHECK), False),
    ("its own address", container(exposed(80), labels=CHECK), False),
    (
        "its own IPv6 address",
        container(exposed(80), networks=(DUAL,), labels={**CHECK, "SERVICE_IP": "fd00:21::5"}),
        False,
    ),
    ("the host's network", container(labels={**CHECK, "SERVICE_NAME": "x", "SERVICE_PORT": "80"},
                                     network_mode="host", networks=()), False),
    ("another machine", container(exposed(80), labels={**CHECK, "SERVICE_IP": "10.9.9.9"}), True),
    ("another machine, IPv6", container(exposed(80), labels={**CHECK, "SERVICE_IP": "2001:db8::9"}), True),
    ("another container", container(exposed(80), labels={**CHECK, "SERVICE_IP": "172.20.0.6"}), True),
    (
        "the node's address at a port that it does not publish",
        container(exposed(8500), labels={**CHECK, "SERVICE_IP": "192.0.2.7"}),
        True,
    ),
    (
        "the node's address at a port that it publishes for UDP",
        container(published(53, 8500, protocol="udp"), labels=CHECK),
        True,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("subject", "foreign"), [row[1:] for row in OWN], ids=[row[0] for row in OWN])
def test_whose_a_target_is(subject: Container, foreign: bool) -> None:  # noqa: FBT001
    """A check knows whether its target is the container itself; with --own-checks-only there is no other."""
    instance, problems = found(subject)
    assert [check.foreign for check in instance.checks] == [foreign]
    assert problems == ()
    instance, problems = found(subject, Policy(own_checks_only=True))
    assert len(instance.checks) == (0 if foreign else 1)
    assert [problem.subject for problem in problems] == (["SERVICE_CHECK_HTTP"] if foreign else [])
    assert not any(check.redirects for check in instance.checks)


def test_a_heartbeat_has_no_target() -> None:
    """A TTL check asks nobody, so it stands wherever the instance is registered."""
    labels = {"SERVICE_IP": "10.9.9.9", "SERVICE_CHECK_TTL": "30s", "SERVICE_CHECK_TCP": "1"}
    instance, problems = found(container(exposed(80), labels=labels), Policy(own_checks_only=True))
    assert [check.kind for check in instance.checks] == ["ttl"]
    assert len(problems) == 1
