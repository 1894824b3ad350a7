"""The SERVICE_* grammar, row by row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.bridge.labels import dns_safe, parse_keys, parse_port, parse_wishes, split_tags
from registrator.model import Weights

ROWS = [
    # what it shows, environment, labels, key at tcp/80, value
    ("a label names the service", {}, {"SERVICE_NAME": "web"}, "name", "web"),
    ("the environment names it too", {"SERVICE_NAME": "web"}, {}, "name", "web"),
    ("a label wins over the environment", {"SERVICE_NAME": "a"}, {"SERVICE_NAME": "b"}, "name", "b"),
    (
        "a port's own key wins over the container's",
        {},
        {"SERVICE_NAME": "a", "SERVICE_80_NAME": "b"},
        "name",
        "b",
    ),
    ("even the environment's", {"SERVICE_80_NAME": "b"}, {"SERVICE_NAME": "a"}, "name", "b"),
    (
        "a protocol's key wins over its port's",
        {},
        {"SERVICE_80_NAME": "a", "SERVICE_80_TCP_NAME": "b"},
        "name",
        "b",
    ),
    ("another protocol's key is not its", {}, {"SERVICE_80_UDP_NAME": "b"}, "name", None),
    ("another port's key is not its", {}, {"SERVICE_81_NAME": "b"}, "name", None),
    ("keys are case-insensitive after the prefix", {}, {"SERVICE_Name": "web"}, "name", "web"),
    ("the prefix is not", {}, {"service_NAME": "web"}, "name", None),
    ("keys may hold underscores", {}, {"SERVICE_80_CHECK_HTTP": "/"}, "check_http", "/"),
    ("a key that is only digits is no port", {}, {"SERVICE_80": "x"}, "80", "x"),
]


@pytest.mark.parametrize(
    ("env", "labels", "key", "value"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_precedence(env: dict[str, str], labels: dict[str, str], key: str, value: str | None) -> None:
    keys, problems = parse_keys(env, labels)
    assert keys.at(80, "tcp").get(key) == value
    assert problems == []


@pytest.mark.parametrize(
    ("labels", "port", "ignored"),
    [
        ({"SERVICE_IGNORE": "no"}, 80, True),  # any non-empty value means yes, as it always has
        ({"SERVICE_IGNORE": ""}, 80, False),
        ({"SERVICE_80_IGNORE": "1"}, 80, True),
        ({"SERVICE_80_IGNORE": "1"}, 81, False),
        ({"SERVICE_80-90_IGNORE": "1"}, 90, True),
        ({"SERVICE_80-90_IGNORE": "1"}, 91, False),
        ({"SERVICE_80-90_IGNORE": ""}, 85, False),
    ],
)
def test_ignored_ports(labels: dict[str, str], port: int, ignored: bool) -> None:  # noqa: FBT001
    assert parse_keys({}, labels)[0].ignores(port, "tcp") is ignored


@pytest.mark.parametrize(
    "key", ["SERVICE_99999_NAME", "SERVICE_0_NAME", "SERVICE_1-70000_IGNORE", "SERVICE_٣_NAME"]
)
def test_a_port_that_is_none_is_refused_and_said(key: str) -> None:
    keys, problems = parse_keys({}, {key: "x", "SERVICE_NAME": "web"})
    assert keys.at(80, "tcp")["name"] == "web"
    assert [p.subject for p in problems] == [key]


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("a,b", ("a", "b")),
        (" a , b ", ("a", "b")),
        (r"urlprefix-/a\,b,c", ("urlprefix-/a,b", "c")),
        (",,a,", ("a",)),
        ("", ()),
        ("🚀", ("🚀",)),
    ],
)
def test_tags(text: str, tags: tuple[str, ...]) -> None:
    assert split_tags(text) == tags


def test_three_hundred_tags_are_all_kept() -> None:
    text = ",".join(f"tag{n}" for n in range(300))
    assert len(split_tags(text)) == 300


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("web", "web"),
        ("my_app", "my_app"),
        ("my.app", "my-app"),
        ("Web", "Web"),
        ("a b/c", "a-b-c"),
        ("-web-", "web"),
        ("x" * 200, "x" * 63),
        ("🚀", ""),
        ("web🚀", "web"),
        ("", ""),
    ],
)
def test_names_that_dns_can_hold(wanted: str, name: str) -> None:
    assert dns_safe(wanted) == name


def test_a_name_that_had_to_change_is_said_once() -> None:
    wishes, problems = parse_wishes(parse_keys({}, {"SERVICE_NAME": "a.b,🚀,c"})[0], 80, "tcp")
    assert wishes.names == ("a-b", "c")
    assert [p.subject for p in problems] == ["SERVICE_NAME", "SERVICE_NAME"]


def test_several_names_for_one_port() -> None:
    assert parse_wishes(parse_keys({}, {"SERVICE_NAME": "a, b ,a"})[0], 80, "tcp")[0].names == ("a", "b")


def test_the_ports_own_name_needs_no_suffix() -> None:
    keys, _ = parse_keys({}, {"SERVICE_NAME": "a", "SERVICE_80_NAME": "b"})
    assert parse_wishes(keys, 80, "tcp")[0].own_name
    assert not parse_wishes(keys, 81, "tcp")[0].own_name


def test_meta_is_what_the_grammar_does_not_know() -> None:
    labels = {"SERVICE_NAME": "web", "SERVICE_TAGS": "a", "SERVICE_CHECK_HTTP": "/", "SERVICE_REGION": "eu"}
    assert parse_wishes(parse_keys({}, labels)[0], 80, "tcp")[0].meta == {"region": "eu"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SERVICE_A.B", "x"),
        ("SERVICE_" + "k" * 129, "x"),
        ("SERVICE_BIG", "x" * 513),
        ("SERVICE_CONSUL-X", "x"),
        ("SERVICE_REGISTRATOR-OWNER", "x"),
        ("SERVICE_ÄÖ", "x"),
    ],
)
def test_meta_that_consul_would_refuse_is_left_out_and_said(key: str, value: str) -> None:
    keys, problems = parse_keys({}, {key: value, "SERVICE_OK": "fine"})
    assert parse_wishes(keys, 80, "tcp")[0].meta == {"ok": "fine"}
    assert len(problems) == 1


def test_meta_leaves_room_for_the_agents_own_pairs() -> None:
    labels = {f"SERVICE_K{n:03}": "v" for n in range(100)}
    keys, problems = parse_keys({}, labels)
    assert len(parse_wishes(keys, 80, "tcp")[0].meta) == 52
    assert [problem.subject for problem in problems] == ["SERVICE_*"]


def test_weights_and_tag_override() -> None:
    labels = {
        "SERVICE_WEIGHT_PASSING": "10",
        "SERVICE_WEIGHT_WARNING": "x",
        "SERVICE_ENABLE_TAG_OVERRIDE": "true",
    }
    wishes, problems = parse_wishes(parse_keys({}, labels)[0], 80, "tcp")
    assert wishes.weights == Weights(10, 1)
    assert wishes.enable_tag_override
    assert [p.subject for p in problems] == ["SERVICE_WEIGHT_WARNING"]


@pytest.mark.parametrize(("text", "port"), [("6379", 6379), ("", 0), ("99999", 0), ("x", 0), ("-1", 0)])
def test_service_port(text: str, port: int) -> None:
    number, problems = parse_port(parse_keys({}, {"SERVICE_PORT": text})[0])
    assert number == port
    assert bool(problems) is (port == 0 and text != "")


words = st.text(max_size=20) | st.sampled_from(["80", "🚀", "x" * 600, "a,b", "99999", "-1", "1e9", "\x00"])
names = st.builds(
    "SERVICE_{}{}".format,
    st.sampled_from(["", "80_", "80_UDP_", "1-9_", "99999_"]),
    st.sampled_from(["NAME", "TAGS", "ID", "IP", "PORT", "IGNORE", "WEIGHT_PASSING", "CHECK_HTTP", ""])
    | words,
)


@given(st.dictionaries(names, words, max_size=8), st.dictionaries(names, words, max_size=8))
def test_whatever_the_labels_hold_nothing_is_raised(env: dict[str, str], labels: dict[str, str]) -> None:
    keys, _ = parse_keys(env, labels)
    parse_port(keys)
    wishes, _ = parse_wishes(keys, 80, "tcp")
    assert all(dns_safe(name) == name for name in wishes.names)
    assert len(wishes.meta) <= 52
