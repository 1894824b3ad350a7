"""Consul's read API over HTTP: the routes under /v1, each a few lines over `consul_api`.

What only a whole Consul knows is told as far as the catalog tells it: checks of
a node are seen at its instances, so a node without any has none here; the
leader is the first of the servers.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from aiohttp import web

from registrator import __version__
from registrator.lookup import consul_api, consul_filter
from registrator.lookup.consul_api import Json, Query
from registrator.lookup.http_gate import in_slices
from registrator.lookup.http_reads import Reads
from registrator.lookup.http_reply import Unserved, json_reply, list_reply
from registrator.model import CheckResult, Entry, Node, Snapshot

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")

AGENT = "_agent"  # in `?near=`: the node of the agent that is asked


class ConsulRoutes:
    """`local` tells the name of the agent's own node; "" while it is not known."""

    def __init__(self, reads: Reads, local: Callable[[], Awaitable[str]]) -> None:
        self._reads = reads
        self._local = local

    def routes(self) -> dict[str, Handler]:
        """Paths and their handlers."""
        return {
            "/v1/agent/self": self._agent_self,
            "/v1/agent/services": self._agent_services,
            "/v1/catalog/datacenters": self._datacenters,
            "/v1/catalog/node/{name:[^/]*}": self._catalog_node,
            "/v1/catalog/nodes": self._catalog_nodes,
            "/v1/catalog/service/{name:[^/]*}": self._catalog_service,
            "/v1/catalog/services": self._catalog_services,
            "/v1/health/checks/{name:[^/]*}": self._health_checks,
            "/v1/health/node/{name:[^/]*}": self._health_node,
            "/v1/health/service/{name:[^/]*}": self._health_service,
            "/v1/health/state/{name:[^/]*}": self._health_state,
            "/v1/status/leader": self._leader,
            "/v1/status/peers": self._peers,
        }

    # Catalog ------------------------------------------------------------------

    async def _catalog_services(self, request: web.Request) -> web.Response:
        query = self._query(request)
        names: Iterable[tuple[str, list[str]]]
        if query.node_meta:  # what is on which node is told by the instances alone
            snapshot, index = await self._reads.read_all(query)
            found = snapshot.services.values()
            names = await in_slices(lambda service: consul_api.service_on_nodes(service, query), found)
        else:
            snapshot = await self._reads.read("", query)
            names, index = consul_api.catalog_services(snapshot), snapshot.index
        return self._list_reply("{", await in_slices(_member, names), "}", index)

    async def _catalog_nodes(self, request: web.Request) -> web.Response:
        query = self._query(request)
        wanted = self._filter(query, consul_filter.NODE)
        snapshot = await self._reads.read("", query)
        nodes = [node for node in snapshot.nodes.values() if query.wants_node(node)]
        near = await self._near(query)
        documents = (consul_api.catalog_node(n, snapshot.index) for n in _near_first(nodes, _name, near))
        return await self._list(documents, wanted, snapshot.index)

    async def _catalog_service(self, request: web.Request) -> web.Response:
        return await self._instances(request, consul_api.catalog_service, consul_filter.CATALOG_SERVICE)

    async def _catalog_node(self, request: web.Request) -> web.Response:
        """A node with its services; null for an unknown one, as in Consul."""
        name = _subject(request, "node name")
        query = self._query(request)
        wanted = self._filter(query, consul_filter.SERVICE)
        snapshot, index = await self._reads.read_all(query)
        node = snapshot.nodes.get(name)
        if not node:
            return self._reply("null", index)
        own = ((e.instance, i) for e, i in consul_api.entries_of(snapshot) if e.node.name == node.name)
        services = await _by_id((consul_api.service(instance, i) for instance, i in own), wanted)
        shown = json.dumps(consul_api.catalog_node(node, snapshot.index))
        return self._list_reply(f'{{"Node":{shown},"Services":{{', services, "}}", index)

    async def _datacenters(self, _request: web.Request) -> web.Response:
        snapshot = self._reads.snapshot()
        return self._reply(json.dumps(list(snapshot.datacenters)), snapshot.index)

    # Health -------------------------------------------------------------------

    async def _health_service(self, request: web.Request) -> web.Response:
        return await self._instances(request, consul_api.health_service, consul_filter.HEALTH_SERVICE)

    async def _health_checks(self, request: web.Request) -> web.Response:
        """The checks of a service's instances, without those of their nodes."""
        name = _subject(request, "service name")
        query = self._query(request)
        wanted = self._filter(query, consul_filter.CHECK)
        snapshot = await self._reads.read(name, query)
        service = snapshot.services.get(name)
        index, entries = (service.index, service.entries) if service else (snapshot.index, ())
        near = await self._near(query)
        documents = (
            consul_api.check(entry, check, index)
            for entry in _near_first(entries, _node_name, near)
            for check in entry.checks
            if check.service_id and query.wants_node(entry.node)
        )
        return await self._list(documents, wanted, index)

    async def _health_node(self, request: web.Request) -> web.Response:
        name = _subject(request, "node name")
        return await self._checks(request, lambda entry, _: entry.node.name.lower() == name)

    async def _health_state(self, request: web.Request) -> web.Response:
        state = _subject(request, "check state")
        return await self._checks(request, lambda _, check: state in ("any", check.status))

    async def _checks(
        self, request: web.Request, which: Callable[[Entry, CheckResult], bool]
    ) -> web.Response:
        """Of all checks those that are asked for."""
        query = self._query(request)
        wanted = self._filter(query, consul_filter.CHECK)
        snapshot, index = await self._reads.read_all(query)
        near = await self._near(query)
        found = await in_slices(
            lambda one: one if query.wants_node(one[0].node) and which(one[0], one[1]) else None,
            consul_api.checks(snapshot),
        )
        ordered = _near_first(found, lambda one: one[0].node.name, near)
        return await self._list((consul_api.check(*one) for one in ordered), wanted, index)

    # Agent and status ---------------------------------------------------------

    async def _agent_self(self, _request: web.Request) -> web.Response:
        snapshot = self._reads.snapshot()
        node = await self._local_node(snapshot)
        if node is None:
            raise Unserved(503, "it is not known yet which node this agent is on; try again in a second")
        return json_reply(json.dumps(consul_api.agent_self(snapshot, node, __version__)))

    async def _agent_services(self, request: web.Request) -> web.Response:
        wanted = self._filter(self._query(request), consul_filter.SERVICE)
        snapshot, _ = await self._reads.read_all(Query())
        local = (await self._local()).lower()
        own = (e.instance for e, _ in consul_api.entries_of(snapshot) if e.node.name.lower() == local)
        # Consul's own is in its catalog, but is none of its agent's.
        documents = (consul_api.agent_service(i) for i in own if i.id != consul_api.SERVERS)
        return list_reply("{", await _by_id(documents, wanted), "}")

    async def _peers(self, _request: web.Request) -> web.Response:
        return json_reply(json.dumps(await self._servers()))

    async def _leader(self, _request: web.Request) -> web.Response:
        servers = await self._servers()
        return json_reply(json.dumps(servers[0] if servers and not self._reads.directory.age else ""))

    async def _servers(self) -> list[str]:
        snapshot = await self._reads.load(consul_api.SERVERS)
        return consul_api.peers(snapshot, await self._local_node(snapshot))

    async def _local_node(self, snapshot: Snapshot) -> Node | None:
        return snapshot.nodes.get((await self._local()).lower())

    # What they share ----------------------------------------------------------

    async def _instances(
        self,
        request: web.Request,
        render: Callable[[Entry, int], Json],
        fields: consul_filter.Fields,
    ) -> web.Response:
        """All instances of a service, each rendered; an unknown service has none, as in Consul."""
        name = _subject(request, "service name")
        query = self._query(request)
        wanted = self._filter(query, fields)
        snapshot = await self._reads.read(name, query)
        service = snapshot.services.get(name)
        index, entries = (service.index, service.entries) if service else (snapshot.index, ())
        near = await self._near(query)
        chosen = await in_slices(lambda entry: entry if query.wants(entry) else None, entries)
        ordered = _near_first(chosen, _node_name, near)
        return await self._list((render(entry, index) for entry in ordered), wanted, index)

    def _query(self, request: web.Request) -> Query:
        try:
            return consul_api.parse_query(request.query.items(), self._reads.snapshot().datacenter)
        except consul_api.BadQuery as error:
            raise Unserved(400, str(error)) from None

    def _filter(self, query: Query, fields: consul_filter.Fields) -> consul_filter.Test | None:
        try:
            return consul_api.parse_filter(query, fields)
        except consul_api.BadQuery as error:
            raise Unserved(400, str(error)) from None

    async def _near(self, query: Query) -> str:
        return (await self._local()).lower() if query.near == AGENT else query.near

    async def _list(
        self, documents: Iterable[Json], wanted: consul_filter.Test | None, index: int
    ) -> web.Response:
        """A JSON list of the documents that are wanted, rendered in slices."""
        texts = await in_slices(
            lambda document: json.dumps(document) if not wanted or wanted(document) else None, documents
        )
        return self._list_reply("[", texts, "]", index)

    def _list_reply(self, begin: str, parts: list[str], end: str, index: int) -> web.Response:
        return list_reply(begin, parts, end, data_headers(self._reads, index))

    def _reply(self, text: str, index: int) -> web.Response:
        return json_reply(text, data_headers(self._reads, index))


def data_headers(reads: Reads, index: int) -> dict[str, str]:
    """Consul's headers, and ours that says how old the answer is when the catalog is out of contact."""
    age = reads.directory.age
    headers = consul_api.headers(index, age)
    if age:
        headers["X-Registrator-Age"] = str(round(age))
    return headers


async def _by_id(documents: Iterable[Json], wanted: consul_filter.Test | None) -> list[str]:
    """The members of a JSON object: those documents that are wanted, by their ID, rendered in slices."""
    return await in_slices(
        lambda document: _member((document["ID"], document)) if not wanted or wanted(document) else None,
        documents,
    )


def _member(pair: tuple[object, object]) -> str:
    """A member of a JSON object, from its name and value."""
    name, value = pair
    return f"{json.dumps(name)}:{json.dumps(value)}"


def _subject(request: web.Request, what: str) -> str:
    """What a path names, lower-cased; Consul's words where it names nothing."""
    name = request.match_info["name"].lower()
    if not name:
        raise Unserved(400, f"Missing {what}")
    return name


def _name(node: Node) -> str:
    return node.name


def _node_name(entry: Entry) -> str:
    return entry.node.name


def _near_first(items: Iterable[T], node_of: Callable[[T], str], near: str) -> list[T]:
    """The items of node `near` first, the others in their order (Consul sorts by network coordinates)."""
    return sorted(items, key=lambda item: node_of(item).lower() != near) if near else list(items)
