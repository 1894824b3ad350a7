"""Names as containers resolve them: on every kind of network, with every kind of resolver.

The engine is a private one, a Swarm's only node for the overlay's sake, with
agents on its network at two link-local addresses, one of them with
--bare-names; another engine has our address in its daemon.json. The containers
have this machine's own programs (glibc's getent, Python, dig) and a static one
with musl's resolver, which is Alpine's.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pytest

from tests.support import resolvers, unavailable
from tests.support.agent import AgentProcess
from tests.support.engine import Docker, private_engine_at, unique, wait_for
from tests.support.resolvers import CLIENTS
from tests.support.swarm import OneNodeSwarm

pytestmark = pytest.mark.engine

PLAIN, BARE = "169.254.53.53", "169.254.53.54"  # BARE: with --bare-names
SIX = "fd53::53"
SEARCH = "service.consul"
PEER = "peer"  # the service, with one instance on each network
NETWORKS = ("bridge", "user", "overlay")
OFFICE, PRINTER = "office.example", "192.0.2.80"

UPSTREAM = """
server:
    interface: {address}
    access-control: {address} allow
    chroot: ""
    username: ""
    use-syslog: no
    directory: "{folder}"
    pidfile: "{folder}/pid"
    local-zone: "." static
    local-data: "printer.office.example. A {printer}"
    local-data: "printer. A {printer}"
"""
each_client = pytest.mark.parametrize("client", CLIENTS)
each_network = pytest.mark.parametrize("network", NETWORKS)


@dataclass
class Node:
    """The engine, with the peer's instances, and containers that ask, each made when it is first needed."""

    docker: Docker
    networks: dict[str, str]  # their names on the engine
    peers: dict[str, str]  # the address of the instance on each network
    programs: list[str]  # what askers have mounted

    def __post_init__(self) -> None:
        self.asker = cache(self._asker)

    def _asker(self, network: str, *servers: str, search: str = "", options: tuple[str, ...] = ()) -> str:
        """A container on a network with these DNS settings; search domains are separated by spaces."""
        return self.docker.run(
            network_mode=self.networks[network],
            binds=self.programs,
            dns=list(servers),
            dns_search=search.split(),
            dns_opt=list(options),
        )

    def resolve(self, client: str, name: str, asker: str) -> set[str]:
        """The addresses that one of the clients finds in a container."""
        return resolvers.addresses(self.docker.exec(asker, *CLIENTS[client], name))


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What askers have mounted."""
    return resolvers.programs(tmp_path_factory.mktemp("programs"))


def on_the_engine(
    swarm: OneNodeSwarm, folder: Path, address: str, *options: str, before: Sequence[str] = ()
) -> AgentProcess:
    """An agent on the engine's network, with this link-local address; not started."""
    options = ("--docker", swarm.url, "--dns-link-local", address, *options)
    return AgentProcess(folder, *options, host=swarm.address, enter=[*swarm.enter, *before])


def tells(agent: AgentProcess, service: str, address: str) -> bool:
    return agent.ask(service) == [address]


def loopback(swarm: OneNodeSwarm) -> str:
    """The addresses on the loopback of the engine's network."""
    shown = [*swarm.enter, "ip", "-o", "address", "show", "dev", "lo"]
    return subprocess.run(shown, capture_output=True, text=True, check=True).stdout


@contextmanager
def peers(
    docker: Docker, networks: dict[str, str], agents: Sequence[AgentProcess]
) -> Iterator[dict[str, str]]:
    """An instance on each network, which all the agents know; the addresses by network."""
    try:
        for agent in agents:
            agent.start_ready()
        found = {}
        for network, name in networks.items():
            labels = {"SERVICE_NAME": f"{PEER}-{network}", "SERVICE_PORT": "80"}
            found[network] = docker.address(docker.run(network_mode=name, labels=labels), name)
            for agent in agents:
                wait_for(partial(tells, agent, f"{PEER}-{network}", found[network]), "the peer in DNS")
        yield found
    finally:
        docker.api.close()  # the containers end with their engine
        for agent in agents:
            agent.close()


@pytest.fixture(scope="module")
def node(
    swarm: OneNodeSwarm, programs: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    """The Swarm's node, with both agents."""
    docker = Docker(swarm.url)
    networks = {"bridge": "bridge", "user": docker.network(), "overlay": unique("net")}
    swarm.overlay(networks["overlay"])
    folder = tmp_path_factory.mktemp
    agents = [
        on_the_engine(swarm, folder("plain"), PLAIN),
        on_the_engine(swarm, folder("bare"), BARE, "--bare-names"),
    ]
    with peers(docker, networks, agents) as found:
        yield Node(docker, networks, found, programs)


@pytest.fixture(scope="module")
def six(swarm: OneNodeSwarm, programs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A network with both families on the Swarm's node, and an agent at an address of IPv6."""
    docker = Docker(swarm.url)
    networks = {"six": docker.network(ipv6=True)}
    agent = on_the_engine(swarm, tmp_path_factory.mktemp("six"), SIX)
    with peers(docker, networks, [agent]) as found:
        yield Node(docker, networks, found, programs)


@pytest.fixture(scope="module")
def wide(programs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """An engine whose daemon.json names our address for all containers; the agent there recurses."""
    folder = tmp_path_factory.mktemp
    with private_engine_at(folder("wide"), {"dns": [PLAIN]}) as engine:
        host = OneNodeSwarm(engine)
        docker = Docker(host.url)
        networks = {"bridge": "bridge", "user": docker.network()}
        agent = on_the_engine(host, folder("agent"), PLAIN, "--bare-names", "--recursor", host.address)
        with upstream(host, folder("unbound")), peers(docker, networks, [agent]) as found:
            yield Node(docker, networks, found, programs)
        host.close()


@contextmanager
def upstream(host: OneNodeSwarm, folder: Path) -> Iterator[None]:
    """unbound, which knows two names and denies all others."""
    if not shutil.which("unbound"):
        unavailable("unbound is missing; install Debian's unbound")
    (folder / "conf").write_text(UPSTREAM.format(folder=folder, address=host.address, printer=PRINTER))
    with serving(host, "unbound", "-d", "-c", str(folder / "conf")):
        yield


@contextmanager
def serving(host: OneNodeSwarm, *command: str) -> Iterator[None]:
    """A name server at the node's address, which knows the printer, from when it answers."""
    server = subprocess.Popen([*host.enter, *command])
    try:
        ask = [*host.enter, "dig", f"@{host.address}", "+short", "+tries=1", "+time=1", "printer"]
        run = partial(subprocess.run, ask, capture_output=True, text=True, check=False)
        wait_for(lambda: PRINTER in run().stdout, f"answer of {command[0]}")
        yield
    finally:
        server.kill()
        server.wait(10)


@pytest.fixture(scope="module")
def office(swarm: OneNodeSwarm) -> Iterator[str]:
    """The address of another name server, which knows a printer by some names and denies all others."""
    if not shutil.which("dnsmasq"):
        unavailable("dnsmasq is missing; install Debian's dnsmasq-base")
    own = [
        "--no-resolv",
        "--no-hosts",
        "--user=root",
        "--pid-file=",
        "--bind-interfaces",
        "--conf-file=/dev/null",
    ]
    hosts = ["printer", *(f"{name}.{OFFICE}" for name in ("printer", f"{PEER}-bridge", f"{PEER}-user"))]
    names = [*(f"--host-record={name},{PRINTER}" for name in hosts), "--local=//", "--local=/example/"]
    where = f"--listen-address={swarm.address}"
    with serving(swarm, "dnsmasq", "--keep-in-foreground", *own, *names, where):
        yield swarm.address


def test_a_container_that_asks_before_it_is_known_waits_until_it_is(node: Node) -> None:
    """Its first lookup, in its first milliseconds, has the address on the network that both are on."""
    docker, network, service = node.docker, node.networks["user"], unique("early")
    labels = {"SERVICE_NAME": service}
    peer = docker.run(network_mode=network, labels=labels, ports={"80/tcp": 0}, expose=["80/tcp"])
    own, name = docker.address(peer, network), f"{service}.service.consul"
    known = node.asker("user", PLAIN)
    wait_for(lambda: node.resolve("musl", name, known) == {own}, "the service")
    told = []
    for _ in range(10):
        ask = docker.run(
            network_mode=network, binds=node.programs, dns=[PLAIN], command=[*CLIENTS["musl"], name]
        )
        docker.api.wait(ask)
        told.append(resolvers.addresses(docker.api.logs(ask).decode()))
    assert told == [{own}] * 10


@each_network
@each_client
def test_the_full_name(node: Node, network: str, client: str) -> None:
    """By the node's link-local address, from a network of any kind."""
    asker = node.asker(network, PLAIN)
    assert node.resolve(client, f"{PEER}-{network}.{SEARCH}", asker) == {node.peers[network]}


@each_network
@each_client
def test_a_search_domain(node: Node, network: str, client: str) -> None:
    """One label and `dns_search`; with ndots:1, which musl needs where Docker writes ndots:0 (see below)."""
    options = ("ndots:1",) if client == "musl" else ()
    asker = node.asker(network, PLAIN, search=SEARCH, options=options)
    assert node.resolve(client, f"{PEER}-{network}", asker) == {node.peers[network]}


@each_network
@each_client
def test_a_bare_name(node: Node, network: str, client: str) -> None:
    """One label and no search domain, where the agent has --bare-names."""
    assert node.resolve(client, f"{PEER}-{network}", node.asker(network, BARE)) == {node.peers[network]}


@each_client
def test_a_bare_name_beside_a_search_domain(node: Node, client: str) -> None:
    """Both at once find the same, whichever a resolver tries first."""
    asker = node.asker("user", BARE, search=SEARCH)
    assert node.resolve(client, f"{PEER}-user", asker) == {node.peers["user"]}


def test_musl_and_dockers_ndots(node: Node) -> None:
    """On networks of users Docker writes ndots:0, by which musl searches nothing: bare names are for it."""
    quick = ("timeout:1", "attempts:1")
    searching = node.asker("user", PLAIN, search=SEARCH, options=quick)
    assert "ndots:0" in node.docker.exec(searching, "cat", "/etc/resolv.conf")
    assert node.resolve("musl", f"{PEER}-user", searching) == set()
    assert node.resolve("musl", f"{PEER}-user", node.asker("user", BARE, search=SEARCH))


@pytest.mark.parametrize("network", ["bridge", "user"])
@pytest.mark.parametrize("client", ["glibc", "musl", "python"])
def test_what_is_not_ours_is_asked_of_the_next_server(
    node: Node, office: str, network: str, client: str
) -> None:
    """We refuse it, a bare name of no service as well; a resolver then asks, or believes, the next one."""
    asker = node.asker(network, BARE, office)
    assert node.resolve(client, "printer", asker) == {PRINTER}
    assert node.resolve(client, "printer.office.example", asker) == {PRINTER}


@pytest.mark.parametrize("network", ["bridge", "user"])
@pytest.mark.parametrize("client", ["glibc", "musl"])
def test_search_domains_are_tried_in_their_order(node: Node, office: str, network: str, client: str) -> None:
    """Ours among others: the first that has the name counts, and what we refuse does not end the search."""
    name = f"{PEER}-{network}"  # which the office has as well
    order = (f"{SEARCH} {OFFICE}", {node.peers[network]}), (f"{OFFICE} {SEARCH}", {PRINTER})
    for search, found in order:
        asker = node.asker(network, PLAIN, office, search=search, options=("ndots:1",))
        assert node.resolve(client, name, asker) == found
    nowhere = node.asker(network, PLAIN, office, search=f"none.example {SEARCH}", options=("ndots:1",))
    assert node.resolve(client, name, nowhere) == {node.peers[network]}


@pytest.mark.parametrize(("network", "client"), [("bridge", "glibc"), ("user", "glibc"), ("user", "musl")])
def test_what_is_ours_comes_from_us(node: Node, office: str, network: str, client: str) -> None:
    """The next server, which would deny it, is not asked; but by musl, where Docker is not between us."""
    asker = node.asker(network, BARE, office)
    assert node.resolve(client, f"{PEER}-{network}", asker) == {node.peers[network]}


@pytest.mark.parametrize("client", ["glibc", "musl"])
def test_by_an_ipv6_address(six: Node, client: str) -> None:
    """The address may be one of IPv6, for containers that have that."""
    soon_again = ("timeout:2", "attempts:5")  # a new container's own address is not usable for a second
    asker = six.asker("six", SIX, options=soon_again)
    assert six.resolve(client, f"{PEER}-six.{SEARCH}", asker) == {six.peers["six"]}


def test_the_address_goes_with_its_agent(swarm: OneNodeSwarm, tmp_path: Path) -> None:
    """It is on the loopback of the engine's network for as long as the agent runs there."""
    address = "169.254.53.55"
    agent = on_the_engine(swarm, tmp_path, address)
    try:
        agent.start_ready()
        assert f" {address}/32 " in loopback(swarm)
        assert agent.stop() == 0
        assert address not in loopback(swarm)
    finally:
        agent.close()


def test_the_address_stays_for_the_agent_that_takes_over(swarm: OneNodeSwarm, tmp_path: Path) -> None:
    """Of two agents that share it, the first to go leaves it, and the last one takes it away."""
    address = "169.254.53.55"
    with ExitStack() as stack:
        agents = []
        for name in ("old", "new"):
            (tmp_path / name).mkdir()
            agents.append(on_the_engine(swarm, tmp_path / name, address, "--reuse-port"))
            stack.callback(agents[-1].close)
            agents[-1].start_ready()
        old, new = agents
        assert old.stop() == 0
        assert f" {address}/32 " in loopback(swarm)
        assert new.stop() == 0
        assert address not in loopback(swarm)


def test_without_the_capability_the_agent_says_what_it_needs(swarm: OneNodeSwarm, tmp_path: Path) -> None:
    """Exit code 1, and one line."""
    bereft = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    agent = on_the_engine(swarm, tmp_path, "169.254.53.56", before=bereft)
    try:
        agent.start()
        assert agent.wait() == 1
        (line,) = agent.log.splitlines()
        assert "lacks CAP_NET_ADMIN" in line
        assert "--cap-add NET_ADMIN" in line
    finally:
        agent.close()


@pytest.mark.parametrize("network", ["bridge", "user"])
@each_client
def test_as_the_dns_of_the_whole_engine(wide: Node, network: str, client: str) -> None:
    """A container without any DNS settings finds its peers, by the engine's daemon.json."""
    asker = wide.asker(network)
    assert wide.resolve(client, f"{PEER}-{network}.{SEARCH}", asker) == {wide.peers[network]}


@pytest.mark.parametrize("network", ["bridge", "user"])
@each_client
def test_with_a_recursor_it_is_all_that_a_container_needs(wide: Node, network: str, client: str) -> None:
    """What is not ours comes from the recursor: other names, and those of one label that are no service's."""
    asker = wide.asker(network)
    assert wide.resolve(client, "printer.office.example", asker) == {PRINTER}
    assert wide.resolve(client, "printer", asker) == {PRINTER}
    assert wide.resolve(client, f"{PEER}-{network}", asker) == {wide.peers[network]}


def test_an_agents_own_container_needs_a_name_server_of_its_own(wide: Node) -> None:
    """On the host's network too Docker writes the engine's setting, unless the container has one."""
    engines = wide.docker.run(network_mode="host")
    assert nameserver(wide, engines) == PLAIN
    own = wide.docker.run(network_mode="host", dns=["192.0.2.53"])
    assert nameserver(wide, own) == "192.0.2.53"


def nameserver(node: Node, container: str) -> str:
    """The first name server of a container's resolv.conf."""
    return node.docker.exec(container, "cat", "/etc/resolv.conf").split("nameserver ")[1].split()[0]


@pytest.mark.parametrize("network", ["bridge", "user"])
@pytest.mark.parametrize("name", ["nobody", "nobody.office.example", f"nobody.{SEARCH}"])
def test_musl_is_told_at_once_what_does_not_exist(wide: Node, network: str, name: str) -> None:
    """With a recursor nothing is refused, for which it would wait five seconds to say "Try again"."""
    told = wide.docker.exec(wide.asker(network), *CLIENTS["musl"], name)
    assert told == "Name does not resolve\n"
