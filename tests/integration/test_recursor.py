"""The agent with unbound and dnsmasq behind it, asked by dig; and beside a Consul with recursors."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.message
import dns.query
import dns.rcode
import dns.rrset
import pytest

from tests.support import unavailable
from tests.support.agent import AgentProcess
from tests.support.consul import ConsulServer, free_ports
from tests.support.engine import wait_for

UNBOUND = """
server:
    interface: {host}
    port: {port}
    chroot: ""
    username: ""
    use-syslog: no
    do-daemonize: no
    directory: "{folder}"
    pidfile: "{folder}/unbound.pid"
    module-config: "iterator"
    local-zone: "example.test." static
    local-data: "example.test. 300 SOA ns.example.test. root.example.test. 1 2 3 4 60"
    local-data: "www.example.test. 300 A 192.0.2.7"
    local-data: "www.example.test. 300 AAAA 2001:db8::7"
    local-data: "host.example.test. 300 A 192.0.2.8"
    local-data: "example.test. 300 MX 10 mail.example.test."
    local-data-ptr: "192.0.2.7 300 www.example.test"
    local-data-ptr: "2001:db8::7 300 www.example.test"
{many}
"""
MANY = 300
DNSMASQ = "-k -C /dev/null --no-resolv --no-hosts --bind-interfaces --user=root --local=/example.test/"
DATA = (
    "--host-record=www.example.test,192.0.2.77,2001:db8::77",
    "--txt-record=text.example.test,hello",
    "--local-ttl=120",
)

Serve = Callable[..., str]  # host and port -> where it answers, for --recursor


def tool(name: str, package: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if not found:
        unavailable(f"{name} is missing; install Debian's {package}")
    return found


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """What is killed when the test is over."""
    found: list[subprocess.Popen[bytes]] = []
    yield found
    for process in found:
        process.kill()
        process.wait(10)


def started(processes: list[subprocess.Popen[bytes]], command: list[str], host: str, port: int) -> str:
    """Run a resolver until it answers; where that is."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    processes.append(process)

    def ready() -> bool:
        assert process.poll() is None, f"{command[0]} ended; is {host} port {port} taken?"
        with contextlib.suppress(OSError, dns.exception.Timeout):
            dns.query.udp(dns.message.make_query("www.example.test", "A"), host, 0.5, port)
            return True
        return False

    wait_for(ready, f"{command[0]} at {host} port {port}", 10)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@pytest.fixture
def unbound(tmp_path: Path, processes: list[subprocess.Popen[bytes]]) -> Serve:
    def serve(host: str = "127.0.0.1", port: int = 0) -> str:
        port = port or free_ports(1)[0]
        many = "\n".join(
            f'    local-data: "many.example.test. 300 A 10.0.{n // 250}.{n % 250}"' for n in range(MANY)
        )
        conf = tmp_path / f"unbound-{port}.conf"
        conf.write_text(UNBOUND.format(host=host, port=port, folder=tmp_path, many=many))
        return started(processes, [tool("unbound", "unbound"), "-d", "-c", str(conf)], host, port)

    return serve


@pytest.fixture
def dnsmasq(processes: list[subprocess.Popen[bytes]]) -> Serve:
    def serve(host: str = "127.0.0.1", port: int = 0) -> str:
        port = port or free_ports(1)[0]
        at = [f"--port={port}", f"--listen-address={host}"]
        return started(processes, [tool("dnsmasq", "dnsmasq-base"), *DNSMASQ.split(), *at, *DATA], host, port)

    return serve


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., AgentProcess]]:
    """Start an agent that needs no engine: names outside are answered before the catalog is known."""
    agents: list[AgentProcess] = []

    def running(*options: str, enter: tuple[str, ...] = (), host: str = "127.0.0.1") -> AgentProcess:
        agent = AgentProcess(
            tmp_path, "--docker", f"unix://{tmp_path}/none.sock", *options, enter=enter, host=host
        )
        agents.append(agent)
        agent.start()
        wait_for(lambda: agent.status("/metrics") == 200, "the agent's HTTP", 20)
        return agent

    yield running
    for agent in agents:
        agent.close()


def dig(agent: AgentProcess, *arguments: str) -> str:
    command = ["dig", f"@{agent.host}", "-p", str(agent.dns_port), "+tries=1", "+time=5", *arguments]
    tool("dig", "bind9-dnsutils")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def short(agent: AgentProcess, *arguments: str) -> list[str]:
    return sorted(dig(agent, "+short", *arguments).split())


def seen(text: str) -> str:
    """The response code and flags."""
    found = re.search(r"status: (\w+).*?flags: ([\w ]+);", text, re.DOTALL)
    assert found, text
    return f"{found[1]} {found[2]}"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_unbound_behind_the_agent(unbound: Serve, run: Callable[..., AgentProcess], host: str) -> None:
    """Over both families: addresses, other types, nothing, TCP after TC, the cache."""
    agent = run("--recursor", unbound(host))
    assert short(agent, "www.example.test", "A") == ["192.0.2.7"]
    assert short(agent, "www.example.test", "AAAA") == ["2001:db8::7"]
    assert short(agent, "example.test", "MX") == ["10", "mail.example.test."]
    missing = dig(agent, "none.example.test")
    assert seen(missing) == "NXDOMAIN qr rd ra"
    assert "SOA" in missing
    assert seen(dig(agent, "www.example.test", "TXT")) == "NOERROR qr rd ra"
    assert len(short(agent, "many.example.test")) == MANY
    assert "tc" in seen(dig(agent, "+ignore", "+noedns", "many.example.test"))
    asked = agent.metric('registrator_recursor_queries_total{outcome="answered"}')
    hits = agent.metric("registrator_recursor_cache_hits_total")
    assert short(agent, "wWw.example.TEST", "A") == ["192.0.2.7"]
    assert agent.metric('registrator_recursor_queries_total{outcome="answered"}') == asked
    assert agent.metric("registrator_recursor_cache_hits_total") == hits + 1
    assert agent.metric("registrator_recursor_cached_replies") > 5
    assert agent.metric('registrator_recursor_queries_total{outcome="missing"}') == 1


def test_the_next_one_is_asked_where_one_is_dead_and_the_log_tells_when_all_are(
    dnsmasq: Serve, run: Callable[..., AgentProcess], processes: list[subprocess.Popen[bytes]]
) -> None:
    dead = f"127.0.0.1:{free_ports(1)[0]}"
    agent = run("--recursor", dead, "--recursor", dnsmasq())
    assert short(agent, "www.example.test") == ["192.0.2.77"]
    assert short(agent, "text.example.test", "TXT") == ['"hello"']
    assert "no recursor" not in agent.log
    processes[-1].kill()
    processes[-1].wait(10)
    assert seen(dig(agent, "other.example.test")) == "SERVFAIL qr rd ra"
    assert short(agent, "www.example.test") == ["192.0.2.77"]  # it is kept
    lines = [line for line in agent.log.splitlines() if "no recursor answers" in line]
    assert len(lines) == 1
    assert f"{dead}: Connection refused" in lines[0]


def test_an_agent_is_not_its_own_recursor(run: Callable[..., AgentProcess], tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path, "--docker", f"unix://{tmp_path}/none.sock")
    agent._options = (*agent._options, "--recursor", f"127.0.0.1:{agent.dns_port}")
    agent.start()
    assert agent._process
    assert agent._process.wait(20) == 2
    assert "this agent itself answers; give another resolver" in agent.log


def test_the_systems_recursors_are_read_again_when_they_change(
    unbound: Serve, dnsmasq: Serve, run: Callable[..., AgentProcess], tmp_path: Path
) -> None:
    """In a mount namespace with a resolv.conf of its own, which names the agent itself first."""
    if os.geteuid() or not shutil.which("unshare"):
        unavailable("a mount namespace cannot be made; run as root, with util-linux")
    unbound("127.0.53.1", 53)
    dnsmasq("127.0.53.2", 53)
    own, file = "127.0.53.9", tmp_path / "resolv.conf"
    file.write_text(f"nameserver {own}\nnameserver 127.0.53.1\n")
    mount = f'mount --bind {file} /etc/resolv.conf && exec "$@"'
    agent = run(
        *("--recursor", "system", "--dns", f"{own}:53"), enter=("unshare", "--mount", "sh", "-c", mount, "sh")
    )
    assert short(agent, "www.example.test") == ["192.0.2.7"]
    assert "recursors, by /etc/resolv.conf: 127.0.53.1:53" in agent.log
    file.write_text(f"nameserver {own}\nnameserver 127.0.53.2\n")
    others = (f"n{number}.example.test" for number in itertools.count())
    new = "recursors, by /etc/resolv.conf: 127.0.53.2:53"
    wait_for(lambda: dig(agent, next(others)) and new in agent.log, "the new nameserver", 10)
    assert short(agent, "text.example.test", "TXT") == ['"hello"']


QUESTIONS = (
    *(("alias.service.consul", kind) for kind in ("A", "SRV", "ANY")),
    *(("host.service.consul", kind) for kind in ("A", "SRV")),
    ("gone.service.consul", "A"),
    ("host.example.test", "A"),
    ("none.example.test", "A"),
    ("example.test", "MX"),
    ("7.2.0.192.in-addr.arpa", "PTR"),
    ("7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", "PTR"),
    ("1.0.9.10.in-addr.arpa", "PTR"),
    ("8.2.0.192.in-addr.arpa", "PTR"),
)


@pytest.mark.consul
def test_beside_consul_with_the_same_recursor(
    unbound: Serve, run: Callable[..., AgentProcess], tmp_path: Path
) -> None:
    """What is forwarded, and where aliases and SRV records lead, is the same: RCODE, flags, records."""
    recursor = unbound()
    folder = tmp_path / "consul"
    folder.mkdir()
    with ConsulServer(folder, {"recursors": [recursor]}) as consul:
        for name, address in (("alias", "host"), ("host", "host"), ("gone", "none")):
            service = {"Service": name, "Address": f"{address}.example.test", "Port": 80}
            node = {"Node": f"{name}-node", "Address": "10.9.0.1", "Service": service}
            consul.put("/v1/catalog/register", node)
        agent = run("--consul", consul.url, "--recursor", recursor)
        wait_for(lambda: "NXDOMAIN" not in dig(agent, "alias.service.consul"), "the catalog", 10)
        for name, kind in QUESTIONS:
            theirs = _ask(consul.host, consul.dns_port, name, kind)
            assert _ask(agent.host, agent.dns_port, name, kind) == theirs, (name, kind)


def _ask(host: str, port: int, name: str, kind: str) -> tuple[str, str, set[str], set[str]]:
    """RCODE, flags, and the records of answer and additional, but for the TTLs that we count down."""
    query = dns.message.make_query(name, kind, use_edns=0, payload=4096)
    reply = dns.query.udp(query, host, 5, port)
    ours = name.endswith("consul")
    # Consul leaves AA as upstream has it; we clear it in what we forward, as RFC 1034 (4.3.1) means it.
    flags = dns.flags.to_text(reply.flags if ours else reply.flags & ~dns.flags.AA)
    return dns.rcode.to_text(reply.rcode()), flags, _records(reply.answer), _records(reply.additional)


def _records(section: list[dns.rrset.RRset]) -> set[str]:
    return {
        f"{rrset.name} {dns.rdatatype.to_text(rrset.rdtype)} {data}" for rrset in section for data in rrset
    }
