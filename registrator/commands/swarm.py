"""What `doctor` finds out about a Swarm: what its manager knows of services that do not run, or share a name.

What is read is the engine's API (`/info`, `/services`, `/tasks`); the rest is pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any

from registrator.commands.finding import GOOD, WARNING, Finding, from_failure
from registrator.limits import ENGINE_LISTING
from registrator.model import Engine, Failure

Document = Mapping[str, Any]

STACK = "com.docker.stack.namespace"
RUNS = ("running", "ready")  # the states that the manager still wants a task in
# A part of what the manager says of a task, and what to do about it.
REMEDIES = {
    "no suitable node (scheduling constraints": (
        "compare its placement.constraints with `docker node inspect --format '{{.Spec.Labels}}' NODE`; "
        "a label is given by `docker node update --label-add KEY=VALUE NODE`"
    ),
    "no suitable node (insufficient resources": "lower resources.reservations, or add a node",
    "no suitable node (host-mode port": "two tasks cannot publish the same port of a node: choose another",
    "no suitable node": "`docker node ls` says which nodes are ready and active",
    "memory limit": "raise resources.limits.memory: a container cannot even start with so little",
    "(137)": "it was killed: raise resources.limits.memory if it needs more, or see its health check",
    "No such image": "load the image on that node, or deploy with --with-registry-auth",
}


async def swarm(url: str, facts: Engine) -> list[Finding]:
    """What there is to say of the Swarm that an engine is a manager of, or could be a node of."""
    from registrator.engine.client import Client  # noqa: PLC0415 - heavy
    from registrator.engine.endpoint import resolve  # noqa: PLC0415

    try:
        async with Client(resolve(url)) as client:
            found = live_restore(await client.json("/info"))
            if facts.manager:
                services = await client.json("/services", ENGINE_LISTING.value)
                tasks = await client.json("/tasks", ENGINE_LISTING.value)
                found += [*troubles(services, tasks), *shared_names(services)]
    except Failure as failure:
        return [from_failure("swarm's services", failure)]
    except (LookupError, TypeError, AttributeError, ValueError):
        what = "the engine describes them in a way that is not Docker's"
        return [Finding(WARNING, "swarm's services", what, "see what answers at its address")]
    if facts.manager and not found:
        found.append(Finding(GOOD, "swarm's services", f"{len(services)}, all with the tasks they ask for"))
    return found


def live_restore(info: Document) -> list[Finding]:
    """An engine with live restore (in daemon.json or on its command line) cannot join a Swarm."""
    if not info.get("LiveRestoreEnabled"):
        return []
    remedy = "take it out of daemon.json and dockerd's options before `docker swarm init` or `join`"
    return [Finding(WARNING, "live-restore", "it is on, and does not go together with Swarm", remedy)]


def troubles(services: Iterable[Document], tasks: Iterable[Document]) -> Iterator[Finding]:
    """The services some of whose tasks do not run, with what the manager says of the newest that failed."""
    names = {service["ID"]: service["Spec"]["Name"] for service in services}
    wanted: defaultdict[str, bool] = defaultdict(bool)
    said: dict[str, tuple[str, str]] = {}  # by service: when, and what
    for task in tasks:
        service, status = task.get("ServiceID", ""), task["Status"]
        wanted[service] |= task["DesiredState"] in RUNS and status["State"] != "running"
        if status.get("Err"):
            said[service] = max(said.get(service, ("", "")), (status["Timestamp"], status["Err"]))
    for service, name in sorted(names.items(), key=lambda pair: pair[1]):
        if wanted[service] and service in said:
            error = said[service][1]
            remedy = next((todo for part, todo in REMEDIES.items() if part in error), "")
            whole = f"`docker service ps --no-trunc {name}` says more"
            yield Finding(WARNING, f"service {name}", f"a task does not run: {error}", remedy or whole)


def shared_names(services: Iterable[Document]) -> Iterator[Finding]:
    """Names that two services are looked up by, where that is most likely not meant."""
    by_name = defaultdict(list)
    for service in services:
        by_name[lookup_name(service["Spec"])].append(service["Spec"])
    for name, specs in sorted(by_name.items()):
        for one, other in combinations(sorted(specs, key=lambda spec: str(spec["Name"])), 2):
            both = f"services {one['Name']} and {other['Name']} are both looked up as {name}"
            if not networks(one) & networks(other):
                what = f"{both}, on different networks: who is on both, or on none, is given either"
                yield Finding(WARNING, f"name {name}", what, "give each a SERVICE_NAME of its own")
            elif stack(one) and stack(one) == stack(other):
                remedy = (
                    f"if it was renamed: `docker stack deploy --prune`, or `docker service rm {one['Name']}`"
                )
                yield Finding(WARNING, f"name {name}", f"{both}, in one stack", remedy)


def lookup_name(spec: Document) -> str:
    """The name by which a service is looked up: SERVICE_NAME of its tasks or itself, else its own."""
    tasks = spec["TaskTemplate"].get("ContainerSpec", {}).get("Labels") or {}
    own = spec.get("Labels") or {}
    return str(tasks.get("SERVICE_NAME") or own.get("SERVICE_NAME") or spec["Name"])


def networks(spec: Document) -> frozenset[str]:
    """The ids of the networks that a service's tasks are on."""
    return frozenset(each["Target"] for each in spec["TaskTemplate"].get("Networks") or ())


def stack(spec: Document) -> str:
    """The stack that a service is of; "" for none."""
    return str((spec.get("Labels") or {}).get(STACK, ""))
