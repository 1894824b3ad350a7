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

CONSUL_ELEMENT = Limit(
    "consul_element",
    2**20,
    "characters",
    "whoever may write one service at Consul may write a hundred megabytes into it, which every agent reads",
    "the instance, node or key is left out; of a list of names the tags only; logged once",
)

CONSUL_DOCUMENT = Limit(
    "consul_document",
    2**26,
    "characters",
    "what Consul answers is held in memory; each element counts for 100 more than it has",
    "the answer counts as a failure of Consul: what was known before stays, and it is asked for again",
)

CONSUL_REPLY = Limit(
    "consul_reply",
    2**16,
    "octets",
    "the text of an error, and the answer to a write",
    "the rest of an error is cut off; a write counts as failed",
)

# The engine's documents ---------------------------------------------------

ENGINE_ELEMENT = Limit(
    "engine_element",
    2**20,
    "characters",
    "a container's labels are part of each listing and of each of its events",
    "the container is left out of the listing, or its event is not understood and all are compared again",
)

ENGINE_LISTING = Limit(
    "engine_listing",
    2**26,
    "characters",
    "a listing is held in memory; each element counts for 100 more than it has",
    "the listing counts as failed, and is asked for again",
)

ENGINE_DOCUMENT = Limit(
    "engine_document",
    2**22,
    "octets",
    "the document of one container, with all of its labels and its environment",
    "the container is not registered; logged",
)

ENGINE_ERROR = Limit(
    "engine_error", 2**16, "octets", "the text of an engine's error", "the rest of it is cut off"
)

# The command line ---------------------------------------------------------

AGENT_ANSWER = Limit(
    "agent_answer",
    2**26,
    "octets",
    "what a command reads of an agent, or of what listens in its place",
    "the command fails and says so; no metric",
)

# The process --------------------------------------------------------------


def all_limits() -> Iterator[Limit]:
    """Every limit of this module, in the order in which it is written here."""
    return (value for value in globals().values() if isinstance(value, Limit))
