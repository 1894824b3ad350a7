"""unbound, dnsmasq, BIND and systemd-resolved as clients of ours, by docs/dns.md's stanzas, asked by dig.

The first three are strict, as careful people set them: they validate DNSSEC
from the root on, and take private addresses out of answers. Nothing leaves the
machine: what is outside our zone they ask of a server that refuses all.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import Template

import pytest
import pytest_asyncio

from registrator.lookup.ask import Zone
from registrator.lookup.dns import DnsServer
from registrator.lookup.resolver import Resolver
from registrator.model import OUTSIDE
from registrator.settings import Listen
from registrator.stats import Stats
from tests.lookup.fakes import FakeDirectory, entry, snapshot_of
from tests.support import unavailable
from tests.support.consul import free_ports

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "dns.md"
PROGRAM = Path(__file__).parent / "programs/resolved.sh"
V4, V6 = "127.0.0.1", "::1"
WITHIN = 20.0  # seconds until a resolver must answer
# The root's key of 2017 as IANA publishes it, with which all of them are shipped.
ROOT_KEY = "20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D"
SNAPSHOT = snapshot_of(
    *(entry("web", n) for n in (1, 2)),
    *(entry("many", n, address=f"10.1.{n // 250}.{n % 250}") for n in range(300)),
    entry("six", address="fd00::6"),
)

UNBOUND = """
server:
    interface: 127.0.0.1
    interface: ::1
    port: $port
    chroot: ""
    username: ""
    use-syslog: no
    directory: "$folder"
    pidfile: "$folder/pid"
    trust-anchor: ". DS $root"
    private-address: 10.0.0.0/8
    private-address: fd00::/8
forward-zone:
    name: "."
    forward-addr: 127.0.0.1@$others
$stanza
"""
DNSMASQ = """
listen-address=127.0.0.1,::1
bind-interfaces
port=$port
user=root
pid-file=$folder/pid
no-resolv
no-hosts
dnssec
trust-anchor=.,$root_by_commas
stop-dns-rebind
server=127.0.0.1#$others
$stanza
"""
# A file of BIND's has one block of options, so these go into the stanza's.
NAMED_OPTIONS = """options {
    directory "$folder";
    pid-file "$folder/pid";
    session-keyfile "$folder/key";
    listen-on port $port { 127.0.0.1; };
    listen-on-v6 port $port { ::1; };
    dnssec-validation auto;
    forward only;
    forwarders { 127.0.0.1 port $others; };"""
RESOLVED = """$stanza
FallbackDNS=
DNSStubListener=no
DNSStubListenerExtra=127.0.0.1:$port
DNSStubListenerExtra=[::1]:$port
LLMNR=no
MulticastDNS=no
DNSSEC=no
"""


@dataclass(frozen=True)
class Kind:
    """A resolver: its Debian package, its command, its file, and how our address is written there."""

    package: str
    command: str  # the file's path follows
    file: Callable[[str], str]  # from the stanza to a template
    upstream: str


KINDS = {
    "unbound": Kind("unbound", "unbound -d -c", partial(str.replace, UNBOUND, "$stanza"), "{host}@{port}"),
    "dnsmasq": Kind(
        "dnsmasq-base", "dnsmasq -k -C", partial(str.replace, DNSMASQ, "$stanza"), "{host}#{port}"
    ),
    "named": Kind(
        "bind9",
        "named -f -c",
        lambda stanza: stanza.replace("options {", NAMED_OPTIONS),
        "{host} port {port}",
    ),
    "resolved": Kind(
        "util-linux",
        f"unshare --mount --propagation private {PROGRAM} $resolved",
        partial(str.replace, RESOLVED, "$stanza"),
        "{place}:{port}",
    ),
}


@dataclass(frozen=True)
class Front:
    """A resolver that runs, with ours behind it."""

    port: int

    async def dig(self, *arguments: str, host: str = V4) -> str:
        """What dig prints of its answer."""
        command = ["dig", f"@{host}", "-p", str(self.port), "+tries=1", "+time=5", *arguments]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        return done.stdout

    async def short(self, *arguments: str, host: str = V4) -> list[str]:
        """The data of the answer's records, sorted."""
        return sorted((await self.dig("+short", *arguments, host=host)).splitlines())

    async def status(self, *arguments: str) -> str:
        """The response code and the number of answers; "" for no reply."""
        found = re.search(r"status: (\w+).*ANSWER: (\d+)", await self.dig(*arguments), re.DOTALL)
        return f"{found[1]} {found[2]}" if found else ""


@asynccontextmanager
async def in_front(
    name: str, folder: Path, *, host: str = V4, without: str = "", bare: bool = False
) -> AsyncIterator[Front]:
    """Run our DNS server and before it a resolver with the document's stanza, less the lines `without`.

    `bare`: we have --bare-names, and it has its second stanza too, which is for them.
    """
    kind, stanza = KINDS[name], "".join(documented(name)[: 2 if bare else 1])
    for program, package in ((kind.command.split()[0], kind.package), ("dig", "bind9-dnsutils")):
        if not shutil.which(program):
            unavailable(f"{program} is missing; install Debian's {package}")
    if without:
        assert without in stanza
        stanza = "".join(line for line in stanza.splitlines(keepends=True) if without not in line)
    zone = Zone.named("consul", bare_names=bare)
    async with serving(zone, host) as ours, serving(Zone.named("invalid"), V4) as others:
        (port,) = free_ports(1)
        own = kind.upstream.format(host=V4, place=V4, port=8053)
        assert own in stanza
        place = f"[{host}]" if host == V6 else host
        mine = kind.upstream.format(host=host, place=place, port=ours)
        template = Template(kind.file(stanza.replace(own, mine)))
        values = {"folder": folder, "port": port, "others": others, "root": ROOT_KEY}
        conf = folder / "conf"
        conf.write_text(template.substitute(values, root_by_commas=ROOT_KEY.replace(" ", ",")))
        command = kind.command.replace("$resolved", resolved()) if "$" in kind.command else kind.command
        async with running(*command.split(), str(conf), log=folder / "log"):
            front = Front(port)
            async with asyncio.timeout(WITHIN):
                while not await front.status("web.service.consul", "+time=1"):
                    await asyncio.sleep(0.05)
            yield front


def resolved() -> str:
    """Where systemd-resolved is; skips where it cannot be had, or not be run out of the machine's sight."""
    if os.geteuid():
        unavailable("systemd-resolved needs a mount namespace; run as root")
    found = subprocess.run([ROOT / "scripts/resolved.sh"], capture_output=True, text=True, check=False)
    if found.returncode:
        unavailable(found.stderr.strip())
    return found.stdout.strip()


def documented(name: str) -> list[str]:
    """A resolver's stanzas."""
    return re.findall(rf"^```{name}\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)


@asynccontextmanager
async def serving(zone: Zone, host: str) -> AsyncIterator[int]:
    """Our DNS server for a zone; its port."""
    resolver = Resolver(FakeDirectory(SNAPSHOT), zone, view_of=lambda _: OUTSIDE, stats=Stats())
    server = DnsServer(resolver, [Listen(host, 0)])
    await server.start()
    try:
        yield server.addresses[0].port
    finally:
        await server.close()


@asynccontextmanager
async def running(*command: str, log: Path) -> AsyncIterator[None]:
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)
        try:
            yield
        finally:
            process.kill()
            await process.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def front(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Front]:
    """Each of them, with its stanza as it stands."""
    async with in_front(request.param, tmp_path_factory.mktemp(request.param)) as front:
        yield front


@pytest.mark.parametrize("host", [V4, V6])
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
async def test_addresses_of_both_families(front: Front, host: str, transport: str) -> None:
    """A and AAAA, private as they are, for clients of both families, over UDP and TCP."""
    assert await front.short("web.service.consul", transport, host=host) == ["10.0.0.1", "10.0.0.2"]
    assert await front.short("six.service.consul", "AAAA", transport, host=host) == ["fd00::6"]


async def test_srv_and_what_it_points_to(front: Front) -> None:
    """SRV, the name of its target, RFC 2782, and a tag that is none."""
    targets = ["1 1 80 0a000001.addr.dc1.consul.", "1 1 80 0a000002.addr.dc1.consul."]
    assert await front.short("web.service.consul", "SRV") == targets
    assert await front.short("_web._tcp.service.consul", "SRV") == targets
    assert await front.short("0a000002.addr.dc1.consul") == ["10.0.0.2"]


async def test_txt(front: Front) -> None:
    """A node's meta."""
    assert await front.short("n1.node.consul", "TXT") == ['"rack=a"']


async def test_what_is_not_there(front: Front) -> None:
    """NXDOMAIN and no data are told apart."""
    assert await front.status("none.service.consul") == "NXDOMAIN 0"
    assert await front.status("web.service.consul", "AAAA") == "NOERROR 0"


async def test_any_case(front: Front) -> None:
    """Whatever the asker's case is, and whatever the resolver makes of it (0x20)."""
    assert await front.short("WeB.SerVice.CONSUL") == ["10.0.0.1", "10.0.0.2"]


@pytest.mark.parametrize("size", ["+noedns", "+bufsize=1232", "+bufsize=4096"])
async def test_large_answers(front: Front, size: str) -> None:
    """300 instances, which no packet of UDP holds: we say so, and both sides go on over TCP."""
    assert len(await front.short("many.service.consul", size)) == 300
    assert len(await front.short("many.service.consul", "SRV", size)) == 300


@pytest.mark.parametrize("name", KINDS)
async def test_ours_by_ipv6(name: str, tmp_path: Path) -> None:
    """The same stanza with ::1 in it."""
    async with in_front(name, tmp_path, host=V6) as front:
        assert await front.short("web.service.consul") == ["10.0.0.1", "10.0.0.2"]
        assert len(await front.short("many.service.consul")) == 300


@pytest.mark.parametrize(
    ("name", "line", "service", "seen"),
    [
        ("unbound", "do-not-query-localhost", "web", "SERVFAIL 0"),
        ("unbound", "domain-insecure", "web", "SERVFAIL 0"),
        ("unbound", "private-domain", "web", "NOERROR 0"),
        ("dnsmasq", "rebind-domain-ok", "web", "NOERROR 0"),
        ("named", "validate-except", "web", "SERVFAIL 0"),
        ("named", "max-records-per-type", "many", "SERVFAIL 0"),
    ],
)
async def test_no_line_of_a_stanza_can_be_spared(
    name: str, line: str, service: str, seen: str, tmp_path: Path
) -> None:
    """What each is there for, shown by leaving it out; with it the answer is there (above)."""
    async with in_front(name, tmp_path, without=line) as front:
        assert await front.status(f"{service}.service.consul") == seen


async def test_dnsmasq_brings_bare_names(tmp_path: Path) -> None:
    """Names of one label, and no others, come to us; those of no service are refused."""
    async with in_front("dnsmasq", tmp_path, bare=True) as front:
        assert await front.short("web") == ["10.0.0.1", "10.0.0.2"]
        assert await front.short("web", "SRV") == await front.short("web.service.consul", "SRV")
        assert await front.status("web", "AAAA") == "NOERROR 0"
        assert await front.status("nobody") == "REFUSED 0"


async def test_bind_itself_finds_no_fault(tmp_path: Path) -> None:
    """named-checkconf reads the stanza alone."""
    checker = shutil.which("named-checkconf")
    if not checker:
        unavailable("named-checkconf is missing; install Debian's bind9-utils")
    (tmp_path / "conf").write_text(documented("named")[0])
    checked = await asyncio.create_subprocess_exec(checker, str(tmp_path / "conf"))
    assert await checked.wait() == 0
