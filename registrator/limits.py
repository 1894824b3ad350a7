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

DNS_WAITING = Limit(
    "dns_waiting",
    256,
    "UDP queries that wait for Consul or a recursor, of containers, and as many of all other askers, "
    "on each address",
    "each is a task with its packet",
    "the asker with the most gets SERVFAIL for its oldest one; others' queries are not affected",
)

# Recursion ----------------------------------------------------------------

RECURSIONS = Limit(
    "recursions",
    128,
    "questions for recursors under way, for this node's containers, and as many for all other askers",
    "a server or a domain that never answers must not use up sockets and memory, nor the turns of others",
    "the asker with the most loses its oldest question: SERVFAIL; others' questions are not affected",
)
RECURSIONS_TCP = Limit(
    "recursions_tcp",
    16,
    "connections to recursors for truncated replies, for this node's containers, and as many for all others",
    "resolvers take few TCP connections of one client",
    "the asker with the most loses its oldest one: the next recursor is asked, or SERVFAIL",
)

# HTTP ---------------------------------------------------------------------

# Health checks ------------------------------------------------------------

# Consul's documents -------------------------------------------------------

# The engine's documents ---------------------------------------------------

# The process --------------------------------------------------------------

TOKEN_FILE = Limit(
    "token_file",
    4096,
    "octets of a file with a token",
    "a path such as /dev/zero has no end",
    "the agent does not start, and says why",
)

DESCRIPTORS = Limit(
    "descriptors",
    4096,
    "open files and sockets, where the operator's hard limit allows as many",
    "connections from outside must leave some for the engine and Consul",
    "new connections wait in the kernel's queue; one line says so; DNS over UDP is answered",
)


def all_limits() -> Iterator[Limit]:
    """Every limit of this module, in the order in which it is written here."""
    return (value for value in globals().values() if isinstance(value, Limit))
