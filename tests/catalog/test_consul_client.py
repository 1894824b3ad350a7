"""How Consul is spoken to: where, with which rights, and what is said when it fails."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from registrator.catalog import CatalogError, Refused, Unavailable
from registrator.catalog.consul import ConsulCatalog, http
from registrator.catalog.consul.errors import ScriptsDisabled, Unreadable
from registrator.catalog.consul.http import by_any_server, timeout_for
from registrator.model import META_OWNER, Instance
from registrator.settings import ConsulAddress
from registrator.stats import Stats
from tests.catalog.consul_catalogs import connections_to, eventually, running
from tests.catalog.servers import serving
from tests.support.consul import ConsulServer, free_ports
from tests.support.tls import Authority

MINE = Instance("web:1", "web", "10.0.0.5", 80, meta={META_OWNER: "me"})
ROOT_TOKEN = "3f5e0a52-0000-4000-8000-7d6f0a1b2c3d"
WEB_RULES = """
    service_prefix "web" { policy = "write" }
    service_prefix "" { policy = "read" }
    node_prefix "" { policy = "read" }
    agent_prefix "" { policy = "read" }
"""


async def failure(address: ConsulAddress) -> CatalogError:
    """The error with which a first read fails."""
    async with ConsulCatalog(address, Stats()) as catalog:
        with pytest.raises(CatalogError) as caught:
            await catalog.owned("me")
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    assert address.token not in message or not address.token
    return caught.value


async def works(address: ConsulAddress) -> None:
    """What is registered over this address is seen by lookups over it."""
    async with running(address) as catalog:
        await catalog.register(MINE)
        assert set(await catalog.owned("me")) == {"web:1"}
        async with asyncio.timeout(5):
            while not (catalog.snapshot and "web" in catalog.snapshot.names):
                await asyncio.sleep(0.005)
        assert len((await catalog.load("web")).services["web"].entries) == 1
        await catalog.deregister("web:1")


# Where ------------------------------------------------------------------------


async def test_building_a_catalog_does_no_io() -> None:
    """Neither building nor opening it needs a Consul, or says anything to one."""
    port = free_ports(1)[0]
    async with ConsulCatalog(ConsulAddress(f"http://127.0.0.1:{port}"), Stats()):
        pass


async def test_the_environment_does_not_redirect(
    consul_shared: ConsulServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CONSUL_HTTP_* say something else, or nonsense: what the settings say counts."""
    for name, value in {
        "CONSUL_HTTP_ADDR": "http://nonsense:1:2:3",
        "CONSUL_HTTP_TOKEN": "somebody-elses",
        "CONSUL_HTTP_SSL": "true",
        "CONSUL_HTTP_SSL_VERIFY": "maybe",
        "HTTP_PROXY": "http://127.0.0.1:1",
    }.items():
        monkeypatch.setenv(name, value)
    await works(ConsulAddress(consul_shared.url))


async def test_its_own_node(consul_shared: ConsulServer) -> None:
    """Name, address and datacenter of the agent that is spoken to."""
    async with ConsulCatalog(ConsulAddress(consul_shared.url), Stats()) as catalog:
        node = await catalog.node()
    assert (node.name, node.address, node.datacenter) == ("consul-test", "127.0.0.1", "dc1")
    assert node.tagged_addresses["lan"] == "127.0.0.1"


@pytest.mark.consul
async def test_a_unix_socket(tmp_path: Path) -> None:
    """Everything works over a socket file."""
    socket = tmp_path / "consul.sock"
    server = ConsulServer(tmp_path, {"addresses": {"http": f"127.0.0.1 unix://{socket}"}})
    try:
        await asyncio.to_thread(server.start)
        await works(ConsulAddress("http://localhost", socket=str(socket)))
    finally:
        server.kill()


async def test_a_missing_socket(tmp_path: Path) -> None:
    """The message names the socket and what to look for."""
    error = await failure(ConsulAddress("http://localhost", socket=str(tmp_path / "none.sock")))
    assert isinstance(error, Unavailable)
    assert f"unix://{tmp_path}/none.sock cannot be reached (no such file or directory)" in str(error)


async def test_nobody_listens() -> None:
    """The message says where, and to start the agent."""
    (port,) = free_ports(1)
    error = await failure(ConsulAddress(f"http://127.0.0.1:{port}"))
    assert str(error) == (
        f"Consul at http://127.0.0.1:{port} cannot be reached (connection refused): "
        "is the Consul agent running there?"
    )


async def test_an_unknown_host() -> None:
    """A name that does not resolve is said to be one."""
    error = await failure(ConsulAddress("http://consul.invalid:8500"))
    assert isinstance(error, Unavailable)
    assert "http://consul.invalid:8500 cannot be reached" in str(error)


# Rights -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, consul_binary: str) -> Iterator[ConsulServer]:
    """A Consul that denies what no token allows."""
    acl = {"enabled": True, "default_policy": "deny", "tokens": {"master": ROOT_TOKEN}}
    with ConsulServer(tmp_path_factory.mktemp("acl"), {"acl": acl}, token=ROOT_TOKEN) as server:
        yield server


@pytest.fixture(scope="module")
def web_token(guarded: ConsulServer) -> str:
    """A token that may read all, and register what starts with web."""
    policy = guarded.put("/v1/acl/policy", {"Name": "web", "Rules": WEB_RULES})
    return str(guarded.put("/v1/acl/token", {"Policies": [{"ID": policy["ID"]}]})["SecretID"])


async def test_a_token_with_the_right_works(guarded: ConsulServer, web_token: str) -> None:
    """The token goes with every request, reads and writes."""
    await works(ConsulAddress(guarded.url, token=web_token))


async def test_a_token_without_the_right_is_refused(guarded: ConsulServer, web_token: str) -> None:
    """The message says which right is missing, and never the token."""
    stats = Stats()
    async with ConsulCatalog(ConsulAddress(guarded.url, token=web_token), stats) as catalog:
        with pytest.raises(Refused) as caught:
            await catalog.register(replace(MINE, id="db:1", service="db"))
        await catalog.deregister("nobody")  # there 500 "Unknown service", which is no failure
    assert "403 (Permission denied: Missing service:write on db)" in str(caught.value)
    assert 'give it service_prefix "" write' in str(caught.value)
    assert web_token not in str(caught.value)
    assert (stats.write_failures["register"], stats.writes["deregister"]) == (1, 1)


async def test_an_unknown_token_is_refused(guarded: ConsulServer) -> None:
    """A token that Consul does not know, or no more."""
    error = await failure(ConsulAddress(guarded.url, token="00000000-0000-4000-8000-000000000000"))
    assert isinstance(error, Refused)
    assert "ACL not found" in str(error)


async def test_without_any_right_the_catalog_is_not_taken_for_empty(
    guarded: ConsulServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Consul leaves out what a token may not read and says nothing: that must not become NXDOMAIN."""
    async with ConsulCatalog(ConsulAddress(guarded.url), Stats()) as catalog:
        run = asyncio.create_task(catalog.run())
        with pytest.raises(Unavailable):
            await catalog.wait(None, 0, 0.5)
        run.cancel()
        await asyncio.wait([run])
    assert "shows no nodes" in caplog.text


# TLS --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
async def secured(authority: Authority, tmp_path: Path, consul_binary: str) -> AsyncIterator[ConsulServer]:
    """A Consul that speaks HTTPS, and only with those who have a certificate of the CA.

    At the end it dies before the loop does: asyncio closes a TLS connection only
    when the other side agrees, which Consul does not while it holds a query.
    """
    certificate, key = authority.issue("server")
    own = ssl.create_default_context(cafile=authority.ca)
    own.load_cert_chain(*authority.issue("tester"))
    config = {
        "ca_file": str(authority.ca),
        "cert_file": str(certificate),
        "key_file": str(key),
        "verify_incoming_https": True,
    }
    server = ConsulServer(tmp_path, config, tls=own)
    try:
        await asyncio.to_thread(server.start)
        yield server
    finally:
        server.kill()
        await eventually(lambda: connections_to(server.https_port) == 0)


@pytest.fixture
def trusted(secured: ConsulServer, authority: Authority) -> ConsulAddress:
    certificate, key = authority.issue("agent")
    return ConsulAddress(
        secured.url, ca_cert=str(authority.ca), client_cert=str(certificate), client_key=str(key)
    )


async def test_tls_with_a_private_ca(trusted: ConsulAddress) -> None:
    """Both sides show a certificate of the CA, and all works."""
    await works(trusted)


async def test_tls_without_verification(trusted: ConsulAddress) -> None:
    """CONSUL_HTTP_SSL_VERIFY=false lets any server certificate pass."""
    await works(replace(trusted, ca_cert="", verify=False))


async def test_an_untrusted_certificate(trusted: ConsulAddress) -> None:
    """Without the CA's file the server is not trusted, and the message says which variable to set."""
    error = await failure(replace(trusted, ca_cert=""))
    assert isinstance(error, Unavailable)
    assert "CONSUL_CACERT" in str(error)
    assert "certificate verify failed" in str(error).lower()


async def test_a_missing_client_certificate(trusted: ConsulAddress) -> None:
    """The server breaks off; the message leads to TLS."""
    error = await failure(replace(trusted, client_cert="", client_key=""))
    assert isinstance(error, Unavailable)
    assert "certificate required" in str(error).lower() or "CONSUL_CLIENT_CERT" in str(error)


async def test_https_where_http_is_spoken(consul_shared: ConsulServer) -> None:
    """The wrong scheme is a failure of TLS."""
    error = await failure(ConsulAddress(consul_shared.url.replace("http:", "https:")))
    assert isinstance(error, Unavailable)
    assert "over TLS" in str(error)


async def test_http_where_https_is_spoken(secured: ConsulServer) -> None:
    """Go says so itself, and the message hands it on."""
    error = await failure(ConsulAddress(secured.url.replace("https:", "http:")))
    assert "HTTP request to an HTTPS server" in str(error)


# What is not Consul -----------------------------------------------------------


@pytest.fixture
async def stranger() -> AsyncIterator[str]:
    """A web server that is no Consul; the token says how it answers."""

    async def strange(request: web.Request) -> web.StreamResponse:
        return STRANGE[request.headers["X-Consul-Token"].removeprefix("token-for-")]()

    async with serving(strange) as url:
        yield url


STRANGE = {
    "page": lambda: web.Response(text="<html>hello</html>", content_type="text/html"),
    "none": lambda: web.Response(status=404, text="no such page"),
    "moved": lambda: web.Response(status=302, headers={"Location": "http://192.0.2.1/"}),
    "list": lambda: web.json_response([1, 2]),
    "bytes": lambda: web.Response(body=b"\xff\xfe\x00"),
    "leaderless": lambda: web.Response(status=500, text="No cluster leader"),
    "follower": lambda: web.json_response({}, headers={"X-Consul-KnownLeader": "false"}),
    "full": lambda: web.Response(status=500, text="failed persisting: no space left on device"),
    "gateway": lambda: web.Response(status=502, text="<html>\n bad\n gateway</html>"),
    "many": lambda: web.Response(status=429),
    "no_scripts": lambda: web.Response(status=500, text="Scripts are disabled on this agent"),
    "refusing": lambda: web.Response(status=400, text="Invalid check: TTL must be > 0"),
}


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        ("page", Unreadable, "is not Consul's API; check the URL"),
        ("none", Refused, "404 (no such page): that is not how Consul's API answers; check the URL"),
        ("moved", Refused, "302 (no explanation): that is not how Consul's API answers; check the URL"),
        ("list", Unreadable, "is not Consul's API"),
        ("bytes", Unreadable, "is not Consul's API"),
        ("leaderless", Unavailable, "500 (No cluster leader): it cannot serve now"),
        ("follower", Unavailable, "without knowing a leader: see `consul operator raft list-peers`"),
        ("full", Unavailable, "500 (failed persisting: no space left on device): it cannot serve now"),
        ("gateway", Unavailable, "502 (<html> bad gateway</html>): it cannot serve now"),
        ("many", Unavailable, "429 (no explanation): too many requests"),
        ("no_scripts", ScriptsDisabled, "500 (Scripts are disabled on this agent): set enable_script"),
        ("refusing", Refused, "400 (Invalid check: TTL must be > 0): change the definition"),
    ],
)
async def test_strange_answers(stranger: str, answer: str, kind: type[CatalogError], says: str) -> None:
    """Each becomes one line, and is worth another try by itself or not."""
    error = await failure(ConsulAddress(stranger, token=f"token-for-{answer}"))
    assert type(error) is kind
    assert says in str(error)


async def test_silence(consul: ConsulServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Consul that does not answer is not waited for without end."""
    monkeypatch.setattr(http, "REQUEST_TIMEOUT", 0.2)
    consul.stop()
    error = await failure(ConsulAddress(consul.url))
    assert isinstance(error, Unavailable)
    assert "did not answer GET /v1/agent/" in str(error)


def test_a_blocking_query_may_take_longer_than_its_wait() -> None:
    """Consul adds up to a sixteenth of the wait, and the answer travels."""
    assert timeout_for([("index", 7), ("wait", "60s")]) == 60 + 60 / 16 + 2
    assert timeout_for([("dc", "dc1")]) == 10


def test_a_blocking_query_that_goes_on_may_be_answered_by_any_server() -> None:
    """All others ask the leader: what is first read, and what is to notice that there is none."""
    first: list[tuple[str, str | int]] = [("dc", "dc1")]
    going_on: list[tuple[str, str | int]] = [("index", 7), ("wait", "60s")]
    assert by_any_server(first) == first
    assert by_any_server(going_on) == [*going_on, ("stale", "1")]
    assert by_any_server([*going_on, ("consistent", "1")]) == [*going_on, ("consistent", "1")]
