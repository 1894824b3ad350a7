"""Every bound on what comes from outside, in one place.

A `Limit` is a number with its reason. `docs/security.md` has a table that is
generated from this module (`make docs`), and each time a limit is hit the
counter `registrator_limited_total` rises with the limit's name as its label.

The limits are generous: a setup that real people run meets none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound: `value` in `unit`, why it is needed, and what happens beyond it."""

    name: str
    value: int
    unit: str
    why: str
    beyond: str


# Labels and environment ---------------------------------------------------

# Templates ----------------------------------------------------------------

# DNS ----------------------------------------------------------------------

# Recursion ----------------------------------------------------------------

# HTTP ---------------------------------------------------------------------

# Health checks ------------------------------------------------------------

# Consul's documents -------------------------------------------------------

# The engine's documents ---------------------------------------------------

# The process --------------------------------------------------------------


def all_limits() -> Iterator[Limit]:
    """Every limit of this module, in the order in which it is written here."""
    return (value for value in globals().values() if isinstance(value, Limit))
