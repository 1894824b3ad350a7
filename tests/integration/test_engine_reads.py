"""What a real engine says of its containers, read completely or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Hashable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from registrator.engine import DockerEngine, EngineError
from registrator.model import Event
from registrator.stats import Stats
from tests.integration.engine_watch import watching
from tests.support.engine import HTTPD, IMAGE, Docker, health, unique
from tests.support.tls import Authority

pytestmark = pytest.mark.engine


@pytest.fixture
async def engine(engine_url: str) -> AsyncIterator[DockerEngine]:
    async with DockerEngine(engine_url, stats=Stats()) as engine:
        yield engine


async def test_info(docker: Docker, engine: DockerEngine) -> None:
    """The node's id and name are the engine's own."""
    told = await asyncio.to_thread(docker.api.info)
    node = await engine.info()
    assert (node.id, node.name) == (told["ID"], told["Name"])


async def test_a_rich_container(docker: Docker, engine: DockerEngine) -> None:
    """Ports on both families, two networks, one with IPv6, health and signals arrive as they are."""
    name, plain, dual = unique("rich"), docker.network(), docker.network(ipv6=True)
    container_id = await asyncio.to_thread(
        docker.run,
        name,
        command=HTTPD,
        labels={"com.docker.compose.service": "web", "com.docker.compose.project": "shop"},
        env={"GREETING": "a=b"},
        ports={"80/tcp": 0, "53/udp": ("127.0.0.1", None)},
        expose=["9000/tcp"],
        networks=[plain, dual],
        healthcheck=health("echo fine"),
        stop_signal="SIGQUIT",
        stop_timeout=3,
    )
    await asyncio.to_thread(docker.wait_health, container_id)
    container = await engine.inspect(container_id)
    document = await asyncio.to_thread(docker.inspect, container_id)

    assert container is not None
    assert (container.id, container.name, container.image) == (container_id, name, IMAGE)
    assert (container.state, container.up) == ("running", True)
    assert (container.health, container.health_output) == ("healthy", "fine")
    assert container.env["GREETING"] == "a=b"
    assert (container.compose_service, container.compose_project) == ("web", "shop")
    assert (container.stop_signal, container.stop_timeout) == (3, 3.0)
    assert container.network_mode == plain

    assert [(port.number, port.protocol) for port in container.ports] == [
        (53, "udp"),
        (80, "tcp"),
        (9000, "tcp"),
    ]
    local, web, internal = container.ports
    assert [binding.host_ip for binding in local.bindings] == ["127.0.0.1"]
    assert [binding.host_ip for binding in web.bindings] == ["0.0.0.0", "::"]
    assert {str(binding.host_port) for binding in web.bindings} == {
        told["HostPort"] for told in document["NetworkSettings"]["Ports"]["80/tcp"]
    }
    assert internal.bindings == ()

    places = {place.network: place for place in container.networks}
    assert set(places) == {plain, dual}
    for network, place in places.items():
        told = document["NetworkSettings"]["Networks"][network]
        assert (place.network_id, place.ipv4) == (told["NetworkID"], told["IPAddress"])
    assert places[plain].ipv6 == ""
    assert places[dual].ipv6.startswith("fd")


async def test_a_container_on_the_hosts_network(docker: Docker, engine: DockerEngine) -> None:
    """It has no address of its own, and its exposed ports have no bindings."""
    container_id = await asyncio.to_thread(docker.run, network_mode="host", expose=["9000/tcp"])
    container = await engine.inspect(container_id)
    assert container is not None
    assert (container.network_mode, container.networks) == ("host", ())
    assert [(port.number, port.bindings) for port in container.ports] == [(9000, ())]


async def test_a_container_that_exited(docker: Docker, engine: DockerEngine) -> None:
    """It is still there for inspect, with its exit code, and no longer listed."""
    container_id = await asyncio.to_thread(docker.run, command=["sh", "-c", "exit 3"])
    await asyncio.to_thread(docker.api.wait, container_id)
    container = await engine.inspect(container_id)
    assert container is not None
    assert (container.state, container.exit_code, container.up) == ("exited", 3, False)
    assert container_id not in [listed.id for listed in await engine.containers()]


async def test_a_container_that_is_gone(docker: Docker, engine: DockerEngine) -> None:
    """A removed container is None, and so is one that never was."""
    container_id = await asyncio.to_thread(docker.run)
    await asyncio.to_thread(docker.remove, container_id)
    assert await engine.inspect(container_id) is None
    assert await engine.inspect("f" * 64) is None


async def test_many_at_once(docker: Docker, engine: DockerEngine) -> None:
    """A hundred inspects at once share sixteen connections and all come back."""
    container_id = await asyncio.to_thread(docker.run)
    found = await asyncio.gather(*(engine.inspect(container_id) for _ in range(100)))
    assert [container.id for container in found if container] == [container_id] * 100


async def fingerprint(engine: DockerEngine, container: str) -> Hashable:
    return next(listed.fingerprint for listed in await engine.containers() if listed.id == container)


async def test_the_fingerprint_changes_with_what_matters(docker: Docker, engine: DockerEngine) -> None:
    """While nothing happens it stays; a pause, a new name and another network give a new one each."""
    network = await asyncio.to_thread(docker.network)
    ports = {"80/tcp": 0, "81/tcp": 0, "82/udp": 0}
    container = await asyncio.to_thread(docker.run, ports=ports)
    changes: list[tuple[str, Callable[[], object]]] = [
        ("pause", lambda: docker.pause(container)),
        ("unpause", lambda: docker.unpause(container)),
        ("rename", lambda: docker.rename(container, unique("renamed"))),
        ("connect", lambda: docker.connect(network, container)),
        ("disconnect", lambda: docker.disconnect(network, container)),
    ]
    for what, change in changes:
        before = {await fingerprint(engine, container) for _ in range(5)}
        assert len(before) == 1, f"before {what}"
        await asyncio.to_thread(change)
        assert await fingerprint(engine, container) not in before, what


async def test_the_fingerprint_changes_with_health(docker: Docker, engine: DockerEngine) -> None:
    """By the time that a transition of health is told, the listing knows of it."""
    async with watching(engine) as watch:
        container = await asyncio.to_thread(docker.run, healthcheck=health("test ! -e /tmp/ill"))
        await watch.expect(Event(container, "health_status"))
        healthy = await fingerprint(engine, container)
        await asyncio.to_thread(docker.exec, container, "touch", "/tmp/ill")
        await watch.expect(Event(container, "health_status"))
        assert await fingerprint(engine, container) != healthy


# Over TCP -----------------------------------------------------------------


@contextlib.asynccontextmanager
async def relay(engine_url: str, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Offer the engine's unix socket on a TCP port of 127.0.0.1; yield its URL."""
    if not engine_url.startswith("unix://"):
        pytest.skip("the engine is on TCP already: nothing to relay")
    tasks: set[asyncio.Task[None]] = set()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(urlsplit(engine_url).path)
        for pair in ((reader, far_writer), (far_reader, writer)):
            tasks.add(asyncio.create_task(pipe(*pair)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        if tasks:
            await asyncio.wait(tasks, timeout=5)


async def works(url: str, docker: Docker) -> None:
    """Reads and events come over `url`."""
    async with DockerEngine(url, stats=Stats()) as engine, watching(engine) as watch:
        container_id = await asyncio.to_thread(docker.run)
        await watch.expect(Event(container_id, "start"))
        assert container_id in [listed.id for listed in await engine.containers()]
        assert await engine.inspect(container_id) is not None


async def test_over_tcp(docker: Docker, engine_url: str) -> None:
    """An engine on a TCP port is one like any other."""
    async with relay(engine_url) as url:
        await works(url, docker)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def certificate_folder(authority: Authority, folder: Path) -> Path:
    """A folder as DOCKER_CERT_PATH wants it."""
    certificate, key = authority.issue("client")
    (folder / "cert.pem").write_bytes(certificate.read_bytes())
    (folder / "key.pem").write_bytes(key.read_bytes())
    (folder / "ca.pem").write_bytes(authority.ca.read_bytes())
    return folder


def server_context(authority: Authority) -> ssl.SSLContext:
    """An engine that wants clients' certificates, as dockerd --tlsverify does."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*authority.issue("server"))
    return context


async def test_over_tls(
    docker: Docker, engine_url: str, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DOCKER_TLS_VERIFY and DOCKER_CERT_PATH reach an engine that wants both sides verified."""
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificate_folder(authority, tmp_path)))
    async with relay(engine_url, server_context(authority)) as url:
        await works(url, docker)


async def test_tls_with_an_engine_that_nobody_vouches_for(
    engine_url: str, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine with another authority's certificate is refused, and the message says what to check."""
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(certificate_folder(Authority(other), tmp_path)))
    async with (
        relay(engine_url, server_context(authority)) as url,
        DockerEngine(url, stats=Stats()) as engine,
    ):
        with pytest.raises(
            EngineError, match=f"no TLS with {url}: .*check DOCKER_TLS_VERIFY and DOCKER_CERT_PATH"
        ):
            await engine.info()
