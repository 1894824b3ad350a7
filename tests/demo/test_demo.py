"""What a newcomer sees after `make demo`, and what happens when the demo is played with."""

from __future__ import annotations

import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.demo.__main__ import up
from scripts.demo.proof import GREETING, Front, fetch
from scripts.demo.steps import DemoError
from tests.demo.conftest import LINK_LOCAL, PROJECT, Stage, run_docker, seconds_until, started_at
from tests.support.engine import Docker

pytestmark = [pytest.mark.engine, pytest.mark.demo]

FOLLOWS_WITHIN = 1.0  # seconds, from what happens to a container until lookups show it
CATALOGS = ("embedded", pytest.param("consul", marks=pytest.mark.consul))


def visit(stage: Stage) -> int:
    """Visit a counter that DNS names; its count."""
    address, port = stage.front.endpoint("counter")
    status, body = fetch(f"http://{address}:{port}/")
    greeting = GREETING.fullmatch(body.strip())
    assert status == 200, body
    assert greeting, body
    return int(greeting[1])


@pytest.mark.parametrize("catalog", CATALOGS)
def test_make_demo_shows_a_counter_that_counts_across_both_replicas(stage: Stage, catalog: str) -> None:
    """Ten visits are counted one by one by two containers, in a Redis known by name alone."""
    printed = stage.make_demo(catalog)
    visits = GREETING.findall(printed)
    counts = [int(count) for count, _ in visits]
    assert counts == list(range(counts[0], counts[0] + 10))
    assert len({host for _, host in visits}) == 2
    assert len(re.findall(r"^whoami\.service\.consul\..* A +\S+$", printed, re.MULTILINE)) == 3


def running(stage: Stage) -> list[str]:
    """The demo's containers, each in the life that it is in."""
    names = [
        name for service in ("agent", "redis", "counter", "whoami") for name in stage.containers(service)
    ]
    return run_docker("inspect", "--format", "{{.Id}} {{.State.StartedAt}}", *names).splitlines()


def test_a_second_make_demo_is_quick_and_leaves_the_containers_alone(stage: Stage) -> None:
    """Nothing is built, fetched or started twice, and the count goes on."""
    stage.up()
    before, count = running(stage), visit(stage)
    began = time.monotonic()
    printed = stage.make_demo()
    assert time.monotonic() - began < 20
    assert running(stage) == before
    assert f"visitor {count + 1} " in printed


@pytest.mark.parametrize("catalog", CATALOGS)
def test_a_killed_container_is_out_of_lookups_within_a_second(stage: Stage, catalog: str) -> None:
    stage.up(catalog)
    victim = stage.containers("whoami")[0]
    began = time.time()
    run_docker("kill", victim)
    assert seconds_until(lambda: stage.front.instances("whoami") == 2, began) < FOLLOWS_WITHIN
    run_docker("start", victim)
    assert seconds_until(lambda: stage.front.instances("whoami") == 3, started_at(victim)) < FOLLOWS_WITHIN


@pytest.mark.parametrize("catalog", CATALOGS)
def test_a_paused_container_is_out_of_lookups_within_a_second_and_back_as_soon(
    stage: Stage, catalog: str
) -> None:
    stage.up(catalog)
    victim = stage.containers("whoami")[0]
    began = time.time()
    run_docker("pause", victim)
    try:
        assert seconds_until(lambda: stage.front.instances("whoami") == 2, began) < FOLLOWS_WITHIN
    finally:
        began = time.time()
        run_docker("unpause", victim)
    assert seconds_until(lambda: stage.front.instances("whoami") == 3, began) < FOLLOWS_WITHIN


@pytest.mark.parametrize("catalog", CATALOGS)
def test_new_replicas_are_in_lookups_within_a_second(stage: Stage, catalog: str) -> None:
    """Scaled from three to five while lookups go on; then back."""
    stage.up(catalog)
    with ThreadPoolExecutor(1) as pool:
        began = time.time()
        scaling = pool.submit(stage.scale, "whoami", 5)
        seen = began + seconds_until(lambda: stage.front.instances("whoami") == 5, began, limit=30)
        scaling.result()
    last = max(started_at(container) for container in stage.containers("whoami"))
    assert seen - last < FOLLOWS_WITHIN
    began = time.time()
    stage.scale("whoami", 3)
    seconds_until(lambda: stage.front.instances("whoami") == 3, began)


def test_the_count_goes_on_after_redis_was_restarted(stage: Stage) -> None:
    """Its data are in a volume, and each counter finds it again by name."""
    stage.up()
    count = visit(stage)
    (redis,) = stage.containers("redis")
    run_docker("restart", redis)
    seconds_until(lambda: bool(stage.front.instances("redis")), time.time())
    assert [visit(stage), visit(stage)] == [count + 1, count + 2]


def test_a_container_finds_the_others_by_its_own_resolver(stage: Stage) -> None:
    """The counter's `dns:` line is all it takes, and the address is one on a network that it shares."""
    stage.up()
    (redis,) = stage.containers("redis")
    shared = run_docker(
        "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", redis
    )
    lookup = "import socket; print(socket.gethostbyname('redis.service.consul'))"
    assert run_docker("exec", stage.containers("counter")[0], "python3", "-c", lookup) == shared


def test_the_agent_runs_as_a_user_with_two_capabilities(stage: Stage) -> None:
    """Where the engine's socket has a group; the image's health check finds the agent well."""
    stage.up()
    (agent,) = stage.containers("agent")
    status = dict(
        line.split(":\t", 1)
        for line in run_docker("exec", agent, "cat", "/proc/1/status").splitlines()
        if ":\t" in line
    )
    assert status["Uid"].split("\t")[0] != "0"
    net_admin, net_bind_service = 1 << 12, 1 << 10
    assert int(status["CapEff"], 16) == net_admin | net_bind_service
    run_docker("exec", agent, "python3", "/opt/registrator/healthcheck.py")


@pytest.mark.consul
def test_with_consul_the_services_are_in_it_and_in_its_ui(stage: Stage) -> None:
    """`make demo CATALOG=consul` prints where the UI is; Consul's own DNS answers too."""
    stage.up("consul")
    printed = stage.make_demo("consul")
    (ui,) = re.findall(r"http://\S+/ui/", printed)
    assert "<html" in fetch(ui)[1].lower()
    services = stage.demo.consul.get("/v1/catalog/services")
    assert set(services) >= {"redis", "counter", "whoami"}
    consul = Front(f"127.0.0.1:{stage.demo.consul.dns_port}", stage.demo.http)
    assert len(consul.addresses("whoami")) == 3


@pytest.mark.consul
def test_down_removes_all_that_was_made_and_nothing_else(stage: Stage, docker: Docker) -> None:
    """Containers, network, volume, images, Consul, the loopback's address; a stranger's container stays."""
    stranger = docker.run(labels={"com.docker.compose.project": "somebody-else"})
    stage.up("consul")
    url = stage.demo.consul.url
    stage.down()
    assert not [line for line in belongings() if PROJECT in line]
    assert LINK_LOCAL not in Path("/proc/net/fib_trie").read_text()
    with pytest.raises(OSError, match="refused"):
        fetch(url)
    assert not stage.demo.consul.folder.exists()
    assert docker.inspect(stranger)["State"]["Running"]


def test_an_address_in_use_is_told_in_one_line_before_anything_is_made(stage: Stage) -> None:
    stage.down()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        demo = replace(stage.demo, http=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(DemoError, match=r"cannot be had .* make demo DEMO_HTTP=ADDR:PORT$"):
            up(demo, "embedded", time.time())
    assert not [line for line in belongings() if PROJECT in line]


def belongings() -> list[str]:
    """Everything on the engine, a line each, with names and labels."""
    return [
        line
        for what, names in (
            ("container ls --all", "{{.Names}}"),
            ("network ls", "{{.Name}}"),
            ("volume ls", "{{.Name}}"),
            ("image ls --all", "{{.Repository}}"),
        )
        for line in run_docker(*what.split(), "--format", names).splitlines()
    ]
