"""What a Swarm's managers know of a service -> its tasks' containers as if their own engine knew it. Pure.

Labels under `deploy:` count as the container's own, which win where both say
something: they are the more specific. A port that the routing mesh publishes is
published on every node; the engine of a task's node does not tell it, and
without EXPOSE it does not tell the port at all. For how long a task may go on
after its stop signal is in no document of its container either.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

from registrator.limits import LABELS, PORT_BINDINGS, PORTS
from registrator.model import Binding, Container, Port, SwarmService

# The mesh is made of iptables' rules, which are of IPv4 (libnetwork's service_linux.go).
EVERYWHERE = "0.0.0.0"


def with_facts(container: Container, service: SwarmService | None) -> Container:
    """A task's container with its service's labels, mesh ports and grace period, as far as they are known."""
    if service is None:
        return container
    ports = {(port.number, port.protocol): port for port in container.ports}
    for mesh in service.mesh[: PORTS.value]:
        at = mesh.number, mesh.protocol
        known = ports.get(at, Port(*at))
        if len(ports) >= PORTS.value or len(known.bindings) >= PORT_BINDINGS.value:
            continue
        binding = Binding(EVERYWHERE, mesh.published, mesh=True)
        # A port of the task's own node comes first: it leads to this very task.
        ports[at] = replace(known, bindings=(*known.bindings, binding))
    return replace(
        container,
        # One more than there may be, so that they are found to be too many.
        labels=dict(islice(service.labels.items(), LABELS.value + 1)) | dict(container.labels),
        ports=tuple(ports[at] for at in sorted(ports)),
        stop_timeout=container.stop_timeout if service.stop_timeout is None else service.stop_timeout,
    )
