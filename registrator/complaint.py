"""Say a lasting trouble once, then every tenth time, and say once when it is over."""

from __future__ import annotations

import logging


class Complaint:
    """One kind of trouble, as its log sees it."""

    EVERY = 10

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._count = 0

    def failed(self, message: str, *args: object) -> None:
        """It failed (again): warn the first and then every tenth time."""
        if self._count % self.EVERY == 0:
            suffix = f" ({self._count + 1} times by now)" if self._count else ""
            self._log.warning(message + suffix, *args)
        self._count += 1

    def over(self, message: str, *args: object) -> None:
        """It works: say so if it did not before."""
        if self._count:
            self._log.info(message, *args)
        self._count = 0
