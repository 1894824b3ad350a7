"""Takes connections on a listening socket, and waits where there are no descriptors for them.

asyncio's own servers log a traceback for each place in the backlog and begin
as many timers each time (Python 3.11: 66,000 lines in eight seconds). Here a
shortage is one line; what has to connect waits in the kernel's queue meanwhile.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
from collections.abc import Callable

from registrator.complaint import Complaint
from registrator.limits import DESCRIPTORS
from registrator.settings import Listen
from registrator.stats import Stats

log = logging.getLogger(__name__)

BACKLOG = 128  # connections that wait to be taken
BURST = 8  # that are taken in a turn of the loop
PAUSE = 0.5  # seconds until a connection is tried again
QUIET = 60.0  # seconds between two lines about it
SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Shortage:
    """What is counted and logged of connections that cannot be taken, on whatever address."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._complaint = Complaint(log, QUIET)

    def met(self, error: OSError) -> None:
        """A connection could not be taken."""
        self._stats.limited[DESCRIPTORS.name] += 1
        self._complaint.failed(
            "no new connections for HTTP and DNS over TCP (%s; the limit is %d open files): trying again, "
            "DNS over UDP is answered; raise LimitNOFILE in the unit, or --ulimit nofile of the container",
            error.strerror,
            resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        )

    def over(self) -> None:
        """A connection was taken."""
        self._complaint.over("new connections are taken again")


class Acceptor:
    """Gives each connection on a bound TCP socket, which it owns from then on, a protocol of `factory`."""

    def __init__(
        self, sock: socket.socket, factory: Callable[[], asyncio.BaseProtocol], shortage: Shortage
    ) -> None:
        self._socket = sock
        self._factory = factory
        self._shortage = shortage
        self._pause: asyncio.TimerHandle | None = None
        self._connecting: set[asyncio.Task[object]] = set()

    @property
    def address(self) -> Listen:
        """Where it listens, with the real port."""
        return Listen(*self._socket.getsockname()[:2])

    def start(self) -> None:
        """Begin to take connections, on the running loop."""
        self._socket.listen(BACKLOG)
        self._resume()

    def close(self) -> None:
        """Take no more, and close the socket; connections that were taken stay."""
        if self._socket.fileno() < 0:
            return
        if self._pause is not None:
            self._pause.cancel()
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _resume(self) -> None:
        self._pause = None
        asyncio.get_running_loop().add_reader(self._socket, self._wake)

    def _wake(self) -> None:
        for _ in range(BURST):
            try:
                connection, _ = self._socket.accept()
            except OSError as error:
                if error.errno in SHORTAGES:
                    self._wait(error)
                return  # nothing more, or a connection that its client has given up
            self._shortage.over()
            connection.settimeout(0)
            self._connect(connection)

    def _wait(self, error: OSError) -> None:
        """Leave the socket alone for a while: it would be ready all the time."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        self._pause = loop.call_later(PAUSE, self._resume)
        self._shortage.met(error)

    def _connect(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        task: asyncio.Task[object] = loop.create_task(self._hand_over(connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _hand_over(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._factory, connection)
        except OSError as error:
            log.debug("a connection was lost before it began: %s", error)
            connection.close()
