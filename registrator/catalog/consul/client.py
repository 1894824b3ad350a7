"""python-consul2 with an HTTP of our own: one session, real timeouts, TLS, sockets, plain errors.

python-consul2's asyncio adapter opens a session for each request, has no
timeout and ignores CA files; its constructor takes the address, the token and
TLS from the environment. So `ConsulClient` builds the endpoint groups it uses
itself and gives them an `Adapter` that owns the connection pool. What the
library cannot say (tagged addresses, weights, lists of checks) goes through the
same adapter as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from registrator.catalog.consul import errors, facts, form
from registrator.catalog.consul.http import Adapter, Reply, base
from registrator.catalog.consul.reading import Reader
from registrator.documents import Element, Kind
from registrator.model import Entry, Health, Instance, Node, Selected
from registrator.settings import ConsulAddress
from registrator.shapes import as_text
from registrator.stats import Stats

T = TypeVar("T")


class ConsulClient(base.Consul):  # type: ignore[misc]  # python-consul2 has no types
    """python-consul2's agent, catalog and health endpoints, answered in the model's words.

    Every method raises `CatalogError`, and nothing else whatever Consul answers.
    A part of an answer that cannot be used is left out (see `reading`). `wait` is in seconds, up to 600
    (https://developer.hashicorp.com/consul/api-docs/features/blocking).
    """

    def __init__(self, address: ConsulAddress, stats: Stats | None = None) -> None:
        # Not the base's constructor: it takes CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN and CONSUL_HTTP_SSL
        # from the environment over what it is given, and raises where it cannot read them.
        self.address = address
        self.http = Adapter(address)
        self._reader = Reader(address, stats or Stats())
        self.token = None  # the session's header has it
        self.dc = None
        self.consistency = "default"
        self.agent = base.Consul.Agent(self)
        self.catalog = base.Consul.Catalog(self)
        self.health = base.Consul.Health(self)
        self.kv = base.Consul.KV(self)

    # The agent: what is registered here.

    async def own_node(self) -> Node:
        """The agent's own node (GET /v1/agent/self)."""
        path = "agent/self"
        document = dict(await self._members(path, await self.agent.self(), _member))
        return self._understood(path, form.own_node, document)

    async def services(self) -> dict[str, form.JSON]:
        """All services of the agent by id (GET /v1/agent/services)."""
        return dict(await self._members("agent/services", await self.agent.services(), form.agent_service))

    async def service(self, service_id: str) -> form.JSON | None:
        """One service of the agent, None where it has none of that id (GET /v1/agent/service/:id)."""
        path = f"agent/service/{quoted(service_id)}"
        try:
            reply = await self.http.get(None, f"/v1/{path}")
        except errors.NotFound:
            return None
        members = dict(await self._members(path, reply, _member))
        return form.agent_service(Element(service_id, members))[1]

    async def checks(self) -> dict[str, form.JSON]:
        """All checks of the agent by id (GET /v1/agent/checks); of each no more than its texts."""
        return dict(await self._members("agent/checks", await self.agent.checks(), form.agent_check))

    async def register(self, definition: Mapping[str, object]) -> None:
        """Create or replace a service and the checks that are named (PUT /v1/agent/service/register).

        Not with `replace-existing-checks`: that would end a maintenance, which
        is a check of the service as well (seen on 1.8.7).
        """
        await self.http.put(None, "/v1/agent/service/register", data=json.dumps(definition))

    async def deregister(self, service_id: str) -> None:
        """Remove a service and its checks; raises `errors.NotFound` where Consul says that it has none."""
        await self.agent.service.deregister(quoted(service_id))

    async def deregister_check(self, check_id: str) -> None:
        """Remove one check (PUT /v1/agent/check/deregister/:id); raises `errors.NotFound` for none."""
        await self.agent.check.deregister(quoted(check_id))

    async def maintain_service(self, service_id: str, *, enable: bool, reason: str = "") -> None:
        """Begin or end a service's maintenance (PUT /v1/agent/service/maintenance/:id).

        One that is in maintenance already keeps its reason. Raises
        `errors.NotFound` for no such service.
        """
        await self.agent.service.maintenance(quoted(service_id), _flag(enable), reason)

    async def maintain_node(self, *, enable: bool, reason: str = "") -> None:
        """Begin or end the maintenance of the agent's whole node (PUT /v1/agent/maintenance)."""
        await self.agent.maintenance(_flag(enable), reason)

    async def update_check(self, check_id: str, health: Health) -> None:
        """Move a TTL check (PUT /v1/agent/check/update/:id); the output goes in the body, not in the URL."""
        body = json.dumps({"Status": health.status, "Output": health.output})
        await self.http.put(None, f"/v1/agent/check/update/{quoted(check_id)}", data=body)

    # The catalog: what is registered anywhere. Each answer comes with its index.

    async def names(self, index: int, wait: float) -> tuple[int, dict[str, tuple[str, ...]]]:
        """All service names, lower-cased, with their tags (GET /v1/catalog/services)."""
        reply = self._indexed(await self.catalog.services(index=index, wait=_seconds(wait)))
        return reply.index, form.names(await self._members("catalog/services", reply, form.named))

    async def nodes(self, index: int, wait: float) -> tuple[int, dict[str, Node]]:
        """All nodes by lower-cased name (GET /v1/catalog/nodes); one without any is no catalog.

        The leader itself answers: this is how its loss is noticed, after which
        all has to be compared, for Consul tries again only after 15 to 30 s what
        it could not write meanwhile (seen on 1.8.7).
        """
        by_leader = {"consistency": "consistent"} if index else {}
        reply = self._indexed(await self.catalog.nodes(index=index, wait=_seconds(wait), **by_leader))
        nodes = await self._list("catalog/nodes", reply, form.node)
        if not nodes:  # a token without rights is not told so: what it may not read is left out
            raise errors.from_emptiness(self.address)
        return reply.index, {node.name.lower(): node for node in nodes}

    async def entries(self, service: str, index: int, wait: float) -> tuple[int, tuple[Entry, ...]]:
        """All instances of a service, healthy or not, in a steady order (GET /v1/health/service/:service)."""
        name = quoted(service)
        reply = self._indexed(await self.health.service(name, index=index, wait=_seconds(wait)))
        return reply.index, _in_order(await self._list(f"health/service/{name}", reply, form.entry))

    async def datacenters(self) -> tuple[str, ...]:
        """All datacenters, the nearest first (GET /v1/catalog/datacenters)."""
        names = await self._list("catalog/datacenters", await self.catalog.datacenters(), as_text)
        return tuple(filter(None, names))

    # What is found on request. `datacenter` is "" for the agent's own.

    async def found(self, endpoint: str, name: str, datacenter: str) -> tuple[Entry, ...]:
        """The instances at GET /v1/health/:endpoint/:name, healthy or not: service, connect or ingress."""
        path = f"health/{endpoint}/{quoted(name)}"
        return _in_order(await self._list(path, await self._get(path, datacenter), form.entry))

    async def names_in(self, datacenter: str) -> dict[str, tuple[str, ...]]:
        """All service names of a datacenter, lower-cased, with their tags (GET /v1/catalog/services)."""
        path = "catalog/services"
        return form.names(await self._members(path, await self._get(path, datacenter), form.named))

    async def node(self, name: str, datacenter: str = "") -> tuple[Node | None, tuple[Instance, ...]]:
        """A node, None where there is none of that name, and its services (GET /v1/catalog/node/:node)."""
        path = f"catalog/node/{quoted(name)}"
        reply = await self._get(path, datacenter)
        parts, _ = await self._reader.read(path, reply, Kind.OBJECT_OR_NULL, form.node_part, ("Services",))
        node = next((part for part in parts if isinstance(part, Node)), None)
        return node, tuple(part for part in parts if isinstance(part, Instance))

    async def query(self, name: str, datacenter: str) -> Selected:
        """What a prepared query finds (GET /v1/query/:query/execute); raises `errors.NotFound`."""
        path = f"query/{quoted(name)}/execute"
        reply = await self._get(path, datacenter)
        parts = await self._members(path, reply, form.query_part, inside=("Nodes",))
        entries = tuple(part for part in parts if isinstance(part, Entry))
        return self._understood(
            path, form.query_result, dict(p for p in parts if isinstance(p, tuple)), entries
        )

    async def _get(self, path: str, datacenter: str) -> Reply:
        params = [("dc", datacenter)] if datacenter else []
        return await self.http.get(None, f"/v1/{path}", params=params)

    # The key-value store.

    async def keys(self, prefix: str, index: int, wait: float) -> tuple[int, dict[str, facts.Key]]:
        """All keys that start with `prefix` and that the token may read (GET /v1/kv/:prefix?recurse)."""
        below = quoted(prefix, safe="/:")
        reply = self._indexed(await self.kv.get(below, index=index, wait=_seconds(wait), recurse=True))
        found, _ = await self._reader.read(
            f"kv/{below}", reply, Kind.ARRAY_OR_NULL, lambda element: facts.key(element.value)
        )
        return reply.index, dict(found)

    async def put_key(self, key: str, value: str, index: int) -> bool:
        """Write a key if it is still as it was at `index` (0: absent), and say so (PUT /v1/kv/:key)."""
        reply: Reply = await self.kv.put(quoted(key, safe="/:"), value, cas=index)
        return reply.text.strip() == "true"

    async def delete_key(self, key: str, index: int) -> bool:
        """Delete a key if it is still as it was at `index`, and say so (DELETE /v1/kv/:key)."""
        reply: Reply = await self.kv.delete(quoted(key, safe="/:"), cas=index)
        return reply.text.strip() == "true"

    def _indexed(self, reply: Reply) -> Reply:
        """Insist on an index: without one a blocking query would not block but spin."""
        if reply.index < 1:
            reply.close()
            raise errors.from_nonsense(self.address, "the catalog's GET requests", "no X-Consul-Index")
        return reply

    async def _members(
        self, path: str, reply: Reply, convert: Callable[[Element], T], inside: Collection[str] = ()
    ) -> list[T]:
        """What can be used of an object's members, translated."""
        found, _ = await self._reader.read(path, reply, Kind.OBJECT, convert, inside)
        return found

    async def _list(self, path: str, reply: Reply, convert: Callable[[Any], T]) -> list[T]:
        """What can be used of an array; that nothing of it can be does not mean that it is empty."""
        found, left_out = await self._reader.read(
            path, reply, Kind.ARRAY_OR_NULL, lambda element: convert(element.value)
        )
        if left_out and not found:
            raise errors.from_spoilt(self.address, f"GET /v1/{path}", left_out)
        return found

    def _understood(self, path: str, convert: Callable[..., T], *parts: object) -> T:
        """What the parts of a document say together."""
        with self._reader.understanding(path):
            return convert(*parts)


def _flag(value: bool) -> str:  # noqa: FBT001 - that is all it takes
    return "true" if value else "false"


def _seconds(wait: float) -> str:
    return f"{wait:g}s"


def _member(element: Element) -> tuple[str, Any]:
    return element.key, element.value


def _in_order(entries: list[Entry]) -> tuple[Entry, ...]:
    return tuple(sorted(entries, key=lambda entry: (entry.node.name, entry.instance.id)))


def quoted(name: str, safe: str = ":") -> str:
    """A name as one part of a URL's path, whatever is in it."""
    return quote(name.encode("utf-8", "surrogatepass"), safe=safe)
