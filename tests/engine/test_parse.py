"""Docker's documents become the model's words, whatever is missing or odd in them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.engine.parse import (
    OUTPUT_LIMIT,
    parse_event,
    parse_info,
    parse_inspect,
    parse_listed,
    signal_number,
)
from registrator.model import Attachment, Binding, Container, Engine, Event, Port, Task
from registrator.shapes import Malformed
from tests.engine.documents import ID, LABELS, event, inspected, listed, network

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


def test_a_plain_container_has_nulls_for_all_that_it_lacks() -> None:
    """A container without labels, ports or networks is what Docker says with null everywhere."""
    assert parse_inspect(inspected()) == Container(id=ID, name="web", image="nginx:1", state="running")


@pytest.mark.parametrize(
    ("told", "started"),
    [
        ("2026-11-20T22:11:04.123456789Z", "2026-11-20T22:11:04Z"),
        ("2026-11-20T22:11:04Z", "2026-11-20T22:11:04Z"),
        ("0001-01-01T00:00:00Z", ""),
        ("yesterday", ""),
        (7, ""),
        (None, ""),
    ],
)
def test_since_when_it_runs_is_told_to_the_second(told: object, started: str) -> None:
    assert parse_inspect(inspected(state={"StartedAt": told})).started == started


def test_ports_are_the_union_of_exposed_and_published() -> None:
    """Exposed and published ports make one list, by number and protocol, with all bindings, IPv4 first."""
    container = parse_inspect(
        inspected(
            config={"ExposedPorts": {"443/tcp": {}, "53/udp": {}, "80/tcp": {}}},
            ports={
                "80/tcp": [{"HostIp": "::", "HostPort": "8080"}, {"HostIp": "0.0.0.0", "HostPort": "8080"}],
                "53/udp": None,
                "53/tcp": [
                    {"HostIp": "127.0.0.1", "HostPort": "5353"},
                    {"HostIp": "127.0.0.1", "HostPort": "53"},
                ],
            },
        )
    )
    assert container.ports == (
        Port(53, "tcp", (Binding("127.0.0.1", 53), Binding("127.0.0.1", 5353))),
        Port(53, "udp"),
        Port(80, "tcp", (Binding("0.0.0.0", 8080), Binding("::", 8080))),
        Port(443, "tcp"),
    )


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        pytest.param({"8080": []}, (Port(8080),), id="a port without a protocol is TCP"),
        pytest.param(
            {"http/tcp": [], "0/tcp": [], "65536/tcp": [], "٣/tcp": []}, (), id="what is no port is left out"
        ),
        pytest.param(
            {"80/../../x": [], "80/a:b": [], "80/tcp/x": [], "80/0": [], "81/UDP": []},
            (Port(81, "udp"),),
            id="what is no protocol is left out",
        ),
        pytest.param(
            {"80/tcp": [{"HostIp": "", "HostPort": "81"}]},
            (Port(80, "tcp", (Binding("0.0.0.0", 81),)),),
            id="no host address is every one",
        ),
        pytest.param(
            {"80/tcp": [{"HostIp": "1.2.3.4", "HostPort": ""}, {"HostIp": "x", "HostPort": "1"}, 7]},
            (Port(80),),
            id="a binding without a port or with a bad address is none",
        ),
        pytest.param(
            {"80/tcp": [{"HostIp": "2001:DB8:0::1", "HostPort": "81"}]},
            (Port(80, "tcp", (Binding("2001:db8::1", 81),)),),
            id="addresses are canonical",
        ),
    ],
)
def test_ports(ports: dict[str, Any], expected: tuple[Port, ...]) -> None:
    assert parse_inspect(inspected(ports=ports)).ports == expected


def test_networks_are_those_with_an_address() -> None:
    """Networks come by name, with canonical addresses; one without an id or any address is no place to be."""
    container = parse_inspect(
        inspected(
            networks={
                "zoo": network("n2", "10.1.0.2", "FD00:0::5"),
                "app": network("n1", "", "fd00::6"),
                "gone": network("n3"),
                "starting": network("", "10.2.0.2"),
                "odd": network("n4", "not an address"),
                "null": None,
            }
        )
    )
    assert container.networks == (
        Attachment("app", "n1", "", "fd00::6"),
        Attachment("zoo", "n2", "10.1.0.2", "fd00::5"),
    )


@pytest.mark.parametrize(
    ("said", "mode"),
    [
        ("default", "bridge"),
        ("", "bridge"),
        ("host", "host"),
        ("none", "none"),
        ("container:ab", "container:ab"),
    ],
)
def test_network_mode(said: str, mode: str) -> None:
    """Docker has another name for the bridge: default."""
    assert parse_inspect(inspected(network_mode=said)).network_mode == mode


def test_environment() -> None:
    """The environment is a mapping: without "=" the value is empty, the last of equal names wins."""
    env = ["A=1", "B", "A=2=3", "=x", "", None]
    assert parse_inspect(inspected(config={"Env": env})).env == {"A": "2=3", "B": ""}


def test_labels_that_are_no_text_are_left_out() -> None:
    """A label is text to text; anything else is as good as absent."""
    assert parse_inspect(inspected(config={"Labels": {"a": "b", "c": 1, "d": None}})).labels == {"a": "b"}


@pytest.mark.parametrize(
    ("health", "status", "output"),
    [
        pytest.param(None, "", "", id="no HEALTHCHECK"),
        pytest.param({"Status": "none", "Log": None}, "", "", id="a HEALTHCHECK that was disabled"),
        pytest.param({"Status": "starting", "Log": []}, "starting", "", id="before the first probe"),
        pytest.param(
            {"Status": "unhealthy", "Log": [{"Output": "one"}, {"Output": " two\n"}]},
            "unhealthy",
            "two",
            id="the last probe's output",
        ),
        pytest.param(
            {"Status": "healthy", "Log": [{"Output": "x" * 9000}]},
            "healthy",
            "x" * OUTPUT_LIMIT,
            id="a long output is cut",
        ),
    ],
)
def test_health(health: object, status: str, output: str) -> None:
    container = parse_inspect(inspected(state={"Health": health}))
    assert (container.health, container.health_output) == (status, output)


@pytest.mark.parametrize(
    ("said", "number"),
    [
        *((spelling, 15) for spelling in ("15", 15, "SIGTERM", "TERM", "sigterm")),
        ("SIGRTMIN+3", 37),
        ("RTMAX-1", 63),
        ("SIGRTMIN", 34),
        ("USR1", 10),
        ("SIGPOLL", 29),
        *((nonsense, 0) for nonsense in ("", "SIGNONE", "99", "-1", "0", "TERM+x", "RTMAX+1", "SIGSIGTERM")),
        (None, 0),
        (True, 0),
        (1.5, 0),
        ([], 0),
    ],
)
def test_signals(said: object, number: int) -> None:
    """A signal is told by number or name, with or without SIG, and real-time ones by an offset."""
    assert signal_number(said) == number


@pytest.mark.parametrize(
    ("config", "signum", "timeout"),
    [
        ({}, 15, 10.0),
        ({"StopSignal": "SIGQUIT", "StopTimeout": 30}, 3, 30.0),
        ({"StopSignal": "nonsense", "StopTimeout": "30"}, 15, 10.0),
        ({"StopTimeout": 0}, 15, 0.0),
        ({"StopTimeout": -1}, 15, math.inf),
    ],
)
def test_stopping(config: dict[str, Any], signum: int, timeout: float) -> None:
    """The stop signal and grace period have Docker's defaults; -1 is for ever."""
    container = parse_inspect(inspected(config=config))
    assert (container.stop_signal, container.stop_timeout) == (signum, timeout)


def test_exit_code() -> None:
    """The exit code is the process's own."""
    assert parse_inspect(inspected(state={"Status": "exited", "ExitCode": 137})).exit_code == 137


def test_compose_identity() -> None:
    """Compose's labels tell service and project."""
    labels = {"com.docker.compose.service": "web", "com.docker.compose.project": "shop"}
    container = parse_inspect(inspected(config={"Labels": labels}))
    assert (container.compose_service, container.compose_project) == ("web", "shop")


@pytest.mark.parametrize(
    ("changes", "slot"),
    [
        pytest.param({}, "3", id="a replicated service: the slot, although the service's name has a dot"),
        pytest.param(
            {"com.docker.swarm.task.name": "shop_web.front.node1.task1"},
            "node1",
            id="a global service: the node",
        ),
        pytest.param({"com.docker.swarm.task.name": ""}, "", id="no name"),
    ],
)
def test_swarm_task(changes: dict[str, str], slot: str) -> None:
    task = parse_inspect(inspected(config={"Labels": LABELS | changes})).task
    assert task == Task("shop_web.front", "svc1", "task1", slot, "node1", "shop")


def test_a_container_of_no_task_has_none() -> None:
    """A container outside Swarm, or with half of its labels, is no task."""
    assert parse_inspect(inspected()).task is None
    assert parse_inspect(inspected(config={"Labels": {"com.docker.swarm.task.id": "t"}})).task is None


# Listing ------------------------------------------------------------------


@pytest.mark.parametrize(
    "same",
    [
        pytest.param(listed(Status="Up 3 hours (healthy)"), id="time goes on"),
        pytest.param(listed(Ports=listed()["Ports"][::-1]), id="ports come in another order"),
        pytest.param(listed(Image="sha256:ab"), id="the image's tag moved on"),
        pytest.param(
            listed(Health={"Status": "healthy", "FailingStreak": 0}), id="API 1.52 says health twice"
        ),
    ],
)
def test_a_fingerprint_stays(same: dict[str, Any]) -> None:
    assert parse_listed(same) == parse_listed(listed())


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(listed(Names=["/web2"]), id="another name"),
        pytest.param(listed(State="paused", Status="Up 2 minutes (Paused)"), id="paused"),
        pytest.param(listed(Status="Up 2 minutes (unhealthy)"), id="unhealthy"),
        pytest.param(listed(Status="Up 2 minutes (health: starting)"), id="starting"),
        pytest.param(listed(Status="Up 2 minutes"), id="no health"),
        pytest.param(listed(Labels={}), id="other labels"),
        pytest.param(listed(Ports=[]), id="other ports"),
        pytest.param(
            listed(NetworkSettings={"Networks": {"bridge": network("n1", "172.17.0.3")}}),
            id="another address",
        ),
        pytest.param(
            listed(NetworkSettings={"Networks": {"bridge": network("n2", "172.17.0.2")}}),
            id="another network",
        ),
        pytest.param(listed(NetworkSettings=None), id="no network"),
    ],
)
def test_a_fingerprint_changes(other: dict[str, Any]) -> None:
    assert parse_listed(other).id == ID
    assert parse_listed(other) != parse_listed(listed())


# Events -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (event("container", "start"), Event(ID, "start")),
        (event("container", "health_status: unhealthy"), Event(ID, "health_status")),
        (event("container", "kill", signal="15"), Event(ID, "kill", 15)),
        (event("container", "kill", signal="SIGQUIT"), Event(ID, "kill", 3)),
        (event("container", "kill"), Event(ID, "kill", 0)),
        (event("container", "die", exitCode="1", signal="9"), Event(ID, "die", 0)),
        (event("network", "connect", "n1", container=ID), Event(ID, "connect")),
        (event("network", "disconnect", "n1", container=ID), Event(ID, "disconnect")),
        (event("network", "destroy", "n1"), None),
        (event("network", "connect", "n1"), None),
        (event("container", "connect"), None),
        (event("container", "exec_start: sh -c true"), None),
        (event("container", "start", ""), None),
        (event("volume", "destroy"), None),
        ({"status": "start", "id": ID}, None),
    ],
)
def test_events(document: dict[str, Any], expected: Event | None) -> None:
    """An event wakes the container that it is about; others wake nobody."""
    assert parse_event(document) == expected


# The node -----------------------------------------------------------------


def test_info() -> None:
    """A manager's /info tells its place in the Swarm."""
    swarm = {"NodeID": "n1", "NodeAddr": "10.78.0.1", "ControlAvailable": True, "Cluster": {"ID": "c1"}}
    assert parse_info({"ID": "E1", "Name": "host", "Swarm": swarm}) == Engine(
        "E1", "host", "n1", "10.78.0.1", manager=True, cluster_id="c1"
    )


def test_info_outside_a_swarm() -> None:
    """An engine of no Swarm has an id and a name."""
    swarm = {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": False}
    assert parse_info({"ID": "E1", "Name": "host", "Swarm": swarm}) == Engine("E1", "host")


def test_info_without_an_id_is_an_error() -> None:
    """Ownership rests on the id: an empty one would claim what is another's."""
    with pytest.raises(Malformed, match="without an ID"):
        parse_info({"ID": "", "Name": "host"})


# Anything -----------------------------------------------------------------


def _odd(document: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A real document with anything at all in place of any of its parts."""
    parts = {
        key: JSON | (_odd(value) if isinstance(value, dict) and value else st.just(value))
        for key, value in document.items()
    }
    return st.fixed_dictionaries({}, optional=parts)


REAL = inspected(
    config={
        "Labels": LABELS,
        "Env": ["A=1"],
        "ExposedPorts": {"80/tcp": {}},
        "StopSignal": "TERM",
        "StopTimeout": 3,
    },
    state={"Health": {"Status": "healthy", "Log": [{"Output": "ok"}]}},
    ports={"80/tcp": [{"HostIp": "::", "HostPort": "8080"}]},
    networks={"bridge": network("n1", "172.17.0.2")},
)
NODE = {
    "ID": "E1",
    "Name": "host",
    "Swarm": {"NodeID": "n1", "NodeAddr": "10.78.0.1", "ControlAvailable": True},
}


@pytest.mark.parametrize(
    ("parse", "document"),
    [
        (parse_inspect, REAL),
        (parse_listed, listed()),
        (parse_info, NODE),
        (parse_event, event("container", "kill", signal="15")),
    ],
)
def test_any_json_is_understood_or_malformed(parse: Any, document: dict[str, Any]) -> None:
    """Whatever JSON an engine sends, a parser returns or raises `Malformed`, nothing else."""

    @given(JSON | _odd(document))
    def check(odd: object) -> None:
        try:
            result = parse(odd)
        except Malformed:
            return
        hash(result) if not isinstance(result, Container) else repr(result)

    check()
