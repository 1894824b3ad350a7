"""What can go wrong with Consul, said once: each failure as one line to act on.

`Unavailable` is worth another try by itself; `Refused` is not, until somebody
changes a definition, a token or a configuration.
"""

from __future__ import annotations

import errno
import os
import ssl

import aiohttp

from registrator.catalog import CatalogError, Refused, Unavailable
from registrator.catalog.consul.facts import PREFIX
from registrator.printable import printable
from registrator.settings import ConsulAddress

RIGHTS = 'service_prefix "" write, node_prefix "" read and agent_prefix "" read'

KEY_RIGHTS = f'key_prefix "{PREFIX}" write'

# What Consul says of a name that it does not know.
UNKNOWN = (
    "unknown service",
    "unknown check",
    "does not have associated ttl",
    "no service registered",
    "query not found",
)


class NotFound(Refused):
    """Consul does not know the service, check or prepared query that was named."""


class Unreadable(Unavailable):
    """Consul answered, with a document that cannot be used: somebody has to correct what is in it."""


class ScriptsDisabled(Refused):
    """Consul's agent runs no checks that are commands, when they come over its API."""


def from_answer(address: ConsulAddress, request: str, status: int, body: str) -> CatalogError:
    """The error for an HTTP status of 300 or more; `request` is "METHOD /path"."""
    text = _one_line(body)[:200] or "no explanation"
    said = f"Consul at {address} answered {request} with {status} ({text})"
    lowered = text.lower()
    if status in (401, 403) or "permission denied" in lowered or "acl not found" in lowered:
        rights = KEY_RIGHTS if "/v1/kv/" in request else RIGHTS
        return Refused(f"{said}: the token lacks a right; give it {rights}")
    if any(words in lowered for words in UNKNOWN):
        return NotFound(f"{said}: it is not registered there")
    if "scripts are disabled" in lowered:
        return ScriptsDisabled(f"{said}: set enable_script_checks in its configuration, and see to its ACLs")
    kind, remedy = _verdict(status)
    return kind(f"{said}: {remedy}")


def _verdict(status: int) -> tuple[type[CatalogError], str]:
    """Whether another try may help, and what to do, for what is neither a right nor a name.

    Any 5xx may pass: no leader, a full disk, a proxy's bad gateway.
    """
    if status == 400:
        return Refused, "change the definition accordingly"
    if status == 429:
        return Unavailable, "too many requests; raise the agent's limits"
    if status >= 500:
        return (
            Unavailable,
            "it cannot serve now; see its log, and look for a leader with `consul operator raft list-peers`",
        )
    return Refused, "that is not how Consul's API answers; check the URL"


def from_nonsense(address: ConsulAddress, request: str, why: str) -> CatalogError:
    """The error for an answer that is not what Consul's API gives."""
    said = _one_line(why)[:100]
    return Unreadable(
        f"what answers {request} at {address} is not Consul's API; "
        f"check the URL and who listens there ({said})"
    )


def from_spoilt(address: ConsulAddress, request: str, first: str) -> CatalogError:
    """The error for a list of which no element can be used; `first` says why the first cannot."""
    return Unreadable(
        f"nothing of what Consul at {address} answered {request} can be used ({_one_line(first)[:100]}): "
        "correct or deregister what is registered there"
    )


def from_follower(address: ConsulAddress, request: str) -> CatalogError:
    """The error for an answer of a server that knows no leader: it may be cut off from the others."""
    return Unavailable(
        f"Consul at {address} answered {request} without knowing a leader: "
        "see `consul operator raft list-peers`, and whether its servers reach each other"
    )


def from_emptiness(address: ConsulAddress) -> CatalogError:
    """The error for a catalog without a single node: the agent's own must be there."""
    return Unavailable(
        f"Consul at {address} shows no nodes: it has only just started, or the token lacks a right; "
        f"give it {RIGHTS}"
    )


def from_exception(address: ConsulAddress, request: str, seconds: float, error: Exception) -> CatalogError:
    """The error for a request that got no answer within `seconds`, or that failed in whatever other way."""
    at = f"Consul at {address}"
    if isinstance(error, TimeoutError):
        return Unavailable(
            f"{at} did not answer {request} within {seconds:.0f} s: is it overloaded or cut off?"
        )
    if isinstance(error, aiohttp.ClientResponseError) or not isinstance(error, aiohttp.ClientError | OSError):
        return from_nonsense(address, request, f"{type(error).__name__}: {error}")
    tls = _tls_error(error)
    if tls:
        return Unavailable(
            f"{at} cannot be reached over TLS ({tls}); check CONSUL_CACERT, CONSUL_CLIENT_CERT and the URL"
        )
    if isinstance(error, aiohttp.ClientConnectorError):
        return Unavailable(f"{at} cannot be reached ({_reason(error)}): {_remedy(address, error.errno)}")
    return Unavailable(
        f"{at} broke off {request} ({_reason(error)}): did its agent end, or have over "
        "http_max_conns_per_client (200) connections from here?"
    )


def _tls_error(error: aiohttp.ClientError | OSError) -> str:
    """What TLS says, "" where the cause is another; aiohttp keeps it in several places."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return str(error.certificate_error)
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return str(error.os_error)
    return str(error.__cause__) if isinstance(error.__cause__, ssl.SSLError) else ""


def _reason(error: aiohttp.ClientError | OSError) -> str:
    """The cause in a few words: the system's own where there is one."""
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno).lower()
    return _one_line(str(error))[:200] or type(error).__name__


def _one_line(text: str) -> str:
    """Somebody else's words as a part of one line."""
    return printable(" ".join(text[:1000].split()))


def _remedy(address: ConsulAddress, number: int | None) -> str:
    if address.socket and number == errno.EACCES:
        return "let this user read and write the socket"
    if address.socket:
        return "is the Consul agent running, with this socket among its addresses?"
    return "is the Consul agent running there?"
