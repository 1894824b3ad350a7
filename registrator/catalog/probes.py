"""How the embedded catalog runs http, tcp and grpc checks, with the semantics of Consul's agent.

Consul keeps a goroutine per check. Here a check that waits is one timer of the
event loop, whose heap is the only scheduler needed: a thousand checks cost no
task and no wake-up until one of them is due. What is due goes into a queue,
from which `Prober.run` starts at most `AT_ONCE` probes; a queue that grows
slows the checks down evenly, since a check's interval begins when its probe is
over (as in Consul).

One difference: Consul runs a new check for the first time after a random part
of its interval. Here that is within the first second, so that a container is
found soon after its start; the random part of the interval comes after it, so
that checks registered together do not stay together.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from registrator.model import CRITICAL, PASSING, Check

if TYPE_CHECKING:
    from registrator.catalog.probe_http import HttpClient

log = logging.getLogger(__name__)

KINDS = frozenset({"http", "tcp", "grpc"})

AT_ONCE = 64  # probes under way
DEFAULT_TIMEOUT = 10.0  # seconds, as in Consul
MIN_INTERVAL = 1.0  # seconds, as in Consul
FIRST_WITHIN = 1.0  # seconds until a new check's first run


class Probe:
    """One check that is run again and again until `stop`; made by `Prober.start`.

    `report(status, output)` is called with each result that counts.
    """

    __slots__ = ("_failures", "_report", "_successes", "check", "runs", "stopped", "timer")

    def __init__(self, check: Check, report: Callable[[str, str], None]) -> None:
        self.check = check
        self.timer: asyncio.TimerHandle | None = None
        self.stopped = False
        self.runs = 0
        self._report = report
        # At their thresholds from the start: the very first result counts at once, as in Consul.
        self._successes = check.success_before_passing
        self._failures = check.failures_before_critical

    @property
    def interval(self) -> float:
        """Seconds from the end of a run to the next."""
        return max(MIN_INTERVAL, self.check.interval)

    @property
    def timeout(self) -> float:
        """Seconds that a run may take."""
        return self.check.timeout or DEFAULT_TIMEOUT

    def stop(self) -> None:
        """Run it no more; the result of a run that is under way is dropped."""
        self.stopped = True
        if self.timer is not None:
            self.timer.cancel()

    def conclude(self, status: str, output: str) -> None:
        """Report a result, unless its threshold asks for more of the same kind in a row first."""
        if self.stopped:
            return
        if status == CRITICAL:
            self._successes, self._failures = 0, self._failures + 1
            counts = self._failures >= self.check.failures_before_critical
        else:
            self._successes, self._failures = self._successes + 1, 0
            counts = self._successes >= self.check.success_before_passing
        if counts:
            self._report(status, output)


class Prober:
    """Runs probes while `run` does. Not to be shared between event loops."""

    def __init__(self) -> None:
        self._due: asyncio.Queue[Probe] = asyncio.Queue()  # bounded: a probe is in it at most once
        self._http: HttpClient | None = None

    def start(self, check: Check, report: Callable[[str, str], None]) -> Probe:
        """Schedule a check of one of `KINDS`; its first run is within `FIRST_WITHIN` seconds."""
        probe = Probe(check, report)
        self._schedule(probe, _part_of(min(FIRST_WITHIN, probe.interval)))
        return probe

    async def run(self) -> None:
        """Run what is due until cancelled."""
        slots = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while True:
                probe = await self._due.get()
                await slots.acquire()
                attempt = group.create_task(self._attempt(probe))
                attempt.add_done_callback(lambda _: slots.release())

    async def close(self) -> None:
        """Close the HTTP session, if one was needed."""
        if self._http is not None:
            await self._http.close()
            self._http = None

    def _schedule(self, probe: Probe, delay: float) -> None:
        if not probe.stopped:
            probe.timer = asyncio.get_running_loop().call_later(delay, self._due.put_nowait, probe)

    async def _attempt(self, probe: Probe) -> None:
        """Run one probe once and schedule its next run."""
        if probe.stopped:
            return
        try:
            status, output = await self._ask(probe)
        except Exception as error:  # whatever one check's target does must not end the others' checks
            log.exception("check %s of %s could not be run; report this", probe.check.id, probe.check.target)
            status, output = CRITICAL, f"the check could not be run: {error!r}"
        probe.conclude(status, output)
        probe.runs += 1
        self._schedule(probe, _part_of(probe.interval) if probe.runs == 1 else probe.interval)

    async def _ask(self, probe: Probe) -> tuple[str, str]:
        if probe.check.kind == "tcp":
            return await connect(probe.check.target, probe.timeout)
        if probe.check.kind == "grpc":
            from registrator.catalog import probe_grpc  # noqa: PLC0415 - h2 is needed from here on only

            return await probe_grpc.probe(probe.check, probe.timeout)
        if self._http is None:
            from registrator.catalog.probe_http import HttpClient  # noqa: PLC0415 - heavy, and needed from here on only

            self._http = HttpClient()
        return await self._http.probe(probe.check, probe.timeout)


async def connect(target: str, timeout: float) -> tuple[str, str]:
    """Run a tcp check once: (status, output). `target` is "host:port", IPv6 in brackets."""
    address = host_and_port(target)
    if address is None:
        return CRITICAL, f"dial tcp: address {target}: missing port in address"
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            transport, _ = await loop.create_connection(asyncio.Protocol, *address)
    except TimeoutError:
        return CRITICAL, f"dial tcp {target}: i/o timeout"
    except (OSError, ValueError, OverflowError) as error:
        return CRITICAL, f"dial tcp {target}: connect: {os_reason(error)}"
    transport.close()
    return PASSING, f"TCP connect {target}: Success"


def host_and_port(target: str) -> tuple[str, int] | None:
    """The two parts of "host:port", an IPv6 address without its brackets; None where there is no port."""
    host, separator, port = target.rpartition(":")
    return (host.strip("[]"), int(port)) if separator and port.isdecimal() else None


def os_reason(error: Exception) -> str:
    """Why a connection failed, as the operating system says it: "connection refused"."""
    code = error.errno if isinstance(error, OSError) else None
    # Negative codes are getaddrinfo's, whose text is the error's own.
    return os.strerror(code).lower() if code and code > 0 else str(error)


def _part_of(seconds: float) -> float:
    return random.uniform(0, seconds)  # noqa: S311 - spreads load, guards nothing
