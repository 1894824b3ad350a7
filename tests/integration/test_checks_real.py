"""Every check that a label can ask for, from a real container to a real Consul that runs it."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from registrator.settings import join_host_port
from tests.catalog.grpc_servers import health_server
from tests.catalog.servers import self_signed
from tests.support.agent import AgentProcess
from tests.support.consul import ConsulServer
from tests.support.engine import HTTPD, Docker, unique, wait_for

pytestmark = [pytest.mark.consul, pytest.mark.engine]

SOON = 6.0  # Consul runs a new check within its interval, here a second


class Site(ThreadingHTTPServer):
    """A web server on loopback that notes every request."""

    def __init__(self, host: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), _Handler)
        self.seen: list[dict[str, Any]] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        request = {"method": self.command, "path": self.path, "body": body}
        self.server.seen.append({**request, **{k.lower(): v for k, v in self.headers.items()}})
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    do_POST = do_PUT = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def handle(self) -> None:
        with suppress(OSError):  # a client that mistrusts the certificate hangs up
            super().handle()


@contextmanager
def site(host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    with Site(host) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Bench:
    """An agent on a Consul, and containers whose checks are looked at there."""

    def __init__(self, agent: AgentProcess, consul: ConsulServer, docker: Docker) -> None:
        self.agent, self.consul, self.docker = agent, consul, docker
        self.name = ""

    def run(self, labels: Mapping[str, str], *, port: int = 0, ip: str = "127.0.0.1", **more: Any) -> str:
        """A container with these labels; with `port` its service is one on this host. Returns its id.

        It is then on the host's network, of which the operator gave loopback as the address.
        """
        self.name = unique("web")
        place = {"SERVICE_IP": ip, "SERVICE_PORT": str(port)} if port else {}
        if port:
            more.setdefault("network_mode", "host")
        named = {"SERVICE_NAME": self.name, "SERVICE_ID": self.name, "SERVICE_CHECK_INTERVAL": "1s"}
        container = self.docker.run(labels={**named, **place, **labels}, **more)
        wait_for(lambda: self.consul.get(f"/v1/health/service/{self.name}"), "instance in Consul")
        return container

    def checks(self) -> dict[str, Any]:
        """The service's checks in Consul's catalog, by what follows the instance's id in theirs."""
        found = self.consul.get(f"/v1/health/checks/{self.name}")
        return {check["CheckID"].removeprefix(f"{self.name}:"): check for check in found}

    def becomes(self, key: str, status: str) -> str:
        """Wait until a check has a status and an output; the output."""

        def there() -> Any:
            check = self.checks().get(key, {})
            return check if check.get("Status") == status and check.get("Output") else None

        return str(wait_for(there, f"{status} check {key}", SOON)["Output"])


@pytest.fixture(scope="module")
def willing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulServer]:
    """A Consul that runs scripts which come over its API."""
    with ConsulServer(tmp_path_factory.mktemp("consul"), {"enable_script_checks": True}) as server:
        yield server


@pytest.fixture
def bench(tmp_path: Path, engine_url: str, willing: ConsulServer, docker: Docker) -> Iterator[Bench]:
    options = ("--docker", engine_url, "--consul", willing.url, "--allow-script-checks")
    agent = AgentProcess(tmp_path, *options, "--ip", "127.0.0.1", "--ip", "::1")
    try:
        agent.start_ready()
        yield Bench(agent, willing, docker)
    finally:
        docker.cleanup()
        agent.close()


def test_http_tcp_script_and_docker_exec_on_one_container(bench: Bench) -> None:
    """Several checks on one service, each of another kind, all run by Consul against the container."""
    container = bench.run(
        {
            "SERVICE_CHECK_HTTP": "/index.html",
            "SERVICE_CHECK_TCP": "true",
            "SERVICE_CHECK_SCRIPT": "sh -c 'echo asked $SERVICE_IP at $SERVICE_PORT; exit 1'",
            "SERVICE_CHECK_DOCKER": "cat /www/index.html",
        },
        command=HTTPD,
        expose=["80/tcp"],
    )
    address = bench.docker.address(container)
    assert bench.becomes("http", "passing") == f"HTTP GET http://{address}:80/index.html: 200 OK Output: ok\n"
    assert bench.becomes("tcp", "passing") == f"TCP connect {address}:80: Success"
    assert bench.becomes("script", "warning") == f"asked {address} at 80\n"
    assert bench.becomes("exec", "passing") == "ok\n"
    assert bench.checks().keys() == {"http", "tcp", "script", "exec"}


def test_a_docker_exec_check_has_the_shell_that_was_asked_for(bench: Bench) -> None:
    bench.run({"SERVICE_CHECK_DOCKER": "echo by $0", "SERVICE_CHECK_SHELL": "/bin/ash", "SERVICE_PORT": "1"})
    assert bench.becomes("exec", "passing") == "by /bin/ash\n"


def test_https_with_and_without_verification(bench: Bench, tmp_path: Path) -> None:
    with site(tls=self_signed(tmp_path)) as server:
        bench.run({"SERVICE_CHECK_HTTPS": "/"}, port=server.port)
        assert "x509: certificate" in bench.becomes("https", "critical")
        bench.run({"SERVICE_CHECK_HTTPS": "/", "SERVICE_CHECK_TLS_SKIP_VERIFY": "true"}, port=server.port)
        said = bench.becomes("https", "passing")
        assert said == f"HTTP GET https://127.0.0.1:{server.port}/: 200 OK Output: hello"


def test_grpc(bench: Bench, tmp_path: Path) -> None:
    """The server as a whole, one of its services, and over TLS."""
    self_signed(tmp_path)
    with health_server() as plain, health_server(tls=tmp_path) as tls:
        bench.run({"SERVICE_CHECK_GRPC": "true"}, port=_port(plain))
        assert bench.becomes("grpc", "passing") == f"gRPC check {plain}: success"
        bench.run({"SERVICE_CHECK_GRPC": "down"}, port=_port(plain))
        assert bench.becomes("grpc", "critical") == "gRPC application didn't report service healthy"
        encrypted = {"SERVICE_CHECK_GRPC_USE_TLS": "true", "SERVICE_CHECK_TLS_SKIP_VERIFY": "true"}
        bench.run({"SERVICE_CHECK_GRPC": "/up", **encrypted}, port=_port(tls))
        assert bench.becomes("grpc", "passing") == f"gRPC check {tls}/up: success"


def test_a_ttl_is_refreshed_by_the_app(bench: Bench) -> None:
    """The check's id is "service:<id>", as Consul itself names a service's only check."""
    bench.run({"SERVICE_CHECK_TTL": "1s", "SERVICE_PORT": "80"})
    key = f"service:{bench.name}"
    assert bench.checks()[key]["Status"] == "critical"
    bench.consul.put(f"/v1/agent/check/pass/{key}?note=beat")
    assert bench.becomes(key, "passing") == "beat"
    assert "TTL expired" in bench.becomes(key, "critical")


def test_method_header_and_body_are_sent(bench: Bench) -> None:
    with site() as server:
        bench.run(
            {
                "SERVICE_CHECK_HTTP": "/health?deep=1",
                "SERVICE_CHECK_HTTP_METHOD": "put",
                "SERVICE_CHECK_HEADER": '{"X-Token": ["abc"], "Host": "web.test"}',
                "SERVICE_CHECK_BODY": "ping",
            },
            port=server.port,
        )
        bench.becomes("http", "passing")
    wanted = {"method": "PUT", "path": "/health?deep=1", "body": "ping", "host": "web.test", "x-token": "abc"}
    assert wanted.items() <= server.seen[0].items()


def test_a_label_leads_no_check_to_the_nodes_loopback(
    tmp_path: Path, engine_url: str, willing: ConsulServer, docker: Docker
) -> None:
    """Without `--ip 127.0.0.1` the container's own address is registered and checked, with one line each."""
    options = ("--docker", engine_url, "--consul", willing.url, "--ip-from-label", "lan")
    agent = AgentProcess(tmp_path, *options)
    bench = Bench(agent, willing, docker)
    places = {
        "SERVICE_IP": "127.0.0.1",
        "SERVICE_80_IP": "::ffff:127.0.0.1",
        "SERVICE_80_TCP_IP": "2130706433",
        "lan": "::1/128",
    }
    try:
        agent.start_ready()
        for number, (label, text) in enumerate(places.items(), 1):
            labels = {label: text, "SERVICE_CHECK_HTTP": "/index.html"}
            container = bench.run(labels, command=HTTPD, expose=["80/tcp"])
            target = f"http://{docker.address(container)}:80/index.html"
            assert bench.becomes("http", "passing") == f"HTTP GET {target}: 200 OK Output: ok\n"
            (entry,) = willing.get(f"/v1/health/service/{bench.name}")
            assert entry["Service"]["Address"] == docker.address(container)
            assert agent.log.count("it is ignored") == number
    finally:
        docker.cleanup()
        agent.close()


def test_of_what_is_not_the_containers_own_only_the_status_is_shown(
    tmp_path: Path, engine_url: str, willing: ConsulServer, docker: Docker
) -> None:
    """Of another machine Consul keeps one octet; with --own-checks-only there is no check of it."""
    other = docker.run(command=HTTPD)
    target = docker.address(other)
    for options, checks in (((), {"http"}), (("--own-checks-only",), set())):
        agent = AgentProcess(tmp_path, "--docker", engine_url, "--consul", willing.url, *options)
        bench = Bench(agent, willing, docker)
        try:
            agent.start_ready()
            labels = {"SERVICE_IP": target, "SERVICE_PORT": "80", "SERVICE_CHECK_HTTP": "/index.html"}
            container = bench.run(labels)
            assert bench.checks().keys() == checks
            if checks:
                said = bench.becomes("http", "passing")
                assert said == f"HTTP GET http://{target}:80/index.html: 200 OK Output: \n"
            assert agent.log.count("is not the container itself") == (not checks)
        finally:
            docker.api.remove_container(container, force=True)
            agent.close()
    docker.cleanup()


class Script:
    """A script that notes when it runs and ends as it is told, in the home of the Consul that runs it.

    A web server would be asked by every agent on this engine; this is this Consul's alone.
    """

    def __init__(self, consul: ConsulServer) -> None:
        self._runs, self._code = consul.folder / "runs", consul.folder / "code"
        self._runs.write_text("")
        self.ends_with(0)
        self.label = "sh -c 'date +%s.%N >> $HOME/runs; echo done; exit $(cat $HOME/code)'"

    def ends_with(self, code: int) -> None:
        """From now on: 0 is passing, 1 warning, else critical, as Consul has it."""
        self._code.write_text(str(code))

    @property
    def times(self) -> list[float]:
        """When it ran, in unix seconds."""
        return [float(line) for line in self._runs.read_text().split()]


def test_thresholds(bench: Bench) -> None:
    """Three results in a row for passing, two for critical; the first result of all counts at once."""
    script = Script(bench.consul)
    script.ends_with(2)
    bench.run(
        {
            "SERVICE_CHECK_SCRIPT": script.label,
            "SERVICE_CHECK_SUCCESS_BEFORE_PASSING": "3",
            "SERVICE_CHECK_FAILURES_BEFORE_CRITICAL": "2",
            "SERVICE_PORT": "80",
        }
    )
    bench.becomes("script", "critical")
    before = len(script.times)
    script.ends_with(0)
    bench.becomes("script", "passing")
    assert len(script.times) - before >= 3
    before = len(script.times)
    script.ends_with(2)
    bench.becomes("script", "critical")
    assert len(script.times) - before >= 2


@pytest.mark.parametrize("status", ["passing", "warning", "critical"])
def test_the_first_status(bench: Bench, status: str) -> None:
    """Until there is a result, which here takes up to an hour."""
    bench.run(
        {
            "SERVICE_CHECK_TCP": "1",
            "SERVICE_CHECK_INTERVAL": "1h",
            "SERVICE_CHECK_INITIAL_STATUS": status,
        },
        port=1,
    )
    assert bench.checks()["tcp"]["Status"] == status


def test_the_interval_holds(bench: Bench) -> None:
    script = Script(bench.consul)
    labels = {"SERVICE_CHECK_SCRIPT": script.label, "SERVICE_CHECK_INTERVAL": "2500ms", "SERVICE_PORT": "80"}
    bench.run(labels)
    wait_for(lambda: len(script.times) > 2, "three runs", 15)
    first, second, third = script.times[:3]
    assert second - first > 2.4
    assert third - second > 2.4


def test_a_slow_answer_is_no_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """CHECK_TIMEOUT holds."""
    with site() as server:
        monkeypatch.setattr(_Handler, "log_request", lambda *_: time.sleep(1.5))
        bench.run({"SERVICE_CHECK_HTTP": "/", "SERVICE_CHECK_TIMEOUT": "200ms"}, port=server.port)
        assert "Client.Timeout exceeded" in bench.becomes("http", "critical")


def test_ipv6_targets_are_bracketed(bench: Bench) -> None:
    with site("::1") as web, health_server("[::1]") as grpc:
        bench.run({"SERVICE_CHECK_HTTP": "/", "SERVICE_CHECK_TCP": "1"}, port=web.port, ip="::1")
        target = join_host_port("::1", web.port)
        assert bench.becomes("http", "passing") == f"HTTP GET http://{target}/: 200 OK Output: hello"
        assert bench.becomes("tcp", "passing") == f"TCP connect {target}: Success"
        bench.run({"SERVICE_CHECK_GRPC": "1"}, port=_port(grpc), ip="::1")
        assert bench.becomes("grpc", "passing") == f"gRPC check {grpc}: success"


def test_the_legacy_helper_is_called_as_it_always_was(bench: Bench) -> None:
    """CHECK_CMD runs `check-cmd <short id> <port> <command>`; where there is none Consul says so."""
    bench.run({"SERVICE_CHECK_CMD": "/bin/check", "SERVICE_PORT": "80"})
    assert "check-cmd" in bench.becomes("cmd", "critical")


def test_a_consul_that_runs_no_scripts_gets_the_service_without_them(
    tmp_path: Path, engine_url: str, consul_shared: ConsulServer, docker: Docker
) -> None:
    """One warning that says what to change; the other checks stand; a resync writes nothing."""
    options = ("--docker", engine_url, "--consul", consul_shared.url, "--allow-script-checks")
    agent = AgentProcess(tmp_path, *options, "--resync", "1")
    bench = Bench(agent, consul_shared, docker)
    try:
        agent.start_ready()
        checks = {"SERVICE_CHECK_SCRIPT": "true", "SERVICE_CHECK_DOCKER": "true", "SERVICE_CHECK_TTL": "600s"}
        bench.run({**checks, "SERVICE_PORT": "80"})
        assert bench.checks().keys() == {f"service:{bench.name}"}
        index = consul_shared.get(f"/v1/health/service/{bench.name}")[0]["Service"]["ModifyIndex"]
        rounds = agent.metric(ROUNDS)
        wait_for(lambda: agent.metric(ROUNDS) > rounds + 1, "resyncs", 5)
        assert consul_shared.get(f"/v1/health/service/{bench.name}")[0]["Service"]["ModifyIndex"] == index
        warnings = [line for line in agent.log.splitlines() if bench.name in line and "WARNING" in line]
        assert len(warnings) == 1
        assert "set enable_script_checks in the agent's configuration" in warnings[0]
    finally:
        docker.cleanup()
        agent.close()


def test_without_leave_such_labels_are_refused_by_the_agent(
    tmp_path: Path, engine_url: str, willing: ConsulServer, docker: Docker
) -> None:
    """Whoever may set a label does not thereby decide what runs on the node."""
    agent = AgentProcess(tmp_path, "--docker", engine_url, "--consul", willing.url)
    bench = Bench(agent, willing, docker)
    try:
        agent.start_ready()
        bench.run({"SERVICE_CHECK_SCRIPT": "true", "SERVICE_CHECK_DOCKER": "true", "SERVICE_PORT": "80"})
        assert bench.checks() == {}
        assert agent.log.count("--allow-script-checks") == 2
    finally:
        docker.cleanup()
        agent.close()


ROUNDS = 'registrator_reconcile_rounds_total{result="ok"}'


def _port(server: str) -> int:
    return int(server.rpartition(":")[2])
