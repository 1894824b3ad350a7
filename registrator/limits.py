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

CHECKS_OF_CONTAINER = Limit(
    "checks_of_container",
    100,
    "checks",
    "every check costs a connection at each interval",
    "the checks after these are left out, with one line in the log",
)
CHECK_TEXT = Limit(
    "check_text",
    8192,
    "characters",
    "a check's body, header or command is sent again and again",
    "it is left out, with one line in the log",
)
CHECK_PATH = Limit(
    "check_path",
    2048,
    "characters",
    "a check's path, or gRPC service, is stored and shown with each of its instances",
    "that check is left out, with one line in the log",
)
CHECK_INTERVAL = Limit(
    "check_interval",
    86400,
    "s",
    "a check that runs less than once a day checks nothing",
    "this interval is used, with one line in the log",
)
CHECK_TIMEOUT = Limit(
    "check_timeout",
    120,
    "s",
    "a check that never gets an answer holds a connection for so long; never more than its interval",
    "the longest timeout that is allowed is used, with one line in the log",
)
CHECKS_AT_ONCE = Limit(
    "checks_at_once",
    64,
    "checks under way",
    "the embedded catalog's own load on the node",
    "further checks wait, except a container's only one",
)
CHECKS_AT_ONCE_OF_CONTAINER = Limit(
    "checks_at_once_of_container",
    8,
    "checks under way",
    "checks that never get an answer must not delay those of other containers",
    "further checks of that container wait",
)
CHECKS_AT_ONCE_IN_ALL = Limit(
    "checks_at_once_in_all",
    512,
    "checks under way",
    "each takes a file descriptor",
    "further checks wait, whoever they belong to",
)
ANSWER_HEAD = Limit(
    "answer_head",
    16384,
    "octets",
    "a check's server may send headers without end; interim answers and redirects count too",
    "the check is critical",
)
ANSWER_BODY = Limit(
    "answer_body",
    65536,
    "octets",
    "a check's server may send a body without end",
    "the connection is closed, and the HTTP status decides",
)
ANSWER_OVERHEAD = Limit(
    "answer_overhead",
    32768,
    "octets",
    "TLS messages that carry no data (long certificate chains, tickets, key updates) cost CPU",
    "the connection is closed; without a complete head the check is critical",
)
ANSWER_READS = Limit(
    "answer_reads",
    256,
    "reads",
    "an answer that drips in costs one turn of the event loop for each piece",
    "the connection is closed; without a complete head the check is critical",
)
ANSWER_FRAMES = Limit(
    "answer_frames",
    64,
    "HTTP/2 frames",
    "a gRPC server may send PING, SETTINGS or CONTINUATION frames without end",
    "the check is critical",
)
CHECK_OUTPUT = Limit(
    "check_output",
    4096,
    "octets",
    "a check's output is stored and shown; Consul keeps as much",
    "the last octets are kept",
)

# Consul's documents -------------------------------------------------------

# The engine's documents ---------------------------------------------------

# The process --------------------------------------------------------------


def all_limits() -> Iterator[Limit]:
    """Every limit of this module, in the order in which it is written here."""
    return (value for value in globals().values() if isinstance(value, Limit))
