"""The address on the loopback, in a network namespace of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from registrator.lookup.linklocal import LinkLocal, LinkLocalError
from tests.support import unavailable

V4, V6 = "169.254.53.53", "fd53::53"
BOTH = pytest.mark.parametrize("address", [V4, V6])

PRELUDE = """
    import logging, socket, subprocess, sys
    from registrator.lookup.linklocal import LinkLocal, LinkLocalError

    logging.basicConfig(format="%(levelname)s %(message)s", level="INFO", stream=sys.stdout)

    def bound(address, port=53):
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((address, port))
        return sock

    def show():
        subprocess.run(["ip", "-o", "addr", "show", "dev", "lo"], check=True)
"""


class Namespace:
    """A network namespace with its loopback up, as `ip netns` knows it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, *command: str) -> str:
        inside = ["nsenter", f"--net=/run/netns/{self.name}", *command]
        return subprocess.run(inside, capture_output=True, text=True, check=True, timeout=20).stdout

    def python(self, script: str, *arguments: str, before: tuple[str, ...] = ()) -> str:
        """Run a script inside, after PRELUDE; what it prints and logs."""
        source = textwrap.dedent(PRELUDE) + textwrap.dedent(script)
        return self.run(*before, sys.executable, "-c", source, *arguments)

    def addresses(self) -> str:
        """The loopback's addresses as `ip` shows them."""
        return self.run("ip", "-o", "addr", "show", "dev", "lo")


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    name = f"registrator-test-{os.getpid()}"
    try:
        subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True, text=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", "") or str(error)
        unavailable(
            f"no network namespace can be made ({reason.strip()}); run as root with iproute2 installed"
        )
    try:
        space = Namespace(name)
        space.run("ip", "link", "set", "lo", "up")
        yield space
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@BOTH
def test_it_is_there_while_it_is_used(namespace: Namespace, address: str) -> None:
    """Inside the `with` a socket can be bound to the address at once; afterwards it is gone."""
    output = namespace.python(
        """
        with LinkLocal(sys.argv[1]):
            bound(sys.argv[1]).close()
            show()
        """,
        address,
    )
    assert f" {address}/{'128' if ':' in address else '32'} " in output
    assert "tentative" not in output
    assert address not in namespace.addresses()


@BOTH
def test_it_is_removed_after_an_error_too(namespace: Namespace, address: str) -> None:
    """A start that fails further on leaves nothing behind."""
    namespace.python(
        """
        try:
            with LinkLocal(sys.argv[1]):
                raise KeyError
        except KeyError:
            pass
        """,
        address,
    )
    assert address not in namespace.addresses()


@BOTH
def test_what_a_crash_left_is_taken_over(namespace: Namespace, address: str) -> None:
    """An address that is there already is used, and removed at the end; nobody else is touched."""
    namespace.run("ip", "addr", "add", address, "dev", "lo")
    namespace.run("ip", "addr", "add", "169.254.1.1/32", "dev", "lo")
    output = namespace.python("with LinkLocal(sys.argv[1]): bound(sys.argv[1]).close()", address)
    assert f"INFO {address} is on the loopback already: taken over" in output
    assert address not in namespace.addresses()
    assert "169.254.1.1/32" in namespace.addresses()


@BOTH
def test_it_stays_for_another_that_serves_it(namespace: Namespace, address: str) -> None:
    """The first of two agents to go leaves the address, the last one removes it."""
    output = namespace.python(
        """
        with LinkLocal(sys.argv[1]):
            with LinkLocal(sys.argv[1]):
                other = bound(sys.argv[1])
            show()
            other.close()
        """,
        address,
    )
    assert f" {address}/" in output
    assert f"INFO {address} stays on the loopback: another process serves it" in output
    assert address not in namespace.addresses()


@BOTH
def test_sockets_on_other_addresses_do_not_keep_it(namespace: Namespace, address: str) -> None:
    """A socket on all addresses, or on another one, is nobody who serves it."""
    namespace.python(
        """
        everywhere = "::" if ":" in sys.argv[1] else "0.0.0.0"
        elsewhere = "::1" if ":" in sys.argv[1] else "127.0.0.1"
        with LinkLocal(sys.argv[1]):
            others = bound(everywhere, 5301), bound(elsewhere, 5302)
        """,
        address,
    )
    assert address not in namespace.addresses()


@BOTH
def test_an_address_that_somebody_removed_is_no_error(namespace: Namespace, address: str) -> None:
    """At the end the address may be gone already."""
    output = namespace.python(
        """
        with LinkLocal(sys.argv[1]) as local:
            LinkLocal(sys.argv[1]).remove()
        """,
        address,
    )
    assert output == ""


@BOTH
def test_without_the_capability_one_line_says_so(namespace: Namespace, address: str) -> None:
    """An agent without CAP_NET_ADMIN says what it lacks and how to give it."""
    output = namespace.python(
        """
        try:
            LinkLocal(sys.argv[1]).add()
        except LinkLocalError as error:
            print(error)
        """,
        address,
        before=("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"),
    )
    assert output.startswith(f"{address}/")
    assert "this process lacks CAP_NET_ADMIN" in output
    assert "--cap-add NET_ADMIN" in output
    assert output.count("\n") == 1


def test_ipv6_may_be_disabled(namespace: Namespace) -> None:
    """A host without IPv6 is said to be so."""
    namespace.run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/lo/disable_ipv6")
    output = namespace.python(
        """
        try:
            LinkLocal(sys.argv[1]).add()
        except LinkLocalError as error:
            print(error)
        """,
        V6,
    )
    assert "IPv6 is disabled there; enable it" in output


def test_containers_reach_it_through_their_gateway(namespace: Namespace) -> None:
    """From a network behind this node, the address is reached by the default route, with its own source."""
    client = Namespace(f"{namespace.name}-c")
    subprocess.run(["ip", "netns", "add", client.name], check=True)
    try:
        namespace.run("ip", "link", "add", "veth0", "type", "veth", "peer", "eth0", "netns", client.name)
        namespace.run("sh", "-c", "ip addr add 10.7.0.1/24 dev veth0; ip link set veth0 up")
        client.run(
            "sh",
            "-c",
            "ip addr add 10.7.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.7.0.1",
        )
        output = namespace.python(
            """
            ask = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(10);" \\
                  "s.connect(('169.254.53.53', 53)); s.send(b'?'); print(s.recv(9), s.getpeername()[0])"
            with LinkLocal("169.254.53.53"):
                with bound("169.254.53.53") as sock:
                    client = subprocess.Popen(
                        ["nsenter", "--net=/run/netns/" + sys.argv[1], sys.executable, "-c", ask],
                        stdout=subprocess.PIPE)
                    sock.settimeout(10)
                    _, peer = sock.recvfrom(9)
                    sock.sendto(b"!", peer)
                    print(peer[0], client.communicate()[0].decode())
            """,
            client.name,
        )
    finally:
        subprocess.run(["ip", "netns", "del", client.name], check=True)
    assert output.split() == ["10.7.0.2", "b'!'", "169.254.53.53"]


def test_what_is_no_address() -> None:
    """A host name is refused when the object is built, before anything is changed."""
    with pytest.raises(ValueError, match="localhost"):
        LinkLocal("localhost")
    assert issubclass(LinkLocalError, Exception)
