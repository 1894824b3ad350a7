"""Samples -> rows of a table that a person can read: median, spread, number, and the peers beside them."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

HEADINGS = ("what", "median", "p10", "p90", "n", "/ floor", "target", "registrator, Go*")


@dataclass(frozen=True)
class Row:
    """One thing measured, in `unit`; `floor` is the median of the live peer, where there is one."""

    what: str
    samples: Sequence[float]
    unit: str = "ms"
    floor: float = 0.0
    target: str = ""
    earlier: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.samples) if self.samples else float("nan")

    def cells(self) -> tuple[str, ...]:
        low, high = percentile(self.samples, 0.1), percentile(self.samples, 0.9)
        many = len(self.samples) > 1
        return (
            self.what,
            f"{shown(self.median)} {self.unit}",
            shown(low) if many else "",
            shown(high) if many else "",
            str(len(self.samples)),
            f"{self.median / self.floor:.2f}" if self.floor else "",
            self.target,
            self.earlier,
        )


def percentile(samples: Sequence[float], share: float) -> float:
    """The sample below which `share` of them lie (nearest rank)."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def shown(value: float) -> str:
    """A number with about three digits: 0.123, 2.31, 23.1, 231."""
    digits = 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f}"


def table(title: str, rows: Sequence[Row]) -> None:
    """Print rows under a title; columns that no row fills are left out."""
    grid = [HEADINGS, *(row.cells() for row in rows)]
    columns = [c for c in range(len(HEADINGS)) if any(line[c] for line in grid[1:])]
    widths = {c: max(len(line[c]) for line in grid) for c in columns}
    print(f"\n{title}  (load average {os.getloadavg()[0]:.1f})")
    for line in grid:
        cells = (line[c].rjust(widths[c]) if c else line[c].ljust(widths[c]) for c in columns)
        print("  " + "  ".join(cells).rstrip())
