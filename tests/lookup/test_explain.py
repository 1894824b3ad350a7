"""`/explain`: every instance of a name, given to an asker or not, and why."""

from __future__ import annotations

from typing import Any

import pytest

from registrator.lookup.explain import Asker, explained, likeness, nearest, summary
from registrator.lookup.names import ServiceName
from registrator.lookup.reach import within_reach
from registrator.model import (
    CRITICAL,
    OUTSIDE,
    PASSING,
    WARNING,
    Address,
    CheckResult,
    Entry,
    Node,
    Service,
    View,
)
from tests.lookup.fakes import NODE, entry

WEBNET = View(frozenset({"id1"}))
OTHER = View(frozenset({"id9"}))
PUBLISHED = Address("published", "", "192.0.2.1", 32768)
INSIDE = Address("webnet", "id1", "10.0.1.5", 8080)
NOT_ON_IT = (
    "10.0.1.5:8080: the registered address, on network webnet, which this asker is not on: "
    "only a route makes it reachable"
)
INSIDE6 = Address("webnet", "id1", "fd00::5", 8080)


def told(one: Entry, view: View = OUTSIDE, tag: str = "") -> Any:
    """What is told of the only instance of a service."""
    (instance,) = explained(ServiceName("web", tag), Service("web", 1, (one,)), Asker("x", view), (one,))
    return instance


@pytest.mark.parametrize(
    ("sentence", "one", "view", "address", "why"),
    [
        (
            "a network that both are on comes first",
            entry("web", addresses=(PUBLISHED, INSIDE)),
            WEBNET,
            ("10.0.1.5", 8080, "webnet"),
            "10.0.1.5:8080: both are on network webnet",
        ),
        (
            "a container on no shared network gets the published port",
            entry("web", addresses=(PUBLISHED, INSIDE)),
            OTHER,
            ("192.0.2.1", 32768, "published"),
            "192.0.2.1:32768: no shared network, so the port that its node publishes",
        ),
        (
            "a host gets the registered address",
            entry("web", address="192.0.2.1", port=32768, addresses=(PUBLISHED, INSIDE)),
            OUTSIDE,
            ("192.0.2.1", 32768, ""),
            "192.0.2.1:32768: the registered address, which is the port that its node publishes",
        ),
        (
            "an address on a network that the asker is not on is given, and doubted",
            entry("web", address="10.0.1.5", port=8080, addresses=(INSIDE,)),
            OTHER,
            ("10.0.1.5", 8080, ""),
            NOT_ON_IT,
        ),
        (
            "a foreign service has its registered address",
            entry("web"),
            WEBNET,
            ("10.0.0.1", 80, ""),
            "10.0.0.1:80: the registered address",
        ),
        (
            "one without an address has its node's",
            entry("web", address=""),
            OUTSIDE,
            ("192.0.2.1", 80, ""),
            "192.0.2.1:80: registered without an address, so its node's",
        ),
    ],
)
def test_an_instance_is_given_at_an_address_with_the_reason(
    sentence: str, one: Entry, view: View, address: tuple[str, int, str], why: str
) -> None:
    found = told(one, view)
    assert found["answered"], sentence
    (given,) = found["addresses"]
    assert (given["address"], given["port"], given["network"]) == address, sentence
    assert found["why"] == why, sentence


def failing(check_id: str, name: str, output: str, service_id: str = "web-1") -> Entry:
    """An instance of which one check is critical."""
    bad = CheckResult(check_id, name, CRITICAL, output, service_id=service_id)
    good = CheckResult("ok", "fine", PASSING, "all well", service_id="web-1")
    return Entry(NODE, entry("web", tags=("blue",)).instance, (good, bad))


@pytest.mark.parametrize(
    ("sentence", "one", "tag", "why"),
    [
        (
            "a critical check is named, with what it said on one line",
            failing("web-1:http", "HTTP on /health", "connection\n  refused"),
            "",
            "check 'HTTP on /health' is critical: connection refused",
        ),
        (
            "a check that has said nothing yet says so",
            failing("web-1:http", "HTTP", ""),
            "",
            "check 'HTTP' is critical: it has said nothing yet",
        ),
        (
            "a node's own check takes its instances out",
            failing("serfHealth", "Serf Health Status", "Agent not live", ""),
            "",
            "its node's check 'Serf Health Status' is critical: Agent not live",
        ),
        (
            "maintenance of the instance has its reason",
            failing("_service_maintenance:web-1", "Service Maintenance Mode", "disk change"),
            "",
            "it is in maintenance: disk change",
        ),
        (
            "maintenance of the node too",
            failing("_node_maintenance", "Node Maintenance Mode", "", ""),
            "",
            "its node is in maintenance: no reason was given",
        ),
        (
            "one that lacks the tag shows those that it has",
            entry("web", tags=("blue", "v2")),
            "green",
            "it lacks the tag green (its tags: blue, v2)",
        ),
        (
            "nothing at all to connect to",
            entry("web", address="", node=Node("n2", "")),
            "",
            "it has no address at all: neither the instance nor its node",
        ),
    ],
)
def test_an_instance_is_left_out_for_a_reason(sentence: str, one: Entry, tag: str, why: str) -> None:
    found = told(one, tag=tag)
    assert (found["answered"], found["addresses"]) == (False, []), sentence
    assert found["why"] == why, sentence


def test_a_long_output_is_cut() -> None:
    found = told(failing("c", "check", "x" * 5000))
    assert len(found["why"]) < 400
    assert found["why"].endswith("…")


def test_both_families_are_given_where_both_are_shared() -> None:
    found = told(entry("web", addresses=(INSIDE, INSIDE6)), WEBNET)
    assert [a["address"] for a in found["addresses"]] == ["10.0.1.5", "fd00::5"]


def test_a_summary_tells_who_asks_for_what_and_how_many_are_left_out() -> None:
    entries = (entry("web", 1, status=CRITICAL), entry("web", 2, status=WARNING), entry("web", 3))
    told = summary(ServiceName("web", "blue"), Service("Web", 1, entries), Asker("me", WEBNET), answered=2)
    assert told == {
        "service": "Web",
        "tag": "blue",
        "asker": {"what": "me", "networks": ["id1"]},
        "answered": 2,
        "left_out": 1,
    }


def test_an_instance_out_of_reach_is_left_out_and_said() -> None:
    """Two services of one name on two overlays: each asker is told why the other is none of its own."""
    near = entry("web", 1, address="10.0.1.5", addresses=(Address("red", "red0red1red2", "10.0.1.5", 80),))
    far = entry("web", 2, address="10.0.2.5", addresses=(Address("blue", "blue0blue1bl", "10.0.2.5", 80),))
    asker = Asker("me", View(frozenset({"red0red1red2"})))
    reached = within_reach((far, near), asker.view)
    there: Any = explained(ServiceName("web"), Service("web", 1, (far, near)), asker, reached)
    left_out, given = there
    assert (given["id"], given["answered"]) == ("web-1", True)
    assert left_out["why"] == "it is on blue alone, which this asker is not on, and others can be reached"
    assert (left_out["answered"], left_out["addresses"]) == (False, [])


@pytest.mark.parametrize(
    ("text", "first"),
    [("redsi", "redis"), ("Redis", "redis"), ("redi", "redis"), ("my-redis-cache", "redis"), ("zzz", None)],
)
def test_the_nearest_names_are_those_one_may_have_meant(text: str, first: str | None) -> None:
    judged = map(likeness(text), ["web", "redis", "billing", "postgres"])
    found = nearest(filter(None, judged))
    assert (found[0] if found else None) == first
