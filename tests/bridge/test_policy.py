"""What the operator decides: which containers, at which address, with which tags, for how long."""

from __future__ import annotations

from typing import Any

import pytest

from registrator.bridge.instances import instances, left_behind
from registrator.model import CRITICAL, META_CHECKS, Address, Container, health_check_id
from registrator.policy import Constraint, Policy, keeps, selects
from tests.bridge.build import APP, BRIDGE, DUAL, HOST, container, exposed, published

SELECTED = [
    ("everything, by default", Policy(), {}, True),
    ("but not what opts out", Policy(), {"registrator.enable": "false"}, False),
    ("nothing, where nothing is exposed by default", Policy(exposed_by_default=False), {}, False),
    ("but what opts in", Policy(exposed_by_default=False), {"registrator.enable": "true"}, True),
    ("a label that must be there is", Policy(constraints=(Constraint("a"),)), {"a": ""}, True),
    ("or is not", Policy(constraints=(Constraint("a"),)), {"b": ""}, False),
    (
        "a label that must not be there",
        Policy(constraints=(Constraint("a", None, negated=True),)),
        {"a": ""},
        False,
    ),
    ("a label with a value", Policy(constraints=(Constraint("a", "1"),)), {"a": "1"}, True),
    ("another value", Policy(constraints=(Constraint("a", "1"),)), {"a": "2"}, False),
    ("any value but this", Policy(constraints=(Constraint("a", "1", negated=True),)), {}, True),
    ("all constraints must hold", Policy(constraints=(Constraint("a"), Constraint("b"))), {"a": ""}, False),
]


@pytest.mark.parametrize(
    ("policy", "labels", "selected"), [row[1:] for row in SELECTED], ids=[row[0] for row in SELECTED]
)
def test_which_containers(policy: Policy, labels: dict[str, str], selected: bool) -> None:  # noqa: FBT001
    assert selects(policy, labels) is selected
    found, _ = instances(container(exposed(80), labels=labels), HOST, policy)
    assert bool(found) is selected


ADDRESSES: list[tuple[str, Container, Policy, tuple[str, int]]] = [
    (
        "the preferred network, whatever its name's order",
        container(exposed(80), networks=(APP, DUAL)),
        Policy(networks=("nowhere", "dual")),
        ("172.21.0.5", 80),
    ),
    (
        "even the default bridge, where it is asked for",
        container(exposed(80), networks=(APP, BRIDGE)),
        Policy(networks=("bridge",)),
        ("172.17.0.5", 80),
    ),
    (
        "a preferred network does not beat a published port",
        container(published(80, 8080), networks=(APP, DUAL)),
        Policy(networks=("dual",)),
        ("192.0.2.7", 8080),
    ),
    (
        "unless with --internal",
        container(published(80, 8080), networks=(APP, DUAL)),
        Policy(networks=("dual",), internal=True),
        ("172.21.0.5", 80),
    ),
    (
        "--ip-from-network registers container address and port, published or not",
        container(published(80, 8080), networks=(APP, DUAL)),
        Policy(ip_from_network="dual"),
        ("172.21.0.5", 80),
    ),
    (
        "a container that is not on it is registered as usual",
        container(published(80, 8080)),
        Policy(ip_from_network="dual"),
        ("192.0.2.7", 8080),
    ),
    (
        "--ip-from-label takes the address from a label, without its prefix length",
        container(published(80, 8080), labels={"lan": "10.9.8.7/24"}),
        Policy(ip_from_label="lan"),
        ("10.9.8.7", 8080),
    ),
    (
        "an IPv6 address too",
        container(exposed(80), labels={"lan": "fd00:9::7/64"}),
        Policy(ip_from_label="lan"),
        ("fd00:9::7", 80),
    ),
    (
        "a container without the label is registered as usual",
        container(published(80, 8080)),
        Policy(ip_from_label="lan"),
        ("192.0.2.7", 8080),
    ),
    (
        "the container's own SERVICE_IP wins",
        container(exposed(80), labels={"lan": "10.9.8.7", "SERVICE_IP": "10.1.1.1"}),
        Policy(ip_from_label="lan"),
        ("10.1.1.1", 80),
    ),
]


@pytest.mark.parametrize(
    ("given", "policy", "wanted"), [row[1:] for row in ADDRESSES], ids=[row[0] for row in ADDRESSES]
)
def test_which_address(given: Container, policy: Policy, wanted: tuple[str, int]) -> None:
    (found,), problems = instances(given, HOST, policy)
    assert (found.address, found.port) == wanted
    assert problems == ()


def test_a_label_that_holds_no_address_is_said() -> None:
    (found,), problems = instances(
        container(exposed(80), labels={"lan": "x"}), HOST, Policy(ip_from_label="lan")
    )
    assert found.address == "172.20.0.5"
    assert [p.subject for p in problems] == ["lan"]


def test_the_preferred_network_leads_the_list_of_addresses() -> None:
    (found,), _ = instances(container(exposed(80), networks=(APP, DUAL)), HOST, Policy(networks=("dual",)))
    assert found.addresses[0] == Address("dual", "ddddeeeeffff", "172.21.0.5", 80)


TAGS = [
    ("the operator's and the container's", "all,b", {"SERVICE_TAGS": "a,b"}, ("a", "all", "b")),
    ("a template in the operator's", "{{.Config.Hostname}},x", {}, ("h1", "x")),
    (
        "a template in the container's",
        "",
        {"SERVICE_TAGS": '{{index .Config.Labels "team"}},y', "team": "t"},
        ("t", "y"),
    ),
    (
        "a template that gives several",
        "",
        {"SERVICE_TAGS": '{{index .Config.Labels "l"}}', "l": "p,q"},
        ("p", "q"),
    ),
]


@pytest.mark.parametrize(
    ("tags", "labels", "wanted"), [row[1:] for row in TAGS], ids=[row[0] for row in TAGS]
)
def test_which_tags(tags: str, labels: dict[str, str], wanted: tuple[str, ...]) -> None:
    (found,), problems = instances(
        container(exposed(80), labels=labels, hostname="h1"), HOST, Policy(tags=tags)
    )
    assert found.tags == wanted
    assert problems == ()


@pytest.mark.parametrize(
    ("policy", "labels", "subject"),
    [
        (Policy(tags="{{.Nothing}}"), {"SERVICE_TAGS": "kept"}, "--tags"),
        (Policy(tags="kept"), {"SERVICE_TAGS": "{{.Nothing}}"}, "SERVICE_TAGS"),
    ],
)
def test_a_bad_template_is_a_warning_and_spoils_only_its_own_tags(
    policy: Policy, labels: dict[str, str], subject: str
) -> None:
    (found,), problems = instances(container(exposed(80), labels=labels), HOST, policy)
    assert found.tags == ("kept",)
    assert [p.subject for p in problems] == [subject]


@pytest.mark.parametrize(
    ("template", "facts", "name", "problems"),
    [
        ('{{index .Config.Labels "app"}}', {"labels": {"app": "shop"}}, "shop", 0),
        ('{{index .Config.Labels "app"}}', {}, "web", 0),
        ("{{.Nothing}}", {}, "web", 1),
        ("{{.Name}}", {}, "c1", 0),
        ("{{.Name}}", {"labels": {"SERVICE_NAME": "told"}}, "told", 0),
    ],
)
def test_the_default_name_by_template(template: str, facts: dict[str, Any], name: str, problems: int) -> None:
    (found,), refused = instances(container(exposed(80), **facts), HOST, Policy(name_template=template))
    assert found.service == name
    assert len(refused) == problems


def test_meta_for_every_service_yields_to_the_containers_own() -> None:
    policy = Policy(meta=(("region", "eu"), ("tier", "1")))
    (found,), _ = instances(container(exposed(80), labels={"SERVICE_TIER": "2"}), HOST, policy)
    assert (found.meta["region"], found.meta["tier"]) == ("eu", "2")


@pytest.mark.parametrize(
    ("deregister", "exit_code", "kept"),
    [
        ("always", 1, False),
        ("on-success", 0, False),
        ("on-success", 1, True),
        ("on-success", 143, False),  # ended by SIGTERM
        ("never", 0, True),
    ],
)
def test_what_becomes_of_a_dead_containers_instances(deregister: str, exit_code: int, kept: bool) -> None:  # noqa: FBT001
    assert keeps(Policy(deregister=deregister), container(state="exited", exit_code=exit_code)) is kept


@pytest.mark.parametrize(("deregister", "kept"), [("always", False), ("on-success", False), ("never", True)])
def test_and_of_a_removed_ones(deregister: str, kept: bool) -> None:  # noqa: FBT001
    assert keeps(Policy(deregister=deregister), None) is kept


def test_what_is_left_behind_is_critical_and_says_why() -> None:
    (found,), _ = instances(container(exposed(80), labels={"SERVICE_CHECK_TCP": "1"}), HOST, Policy())
    left = left_behind(found, "exited with code 1", Policy())
    assert left.health is not None
    assert (left.health.status, left.health.output) == (CRITICAL, "exited with code 1")
    assert [check.id for check in left.checks] == [health_check_id(found.id)]
    assert left.meta[META_CHECKS] != found.meta[META_CHECKS]
    assert left_behind(left, "exited with code 1", Policy()) == left
