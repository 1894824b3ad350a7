"""What Consul's read API takes and tells, without a server; test_http_consul compares with a real one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.lookup.consul_api import (
    MAX_INDEX,
    BadQuery,
    Query,
    catalog_service,
    catalog_services,
    headers,
    health_service,
    parse_query,
)
from registrator.model import CRITICAL, PASSING, WARNING, Address
from tests.lookup.fakes import entry, snapshot_of


def parse(**parameters: str) -> Query:
    return parse_query([(name.replace("_", "-"), value) for name, value in parameters.items()], "dc1")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("1m30s", 90),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("5.s", 5),
        ("250ms", 0.25),
        ("+2s", 2),
        ("10m", 600),
        ("1h", 600),  # never longer than Consul's ten minutes
        ("", 300),  # Consul's five minutes unless said otherwise
        ("0", 300),
        ("0s", 300),
        ("-5s", 300),
    ],
)
def test_a_wait_is_a_go_duration_within_consuls_limits(text: str, seconds: float) -> None:
    assert parse(wait=text).wait == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["5", "abc", "s", "1h5", "1_0s", "5 s", "\u0661s", "--1s", "9999999999h", "1s\n"]
)
def test_a_wait_that_is_no_go_duration_is_refused_in_consuls_words(text: str) -> None:
    with pytest.raises(BadQuery, match=r"^Invalid wait time$"):
        parse(wait=text)


@pytest.mark.parametrize(
    "text", ["abc", "-1", "+1", "1.0", "1_0", "\u00b2", "0x10", str(MAX_INDEX + 1), "9" * 5000]
)
def test_an_index_that_is_no_uint64_is_refused_in_consuls_words(text: str) -> None:
    with pytest.raises(BadQuery, match=r"^Invalid index$"):
        parse(index=text)


def test_the_largest_index_is_taken() -> None:
    assert parse(index=str(MAX_INDEX)).index == MAX_INDEX


@pytest.mark.parametrize(
    ("text", "passing"),
    [("", True), ("1", True), ("true", True), ("T", True), ("0", False), ("false", False), ("F", False)],
)
def test_passing_is_a_go_bool_and_true_without_a_value(text: str, *, passing: bool) -> None:
    assert parse(passing=text).passing is passing


def test_passing_with_another_value_is_refused_in_consuls_words() -> None:
    with pytest.raises(BadQuery, match=r"^Invalid value for \?passing$"):
        parse(passing="yes")


def test_another_datacenter_is_refused_and_the_own_one_is_taken() -> None:
    assert parse(dc="dc1") == Query()
    with pytest.raises(BadQuery, match="No path to datacenter"):
        parse(dc="dc2")


@given(st.dictionaries(st.sampled_from(["index", "wait", "passing", "dc", "filter", "tag"]), st.text()))
def test_no_parameter_whatever_its_text_does_more_than_be_refused(parameters: dict[str, str]) -> None:
    try:
        query = parse_query(parameters.items(), "dc1")
    except BadQuery:
        return
    assert 0 <= query.index <= MAX_INDEX
    assert 0 < query.wait <= 600


@pytest.mark.parametrize(
    ("query", "tags", "status", "wanted"),
    [
        (Query(), (), CRITICAL, True),
        (Query(passing=True), (), PASSING, True),
        (Query(passing=True), (), WARNING, False),
        (Query(passing=True), (), CRITICAL, False),
        (Query(tags=frozenset({"a"})), ("A", "b"), PASSING, True),
        (Query(tags=frozenset({"a", "b"})), ("a", "b", "c"), PASSING, True),
        (Query(tags=frozenset({"a", "z"})), ("a", "b"), PASSING, False),
        (Query(tags=frozenset({""})), ("a",), PASSING, False),
    ],
)
def test_an_instance_is_wanted_by_all_tags_in_any_case_and_by_its_worst_check(
    query: Query, tags: tuple[str, ...], status: str, *, wanted: bool
) -> None:
    assert query.wants(entry("web", tags=tags, status=status)) is wanted


def test_passing_looks_at_the_nodes_checks_too() -> None:
    healthy = entry("web")
    assert Query(passing=True).wants(healthy)
    serf, own = healthy.checks
    dead_node = type(healthy)(healthy.node, healthy.instance, (type(serf)(serf.id, serf.name, CRITICAL), own))
    assert not Query(passing=True).wants(dead_node)


def test_tags_come_lower_cased_out_of_the_query_and_may_repeat() -> None:
    parameters = [("tag", "A"), ("tag", "b")]
    assert parse_query(parameters, "dc1").tags == {"a", "b"}


def test_names_are_listed_as_they_were_registered() -> None:
    assert dict(catalog_services(snapshot_of(entry("Web", tags=("b", "a")), entry("db")))) == {
        "Web": ["b", "a"],
        "db": [],
    }


def test_every_network_is_a_tagged_address_beside_the_two_that_consul_adds() -> None:
    document = catalog_service(entry("web", addresses=(Address("webnet", "id1", "10.0.1.5", 8080),)), 7)
    assert document["ServiceTaggedAddresses"] == {
        "lan_ipv4": {"Address": "10.0.0.1", "Port": 80},
        "wan_ipv4": {"Address": "10.0.0.1", "Port": 80},
        "webnet/id1/ipv4": {"Address": "10.0.1.5", "Port": 8080},
    }


def test_an_instance_without_an_address_has_no_tagged_ones_as_in_consul() -> None:
    bare = entry("web", address="")
    assert "ServiceTaggedAddresses" not in catalog_service(bare, 7)
    assert "TaggedAddresses" not in json.dumps(health_service(bare, 7)["Service"])


def test_headers_tell_the_index_and_the_age_in_milliseconds() -> None:
    assert headers(12, 0) == {
        "X-Consul-Index": "12",
        "X-Consul-KnownLeader": "true",
        "X-Consul-LastContact": "0",
    }
    assert headers(12, 1.5)["X-Consul-LastContact"] == "1500"
    assert headers(12, 1.5)["X-Consul-KnownLeader"] == "false"
    assert headers(0, 0)["X-Consul-Index"] == "1", "an index of 0 would make clients poll without a pause"
