"""One check of the embedded catalog as it stands now, and what keeps it true.

An http, tcp or grpc check is moved by its probe, a TTL check by whoever refreshes it
and by the clock. What happens when an instance is registered anew was measured
on Consul 1.8.7 (`?replace-existing-checks=true`): a check of an id that was
there keeps its status and output whatever its definition is now, and only a
check that is new begins with `Check.status`; a TTL begins anew, but an expired
one stays critical. Consul also starts an unchanged probe over; here it just
goes on, so that writes, however frequent, cannot keep it from being run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from registrator.catalog import probes
from registrator.model import CRITICAL, Check, CheckResult, Instance

KINDS = probes.KINDS.keys() | {"ttl"}

MIN_DEREGISTER_AFTER = 60.0  # seconds; Consul raises shorter times to this


class Ttl:
    """Calls `expired` when `seconds` have passed since the last `restart`, once."""

    __slots__ = ("_expired", "_seconds", "_timer")

    def __init__(self, seconds: float, expired: Callable[[], None]) -> None:
        self._seconds, self._expired = seconds, expired
        self._timer: asyncio.TimerHandle | None = None
        self.restart()

    def restart(self) -> None:
        """Count the seconds from now."""
        self.stop()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._expired)

    def stop(self) -> None:
        """Never call `expired`."""
        if self._timer is not None:
            self._timer.cancel()


class LiveCheck:
    """A check's definition, its status and output, and the probe or clock that moves them.

    `moved(check, status_before)` is called after each change of status or
    output not made by `refresh`. `critical_since` is the loop's time at
    which it became critical, None while it is not.
    """

    __slots__ = ("_keeper", "_moved", "_said", "critical_since", "definition", "output", "status")

    def __init__(
        self,
        definition: Check,
        prober: probes.Prober,
        container: str,
        moved: Callable[[LiveCheck, str], None],
        earlier: LiveCheck | None = None,
    ) -> None:
        self.definition = definition
        self.status: str = earlier.status if earlier else definition.status
        self.output: str = earlier.output if earlier else ""
        self.critical_since: float | None = earlier.critical_since if earlier else self._now_if_critical()
        self._moved = moved
        self._said = ""  # what the last refresh of a TTL check said
        self._keeper = (
            Ttl(definition.ttl, self._expire)
            if definition.kind == "ttl"
            else prober.start(definition, container, self._move)
        )

    def refresh(self, status: str, output: str) -> None:
        """Set a TTL check's status and begin its time to live anew; other kinds are left to their probes."""
        if isinstance(self._keeper, Ttl):
            self._keeper.restart()
            self._said = output
            self._set(status, output)

    def prolong(self) -> None:
        """Begin a TTL check's time to live anew, as a registration does."""
        if isinstance(self._keeper, Ttl):
            self._keeper.restart()

    def stop(self) -> None:
        """Nothing moves it from now on."""
        self._keeper.stop()

    @property
    def overdue(self) -> bool:
        """Whether it has been critical for so long that its instance is to be removed."""
        if self.critical_since is None or not self.definition.deregister_after:
            return False
        limit = max(self.definition.deregister_after, MIN_DEREGISTER_AFTER)
        return asyncio.get_running_loop().time() - self.critical_since > limit

    def result(self, instance: Instance) -> CheckResult:
        """The check as the catalog reports it."""
        return CheckResult(
            id=self.definition.id,
            name=self.definition.name,
            status=self.status,
            output=self.output,
            service_id=instance.id,
            service=instance.service,
            kind=self.definition.kind,
        )

    def _expire(self) -> None:
        last = f" (last output before timeout follows): {self._said}" if self._said else ""
        self._move(CRITICAL, f"TTL expired{last}")

    def _move(self, status: str, output: str) -> None:
        before = self.status
        if (status, output) != (before, self.output):
            self._set(status, output)
            self._moved(self, before)

    def _set(self, status: str, output: str) -> None:
        was_critical = self.status == CRITICAL
        self.status, self.output = status, output
        if status != CRITICAL or not was_critical:
            self.critical_since = self._now_if_critical()

    def _now_if_critical(self) -> float | None:
        return asyncio.get_running_loop().time() if self.status == CRITICAL else None
