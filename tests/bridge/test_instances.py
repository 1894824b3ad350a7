"""Container -> Instances: a sentence per row."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.bridge.addresses import Host
from registrator.bridge.instances import docker_health, instances
from registrator.model import (
    CRITICAL,
    META_CHECKS,
    META_CONTAINER,
    META_OWNER,
    PASSING,
    Address,
    Attachment,
    Binding,
    Container,
    Health,
    Port,
    Task,
    health_check_id,
)
from registrator.policy import Policy
from tests.bridge.build import APP, BRIDGE, DUAL, HOST, INGRESS, POLICY, container, exposed, published

TASK = Task("shop_web", "s1", "t1", "2", "n1", "shop")

# What it shows, the container, the policy -> (id, service, address, port) of each instance.
ROWS = [
    (
        "a published port is registered at the node's address",
        container(published(80, 8080)),
        POLICY,
        [("node1:c1:80", "web", "192.0.2.7", 8080)],
    ),
    (
        "a port that is not published is registered at the container's",
        container(exposed(6379)),
        POLICY,
        [("node1:c1:6379", "web", "172.20.0.5", 6379)],
    ),
    (
        "where some ports are published the others stay inside",
        container(published(80, 8080), exposed(443)),
        POLICY,
        [("node1:c1:80", "web", "192.0.2.7", 8080)],
    ),
    (
        "unless a label names them",
        container(published(80, 8080), exposed(443), labels={"SERVICE_443_NAME": "tls"}),
        POLICY,
        [("node1:c1:80", "web-80", "192.0.2.7", 8080), ("node1:c1:443", "tls", "172.20.0.5", 443)],
    ),
    (
        "--internal prefers the container's address and registers every port",
        container(published(80, 8080), exposed(443)),
        Policy(internal=True),
        [("node1:c1:80", "web-80", "172.20.0.5", 80), ("node1:c1:443", "web-443", "172.20.0.5", 443)],
    ),
    (
        "several ports get a suffix, tcp and udp apart",
        container(exposed(53), exposed(53, "udp"), labels={"SERVICE_NAME": "dns"}),
        POLICY,
        [("node1:c1:53", "dns-53", "172.20.0.5", 53), ("node1:c1:53:udp", "dns-53", "172.20.0.5", 53)],
    ),
    (
        "an ignored port still counts for the suffix, as it always has",
        container(exposed(80), exposed(443), labels={"SERVICE_443_IGNORE": "1"}),
        POLICY,
        [("node1:c1:80", "web-80", "172.20.0.5", 80)],
    ),
    ("an ignored container is left out", container(exposed(80), labels={"SERVICE_IGNORE": "1"}), POLICY, []),
    ("a container that is not up is left out", container(exposed(80), state="exited"), POLICY, []),
    ("no port and no name: nothing to register", container(), POLICY, []),
    (
        "a name alone is registered with port 0",
        container(labels={"SERVICE_NAME": "worker"}),
        POLICY,
        [("node1:c1:0", "worker", "172.20.0.5", 0)],
    ),
    (
        "SERVICE_PORT is the port of what exposes none",
        container(labels={"SERVICE_PORT": "6379"}, compose_service="redis"),
        POLICY,
        [("node1:c1:6379", "redis", "172.20.0.5", 6379)],
    ),
    (
        "a port with a name of its own need not be exposed",
        container(labels={"SERVICE_6379_NAME": "redis"}),
        POLICY,
        [("node1:c1:6379", "redis", "172.20.0.5", 6379)],
    ),
    (
        "the Swarm service names it",
        container(exposed(80), task=TASK, compose_service="x"),
        POLICY,
        [("node1:c1:80", "shop_web", "172.20.0.5", 80)],
    ),
    (
        "else the Compose service",
        container(exposed(80), compose_service="front"),
        POLICY,
        [("node1:c1:80", "front", "172.20.0.5", 80)],
    ),
    (
        "else the image, whatever registry, tag and digest",
        container(exposed(80), image="r.example:5000/team/nginx:1.25@sha256:abc"),
        POLICY,
        [("node1:c1:80", "nginx", "172.20.0.5", 80)],
    ),
    (
        "--explicit leaves out what names no service",
        container(exposed(80), compose_service="front"),
        Policy(explicit=True),
        [],
    ),
    (
        "--explicit takes a port with a name of its own, and not its neighbour",
        container(exposed(80), exposed(81), labels={"SERVICE_81_NAME": "admin"}),
        Policy(explicit=True),
        [("node1:c1:81", "admin", "172.20.0.5", 81)],
    ),
    (
        "several names for one port are several instances",
        container(exposed(80), labels={"SERVICE_NAME": "a,b"}),
        POLICY,
        [("node1:c1:80", "a", "172.20.0.5", 80), ("node1:c1:80:b", "b", "172.20.0.5", 80)],
    ),
    (
        "SERVICE_ID is the id",
        container(exposed(80), labels={"SERVICE_ID": "mine"}),
        POLICY,
        [("mine", "web", "172.20.0.5", 80)],
    ),
    (
        "with several ports it gets the port's suffix, as two instances cannot share it",
        container(exposed(80), exposed(81), labels={"SERVICE_ID": "mine", "SERVICE_81_ID": "own"}),
        POLICY,
        [("mine:80", "web-80", "172.20.0.5", 80), ("own", "web-81", "172.20.0.5", 81)],
    ),
    (
        "SERVICE_IP is the address",
        container(published(80, 8080), labels={"SERVICE_IP": "198.51.100.1"}),
        POLICY,
        [("node1:c1:80", "web", "198.51.100.1", 8080)],
    ),
    (
        "a binding to one address is registered with it",
        container(published(80, 8080, "203.0.113.9")),
        POLICY,
        [("node1:c1:80", "web", "203.0.113.9", 8080)],
    ),
    (
        "a port published on loopback is nobody else's: the container's own address",
        container(published(80, 8080, "127.0.0.1")),
        POLICY,
        [("node1:c1:80", "web", "172.20.0.5", 80)],
    ),
    (
        "a port published on IPv6 alone is registered at the node's IPv6 address",
        container(published(80, 8080, "::")),
        POLICY,
        [("node1:c1:80", "web", "2001:db8::7", 8080)],
    ),
    (
        "with the host's network the exposed port is the node's",
        container(exposed(80), networks=(), network_mode="host"),
        POLICY,
        [("node1:c1:80", "web", "192.0.2.7", 80)],
    ),
    (
        "a network of one's own is preferred to the default bridge",
        container(exposed(80), networks=(BRIDGE, DUAL)),
        POLICY,
        [("node1:c1:80", "web", "172.21.0.5", 80)],
    ),
    (
        "the ingress network's address is never registered (registrator#589)",
        container(exposed(80), networks=(INGRESS, APP)),
        POLICY,
        [("node1:c1:80", "web", "172.20.0.5", 80)],
    ),
    (
        "a container without any network has nothing to register",
        container(exposed(80), networks=()),
        POLICY,
        [],
    ),
]


@pytest.mark.parametrize(
    ("given_", "policy", "wanted"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_what_is_registered(
    given_: Container, policy: Policy, wanted: list[tuple[str, str, str, int]]
) -> None:
    found, problems = instances(given_, HOST, policy)
    assert [(i.id, i.service, i.address, i.port) for i in found] == wanted
    assert problems == ()


def test_every_address_of_both_families_is_kept() -> None:
    port = Port(80, "tcp", (Binding("0.0.0.0", 8080), Binding("::", 8080)))
    (instance,), _ = instances(container(port, networks=(APP, DUAL, INGRESS)), HOST, POLICY)
    assert instance.addresses == (
        Address("published", "", "192.0.2.7", 8080),
        Address("published", "", "2001:db8::7", 8080),
        Address("app_default", "aaaabbbbcccc", "172.20.0.5", 80),
        Address("dual", "ddddeeeeffff", "172.21.0.5", 80),
        Address("dual", "ddddeeeeffff", "fd00:21::5", 80),
    )


def test_the_operators_address_wins_over_a_bindings() -> None:
    forced = Host("ENGINE", "node1", ("198.51.100.7",), forced=True)
    (instance,), _ = instances(container(published(80, 8080, "203.0.113.9")), forced, POLICY)
    assert instance.address == "198.51.100.7"


def test_meta_tells_owner_and_container_and_tags_are_sorted() -> None:
    labels = {"SERVICE_TAGS": "b,a,b", "SERVICE_REGION": "eu"}
    (instance,), _ = instances(container(exposed(53, "udp"), labels=labels), HOST, POLICY)
    assert instance.meta == {"region": "eu", META_OWNER: "ENGINE", META_CONTAINER: "c" * 64}
    assert instance.tags == ("a", "b", "udp")


def test_meta_tells_since_when_the_container_runs_and_nothing_else_changes_it() -> None:
    started = "2026-11-20T22:11:04Z"
    (up,), _ = instances(container(exposed(80), started=started, health="healthy"), HOST, POLICY)
    (ill,), _ = instances(container(exposed(80), started=started, health="unhealthy"), HOST, POLICY)
    assert up.meta["registrator-started"] == started
    assert ill.meta == up.meta, "health is reported, not registered"


def test_a_default_name_that_dns_cannot_hold_is_kept_in_meta() -> None:
    (instance,), problems = instances(container(exposed(80), compose_service="my.app"), HOST, POLICY)
    assert instance.service == "my-app"
    assert instance.meta["registrator-name"] == "my.app"
    assert problems == ()


def test_a_container_in_anothers_network_is_reached_at_the_others_addresses() -> None:
    peer = container(published(80, 8080), id="p" * 64, name="vpn", networks=(DUAL,))
    sharer = container(exposed(80), networks=(), network_mode=f"container:{'p' * 64}")
    (instance,), _ = instances(sharer, HOST, POLICY, peer)
    assert (instance.address, instance.port) == ("192.0.2.7", 8080)
    assert Address("dual", "ddddeeeeffff", "172.21.0.5", 80) in instance.addresses


@pytest.mark.parametrize(
    ("facts", "health"),
    [
        ({}, None),
        ({"health": "healthy", "health_output": "OK"}, Health(PASSING, "OK")),
        ({"health": "unhealthy", "health_output": "refused"}, Health(CRITICAL, "refused")),
        ({"health": "starting"}, Health(CRITICAL, "starting: its HEALTHCHECK has not passed yet")),
        ({"state": "paused"}, Health(CRITICAL, "paused; `docker unpause c1` brings it back")),
        (
            {"state": "paused", "health": "healthy"},
            Health(CRITICAL, "paused; `docker unpause c1` brings it back"),
        ),
    ],
)
def test_dockers_word_on_health(facts: dict[str, str], health: Health | None) -> None:
    assert docker_health(container(**facts)) == health


def test_dockers_health_becomes_a_ttl_check_whose_definition_never_moves() -> None:
    healthy = container(exposed(80), health="healthy")
    (well,), _ = instances(healthy, HOST, POLICY)
    (ill,), _ = instances(replace(healthy, health="unhealthy"), HOST, POLICY)
    assert [(c.id, c.kind, c.ttl) for c in well.checks] == [(health_check_id(well.id), "ttl", 600.0)]
    assert well.checks == ill.checks
    assert well.meta == ill.meta
    assert well.health != ill.health


def test_a_changed_check_changes_the_digest_in_meta() -> None:
    digests = set()
    for path in ("/", "/health"):
        (instance,), _ = instances(container(exposed(80), labels={"SERVICE_CHECK_HTTP": path}), HOST, POLICY)
        digests.add(instance.meta[META_CHECKS])
    assert len(digests) == 2


@pytest.mark.parametrize(
    "labels",
    [
        {"SERVICE_99999_NAME": "x"},
        {"SERVICE_80_NAME": "🚀"},
        {"SERVICE_CHECK_HTTP": "/", "SERVICE_CHECK_INTERVAL": "soon"},
        {"SERVICE_A.B": "x"},
        {"SERVICE_80_IP": "nowhere"},
        {"SERVICE_80_NAME": "n" * 200},
        {
            "SERVICE_80_ID": "c1",
            "SERVICE_81_ID": "c1",
            "SERVICE_80_IGNORE": "",
            "SERVICE_81_NAME": "",
            "SERVICE_80_NAME": "fine",
        },
    ],
)
def test_a_bad_label_spoils_its_own_service_at_most(labels: dict[str, str]) -> None:
    """The other port's instance is there all the same, and one line says what to change."""
    labels = {"SERVICE_81_NAME": "fine", **labels}
    found, problems = instances(container(exposed(80), exposed(81), labels=labels), HOST, POLICY)
    assert "fine" in [i.service for i in found]
    assert len(problems) == 1
    assert "\n" not in str(problems[0])


keys = st.sampled_from(
    [
        "SERVICE_NAME",
        "SERVICE_80_NAME",
        "SERVICE_TAGS",
        "SERVICE_ID",
        "SERVICE_IP",
        "SERVICE_PORT",
        "SERVICE_CHECK_TCP",
    ]
)
addresses = st.builds(
    Attachment,
    network=st.sampled_from(["a", "bridge", "ingress"]),
    network_id=st.sampled_from(["1" * 25, "2" * 64]),
    ipv4=st.sampled_from(["", "10.0.0.5"]),
    ipv6=st.sampled_from(["", "fd00::5"]),
)
bindings = st.builds(
    Binding, st.sampled_from(["", "0.0.0.0", "::", "127.0.0.1", "::1", "10.9.9.9"]), st.integers(1, 65535)
)
containers = st.builds(
    container,
    st.builds(
        Port, st.integers(1, 100), st.sampled_from(["tcp", "udp"]), st.lists(bindings, max_size=2).map(tuple)
    ),
    labels=st.dictionaries(keys, st.text(max_size=80), max_size=5),
    networks=st.lists(addresses, max_size=3).map(tuple),
    network_mode=st.sampled_from(["a", "host", "none", "bridge"]),
    image=st.text(max_size=30),
    health=st.sampled_from(["", "healthy", "starting"]),
)


@given(containers, st.booleans(), st.sampled_from([(), ("192.0.2.7",), ("192.0.2.7", "2001:db8::7")]))
def test_laws_of_instances(given_: Container, internal: bool, ips: tuple[str, ...]) -> None:  # noqa: FBT001
    """Ids are unique, owner and container are told, no ingress or loopback address; it is deterministic."""
    host = Host("ENGINE", "node1", ips)
    found, problems = instances(given_, host, Policy(internal=internal))
    assert len({i.id for i in found}) == len(found)
    for instance in found:
        assert (instance.owner, instance.container) == ("ENGINE", given_.id)
        assert instance.service
        assert not any(
            a.network == "ingress" or a.ip in ("127.0.0.1", "::1", "0.0.0.0", "::")
            for a in instance.addresses
        )
    assert instances(given_, host, Policy(internal=internal)) == (found, problems)
