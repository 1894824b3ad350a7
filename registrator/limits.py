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

DNS_REPLY = Limit(
    "dns_reply",
    1232,
    "octets",
    "A UDP query's address may be forged, and its reply then goes to a victim.",
    "The reply is cut and says so (TC); the asker comes again over TCP, or with a cookie (RFC 7873).",
)
DNS_PROVEN_REPLY = Limit(
    "dns_proven_reply",
    4096,
    "octets",
    "A UDP reply to an asker that has proved its address by a cookie; longer ones are lost as fragments.",
    "The reply is cut and says so (TC); the asker comes again over TCP.",
)
DNS_PACKETS = Limit(
    "dns_packets",
    20_000,
    "packets",
    "Queries of octets that came before are answered without being read.",
    "What nobody asked for lately is read again when it comes.",
)
DNS_REPLIES = Limit(
    "dns_replies",
    32 * 2**20,
    "octets",
    "Rendered replies are kept; names, types, sizes and flags make many of them.",
    "Replies that were asked for once go first, then what nobody asked for lately: it is rendered again.",
)
DNS_MISSING = Limit(
    "dns_missing",
    1000,
    "replies",
    "Names that do not exist are without number. Their replies are kept apart from the others.",
    "The oldest of them go.",
)
DNS_VIEWS = Limit(
    "dns_views",
    32,
    "kinds of asker a service",
    "What a large service comes to for askers on the same networks is worked out once and kept.",
    "What was worked out first is forgotten, and worked out again when it is asked for.",
)
DNS_CONNECTIONS = Limit(
    "dns_connections",
    256,
    "connections an address",
    "Connections may come and ask nothing, or not read what they asked for.",
    "The one that has been idle longest is closed; where none is idle the newcomer is.",
)
DNS_CONNECTIONS_EACH = Limit(
    "dns_connections_each",
    16,
    "connections a client",
    "One client must not take the places of the others.",
    "The client's own that has been idle longest is closed; where none is idle its newcomer is.",
)
DNS_UNREAD = Limit(
    "dns_unread",
    4 * 2**20,
    "octets an address",
    "A client may ask over TCP and not read the replies, of up to 65,535 octets.",
    "The connection that has not been read for the longest time is closed; any is after 10 s.",
)
DNS_WAITING = Limit(
    "dns_waiting",
    256,
    "UDP queries an address",
    "Queries wait for what must be read from Consul or asked of a recursor first.",
    "SERVFAIL; the asker may try again.",
)
DNS_WAITING_EACH = Limit(
    "dns_waiting_each",
    64,
    "UDP queries a client",
    "One client's names that take long must not keep the others' from being looked up.",
    "SERVFAIL to that client.",
)
DNS_OPTIONS = Limit(
    "dns_options",
    32,
    "EDNS options a query",
    "A packet of 65,535 octets holds 16,000 of them.",
    "The options after these are not read: a cookie among them does not count.",
)

# Recursion ----------------------------------------------------------------

# HTTP ---------------------------------------------------------------------

# Health checks ------------------------------------------------------------

# Consul's documents -------------------------------------------------------

# The engine's documents ---------------------------------------------------

# The process --------------------------------------------------------------


def all_limits() -> Iterator[Limit]:
    """Every limit of this module, in the order in which it is written here."""
    return (value for value in globals().values() if isinstance(value, Limit))
