"""Which ids and names a container's labels may ask for: a row each."""

from __future__ import annotations

import pytest

from registrator.bridge.ids import refusal
from registrator.bridge.instances import instances
from registrator.model import Container, Instance
from registrator.policy import DENIED_NAMES, Policy, allows_name
from tests.bridge.build import HOST, POLICY, container, exposed, published

DEFAULT = "node1:c1:80"

REFUSED = [
    # an id that a label asks for, and what the log says of it
    ("x/../ghost", "characters"),
    ("..", "characters"),
    (".", "characters"),
    ("a?b", "characters"),
    ("a#b", "characters"),
    ("a%2fb", "characters"),
    ("a\\b", "characters"),
    ("a\x1b[31mb", "characters"),
    ("a\nb", "characters"),
    ("a\u202eb", "characters"),
    ("a\u200bb", "characters"),
    ("a\ud800b", "characters"),
    ("consul", "Consul's own"),
    ("CONSUL", "Consul's own"),
    ("serfHealth", "Consul's own"),
    ("service:pay", "Consul's own"),
    ("Service:pay", "Consul's own"),
    ("serv\u0130ce:pay", "Consul's own"),
    ("_service_maintenance:vault", "Consul's own"),
    ("_node_maintenance", "Consul's own"),
    ("node1:shop:80", "'shop'"),
    ("NODE1:SHOP:80", "'SHOP'"),
    ("node1:C1:80", "'C1'"),
    ("node1:shop:53:udp", "'shop'"),
    ("node1:shop:80:second", "'shop'"),
    ("node1:shop:80:docker", "'shop'"),
    ("node2:shop:80", "'shop'"),
    ("node1:shop:080", "'shop'"),
    ("node1:shop:\uff18\uff10", "'shop'"),
    ("node1:shop:80:a\u00adb", "characters"),
]
ALLOWED = [
    "vault",
    "pay:1",
    "web-1",
    "a b",
    "größe",
    "node1:c1:80",
    "node1:c1:81",
    "old:c1:80",
    "web:prod:x",
    "a:b",
]


@pytest.mark.parametrize(("wanted", "said"), REFUSED)
def test_an_id_that_is_refused(wanted: str, said: str) -> None:
    """The default id is used, and one problem says why."""
    found, (problem,) = instances(container(published(80, 8080), labels={"SERVICE_ID": wanted}), HOST, POLICY)
    assert [i.id for i in found] == [DEFAULT]
    assert problem.subject == "SERVICE_ID"
    assert said in problem.what
    assert str(problem).isprintable()


@pytest.mark.parametrize("wanted", ALLOWED)
def test_an_id_that_is_allowed(wanted: str) -> None:
    """A container may choose what names no other container, and its own default id."""
    found, problems = instances(container(published(80, 8080), labels={"SERVICE_ID": wanted}), HOST, POLICY)
    assert ([i.id for i in found], problems) == ([wanted], ())


@pytest.mark.parametrize(
    ("ports", "labels", "ids"),
    [
        (
            (exposed(80), exposed(81)),
            {"SERVICE_ID": "node1:shop"},
            {"node1:c1:80", "node1:c1:81"},
        ),
        (
            (exposed(80),),
            {"SERVICE_ID": "node1:shop", "SERVICE_NAME": "a,80"},
            {"node1:c1:80", "node1:c1:80:80"},
        ),
        ((exposed(80),), {"SERVICE_80_ID": "node1:shop:80"}, {"node1:c1:80"}),
        ((exposed(80),), {"SERVICE_80_TCP_ID": "node1:shop:80"}, {"node1:c1:80"}),
    ],
    ids=["a port makes it one", "a second name makes it one", "a port's own", "a port's and protocol's own"],
)
def test_what_is_put_behind_an_id_is_looked_at_too(
    ports: tuple[object, ...], labels: dict[str, str], ids: set[str]
) -> None:
    """No combination of keys gives another container's default id."""
    found, problems = instances(container(*ports, labels=labels), HOST, POLICY)  # type: ignore[arg-type]
    assert {i.id for i in found} == ids
    assert {problem.subject for problem in problems} == {"SERVICE_ID"}


@pytest.mark.parametrize(
    ("labels", "inherits"),
    [
        ({}, [True]),
        ({"SERVICE_NAME": "a,b"}, [True, True]),
        ({"SERVICE_ID": DEFAULT}, [True]),
        ({"SERVICE_ID": "mine"}, [False]),
        ({"SERVICE_ID": "node2:c1:80"}, [False]),
        ({"SERVICE_ID": "node1:c1:81"}, [False]),
        ({"SERVICE_ID": "node1:shop:80"}, [True]),
    ],
    ids=str,
)
def test_only_a_default_id_inherits_what_an_earlier_registrator_left(
    labels: dict[str, str], inherits: list[bool]
) -> None:
    """Of its very port, on this node."""
    found, _ = instances(container(exposed(80), labels=labels), HOST, POLICY)
    assert [instance.inherits for instance in found] == inherits


def test_what_is_inherited_makes_no_difference_to_a_plan() -> None:
    """It is not registered, so it is not read back."""
    assert Instance("a", "b", "", 0, inherits=True) == Instance("a", "b", "", 0)


def names(policy: Policy, container: Container) -> list[str]:
    return [instance.service for instance in instances(container, HOST, policy)[0]]


def named(text: str, **labels: str) -> Container:
    return container(exposed(80), labels={"SERVICE_NAME": text, **labels})


@pytest.mark.parametrize("text", ["wpad", "WPAD", "wpad.", " wpad ", "isatap", "LocalHost", "com", "Com."])
def test_names_that_are_denied_from_the_start(text: str) -> None:
    """The machines of a network would believe them, whoever answers."""
    found, problems = instances(named(text), HOST, POLICY)
    assert found == ()
    assert any("may not take the name" in str(problem) for problem in problems)


def test_a_default_name_is_denied_too() -> None:
    """An image, a Compose service and a Swarm's may be called as anybody likes."""
    assert names(POLICY, container(exposed(80), image="evil/wpad:1")) == []
    assert names(POLICY, container(exposed(80), compose_service="wpad")) == []
    assert names(Policy(name_template="wpad"), container(exposed(80))) == []


def test_a_denied_name_spoils_itself() -> None:
    """The container's other name is taken, under the id that it has with one name."""
    (kept,) = instances(named("wpad,web"), HOST, POLICY)[0]
    assert (kept.service, kept.id) == ("web", DEFAULT)


@pytest.mark.parametrize(
    "name", ["consul", "web", "db", "api", "redis", "proxy", "gateway", "net-tools", "comms", "org"]
)
def test_names_that_people_have_are_not_denied(name: str) -> None:
    assert names(POLICY, named(name)) == [name]


def test_the_operators_own_lists() -> None:
    """Globs; what is denied is so though it is allowed; case does not count."""
    policy = Policy(allow_names=("web*", "db"), deny_names=("web-secret", "*-admin"))
    assert [
        n for n in ("web", "Web-2", "db", "DB", "db2", "web-secret", "WEB-Admin") if allows_name(policy, n)
    ] == [
        "web",
        "Web-2",
        "db",
        "DB",
    ]
    assert "wpad" in DENIED_NAMES


def test_a_suffix_counts() -> None:
    """What is looked up is the name with its port."""
    several = container(exposed(80), exposed(81), labels={"SERVICE_NAME": "web"})
    assert names(Policy(deny_names=("web-81",)), several) == ["web-80"]


@pytest.mark.parametrize("tag", ["wpad", "WPAD", "isatap", "wpad.x"])
def test_a_tag_that_would_be_such_a_name(tag: str) -> None:
    """`wpad.web.service.consul` is asked by whoever searches web.service.consul."""
    (found,), (problem,) = instances(named("web", SERVICE_TAGS=f"blue,{tag},v1.2"), HOST, POLICY)
    assert found.tags == ("blue", "v1.2")
    assert problem.subject == "SERVICE_TAGS"


def test_a_tag_that_the_operators_template_takes_from_a_container() -> None:
    """What the operator writes out is the operator's; what a template shows is the container's."""
    policy = Policy(tags='{{index .Config.Labels "team"}},all')
    (found,), problems = instances(named("web", team="wpad,isatap.x,data"), HOST, policy)
    assert found.tags == ("all", "data")
    assert [problem.subject for problem in problems] == ["--tags", "--tags"]
    (found,), problems = instances(named("web"), HOST, Policy(tags="wpad"))
    assert (found.tags, problems) == (("wpad",), ())


def test_an_id_of_another_line_is_one_problem() -> None:
    """However many of its ids are refused."""
    assert refusal(["a/b", "c/d"], container()) is not None
    assert refusal(["a", "b"], container()) is None
