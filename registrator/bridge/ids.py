"""Which ids a container may be registered under: its own default ones, or what its labels ask for. Pure.

An id is unique on a Consul agent, so whoever may choose it freely may take
what another one has. A default id, `<node>:<container>:<port>`, belongs to the
container that it names, whether that one runs or not. Ids with which Consul
names things of its own are nobody's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from registrator.bridge.labels import short
from registrator.bridge.naming import port_id
from registrator.model import Container, Port, Problem, folded

# Any node's: a Consul agent that several nodes share knows the ids of all of them.
DEFAULT_FORM = re.compile(r"(?P<host>[^:]+):(?P<container>[^:]+):(?P<port>\d+)(?::.*)?", re.DOTALL)

# What would be a path of its own, or end one, in the URLs that name an id. Consul's HTTP server tidies
# paths after it has decoded them, so that quoting does not help: what is registered is never removed.
PATH_CHARACTERS = frozenset("/\\?#%")

# Consul's own ids of checks begin like this, and its servers are registered under this one.
CONSULS_PREFIXES = ("service:", "_service_maintenance", "_node_maintenance")
CONSULS_IDS = frozenset(("consul", "serfhealth"))


def default_id(node: str, container: Container, port: Port) -> str:
    """The id of a container's port, as gliderlabs/registrator writes it."""
    return f"{node}:{container.name}:{port_id(port)}"


def refusal(wanted: Iterable[str], container: Container) -> Problem | None:
    """Why a container may not be registered under ids that its labels ask for; None where it may."""
    for instance_id in wanted:
        fault = _fault(instance_id, container)
        if fault is not None:
            what, remedy = fault
            return Problem("SERVICE_ID", f"{short(instance_id)!r} {what}, the default id is used", remedy)
    return None


def _fault(instance_id: str, container: Container) -> tuple[str, str] | None:
    if not instance_id.isprintable() or PATH_CHARACTERS & set(instance_id) or instance_id in (".", ".."):
        return "has characters that are not allowed in an id", "use letters, digits, and - _ . :"
    plain = folded(instance_id)
    if plain in CONSULS_IDS or plain.startswith(CONSULS_PREFIXES):
        return "is an id of Consul's own", "choose another id"
    named = DEFAULT_FORM.fullmatch(instance_id)
    if named is not None and named["container"] != container.name:
        return f"is the default id of container {short(named['container'])!r}", "choose another id"
    return None
