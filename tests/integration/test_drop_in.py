"""gliderlabs/registrator's command line, for real: what it would have registered is what is there.

Each row is a container and what registrator 7.4 makes of it: ids, names, tags,
ports, addresses and Meta. Ours adds to Meta its own `registrator-…` keys, and
addresses under TaggedAddresses; nothing else may differ.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from registrator.model import META_OWNER
from scripts import locks
from scripts.demo import images
from scripts.demo.steps import DemoError
from tests.support import unavailable
from tests.support.consul import ConsulServer
from tests.support.engine import IMAGE, Docker, unique, wait_for

pytestmark = [pytest.mark.engine, pytest.mark.consul]

NODE_IP = "192.0.2.1"
PROJECT = "registrator-test"
ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "migrating-from-registrator.md"

Expected = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A container, and what registrator makes of it.

    `expected` gives the services from the container's name, its published
    ports (by "80/tcp") and its address; ids come as the part after
    "<host>:<container>:".
    """

    what: str
    options: tuple[str, ...]
    run: Mapping[str, Any]
    expected: Callable[[Mapping[str, int], str], dict[str, Expected]] = field(repr=False)


def service(name: str, port: int, address: str = NODE_IP, *tags: str, **meta: str) -> Expected:
    return {"Service": name, "Port": port, "Address": address, "Tags": list(tags), "Meta": meta}


ROWS = [
    Row(
        "a published port, named after the image",
        (),
        {"ports": {"80/tcp": 0}},
        lambda at, _: {"80": service("busybox", at["80/tcp"])},
    ),
    Row(
        "several ports have a suffix each, and udp a tag",
        (),
        {"ports": {"80/tcp": 0, "53/udp": 0}},
        lambda at, _: {
            "80": service("busybox-80", at["80/tcp"]),
            "53:udp": service("busybox-53", at["53/udp"], NODE_IP, "udp"),
        },
    ),
    Row(
        "a name, tags and metadata, from labels and the environment, where labels win",
        (),
        {
            "ports": {"80/tcp": 0},
            "labels": {"SERVICE_NAME": "web", "SERVICE_TAGS": r"a,b\,c,,", "SERVICE_REGION": "eu"},
            "env": {"SERVICE_NAME": "other", "SERVICE_OWNER": "me"},
        },
        lambda at, _: {"80": service("web", at["80/tcp"], NODE_IP, "a", "b,c", region="eu", owner="me")},
    ),
    Row(
        "a port's own keys beat the container's, and leave out the suffix",
        (),
        {
            "ports": {"80/tcp": 0, "443/tcp": 0},
            "labels": {"SERVICE_NAME": "web", "SERVICE_443_NAME": "secure", "SERVICE_443_TAGS": "tls"},
        },
        lambda at, _: {
            "80": service("web-80", at["80/tcp"]),
            "443": service("secure", at["443/tcp"], NODE_IP, "tls"),
        },
    ),
    Row(
        "an ignored port counts for the suffix",
        (),
        {"ports": {"80/tcp": 0, "81/tcp": 0}, "labels": {"SERVICE_81_IGNORE": "true"}},
        lambda at, _: {"80": service("busybox-80", at["80/tcp"])},
    ),
    Row(
        "an ignored container",
        (),
        {"ports": {"80/tcp": 0}, "labels": {"SERVICE_IGNORE": "1"}},
        lambda *_: {},
    ),
    Row(
        "-tags for all",
        ("-tags", "prod,eu"),
        {"ports": {"80/tcp": 0}, "labels": {"SERVICE_TAGS": "a"}},
        lambda at, _: {"80": service("busybox", at["80/tcp"], NODE_IP, "a", "eu", "prod")},
    ),
    Row(
        "-tags with a template",
        ("-tags", '{{.Config.Image}},{{index .Config.Labels "team"}}'),
        {"ports": {"80/tcp": 0}, "labels": {"team": "blue"}},
        lambda at, _: {"80": service("busybox", at["80/tcp"], NODE_IP, "blue", IMAGE)},
    ),
    Row(
        "-internal registers the container's address and the exposed port",
        ("-internal",),
        {"ports": {"80/tcp": 0}, "expose": ["81/tcp"]},
        lambda _, ip: {"80": service("busybox-80", 80, ip), "81": service("busybox-81", 81, ip)},
    ),
    Row(
        "-explicit leaves out what has no name",
        ("-explicit",),
        {"ports": {"80/tcp": 0, "81/tcp": 0}, "labels": {"SERVICE_81_NAME": "web"}},
        lambda at, _: {"81": service("web", at["81/tcp"])},
    ),
    Row(
        "the host's network: the exposed port",
        (),
        {"expose": ["8080/tcp"], "network_mode": "host"},
        lambda *_: {"8080": service("busybox", 8080)},
    ),
    Row(
        "-useIpFromLabel, whose prefix length is dropped",
        ("-useIpFromLabel", "lan.ip"),
        {"ports": {"80/tcp": 0}, "labels": {"lan.ip": "10.1.2.3/24"}},
        lambda at, _: {"80": service("busybox", at["80/tcp"], "10.1.2.3")},
    ),
    Row(
        "the image gives the name, whatever Compose calls the service",
        (),
        {"ports": {"80/tcp": 0}, "labels": {"com.docker.compose.service": "front"}},
        lambda at, _: {"80": service("busybox", at["80/tcp"])},
    ),
    Row(
        "SERVICE_ID",
        (),
        {"ports": {"80/tcp": 0}, "labels": {"SERVICE_ID": "{name}-mine"}},
        lambda at, _: {"{name}-mine": service("busybox", at["80/tcp"])},
    ),
]  # fmt: skip


@contextmanager
def registrator(folder: Path, docker: str, *arguments: str) -> Iterator[Path]:
    """`registrator <arguments>` with DOCKER_HOST, as its users run it; yields its log."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("REGISTRATOR_", "CONSUL_"))}
    # The two servers that the old one did not have: their ports may be taken by another test.
    quiet = {"REGISTRATOR_DNS": "off", "REGISTRATOR_HTTP": "off"}
    path = folder / "registrator.log"
    with path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "registrator", *arguments],
            env={**clean, **quiet, "DOCKER_HOST": docker},
            stdout=log,
            stderr=log,
        )
    try:
        yield path
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def shared(consul_shared: ConsulServer) -> Iterator[ConsulServer]:
    """The session's Consul, without what was registered there when the test is over."""
    yield consul_shared
    for key, document in consul_shared.get("/v1/agent/services").items():
        if META_OWNER in document["Meta"]:
            consul_shared.put(f"/v1/agent/service/deregister/{key}")


def registered(consul: ConsulServer, container: str, extra: tuple[str, ...] = ()) -> dict[str, Expected]:
    """What Consul's agent holds of a container (or under other ids), without what ours adds."""
    found = {}
    for key, document in consul.get("/v1/agent/services").items():
        _, _, rest = key.partition(f":{container}:")
        if rest or key in extra:
            kept = {field: document[field] for field in ("Service", "Port", "Address", "Tags")}
            meta = {k: v for k, v in document["Meta"].items() if not k.startswith("registrator-")}
            found[rest or key] = {**kept, "Meta": meta}
    return found


@pytest.mark.parametrize("row", ROWS, ids=[row.what for row in ROWS])
def test_what_registrator_registers(
    row: Row, tmp_path: Path, engine_url: str, docker: Docker, shared: ConsulServer
) -> None:
    name = unique("old")
    labels = {k: v.format(name=name) for k, v in row.run.get("labels", {}).items()}
    container = docker.run(name, **{**row.run, "labels": labels})
    ports = docker.inspect(container)["NetworkSettings"]["Ports"]
    published = {port: int(to[0]["HostPort"]) for port, to in ports.items() if to}
    address = docker.address(container) if "network_mode" not in row.run else ""
    wanted = {k.format(name=name): v for k, v in row.expected(published, address).items()}
    uri = f"consul://127.0.0.1:{shared.http_port}"
    with registrator(tmp_path, engine_url, "-ip", NODE_IP, *row.options, uri) as log:
        wait_for(lambda: "ready:" in log.read_text(), f"readiness, says {log}", 20)
        assert registered(shared, name, tuple(wanted)) == wanted


@pytest.mark.parametrize("forced", ["", NODE_IP])
def test_a_port_published_at_one_of_the_nodes_addresses(
    forced: str, tmp_path: Path, engine_url: str, docker: Docker, shared: ConsulServer
) -> None:
    """It is registered there, unless -ip says otherwise."""
    name = unique("old")
    gateway = docker.inspect(docker.run())["NetworkSettings"]["Networks"]["bridge"]["Gateway"]
    container = docker.run(name, ports={"80/tcp": (gateway, 0)})
    uri = f"consul://127.0.0.1:{shared.http_port}"
    with registrator(tmp_path, engine_url, *(("-ip", forced) if forced else ()), uri):
        found = wait_for(lambda: registered(shared, name), "instance", 20)
    assert found == {"80": service("busybox", docker.published(container, "80/tcp"), forced or gateway)}


def leave_behind(consul: ConsulServer, key: str, name: str) -> None:
    """A service with a check, as registrator registers it."""
    check = {"HTTP": "http://127.0.0.1:1/", "Interval": "10s"}
    consul.put("/v1/agent/service/register", {"ID": key, "Name": name, "Port": 1, "Check": check})


def test_what_the_old_one_registered_is_taken_over(
    tmp_path: Path, engine_url: str, docker: Docker, shared: ConsulServer
) -> None:
    """Under the same id, its check replaced; there is no moment without the service."""
    name = unique("old")
    container = docker.run(name, ports={"80/tcp": 0}, labels={"SERVICE_CHECK_TTL": "600s"})
    key = f"{docker.api.info()['Name']}:{name}:80"
    leave_behind(shared, key, "busybox")
    uri = f"consul://127.0.0.1:{shared.http_port}"
    with registrator(tmp_path, engine_url, "-ip", NODE_IP, uri) as log:
        wait_for(lambda: "ready:" in log.read_text(), f"readiness, says {log}", 20)
        port = docker.published(container, "80/tcp")
        assert registered(shared, name) == {"80": service("busybox", port)}
        assert META_OWNER in shared.get("/v1/agent/services")[key]["Meta"]
        mine = {k: c["Type"] for k, c in shared.get("/v1/agent/checks").items() if c["ServiceID"] == key}
        assert mine == {f"service:{key}": "ttl"}


def test_what_the_old_one_left_behind_is_found_by_the_recipe(
    tmp_path: Path, engine_url: str, docker: Docker, shared: ConsulServer
) -> None:
    """The guide's line prints the old ids that ours has not taken over, and nobody else's."""
    if shutil.which("jq") is None:
        unavailable("needs jq, which the guide's recipe uses (Debian: apt-get install jq)")
    name = unique("old")
    docker.run(name, ports={"80/tcp": 0})
    dangling = {f"0123456789ab:{name}:80", f"node7:{name}:53:udp"}
    foreign = {"vault:10.0.0.1:8200:x", "web", "node7:web"}
    for key in (*dangling, *foreign, f"{docker.api.info()['Name']}:{name}:80"):
        leave_behind(shared, key, "theirs")
    (line,) = re.findall(r"^\$ (curl .* \| jq .*)$", GUIDE.read_text(), re.MULTILINE)
    try:
        with registrator(tmp_path, engine_url, f"consul://127.0.0.1:{shared.http_port}") as log:
            wait_for(lambda: "ready:" in log.read_text(), f"readiness, says {log}", 20)
            command = line.replace("http://127.0.0.1:8500", shared.url)
            result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
        assert set(result.stdout.split()) == dangling
    finally:
        for key in dangling | foreign:
            shared.put(f"/v1/agent/service/deregister/{key}")


def test_the_host_in_ids_is_the_nodes_name(
    tmp_path: Path, engine_url: str, docker: Docker, shared: ConsulServer
) -> None:
    """As registrator has it with --net=host; unlike a container's own host name it is steady."""
    name = unique("old")
    docker.run(name, ports={"80/tcp": 0})
    uri = f"consul://127.0.0.1:{shared.http_port}"
    with registrator(tmp_path, engine_url, uri):
        wait_for(lambda: registered(shared, name), "instance", 20)
        (key,) = (k for k in shared.get("/v1/agent/services") if f":{name}:" in k)
    assert key == f"{docker.api.info()['Name']}:{name}:80"


@pytest.fixture(scope="module")
def image(engine_url: str) -> Iterator[str]:
    """The agent's image of this checkout."""
    try:
        images.fetch_wheels("agent", locks.RUN_TIME)
        images.build_one(PROJECT, "agent")
    except DemoError as error:
        unavailable(f"the agent's image cannot be built here: {error}")
    yield f"{PROJECT}/agent"
    images.remove(PROJECT, ("agent",))


@pytest.mark.parametrize("inside", ["/tmp/docker.sock", "/var/run/docker.sock"])
def test_the_image_takes_the_old_command_line_and_socket(
    image: str, inside: str, docker: Docker, engine_url: str, consul: ConsulServer
) -> None:
    """`docker run --net=host -v /var/run/docker.sock:/tmp/docker.sock IMAGE consul://localhost:8500`."""
    if not engine_url.startswith("unix://"):
        unavailable("needs the engine's socket as a file, to mount it")
    name = unique("old")
    docker.run(name, ports={"80/tcp": 0})
    agent = docker.run(
        image=image,
        command=["-ip", NODE_IP, f"consul://localhost:{consul.http_port}"],
        network_mode="host",
        binds=[f"{engine_url.removeprefix('unix://')}:{inside}"],
        env={"REGISTRATOR_DNS": "off", "REGISTRATOR_HTTP": "off"},
    )
    wait_for(lambda: registered(consul, name), "instance", 20)
    assert registered(consul, name)["80"]["Address"] == NODE_IP
    user = docker.exec(agent, "cat", "/proc/1/status")
    assert "Uid:\t0" not in user or "running as root" in docker.api.logs(agent).decode()
    docker.stop(agent)
    assert docker.inspect(agent)["State"]["ExitCode"] == 0


def test_the_image_does_not_register_itself(
    image: str, docker: Docker, engine_url: str, consul: ConsulServer
) -> None:
    """Its own container carries SERVICE_IGNORE, whatever ports it may have."""
    name = unique("agent")
    docker.run(
        name,
        image=image,
        command=[f"consul://localhost:{consul.http_port}"],
        network_mode="host",
        expose=["8500/tcp"],
        binds=[f"{engine_url.removeprefix('unix://')}:/tmp/docker.sock"],
        env={"REGISTRATOR_DNS": "off", "REGISTRATOR_HTTP": "off"},
    )
    other = unique("old")
    docker.run(other, ports={"80/tcp": 0})
    wait_for(lambda: registered(consul, other), "instance", 20)
    assert not registered(consul, name)
