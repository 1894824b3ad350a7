"""Say a lasting trouble once, then every tenth time, and say once when it is over; or once for each thing."""

from __future__ import annotations

import logging
import time

SETTLED = 5.0  # seconds without a failure after which a trouble with `quiet` is over


class Complaint:
    """One kind of trouble, as its log sees it."""

    EVERY = 10

    def __init__(self, log: logging.Logger, quiet: float = 0.0) -> None:
        """With `quiet` a line in so many seconds, not each tenth time: for what strangers can cause."""
        self._log = log
        self._quiet = quiet
        self._next = self._failed_at = float("-inf")
        self._count = 0

    def failed(self, message: str, *args: object) -> None:
        """It failed (again): warn the first time and then once in a while."""
        if self._is_due():
            suffix = f" ({self._count + 1} times by now)" if self._count else ""
            self._log.warning(message + suffix, *args)
        self._count += 1

    def over(self, message: str, *args: object) -> None:
        """It works: say so if it did not before."""
        if self._count and (not self._quiet or time.monotonic() >= self._failed_at + SETTLED):
            self._log.info(message, *args)
            self._count = 0

    def _is_due(self) -> bool:
        if not self._quiet:
            return self._count % self.EVERY == 0
        now = self._failed_at = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._quiet
        return True


class Once:
    """What was said of each of many things, so that the same is not said again."""

    MOST = 1024  # things; of one that was forgotten it is said again
    LONGEST = 500  # characters that are compared

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def is_new(self, key: str, what: str) -> bool:
        """Whether this is to be said of a thing: it was not what was said last of it."""
        what = what[: self.LONGEST]
        if self._said.pop(key, None) == what:
            self._said[key] = what
            return False
        self._said[key] = what
        if len(self._said) > self.MOST:
            del self._said[next(iter(self._said))]
        return True

    def forget(self, key: str) -> None:
        """All is well with a thing, or it is gone."""
        self._said.pop(key, None)
