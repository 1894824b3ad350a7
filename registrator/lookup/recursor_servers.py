"""Which upstream servers there are, and which of them to ask first."""

from __future__ import annotations

import ipaddress
import logging
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from registrator.settings import Listen

log = logging.getLogger(__name__)

RESOLV_CONF = Path("/etc/resolv.conf")
MAX_FILE = 65_536  # octets read of it
MAX_SERVERS = 8
DNS_PORT = 53
LOOK = 1.0  # seconds between two looks at whether it changed
BAD = 10.0  # seconds for which a server that did not answer is asked after the others

Servers = Callable[[], Sequence[Listen]]


class Upstreams:
    """The servers in the order in which to ask them: as listed, those that lately failed last."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._bad: dict[Listen, float] = {}
        self._answered: dict[Listen, float] = {}  # when each did last

    def order(self) -> list[Listen]:
        """All servers, the best first."""
        now = time.monotonic()
        return sorted(self._servers()[:MAX_SERVERS], key=lambda server: self._bad.get(server, 0.0) > now)

    def failed(self, server: Listen, since: float) -> None:
        """It did not answer what it was asked at `since`: ask it after the others for a while.

        Unless it has answered something else in the meantime: then it is well, and
        the domain is silent. One asker's dead domain must not send the
        names of all others to a server that may not know them.
        """
        if self._answered.get(server, float("-inf")) >= since:
            return
        now = time.monotonic()
        self._bad = {bad: until for bad, until in self._bad.items() if until > now}
        self._bad[server] = now + BAD

    def worked(self, server: Listen) -> None:
        """It answered."""
        now = time.monotonic()
        self._bad.pop(server, None)
        self._answered = {known: at for known, at in self._answered.items() if at > now - BAD}
        self._answered[server] = now


class SystemServers:
    """The nameservers of resolv.conf(5), read again when the file changes; never our `own` addresses.

    While the file cannot be read, what it said before holds.
    """

    def __init__(self, own: Sequence[Listen], path: Path = RESOLV_CONF) -> None:
        self._own = own
        self._path = path
        self._seen: tuple[int, ...] = ()
        self._look_at = float("-inf")
        self._servers: tuple[Listen, ...] = ()

    def __call__(self) -> Sequence[Listen]:
        """What it says now."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK
            self._refresh()
        return self._servers

    def _refresh(self) -> None:
        try:
            found = self._path.stat()
            seen = found.st_ino, found.st_size, found.st_mtime_ns
            if seen == self._seen:
                return
            with self._path.open("rb") as file:
                text = file.read(MAX_FILE).decode("utf-8", "replace")
        except OSError as error:
            log.debug("%s cannot be read: %s", self._path, error)
            return
        self._seen = seen
        servers = tuple(server for server in nameservers(text) if not is_own(server, self._own))
        log.info("recursors, by %s: %s", self._path, ", ".join(map(str, servers)) or "none but this agent")
        self._servers = servers


def nameservers(text: str) -> list[Listen]:
    """The nameservers that a resolv.conf names, without repetition; lines that make no sense are skipped."""
    found: dict[Listen, None] = {}
    for line in text.splitlines():
        match line.split():
            case ["nameserver", address, *_]:
                try:
                    found[Listen(str(ipaddress.ip_address(address)), DNS_PORT)] = None
                except ValueError:
                    continue
    return list(found)


def is_own(server: Listen, own: Sequence[Listen]) -> bool:
    """Whether we answer there ourselves, so that asking there would never end."""
    for listen in own:
        if server.port == listen.port and (":" in server.host) == (":" in listen.host):
            everywhere = ipaddress.ip_address(listen.host).is_unspecified
            if server.host == listen.host or (everywhere and _is_local(server.host)):
                return True
    return False


def _is_local(host: str) -> bool:
    """Whether an interface of this machine has the address: only such can be bound."""
    try:
        address = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0]
        with socket.socket(address[0], socket.SOCK_DGRAM) as sock:
            sock.bind(address[4])
    except OSError:
        return False
    return True
