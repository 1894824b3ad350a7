"""How the embedded catalog runs http, tcp and grpc checks, with the semantics of Consul's agent.

Consul keeps a goroutine per check. Here a check that waits is one timer of the
event loop, whose heap is the only scheduler needed: a thousand checks cost no
task and no wake-up until one of them is due. What is due waits for its turn
(`shares.py`: each container has a share); where more is due than may be under
way, that container's checks slow down evenly, since a check's interval begins
when its probe is over (as in Consul).

One difference: Consul runs a new check for the first time after a random part
of its interval. Here that is within the first second, so that a container is
found soon after its start; the random part of the interval comes after it, so
that checks registered together do not stay together.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from registrator.catalog import probe_http
from registrator.catalog.probe_wire import Allowance, OverLimit, Turns, dial, host_and_port, os_reason
from registrator.catalog.shares import Shares
from registrator.limits import CHECK_TIMEOUT, CHECKS_AT_ONCE_OF_CONTAINER
from registrator.model import CRITICAL, PASSING, Check

if TYPE_CHECKING:
    from registrator.stats import Stats

log = logging.getLogger(__name__)

KINDS = {"http": "HTTP", "tcp": "TCP", "grpc": "gRPC"}  # as people call them

DEFAULT_TIMEOUT = 10.0  # seconds, as in Consul
MIN_INTERVAL = 1.0  # seconds, as in Consul
FIRST_WITHIN = 1.0  # seconds until a new check's first run


class Probe:
    """One check that is run again and again until `stop`; made by `Prober.start`.

    `report(status, output)` is called with each result that counts.
    """

    __slots__ = ("_failures", "_report", "_successes", "check", "container", "runs", "stopped", "timer")

    def __init__(self, check: Check, container: str, report: Callable[[str, str], None]) -> None:
        self.check = check
        self.container = container
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
        """Seconds that a run may take: never more than the interval."""
        return min(self.check.timeout or DEFAULT_TIMEOUT, self.interval, CHECK_TIMEOUT.value)

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

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._shares: Shares[Probe] = Shares()
        self._stirred = asyncio.Event()  # something is due, or a place became free
        self._turns = Turns()

    def start(self, check: Check, container: str, report: Callable[[str, str], None]) -> Probe:
        """Schedule a check of one of `KINDS`; its first run is within `FIRST_WITHIN` seconds.

        Its share of the work is that of its container.
        """
        probe = Probe(check, container, report)
        self._schedule(probe, _part_of(min(FIRST_WITHIN, probe.interval)))
        return probe

    async def run(self) -> None:
        """Run what is due until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                while (probe := self._shares.next()) is not None:
                    attempt = group.create_task(self._attempt(probe))
                    attempt.add_done_callback(partial(self._over, probe.container))
                self._stirred.clear()
                await self._stirred.wait()

    def _over(self, container: str, _: object) -> None:
        self._shares.over(container)
        self._stirred.set()

    def _schedule(self, probe: Probe, delay: float) -> None:
        if not probe.stopped:
            probe.timer = asyncio.get_running_loop().call_later(delay, self._make_due, probe)

    def _make_due(self, probe: Probe) -> None:
        if self._shares.put(probe):
            self._stats.limited[CHECKS_AT_ONCE_OF_CONTAINER.name] += 1
        self._stirred.set()

    async def _attempt(self, probe: Probe) -> None:
        """Run one probe once and schedule its next run."""
        allowance = Allowance(self._turns)
        try:
            status, output = await _ask(probe, allowance)
        except OverLimit as error:
            status, output = CRITICAL, f"{KINDS[probe.check.kind]} check {probe.check.target}: {error}"
        except Exception as error:  # whatever one check's target does must not end the others' checks
            log.exception("check %s of %s could not be run; report this", probe.check.id, probe.check.target)
            status, output = CRITICAL, f"the check could not be run: {error!r}"
        if allowance.hit is not None:
            self._stats.limited[allowance.hit.name] += 1
        probe.conclude(status, output)
        probe.runs += 1
        self._schedule(probe, _part_of(probe.interval) if probe.runs == 1 else probe.interval)


async def _ask(probe: Probe, allowance: Allowance) -> tuple[str, str]:
    if probe.check.kind == "tcp":
        return await connect(probe.check.target, probe.timeout, allowance)
    if probe.check.kind == "grpc":
        from registrator.catalog import probe_grpc  # noqa: PLC0415 - h2 is needed from here on only

        return await probe_grpc.probe(probe.check, probe.timeout, allowance)
    return await probe_http.probe(probe.check, probe.timeout, allowance)


async def connect(target: str, timeout: float, allowance: Allowance) -> tuple[str, str]:
    """Run a tcp check once: (status, output). `target` is "host:port", IPv6 in brackets."""
    address = host_and_port(target)
    if address is None:
        return CRITICAL, f"dial tcp: address {target}: missing port in address"
    try:
        async with asyncio.timeout(timeout):
            wire = await dial(*address, allowance)
    except TimeoutError:
        return CRITICAL, f"dial tcp {target}: i/o timeout"
    except (OSError, ValueError, OverflowError) as error:
        return CRITICAL, f"dial tcp {target}: connect: {os_reason(error)}"
    wire.close()
    return PASSING, f"TCP connect {target}: Success"


def _part_of(seconds: float) -> float:
    return random.uniform(0, seconds)  # noqa: S311 - spreads load, guards nothing
