"""What the HTTP front answers: /lookup, health, and one line for whatever goes wrong."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest

from registrator.catalog import Unavailable
from registrator.lookup.http import HttpFront
from registrator.lookup.http_reply import HEADERS
from registrator.lookup.lookup_api import find_service
from registrator.lookup.names import ServiceName
from registrator.model import CRITICAL, OUTSIDE, WARNING, Address, Node, Snapshot, View
from registrator.stats import Stats
from tests.lookup.fakes import NODE, FakeDirectory, entry, snapshot_of
from tests.lookup.web import Web, serve

SNAPSHOT = snapshot_of(
    entry("redis", 1, tags=("master",), meta={"k": "v"}),
    entry("redis", 2, tags=("replica",), status=WARNING),
    entry("redis", 3, status=CRITICAL),
    entry("six", address="fd00::5", port=443),
    entry("sick", status=CRITICAL),
)


def ids(document: Any) -> list[str]:
    return [instance["id"] for instance in document["instances"]]


async def test_a_lookup_tells_all_that_a_client_needs_of_each_healthy_instance() -> None:
    async with serve(FakeDirectory(SNAPSHOT)) as web:
        document = await web.json("/lookup/redis")
    assert document["service"] == "redis"
    assert ids(document) == ["redis-1", "redis-2"], "passing and warning, not critical"
    assert document["instances"][0] == {
        "id": "redis-1",
        "address": "10.0.0.1",
        "port": 80,
        "network": "",
        "node": "n1",
        "status": "passing",
        "tags": ["master"],
        "meta": {"k": "v"},
    }


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("redis", ["redis-1", "redis-2"]),
        ("ReDiS", ["redis-1", "redis-2"]),
        ("redis.service.consul", ["redis-1", "redis-2"]),
        ("redis.service.consul.", ["redis-1", "redis-2"]),
        ("master.redis.service.consul", ["redis-1"]),
        ("MASTER.redis.service.consul", ["redis-1"]),
        ("redis?tag=replica", ["redis-2"]),
        ("redis?tag=replica&tag=master", []),
        ("master.redis.service.consul?tag=replica", []),
        ("sick", []),
    ],
)
async def test_a_name_may_be_plain_or_as_in_dns_and_tags_narrow_it(path: str, expected: list[str]) -> None:
    async with serve(FakeDirectory(SNAPSHOT)) as web:
        assert ids(await web.json(f"/lookup/{path}")) == expected


async def test_text_is_one_address_and_port_a_line_with_ipv6_in_brackets() -> None:
    async with serve(FakeDirectory(SNAPSHOT)) as web:
        assert (await web.get("/lookup/redis?format=text")).text == "10.0.0.1:80\n10.0.0.2:80\n"
        assert (await web.get("/lookup/six?format=text")).text == "[fd00::5]:443\n"
        assert (await web.get("/lookup/sick?format=text")).text == ""


async def test_a_lookup_gives_the_address_that_the_asker_can_reach() -> None:
    at_webnet = entry("web", addresses=(Address("webnet", "id1", "10.0.1.5", 8080),))
    async with serve(FakeDirectory(snapshot_of(at_webnet)), View(frozenset({"id1"}))) as web:
        (instance,) = (await web.json("/lookup/web"))["instances"]
    assert (instance["address"], instance["port"], instance["network"]) == ("10.0.1.5", 8080, "webnet")
    async with serve(FakeDirectory(snapshot_of(at_webnet))) as web:
        (instance,) = (await web.json("/lookup/web"))["instances"]
    assert (instance["address"], instance["port"], instance["network"]) == ("10.0.0.1", 80, "")


@pytest.mark.parametrize("path", ["/lookup/nope", "/lookup/", "/lookup/redis.node.consul", "/lookup/a%2Fb"])
async def test_an_unknown_name_is_404_with_one_line(path: str) -> None:
    async with serve(FakeDirectory(SNAPSHOT)) as web:
        response = await web.get(path)
        text = await web.get(f"{path}?format=text")
    assert response.status == text.status == 404
    assert "no service is called" in response.json()["error"]
    assert text.text.count("\n") == 1


async def test_a_known_service_is_loaded_when_it_is_first_asked_for() -> None:
    directory = FakeDirectory(replace(SNAPSHOT, services={}))
    directory.to_load["redis"] = SNAPSHOT.services["redis"]
    async with serve(directory) as web:
        assert ids(await web.json("/lookup/redis")) == ["redis-1", "redis-2"]
        assert len(await web.json("/v1/health/service/redis")) == 3


DATA_PATHS = ["/lookup/redis", "/v1/catalog/services", "/v1/catalog/service/redis", "/v1/catalog/nodes",
              "/v1/health/service/redis"]  # fmt: skip


@pytest.mark.parametrize("path", DATA_PATHS)
async def test_before_the_first_snapshot_everything_is_503_and_says_when_to_come_back(path: str) -> None:
    async with serve(FakeDirectory()) as web:
        response = await web.get(path)
    assert (response.status, response.headers["Retry-After"]) == (503, "1")
    assert "has not been read yet" in response.text


@pytest.mark.parametrize("path", DATA_PATHS)
async def test_a_lost_catalog_answers_from_what_was_known_and_tells_its_age(path: str) -> None:
    directory = FakeDirectory(SNAPSHOT)
    directory.age = 42.4
    directory.broken = Unavailable("consul at http://127.0.0.1:8500 refuses connections")
    async with serve(directory) as web:
        response = await web.get(path)
    assert response.status == 200
    assert response.headers["X-Registrator-Age"] == "42"
    assert response.headers["X-Consul-LastContact"] == "42400"
    assert response.headers["X-Consul-KnownLeader"] == "false"


async def test_while_in_contact_no_age_is_told() -> None:
    async with serve(FakeDirectory(SNAPSHOT)) as web:
        response = await web.get("/lookup/redis")
    assert "X-Registrator-Age" not in response.headers


@pytest.mark.parametrize("path", ["/lookup/redis", "/v1/catalog/service/redis", "/v1/health/service/redis"])
async def test_a_service_that_cannot_be_loaded_is_503_in_one_line(path: str) -> None:
    directory = FakeDirectory(replace(SNAPSHOT, services={}))
    directory.broken = Unavailable("consul at http://127.0.0.1:8500 refuses connections")
    async with serve(directory) as web:
        response = await web.get(path)
    assert (response.status, response.headers["Retry-After"]) == (503, "1")
    body = response.text
    assert "refuses connections" in body
    assert body.count("\n") <= 1


async def test_livez_answers_as_long_as_the_loop_runs() -> None:
    async with serve(FakeDirectory()) as web:
        web.stats.ready = False
        assert (await web.get("/livez")).status == 200


@pytest.mark.parametrize(
    ("snapshot", "ready", "status", "words"),
    [
        (SNAPSHOT, True, 200, "ok"),
        (None, True, 503, "the catalog has not been read"),
        (SNAPSHOT, False, 503, "the first complete reconcile"),
    ],
)
async def test_readyz_says_what_is_waited_for(
    snapshot: Snapshot | None, status: int, words: str, *, ready: bool
) -> None:
    async with serve(FakeDirectory(snapshot)) as web:
        web.stats.ready = ready
        response = await web.get("/readyz")
    assert response.status == status
    assert words in response.text


ROUTES = [*DATA_PATHS, "/livez", "/readyz", "/metrics", "/nope"]


@pytest.mark.parametrize("path", ROUTES)
async def test_nothing_can_be_written(path: str) -> None:
    async with serve(FakeDirectory(SNAPSHOT)) as web:
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"):
            response = await web.ask(method, path, data=b"{}")
            assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ROUTES)
async def test_every_reply_carries_the_security_headers_and_none_for_other_origins(path: str) -> None:
    async with serve(FakeDirectory(SNAPSHOT)) as web:
        response = await web.get(path, headers={"Origin": "http://evil.example"})
    assert {name: response.headers[name] for name in HEADERS} == HEADERS
    assert not [name for name in response.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("path", ROUTES)
async def test_head_answers_as_get_does_without_a_body(path: str) -> None:
    async with serve(FakeDirectory(SNAPSHOT)) as web:
        head, get = await web.ask("HEAD", path), await web.get(path)
    assert head.status == get.status
    assert head.text == ""
    if path != "/metrics":  # counts its own scrapes
        assert head.headers["Content-Length"] == get.headers["Content-Length"]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:8580", 200),
        ("10.0.0.5", 200),
        ("[::1]:8580", 200),
        ("[fe80::1]", 200),
        ("localhost:8580", 200),
        ("LOCALHOST.", 200),
        ("node7.example.org:8580", 200),  # the node's host name
        ("Node7.Example.Org.", 200),
        ("n1", 200),  # the agent's own node in the catalog, and in DNS
        ("n1.node.consul:8580", 200),
        ("N1.node.dc1.consul.", 200),
        ("lookups.example.com", 200),  # named by the operator
        ("", 200),  # HTTP/1.0; a browser always sends one
        ("n2", 421),  # another node
        ("n2.node.consul", 421),
        ("n1.node.consul.evil.example", 421),
        ("n1.node.dc2.consul", 421),
        ("web.service.consul", 421),  # a container's
        ("web.service.consul:8580", 421),
        ("blue.web.service.dc1.consul", 421),
        ("web", 421),  # a container's, by a search domain
        ("registrator:8580", 421),
        ("app.localhost:8580", 421),
        ("x.internal", 421),
        ("host.docker.internal:8580", 421),
        ("node7", 421),
        ("0a000005.addr.consul", 421),
        ("evil.example:8580", 421),
        ("127.0.0.1.evil.example", 421),
        ("consul.evil.example", 421),
        ("0x7f.1", 421),
        ("2130706433", 421),
        ("node7.example.org.evil.example", 421),
        ("[evil.example]", 421),
        ("127.0.0.1@evil.example", 421),
        ("localhost@evil.example", 421),
        ("localhost:80@evil.example", 421),
        ("1" * 301, 421),
        ("a." * 3000, 421),
    ],
)
async def test_only_the_agents_own_names_are_served_as_host(
    host: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that a container can register, or anybody's DNS can point here, is not served."""
    monkeypatch.setattr("socket.gethostname", lambda: "Node7.example.org")
    nodes = {"n1": NODE, "n2": replace(NODE, name="n2")}
    directory = FakeDirectory(replace(SNAPSHOT, nodes=nodes))

    async def local() -> str:
        return "n1"

    async with serve(directory, hosts=("lookups.example.com",), local=local) as web:
        reply = await web.get("/lookup/redis", headers={"Host": host})
        assert reply.status == expected
        assert expected == 200 or "redis" not in reply.text


async def test_the_host_in_a_request_line_counts_too() -> None:
    """RFC 9112, 3.2.2: a server must take that rather than the header, so both have to be its own."""
    async with serve(FakeDirectory(SNAPSHOT)) as web:
        address = web.server.addresses[0]
        for target, expected in (("http://127.0.0.1/livez", b"200"), ("http://evil.example/livez", b"421")):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            assert (await asyncio.wait_for(reader.read(), 10))[9:12] == expected
            writer.close()


@pytest.mark.parametrize("path", ROUTES)
async def test_a_page_that_came_by_dns_rebinding_reads_nothing(path: str) -> None:
    async with serve(FakeDirectory(SNAPSHOT)) as web:
        response = await web.get(path, headers={"Host": "evil.example:8580"})
    assert response.status == 421
    assert "redis" not in response.text.replace(path, "")


async def test_a_bug_is_one_line_to_the_client_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    directory = FakeDirectory(SNAPSHOT)
    directory.age = "not a number"  # type: ignore[assignment]  # makes the handlers raise TypeError
    async with serve(directory) as web:
        responses = [await web.get("/v1/catalog/nodes") for _ in range(3)]
    assert [response.status for response in responses] == [500] * 3
    assert responses[0].text == "this agent failed to answer; its log says why\n"
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "/v1/catalog/nodes" in record.getMessage()


async def test_requests_are_counted_by_route_so_that_clients_cannot_make_the_labels_many() -> None:
    async with serve(FakeDirectory(SNAPSHOT)) as web:
        for path in ("/lookup/redis", "/lookup/six", "/lookup/nope", "/x", "/y", "/v1/catalog/nodes?index=z"):
            await web.get(path)
        assert web.stats.http_requests == {
            ("/lookup/{name}", 200): 2,
            ("/lookup/{name}", 404): 1,
            ("other", 404): 2,
            ("/v1/catalog/nodes", 400): 1,
        }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Redis", ServiceName("redis")),
        ("a.b", ServiceName("a.b")),  # a service may have dots in its name
        ("x.redis.service.consul", ServiceName("redis", "x")),
        ("x.y.redis.service.consul", ServiceName("redis", "x.y")),  # one tag with a dot, as in DNS
        ("_redis._tcp.service.consul", ServiceName("redis")),
        ("redis.service.dc1.consul", ServiceName("redis", "", "dc1")),
        ("redis.service.dc2.consul", None),
        ("redis.service.other", None),
        ("redis.node.consul", None),
        ("nope.service.consul", None),
        ("..", None),
        ("", None),
    ],
)
def test_a_name_means_a_service_and_perhaps_a_tag(text: str, expected: ServiceName | None) -> None:
    snapshot = snapshot_of(entry("redis"), entry("a.b"))
    assert find_service(text, snapshot, (b"consul",)) == expected


# /lookup/<name>/one, /explain and /askers ------------------------------------

NEAR = snapshot_of(
    entry("db", 1, node=Node("n1", "192.0.2.1")),
    entry("db", 2, node=Node("n2", "192.0.2.2")),
    entry("db", 3, node=Node("n2", "192.0.2.2")),
    entry("db", 4, node=Node("n3", "192.0.2.3"), status=CRITICAL),
    entry("web"),
)


async def one(web: Web, path: str) -> str:
    return str((await web.json(path))["id"])


async def test_one_instance_at_a_time_comes_round_for_each_service_by_itself() -> None:
    async with serve(FakeDirectory(NEAR)) as web:
        seen = []
        for _ in range(6):
            seen.append(await one(web, "/lookup/db/one"))
            assert await one(web, "/lookup/web/one") == "web-1"
        assert seen == ["db-1", "db-2", "db-3"] * 2
        assert (await web.get("/lookup/web/one?format=text")).text == "10.0.0.1:80\n"


async def test_near_prefers_the_instances_of_a_node_and_falls_back_to_all() -> None:
    async def local() -> str:
        return "N1"

    async with serve(FakeDirectory(NEAR), local=local) as web:
        assert {await one(web, "/lookup/db/one?near=n2") for _ in range(4)} == {"db-2", "db-3"}
        assert {await one(web, "/lookup/db/one?near") for _ in range(3)} == {"db-1"}
        assert {await one(web, "/lookup/db/one?near=_agent") for _ in range(3)} == {"db-1"}
        assert {await one(web, "/lookup/db/one?near=n3") for _ in range(3)} == {"db-1", "db-2", "db-3"}


async def test_one_of_none_is_404_and_points_to_the_explanation() -> None:
    async with serve(FakeDirectory(SNAPSHOT)) as web:
        reply = await web.get("/lookup/sick/one")
        assert reply.status == 404
        assert "/explain/sick" in reply.json()["error"]
        assert (await web.get("/lookup/nobody/one")).status == 404


class OneContainer:
    """A node with the container `shop`, on network id1."""

    def of_container(self, name_or_id: str) -> View | None:
        return View(frozenset({"id1"})) if name_or_id == "shop" else None

    def names(self) -> list[str]:
        return ["shop"]


async def test_an_explanation_is_for_the_asker_that_is_named() -> None:
    at_webnet = entry("web", addresses=(Address("webnet", "id1", "10.0.1.5", 8080),))
    async with serve(FakeDirectory(snapshot_of(at_webnet)), containers=OneContainer()) as web:
        assert await web.json("/askers") == {"containers": ["shop"]}
        shop = await web.json("/explain/web?from=shop")
        assert shop["asker"] == {"what": "container shop", "networks": ["id1"]}
        assert shop["instances"][0]["why"] == "10.0.1.5:8080: both are on network webnet"
        outside = await web.json("/explain/web.service.consul?from=198.51.100.7")
        assert outside["asker"]["what"] == "198.51.100.7, no container of this node"
        assert outside["instances"][0]["why"] == "10.0.0.1:80: the registered address"
        own = await web.json("/explain/web")
        assert own["asker"]["what"].startswith("127.0.0.1")
        unknown = await web.get("/explain/web?from=shopp")
        assert unknown.status == 404
        assert unknown.json()["nearest"] == ["shop"]


async def test_an_explanation_begins_with_the_answered_and_counts_them() -> None:
    async with serve(FakeDirectory(snapshot_of(entry("web", 1, status=CRITICAL), entry("web", 2)))) as web:
        told = await web.json("/explain/web")
    assert [instance["id"] for instance in told["instances"]] == ["web-2", "web-1"]
    assert (told["service"], told["answered"], told["left_out"]) == ("web", 1, 1)


async def test_the_names_of_certain_nodes_alone() -> None:
    """As Prometheus asks with `node_meta`: the names and tags of what is on nodes with that Meta."""
    other = Node("n2", "192.0.2.2", meta={"rack": "b", "zone": "1"})
    there = entry("redis", 2, node=other, tags=("v7",)), entry("web", node=other)
    async with serve(FakeDirectory(snapshot_of(entry("redis", tags=("v6",)), *there))) as web:
        assert await web.json("/v1/catalog/services?node-meta=rack:b") == {"redis": ["v7"], "web": []}
        assert await web.json("/v1/catalog/services?node-meta=rack:a") == {"redis": ["v6"]}
        assert await web.json("/v1/catalog/services?node-meta=rack:a&node-meta=zone:1") == {}


async def test_a_format_that_there_is_not_is_refused() -> None:
    async with serve(FakeDirectory(SNAPSHOT)) as web:
        assert (await web.get("/lookup/redis?format=xml")).status == 400


async def test_an_unknown_name_is_explained_by_the_nearest_ones() -> None:
    async with serve(FakeDirectory(SNAPSHOT)) as web:
        reply = await web.get("/explain/redsi")
    assert reply.status == 404
    assert reply.json()["nearest"] == ["redis"]
    assert "did you mean redis?" in reply.json()["error"]


# Compression, the document of the API -------------------------------------------


@pytest.mark.parametrize(
    ("accepted", "zipped"),
    [("gzip", True), ("deflate, gzip;q=0.5", True), ("*", True), ("gzip;q=0", False), ("br", False)],
)
async def test_long_replies_are_gzipped_for_those_who_take_it(accepted: str, *, zipped: bool) -> None:
    many = snapshot_of(*(entry("web", number) for number in range(1, 50)))
    async with serve(FakeDirectory(many)) as web:
        for path in ("/v1/health/service/web", "/lookup/web"):
            reply = await web.get(path, headers={"Accept-Encoding": accepted})
            assert (reply.headers.get("Content-Encoding") == "gzip") is zipped
            assert reply.headers["Vary"] == "Accept-Encoding"
            assert "10.0.0.49" in reply.text
        short = await web.get("/livez", headers={"Accept-Encoding": accepted})
        assert "Content-Encoding" not in short.headers


async def test_the_api_document_has_every_path_and_no_other() -> None:
    async with serve(FakeDirectory(SNAPSHOT)) as web:
        document = await web.json("/openapi.json")
    front = HttpFront(FakeDirectory(), stats=Stats(), view_of=lambda _: OUTSIDE, domain="consul")
    resources = front.application().router.resources()
    assert set(document["paths"]) == {resource.canonical for resource in resources}


HOSTILE = "a\x1b[31m\x9b\u202eb\u200f"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/lookup/{HOSTILE[4:]}?format=text", 400),
        ("/lookup/ahostil?format=text", 404),  # the nearest names are proposed
        ("/explain/ahostil?format=text", 404),
        ("/explain/redis?from=%E2%80%AE%1b&format=text", 404),
        ("/lookup/a%E2%80%AEb?format=text", 404),
        ("/lookup/hostile?format=text", 200),  # registered at a host name that holds anything
        ("/lookup/hostile/one?format=text", 200),
        ("/v1/health/service/web?filter=%1b%c2%9b%E2%80%AE==a", 400),
        ("/v1/health/service/web?filter=Service.Port==%1b%c2%9b%E2%80%AE", 400),
        ("/v1/health/service/web?filter=Node+%1b", 400),
        ("/v1/health/service/web?dc=x", 400),  # the datacenter's own name is Consul's
        ("/v1/catalog/service/broken", 503),  # Consul's error, which quotes Consul
        ("/metrics", 200),
    ],
)
async def test_what_is_text_holds_no_control_characters(path: str, status: int) -> None:
    """Neither C0, C1 nor bidirectional overrides, whoever brought them: the asker, Consul or the engine."""
    directory = FakeDirectory(
        replace(
            snapshot_of(
                entry("web"), entry("redis"), entry(f"ahostile{HOSTILE}"), entry("hostile", address=HOSTILE)
            ),
            datacenter=f"dc{HOSTILE}",
        )
    )
    assert directory.snapshot
    directory.snapshot = replace(directory.snapshot, names={**directory.snapshot.names, "broken": ()})
    if "broken" in path:
        directory.broken = Unavailable(f"said {HOSTILE}")
    async with serve(directory) as web:
        web.stats.events[f"start{HOSTILE}"] += 1
        reply = await web.get(path)
    assert reply.status == status, reply.text
    assert all(character.isprintable() for character in reply.text.replace("\n", "")), reply.text


async def test_documents_escape_what_is_not_printable_too() -> None:
    """JSON in ASCII, so that what a terminal shows of it is harmless."""
    directory = FakeDirectory(snapshot_of(entry("web", tags=(HOSTILE,), meta={"k": HOSTILE})))
    async with serve(directory) as web:
        for path in ("/v1/health/service/web", "/v1/catalog/services", "/lookup/web", "/explain/web"):
            assert (await web.get(path)).text.rstrip("\n").isprintable()
