"""How many files and sockets the process may have open, and what of them is for whom.

The limit is the operator's (ulimit -n). Engine and Consul must never be without
a descriptor because strangers hold them all, so connections from outside get
what is left when those have theirs.
"""

from __future__ import annotations

import logging
import resource
from dataclasses import dataclass

from registrator.limits import DESCRIPTORS

log = logging.getLogger(__name__)

# Consul's connections (100), the engine's, health checks', listening sockets, files.
RESERVED = 320


@dataclass(frozen=True, slots=True)
class Allowance:
    """The most that may be open at a time: HTTP connections, DNS over TCP, questions for recursors."""

    http: int
    dns: int
    recursions: int


def raise_limit() -> int:
    """Raise the soft limit, which is for programs that use select(), to what is needed; the limit then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS.value if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS.value)
    if soft == resource.RLIM_INFINITY:
        return DESCRIPTORS.value
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return soft


def allowance(limit: int) -> Allowance:
    """Share what a limit leaves; a low one is logged."""
    free = limit - min(RESERVED, limit // 2)
    shares = Allowance(http=free // 2, dns=free // 4, recursions=free // 4)
    if limit < DESCRIPTORS.value:
        log.warning(
            "only %d open files are allowed: at most %d connections for HTTP, %d for DNS over TCP and %d "
            "questions for recursors at a time; raise LimitNOFILE in the unit, or --ulimit nofile, to %d",
            limit,
            shares.http,
            shares.dns,
            shares.recursions,
            DESCRIPTORS.value,
        )
    return shares
