"""What cannot be used of somebody else's documents: counted always, logged once."""

from __future__ import annotations

import logging
from collections import OrderedDict

from registrator.printable import printable
from registrator.stats import Stats

KEPT = 1000  # documents whose trouble is remembered


class Spoilt:
    """The trouble with one source's documents; `source` is its name in the metric: consul or engine."""

    def __init__(self, source: str, stats: Stats, log: logging.Logger) -> None:
        self._source = source
        self._stats = stats
        self._log = log
        self._said: OrderedDict[str, None] = OrderedDict()

    def count(self, limit: str = "") -> None:
        """One element is left out, because of a limit where that is named (`Limit.name`)."""
        self._stats.malformed[self._source] += 1
        if limit:
            self._stats.limited[limit] += 1

    def left_out(self, what: str, number: int, first: str) -> None:
        """Of the document `what`, `number` elements were left out just now; `first` says which, and why."""
        if not number:
            self._said.pop(what, None)  # said again should it come again
            return
        if what not in self._said:
            elements = "an element is" if number == 1 else f"{number} elements are"
            self._log.warning(
                "%s: %s left out, the others are used: %s", what, elements, printable(first[:200])
            )
        self._said[what] = None
        if len(self._said) > KEPT:
            self._said.popitem(last=False)
