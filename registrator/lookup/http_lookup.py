"""Our own lookups over HTTP: which instances an asker gets, one of them, and why."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from aiohttp import web

from registrator.lookup import lookup_api
from registrator.lookup.consul_api import Query
from registrator.lookup.explain import Asker, Json, comparable, explained, likeness, nearest, summary
from registrator.lookup.http_consul import AGENT, data_headers
from registrator.lookup.http_gate import in_slices
from registrator.lookup.http_reads import Reads
from registrator.lookup.http_reply import Unserved, json_reply, list_reply, wants_text
from registrator.lookup.names import ServiceName
from registrator.lookup.reach import is_shut_off
from registrator.lookup.records import Name
from registrator.model import CRITICAL, Entry, Service, View

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_TURNS = 4096  # services whose turn is remembered


class Containers(Protocol):
    """The containers of the agent's own node, as those who may ask."""

    def of_container(self, name_or_id: str) -> View | None:
        """What a container can reach, by its name or (the beginning of) its id; None for an unknown one."""
        ...

    def names(self) -> Sequence[str]:
        """Their names, sorted."""
        ...


class NoContainers:
    """A node of which no container is known."""

    def of_container(self, name_or_id: str) -> View | None:  # noqa: ARG002, D102  (see Containers)
        return None

    def names(self) -> Sequence[str]:  # noqa: D102  (see Containers)
        return ()


class LookupRoutes:
    """`view_of` tells what the asker at an IP address can reach; `zone` is the DNS zone of names."""

    def __init__(
        self,
        reads: Reads,
        *,
        view_of: Callable[[str], View],
        containers: Containers,
        zone: Name,
        local: Callable[[], Awaitable[str]],
    ) -> None:
        self._reads = reads
        self._view_of = view_of
        self._containers = containers
        self._zone = zone
        self._local = local
        self._turns: dict[str, int] = {}  # by service: how often one of it was asked for

    def routes(self) -> dict[str, Handler]:
        """Paths and their handlers."""
        return {
            "/lookup/{name:[^/]*}": self._lookup,
            "/lookup/{name:[^/]*}/one": self._one,
            "/explain/{name:[^/]*}": self._explain,
            "/askers": self._askers,
        }

    async def _lookup(self, request: web.Request) -> web.Response:
        """The instances that a client may use now, each with the address that this asker can reach.

        An unknown name is 404; a known one without a healthy instance is 200
        with an empty list.
        """
        service, usable = await self._usable(request)
        view = self._view_of(request.remote or "")
        headers = data_headers(self._reads, service.index)
        if wants_text(request):
            lines = await in_slices(lambda entry: lookup_api.line(entry, view), usable)
            return web.Response(text="".join(lines), headers=headers)
        documents = await in_slices(lambda entry: lookup_api.document(entry, view), usable)
        name = json.dumps(service.name)
        return list_reply(f'{{"service":{name},"instances":[', documents, "]}", headers)

    async def _one(self, request: web.Request) -> web.Response:
        """One usable instance, the next at each request; with `?near` of those on that node while it has any.

        404 for an unknown name and for one without an instance that can be used, as NXDOMAIN in DNS.
        """
        near = await self._near(request)
        service, usable = await self._usable(request)
        view = self._view_of(request.remote or "")
        if near:
            usable = [entry for entry in usable if entry.node.name.lower() == near] or usable
        render = lookup_api.line if wants_text(request) else lookup_api.document
        turn = self._turn(service.name)
        ordered = (usable[(turn + step) % len(usable)] for step in range(len(usable)))
        found = next((text for text in (render(entry, view) for entry in ordered) if text), None)
        if found is None:
            raise Unserved(404, f"no instance of {service.name} can be used; see /explain/{service.name}")
        headers = data_headers(self._reads, service.index)
        if wants_text(request):
            return web.Response(text=found, headers=headers)
        return json_reply(found, headers)

    async def _explain(self, request: web.Request) -> web.Response:
        """For each instance of a name whether `?from=` is given it, and why; those that are come first."""
        name, service = await self._find(request.match_info["name"])
        asker = await self._asker(request)
        reached = await _within_reach(service.entries, asker.view)
        given: list[str] = []
        left_out: list[str] = []

        def tell(one: Json) -> str:
            (given if one["answered"] else left_out).append(text := json.dumps(one))
            return text

        await in_slices(tell, explained(name, service, asker, reached))
        head = json.dumps(summary(name, service, asker, len(given))).removesuffix("}")
        headers = data_headers(self._reads, service.index)
        return list_reply(f'{head},"instances":[', given + left_out, "]}", headers)

    async def _askers(self, _request: web.Request) -> web.Response:
        """The containers that `/explain` takes as askers: those of this node."""
        return json_reply(json.dumps({"containers": list(self._containers.names())}))

    # What they share ----------------------------------------------------------

    async def _find(self, text: str) -> tuple[ServiceName, Service]:
        """The service that a name means, loaded. Raises Unserved."""
        snapshot = self._reads.snapshot()
        found = lookup_api.find_service(text, snapshot, self._zone)
        service = (await self._reads.load(found.service)).services.get(found.service) if found else None
        if not found or not service:
            near = nearest(await in_slices(likeness(text), comparable(text, snapshot.names)))
            meant = (
                f"did you mean {' or '.join(near)}?" if near else "/v1/catalog/services lists those that are"
            )
            raise Unserved(404, f"no service is called {text!r}; {meant}", details={"nearest": near})
        return found, service

    async def _usable(self, request: web.Request) -> tuple[Service, list[Entry]]:
        """A service and those of its instances that are healthy, in reach, and have the tags asked for."""
        if request.query.get("format", "json") not in ("json", "text"):
            raise Unserved(400, "format is json or text")
        name, service = await self._find(request.match_info["name"])
        tags = [*request.query.getall("tag", ()), *([name.tag] if name.tag else ())]
        query = Query(tags=frozenset(tag.lower() for tag in tags))
        reached = await _within_reach(service.entries, self._view_of(request.remote or ""))
        return service, await in_slices(
            lambda entry: entry if entry.status != CRITICAL and query.wants(entry) else None, reached
        )

    async def _near(self, request: web.Request) -> str:
        """The node that `?near` means, lower-cased; "" without it."""
        near = request.query.get("near")
        if near is None:
            return ""
        return (await self._local() if near in ("", AGENT) else near).lower()

    def _turn(self, service: str) -> int:
        """How often one of a service was asked for before."""
        turn = self._turns.pop(service, 0)
        if len(self._turns) >= MAX_TURNS:
            del self._turns[next(iter(self._turns))]  # the one that was asked for the longest ago
        self._turns[service] = turn + 1
        return turn

    async def _asker(self, request: web.Request) -> Asker:
        """Whom `?from=` means, an IP address or a container of this node; without it the client itself."""
        text = request.query.get("from", "") or request.remote or ""
        try:
            ip = str(ipaddress.ip_address(text))
        except ValueError:
            view = self._containers.of_container(text)
            if view is None:
                near = nearest(await in_slices(likeness(text), comparable(text, self._containers.names())))
                meant = f"did you mean {' or '.join(near)}?" if near else "ask the agent of its own node"
                line = f"no container that is up on this node is called {text!r}; {meant}"
                raise Unserved(404, line, details={"nearest": near}) from None
            return Asker(f"container {text}", view)
        view = self._view_of(ip)
        kind = "a container of this node" if view.networks else "no container of this node"
        return Asker(f"{ip}, {kind}", view)


async def _within_reach(entries: Sequence[Entry], view: View) -> Sequence[Entry]:
    """`reach.within_reach`, in slices."""
    if not view.networks:
        return entries
    return await in_slices(lambda entry: None if is_shut_off(entry, view) else entry, entries) or entries
