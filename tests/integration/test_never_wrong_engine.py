"""Never wrong for longer than a second: an engine that is restarted, is cut off, fails or hangs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest

from tests.support.consul import ConsulServer
from tests.support.engine import STUBBORN, Docker, PrivateEngine, wait_for
from tests.support.proxy import CUT_OFF, EMPTY, HANG, NO_JSON, Fault, Proxy, status
from tests.support.truth import SECOND, Stage, at_once, srv_ports

pytestmark = [pytest.mark.engine, pytest.mark.consul]

LISTING = r"^GET /v[0-9.]+/containers/json"
INSPECT = r"^GET /v[0-9.]+/containers/[0-9a-f]{64}/json"
EVENTS = r"^GET /v[0-9.]+/events"
# An engine that hangs is given up after 10 s; here after 1.
IMPATIENT = """
from registrator.engine import DockerEngine
DockerEngine.__init__.__kwdefaults__["timeout"] = 1.0
"""


@pytest.fixture
def proxy(tmp_path: Path, engine_url: str) -> Iterator[Proxy]:
    proxy = Proxy(engine_url, tmp_path / "docker.sock")
    yield proxy
    proxy.close()


@pytest.fixture
def stage(tmp_path: Path, docker: Docker, consul: ConsulServer, proxy: Proxy) -> Iterator[Stage]:
    """A ready agent that speaks to the engine through the proxy, with three containers of `kept`."""
    stage = Stage(tmp_path, docker, consul, engine_url=proxy.url, code=IMPATIENT)
    try:
        for _ in range(3):
            stage.start("kept")
        stage.agent.start_ready()
        stage.settle()
        yield stage
    finally:
        stage.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_dockerd_is_restarted_and_its_containers_come_back_on_other_ports(
    tmp_path: Path, private_engine: PrivateEngine, consul: ConsulServer, number: signal.Signals
) -> None:
    """After a crash lookups have what there was until it is back; in the end the ended are gone."""
    docker = Docker(private_engine.url)
    with ExitStack() as stack:
        stack.callback(docker.api.close)
        stage = Stage(tmp_path, docker, consul)
        stack.callback(stage.close)
        published = {"ports": {"80/tcp": None}, "labels": {"SERVICE_PORT": "80"}}
        at_once(lambda _: stage.start("gone", **published), range(2), 2)
        stay = at_once(
            lambda _: stage.start("stays", restart_policy={"Name": "always"}, **published), range(4), 2
        )
        stage.agent.start_ready()
        stage.settle()
        before = {instance.id: instance.port for instance in stage.registered().values()}
        with stage.lookups_going_on("stays") if number == signal.SIGKILL else nullcontext():
            private_engine.kill(number)
            private_engine.start()
            wait_for(lambda: _running(docker) == set(stay), "end of the others", 20)
            stage.settle()
        after = {instance.id: instance.port for instance in stage.registered().values()}
        assert len(after) == 4
        assert any(after[key] != before[key] for key in after), "no port is another: this shows nothing"


def test_the_event_stream_is_cut_again_and_again_in_a_burst(stage: Stage, proxy: Proxy) -> None:
    over = threading.Event()
    cuts = 0

    def cut() -> None:
        nonlocal cuts
        while not over.wait(0.25):
            cuts += proxy.cut(EVENTS)

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        stage.churn([{"service": f"churn-{n % 3}"} for n in range(40)], workers=4)
    finally:
        over.set()
        thread.join()
    assert cuts > 3
    stage.settle()


def test_a_survivor_of_its_stop_signal_is_not_drained_again_by_a_new_subscription(
    stage: Stage, proxy: Proxy
) -> None:
    """The engine tells old events again when asked for them: that signal was outlived long ago."""
    survivor = stage.start("stubborn", command=STUBBORN, stop_timeout=1)
    stage.settle()
    stage.docker.kill(survivor, signal.SIGTERM)
    wait_for(lambda: not srv_ports(stage.agent, "stubborn"), "drained survivor", SECOND)
    stage.settle(within=1.5 + SECOND)
    with stage.lookups_going_on("stubborn"):
        asked = proxy.count(EVENTS)
        assert proxy.cut(EVENTS) == 1
        wait_for(lambda: proxy.count(EVENTS) > asked, "new subscription")
        stage.settle()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(HANG, id="hangs"),
        pytest.param(CUT_OFF, id="is cut off"),
        pytest.param(NO_JSON, id="is garbage"),
        pytest.param(EMPTY, id="is empty"),
        pytest.param(status(500, '{"message":"deadlock"}'), id="is an error"),
        pytest.param(status(404, "<html>no such page</html>"), id="is a proxy's page"),
    ],
)
@pytest.mark.parametrize("path", [pytest.param(LISTING, id="listing"), pytest.param(INSPECT, id="inspect")])
def test_a_read_that_fails_takes_nothing_out(stage: Stage, proxy: Proxy, path: str, fault: Fault) -> None:
    """Whatever the engine answers to a listing or an inspect; and when it is over, all is true at once."""
    docker, (first, second, _) = stage.docker, stage.containers["kept"]
    writes = stage.agent.metric('registrator_catalog_writes_total{kind="deregister"}')
    with proxy.failing(path, fault), stage.lookups_going_on("kept"):
        asked, subscribed = proxy.count(path), proxy.count(EVENTS)
        proxy.cut(EVENTS)
        # An update shows in no listing: between two subscriptions nobody would hear of it.
        wait_for(lambda: proxy.count(EVENTS) > subscribed, "new subscription")
        docker.api.update_container(first, cpu_shares=512)
        wait_for(lambda: proxy.count(path) >= asked + 2, "second try")
        assert stage.agent.metric('registrator_catalog_writes_total{kind="deregister"}') == writes
    docker.kill(second)
    stage.start("new")
    stage.settle()


def test_a_container_whose_inspect_hangs_holds_up_none_of_the_others(stage: Stage, proxy: Proxy) -> None:
    """The agent starts anew, and adopts: the others are true within a second, the stuck one is left alone."""
    stuck = stage.containers["kept"][0]
    stage.agent.stop(signal.SIGKILL)
    killed = stage.containers["kept"][1]
    with proxy.failing(INSPECT.replace("[0-9a-f]{64}", stuck), HANG):
        stage.docker.kill(killed)
        stage.start("new")
        stage.agent.start_ready()
        stage.settle()
    stage.docker.kill(stuck)
    stage.settle()


@pytest.mark.parametrize("hour", ["00", "23"])
def test_the_engines_clock_is_far_off(
    tmp_path: Path, docker: Docker, consul: ConsulServer, proxy: Proxy, hour: str
) -> None:
    """It stepped after it was asked for the time: `since` is far in its past, or in its future."""
    date = f"Date: Fri, 20 Nov {'2020' if hour == '00' else '2099'} {hour}:00:00 GMT"
    ping = Fault(f"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\n{date}\r\nContent-Length: 2\r\n\r\nOK")
    with ExitStack() as stack:
        stack.enter_context(proxy.failing("/_ping", ping))
        stage = Stage(tmp_path, docker, consul, engine_url=proxy.url)
        stack.callback(stage.close)
        stage.start("changing")
        stage.agent.start_ready()
        stage.settle()
        stage.change("changing")
        stage.settle()


def _running(docker: Docker) -> set[str]:
    return {row["Id"] for row in docker.api.containers()}
