"""What all HTTP connections share: places, memory for unfinished requests, who starts next, deadlines."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque

from registrator import limits
from registrator.lookup.http_connection import NOT_HTTP, TOO_BUSY, Connection
from registrator.lookup.http_gate import Gate
from registrator.lookup.http_places import NoPlace, Places
from registrator.stats import Stats

MAX_CONNECTIONS, MAX_OF_CLIENT = limits.HTTP_CONNECTIONS.value, limits.HTTP_CLIENT_CONNECTIONS.value
MAX_SPARE = limits.HTTP_HEALTH_CONNECTIONS.value
MAX_UNFINISHED = limits.HTTP_UNFINISHED.value  # octets
HEAD_TIME, SPARE_TIME = float(limits.HTTP_HEAD_TIME.value), 2.0  # seconds for the head of a request
STARTS = limits.HTTP_STARTS.value  # in one turn of the loop
TICK = 1.0  # seconds between two looks at the deadlines


class Floor:
    """Where connections come and go; see `Connection`."""

    def __init__(self, stats: Stats, gate: Gate, connections: int = MAX_CONNECTIONS) -> None:
        """`connections` is how many there may be, the spare ones among them where it is below the limit."""
        self.stats, self.gate = stats, gate
        spare = max(1, min(MAX_SPARE, connections // 8))
        most = max(
            1, min(MAX_CONNECTIONS, connections - spare if connections < MAX_CONNECTIONS else connections)
        )
        self._places: Places[Connection] = Places(most, min(MAX_OF_CLIENT, most))
        self._spare: Places[Connection] = Places(spare, spare)
        self._all: set[Connection] = set()
        self._unfinished = 0  # octets
        self._starters: deque[Connection] = deque()
        self._starting: set[Connection] = set()
        self._loop = asyncio.get_running_loop()
        self._pump: asyncio.Handle | None = None
        self._held_up = False  # at the last look somebody waited for others to take their replies
        self._tick = self._loop.call_later(TICK, self._look)

    def close(self) -> None:
        """Stop the clock."""
        self._tick.cancel()

    # Places ---------------------------------------------------------------------

    def come(self, connection: Connection) -> None:
        """Find a place for a new connection: a spare one where the others are taken."""
        self._all.add(connection)
        try:
            loser = self._places.take(connection.client, connection, _is_idle)
        except NoPlace as full:
            limit = limits.HTTP_CLIENT_CONNECTIONS if full.own else limits.HTTP_CONNECTIONS
            self.stats.limited[limit.name] += 1
            self._come_beyond(connection)
            return
        if loser is not None:
            loser.cut(limits.HTTP_CONNECTIONS)

    def _come_beyond(self, connection: Connection) -> None:
        connection.spare, connection.begun = True, time.monotonic()
        try:
            loser = self._spare.take(connection.client, connection, _is_idle)
        except NoPlace:
            loser = connection
        if loser is not None:
            loser.refuse(TOO_BUSY, limits.HTTP_HEALTH_CONNECTIONS)

    def go(self, connection: Connection) -> None:
        """Give its place to others."""
        self._all.discard(connection)
        self._starting.discard(connection)
        for places in (self._places, self._spare):
            places.leave(connection.client, connection)

    def answered(self, connection: Connection) -> None:
        """Count a connection as the one that was idle for the shortest time."""
        self._places.renew(connection.client, connection)

    # Unfinished requests ----------------------------------------------------------

    def grown(self, connection: Connection, octets: int) -> None:
        """Count what a connection holds of requests; where all hold too much, the largest has to go."""
        self._unfinished += octets
        if octets > 0 and self._unfinished > MAX_UNFINISHED:
            by_client: Counter[str] = Counter()
            for one in self._all:
                by_client[one.client] += one.unfinished
            heaviest = max(by_client, key=by_client.__getitem__, default=connection.client)
            crowd = [one for one in self._all if one.client == heaviest]
            max(crowd, key=lambda one: one.unfinished, default=connection).cut(limits.HTTP_UNFINISHED)

    # Whose request starts next ------------------------------------------------------

    def wants_start(self, connection: Connection) -> None:
        """Let a connection start a request in a turn of the loop to come, few of them in each."""
        if connection in self._starting:
            return
        self._starting.add(connection)
        self._starters.append(connection)
        if self._pump is None:
            self._pump = self._loop.call_soon(self._start_some)

    def _start_some(self) -> None:
        self._pump = None
        for _ in range(min(STARTS, len(self._starters))):
            connection = self._starters.popleft()
            if connection in self._starting:
                self._starting.discard(connection)
                try:
                    connection.start_request()
                except Exception:  # noqa: BLE001 - whatever the parser did not foresee spoils this connection
                    connection.refuse(NOT_HTTP)
        if self._starters:
            self._pump = self._loop.call_soon(self._start_some)

    # Deadlines ----------------------------------------------------------------------

    def _look(self) -> None:
        self._tick = self._loop.call_later(TICK, self._look)
        now = time.monotonic()
        for connection in list(self._all):
            if connection.is_stuck(now):
                connection.cut(limits.HTTP_SEND_TIME)
            elif connection.begun and connection.spare and now - connection.begun > SPARE_TIME:
                connection.refuse(TOO_BUSY, limits.HTTP_HEALTH_CONNECTIONS)
            elif connection.begun and now - connection.begun > HEAD_TIME:
                connection.cut(limits.HTTP_HEAD_TIME)
        self._free_the_gate()

    def _free_the_gate(self) -> None:
        """Where replies that are not taken have kept another client waiting since the last look, end one."""
        hoarder = self.gate.hoarder()
        if hoarder and self._held_up:
            crowd = [one for one in self._all if one.client == hoarder and one.send_by]
            if crowd:
                max(crowd, key=lambda one: one.unsent).cut(limits.HTTP_UNSENT)
        self._held_up = bool(hoarder)


def _is_idle(connection: Connection) -> bool:
    return connection.idle
