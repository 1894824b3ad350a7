"""compose/stack.yml, deployed as it is on three nodes."""

from __future__ import annotations

import re
import socket
import ssl
import urllib.error
import urllib.request

import pytest

from scripts.demo.proof import GREETING, fetch
from scripts.lab.lab import Lab
from tests.lab.services import LINK_LOCAL, STORIES, TOOLS
from tests.lab.truth import agree, container_of, count, get

pytestmark = [pytest.mark.engine, pytest.mark.consul, pytest.mark.lab]

VISIT = "curl -sSf"


def test_every_task_is_in_catalog_and_lookups_of_every_node(lab: Lab) -> None:
    """Each by one registration, and nothing else is there, though Consul and agents are tasks as well."""
    running = agree(lab)
    assert {service: count(running, service) for service in STORIES} == STORIES
    assert {name for name, _, _ in running} == set(STORIES)
    for node in lab.nodes:
        assert set(get(node, 8500, "/v1/catalog/services")) == {*STORIES, "consul"}


def test_consul_has_three_servers_and_its_ui(lab: Lab) -> None:
    for node in lab.nodes:
        assert len(get(node, 8500, "/v1/status/peers")) == 3
        page = node.run("curl", "-s", "http://127.0.0.1:8500/ui/")
        assert "<html" in page.lower()


def test_the_network_reaches_nothing_but_what_servers_need_of_one_another(lab: Lab) -> None:
    """From another node: neither HTTP of Consul and agent, nor their DNS, by TCP or UDP."""
    for asked, asking in zip(lab.nodes, (*lab.nodes[1:], lab.nodes[0]), strict=True):
        for port in (8500, 8501, 8502, 8600, 8580, 8053):
            with pytest.raises(ConnectionRefusedError):
                asking.call(connect, asked.address, port)
        for port in (8053, 8600, 53):
            with pytest.raises(ConnectionRefusedError):
                asking.call(send, asked.address, port)
        asking.call(connect, asked.address, 8301).close()  # as a control: gossip


def connect(address: str, port: int) -> socket.socket:
    return socket.create_connection((address, port), 2)


def send(address: str, port: int) -> None:
    """Send a packet over UDP, and wait for the refusal."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.connect((address, port))
        sock.send(bytes(12))
        sock.recv(512)


def test_without_a_token_nothing_is_read_or_written(lab: Lab) -> None:
    """No service is registered and no fact of the Swarm published; nor is one with a worker's token."""
    node = lab.nodes[1]
    container = container_of(node, "demo_consul")
    worker = node.docker("exec", container, "cat", "/run/secrets/registrator-worker")
    manager = node.docker("exec", container, "cat", "/run/secrets/registrator-manager")
    key, service = "/v1/kv/registrator/swarm/forged/service", "/v1/agent/service/register"
    for token, path, status in (
        ("", key, 403),
        ("", service, 403),
        (worker, key, 403),
        (worker, "/v1/kv/other", 403),
        (manager, "/v1/kv/other", 403),
        (manager, "/v1/agent/maintenance?enable=false", 403),
        ("", "/v1/acl/bootstrap", 403),
        (manager, key, 200),  # as a control
    ):
        assert node.call(put, f"http://127.0.0.1:8500{path}", token) == status, path
    assert get(node, 8500, "/v1/kv/registrator/swarm/forged/?keys") == [key.removeprefix("/v1/kv/")]
    assert node.call(put, f"http://127.0.0.1:8500{key}", manager, "DELETE") == 200
    for query in ("?keys", "?recurse", "forged/service"):  # Consul hides what may not be read
        status, body = node.call(fetch, f"http://127.0.0.1:8500/v1/kv/registrator/swarm/{query}")
        assert status in (403, 404), body
    assert node.call(fetch, "http://127.0.0.1:8500/v1/catalog/services") == (200, "{}")


def put(url: str, token: str, method: str = "PUT") -> int:
    """The status of a request with a body of a service's definition."""
    request = urllib.request.Request(
        url, b'{"Name": "forged"}', headers={"X-Consul-Token": token} if token else {}, method=method
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=5) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_no_request_without_a_certificate_reaches_a_server(lab: Lab) -> None:
    """On Consul's RPC port plain requests end at once, and TLS without its certificate does not begin."""
    asking, asked = lab.nodes[0], lab.nodes[1]

    def plain() -> bytes:
        with connect(asked.address, 8300) as sock:
            sock.sendall(b"\x01" + bytes(64))  # raft's own protocol
            return sock.recv(100)

    def tls() -> bytes:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with connect(asked.address, 8300) as sock:
            sock.sendall(b"\x03")  # Consul's byte for TLS
            with context.wrap_socket(sock) as wrapped:
                wrapped.sendall(b"\x00" + bytes(64))
                return wrapped.recv(100)

    assert asking.call(plain) == b""
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate"):
        asking.call(tls)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_container_finds_every_service_by_name_on_every_node(lab: Lab, number: int) -> None:
    """Through Docker's own resolver and the link-local address; what it is told it can connect to."""
    node = lab.nodes[number - 1]
    lookups = "; ".join(f"getent hosts {service}.service.consul" for service in STORIES)
    inside = ("run", "--rm", "--network", "demo_backend", "--dns", LINK_LOCAL, TOOLS)
    assert len(node.docker(*inside, "sh", "-ec", lookups).splitlines()) >= len(STORIES)
    visits = f"{VISIT} http://whoami.service.consul:8000; {VISIT} http://web.service.consul:8000"
    said = node.docker(*inside, "sh", "-ec", visits)
    assert re.search(GREETING.pattern, said), said


def test_the_count_is_one_for_all_five(lab: Lab) -> None:
    """Five counters on three nodes count in the one Redis that each finds by its name."""
    loop = f"for i in 1 2 3 4 5 6 7 8 9 10; do {VISIT} http://web.service.consul:8000; done"
    inside = ("run", "--rm", "--network", "demo_backend", "--dns", LINK_LOCAL, TOOLS)
    visits = GREETING.findall(lab.nodes[1].docker(*inside, "sh", "-ec", loop))
    counts = [int(number) for number, _ in visits]
    assert counts == list(range(counts[0], counts[0] + 10))
    assert len({host for _, host in visits}) > 1


def test_a_node_itself_finds_what_is_published(lab: Lab) -> None:
    """By SRV on port 8053 of any node: addresses of nodes and the ports chosen there, which answer."""
    for node in lab.nodes:
        for turn in range(STORIES["web"]):
            address, port = node.call(node.front.endpoint, "web", turn)
            assert GREETING.fullmatch(node.run("curl", "-sSf", f"http://{address}:{port}/").strip())
