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
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partialmethod
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import yarl

from registrator.catalog.consul import errors, facts, form
from registrator.catalog.consul.library import load_base
from registrator.catalog.consul.slices import elements, in_slices
from registrator.duration import parse_duration
from registrator.model import Entry, Health, Instance, Node, Selected
from registrator.settings import ConsulAddress, tls_context

T = TypeVar("T")

base: Any = load_base()

# Consul drops connections past 200 per client address without a word; others on the node need some too.
MAX_CONNECTIONS = 100
REQUEST_TIMEOUT = 10.0  # seconds, for what does not block
# A blocking query of `wait` may take wait + wait/16 (Consul's own jitter), and then the answer travels.
MARGIN = 2.0

Params = Sequence[tuple[str, str | int]]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of 2xx: its X-Consul-Index (0 where it has none) and its body, not yet parsed."""

    index: int
    body: str


class Adapter(base.HTTPClient):  # type: ignore[misc]  # python-consul2 has no types
    """The HTTP below python-consul2's endpoints: every call gives a `Reply` or raises `CatalogError`.

    The library's `callback`s are not called: they parse a body in one piece,
    which for a large catalog holds up the loop, and have errors of their own.
    """

    def __init__(self, address: ConsulAddress) -> None:
        # Not the base's constructor: all it does is build this base from host and port.
        self.base_uri = address.base
        self._address = address
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        """Hold the one session open. Raises SettingError for TLS files that cannot be used."""
        if self._address.socket:
            connector: aiohttp.BaseConnector = aiohttp.UnixConnector(
                self._address.socket, limit=MAX_CONNECTIONS
            )
        else:
            context = tls_context(self._address)
            connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, ssl=True if context is None else context)
        # Compression costs both sides more than the loopback or a LAN does.
        headers = {"Accept-Encoding": "identity"}
        if self._address.token:
            headers["X-Consul-Token"] = self._address.token
        try:
            async with aiohttp.ClientSession(connector=connector, headers=headers) as self._session:
                yield
        finally:
            self._session = None

    async def _send(
        self,
        method: str,
        _callback: object,
        path: str,
        params: Params = (),
        data: str = "",
        **_headers: object,
    ) -> Reply:
        """Send one request; `_headers` hold nothing but the token, which the session sends already."""
        if self._session is None:
            raise RuntimeError("the Consul catalog is used outside of its `async with`")
        request, seconds = f"{method} {path}", timeout_for(params)
        params = by_any_server(params)
        try:
            async with self._session.request(
                method,
                yarl.URL(self.uri(path, params), encoded=True),
                data=data or None,
                timeout=aiohttp.ClientTimeout(total=seconds),
                allow_redirects=False,  # the token is not for others
            ) as response:
                body = (await response.read()).decode("utf-8", "replace")
        except (aiohttp.ClientError, OSError) as error:
            raise errors.from_exception(self._address, request, seconds, error) from None
        # That no key has a prefix is told by a 404 with an index, which blocking queries go on from.
        absent = response.status == 404 and not body and "X-Consul-Index" in response.headers
        if response.status >= 300 and not absent:
            raise errors.from_answer(self._address, request, response.status, body)
        if response.headers.get("X-Consul-KnownLeader") == "false":
            raise errors.from_follower(self._address, request)
        try:
            return Reply(int(response.headers.get("X-Consul-Index", 0)), "null" if absent else body)
        except ValueError:
            raise errors.from_nonsense(self._address, request) from None

    def uri(self, path: str, params: Params | None = None) -> str:
        """The URL of a path whose names are `quoted`; the library would leave their slashes as they are."""
        query = f"?{urlencode(params)}" if params else ""
        return f"{self.base_uri}{path}{query}"

    get = partialmethod(_send, "GET")
    put = partialmethod(_send, "PUT")
    post = partialmethod(_send, "POST")
    delete = partialmethod(_send, "DELETE")


class ConsulClient(base.Consul):  # type: ignore[misc]  # python-consul2 has no types
    """python-consul2's agent, catalog and health endpoints, answered in the model's words.

    Every method raises `CatalogError`. `wait` is in seconds, up to 600
    (https://developer.hashicorp.com/consul/api-docs/features/blocking).
    """

    def __init__(self, address: ConsulAddress) -> None:
        # Not the base's constructor: it takes CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN and CONSUL_HTTP_SSL
        # from the environment over what it is given, and raises where it cannot read them.
        self.address = address
        self.http = Adapter(address)
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
        document = dict(await self._parsed("agent/self", await self.agent.self(), _pair))
        with self._understanding("agent/self"):
            return form.own_node(document)

    async def services(self) -> dict[str, form.JSON]:
        """All services of the agent by id (GET /v1/agent/services)."""
        return dict(await self._parsed("agent/services", await self.agent.services(), _pair))

    async def service(self, service_id: str) -> form.JSON | None:
        """One service of the agent, None where it has none of that id (GET /v1/agent/service/:id)."""
        path = f"agent/service/{quoted(service_id)}"
        try:
            reply = await self.http.get(None, f"/v1/{path}")
        except errors.NotFound:
            return None
        return dict(await self._parsed(path, reply, _pair))

    async def checks(self) -> dict[str, form.JSON]:
        """All checks of the agent by id (GET /v1/agent/checks)."""
        return dict(await self._parsed("agent/checks", await self.agent.checks(), _pair))

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
        return reply.index, form.names(await self._parsed("catalog/services", reply, form.named))

    async def nodes(self, index: int, wait: float) -> tuple[int, dict[str, Node]]:
        """All nodes by lower-cased name (GET /v1/catalog/nodes); one without any is no catalog.

        The leader itself answers: this is how its loss is noticed, after which
        all has to be compared, for Consul tries again only after 15 to 30 s what
        it could not write meanwhile (seen on 1.8.7).
        """
        by_leader = {"consistency": "consistent"} if index else {}
        reply = self._indexed(await self.catalog.nodes(index=index, wait=_seconds(wait), **by_leader))
        nodes = await self._parsed("catalog/nodes", reply, form.node)
        if not nodes:  # a token without rights is not told so: what it may not read is left out
            raise errors.from_emptiness(self.address)
        return reply.index, {node.name.lower(): node for node in nodes}

    async def entries(self, service: str, index: int, wait: float) -> tuple[int, tuple[Entry, ...]]:
        """All instances of a service, healthy or not, in a steady order (GET /v1/health/service/:service)."""
        name = quoted(service)
        reply = self._indexed(await self.health.service(name, index=index, wait=_seconds(wait)))
        entries = await self._parsed(f"health/service/{name}", reply, form.entry)
        return reply.index, tuple(sorted(entries, key=lambda entry: (entry.node.name, entry.instance.id)))

    async def datacenters(self) -> tuple[str, ...]:
        """All datacenters, the nearest first (GET /v1/catalog/datacenters)."""
        return tuple(await self._parsed("catalog/datacenters", await self.catalog.datacenters(), str))

    # What is found on request. `datacenter` is "" for the agent's own.

    async def found(self, endpoint: str, name: str, datacenter: str) -> tuple[Entry, ...]:
        """The instances at GET /v1/health/:endpoint/:name, healthy or not: service, connect or ingress."""
        path = f"health/{endpoint}/{quoted(name)}"
        entries = await self._parsed(path, await self._get(path, datacenter), form.entry)
        return tuple(sorted(entries, key=lambda entry: (entry.node.name, entry.instance.id)))

    async def names_in(self, datacenter: str) -> dict[str, tuple[str, ...]]:
        """All service names of a datacenter, lower-cased, with their tags (GET /v1/catalog/services)."""
        path = "catalog/services"
        return form.names(await self._parsed(path, await self._get(path, datacenter), form.named))

    async def node(self, name: str, datacenter: str = "") -> tuple[Node | None, tuple[Instance, ...]]:
        """A node, None where there is none of that name, and its services (GET /v1/catalog/node/:node)."""
        path = f"catalog/node/{quoted(name)}"
        document = dict(await self._parsed(path, await self._get(path, datacenter), _pair))
        with self._understanding(path):
            services = await in_slices((document.get("Services") or {}).values(), form.instance)
            return form.node(document["Node"]) if document else None, tuple(services)

    async def query(self, name: str, datacenter: str) -> Selected:
        """What a prepared query finds (GET /v1/query/:query/execute); raises `errors.NotFound`."""
        path = f"query/{quoted(name)}/execute"
        document = dict(await self._parsed(path, await self._get(path, datacenter), _pair))
        with self._understanding(path):
            entries = await in_slices(document["Nodes"] or (), form.entry)
            ttl = parse_duration((document.get("DNS") or {}).get("TTL") or "")
            return Selected(
                tuple(entries), service=document["Service"], ttl=None if ttl is None else int(ttl)
            )

    async def _get(self, path: str, datacenter: str) -> Reply:
        params = [("dc", datacenter)] if datacenter else []
        return await self.http.get(None, f"/v1/{path}", params=params)

    # The key-value store.

    async def keys(self, prefix: str, index: int, wait: float) -> tuple[int, dict[str, facts.Key]]:
        """All keys that start with `prefix` and that the token may read (GET /v1/kv/:prefix?recurse)."""
        below = quoted(prefix, safe="/:")
        reply = self._indexed(await self.kv.get(below, index=index, wait=_seconds(wait), recurse=True))
        return reply.index, dict(await self._parsed(f"kv/{below}", reply, facts.key))

    async def put_key(self, key: str, value: str, index: int) -> bool:
        """Write a key if it is still as it was at `index` (0: absent), and say so (PUT /v1/kv/:key)."""
        reply: Reply = await self.kv.put(quoted(key, safe="/:"), value, cas=index)
        return reply.body.strip() == "true"

    async def delete_key(self, key: str, index: int) -> bool:
        """Delete a key if it is still as it was at `index`, and say so (DELETE /v1/kv/:key)."""
        reply: Reply = await self.kv.delete(quoted(key, safe="/:"), cas=index)
        return reply.body.strip() == "true"

    def _indexed(self, reply: Reply) -> Reply:
        """Insist on an index: without one a blocking query would not block but spin."""
        if reply.index < 1:
            raise errors.from_nonsense(self.address, "the catalog's GET requests")
        return reply

    async def _parsed(self, path: str, reply: Reply, convert: Callable[[Any], T]) -> list[T]:
        """The elements of a reply, translated, in slices."""
        with self._understanding(path):
            return await in_slices(elements(reply.body), convert)

    @contextmanager
    def _understanding(self, path: str) -> Iterator[None]:
        """Say of a document in another shape than Consul's that it is no answer of Consul's."""
        try:
            yield
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise errors.from_nonsense(self.address, f"GET /v1/{path}") from error


def quoted(name: str, safe: str = ":") -> str:
    """A name as one part of a URL's path, whatever is in it."""
    return quote(name.encode("utf-8", "surrogatepass"), safe=safe)


def timeout_for(params: Params) -> float:
    """How long a request may take, in seconds: a blocking query's wait and what Consul adds to it."""
    wait = dict(params).get("wait")
    if wait is None:
        return REQUEST_TIMEOUT
    seconds = float(str(wait).removesuffix("s"))
    return seconds + seconds / 16 + MARGIN


def by_any_server(params: Params) -> Params:
    """The options of a request; a blocking query that goes on from an index may be answered by any server.

    Otherwise a server hands it to its leader, and a leader whose host is gone
    is noticed after some 40 s (seen on 1.8.7): until then nothing would be
    heard of what the others know, with a leader of their own. A server that is
    behind the index waits until it is not; one that knows no leader is no
    authority, which `Adapter` sees to. What asks from index 0 asks the leader.
    """
    names = dict(params)
    return [*params, ("stale", "1")] if "index" in names and "consistent" not in names else params


def _flag(value: bool) -> str:  # noqa: FBT001 - that is all it takes
    return "true" if value else "false"


def _seconds(wait: float) -> str:
    return f"{wait:g}s"


def _pair(element: Any) -> tuple[str, Any]:  # noqa: ANN401 - JSON
    """A pair of a JSON object as it is; raises TypeError for an element of an array."""
    key, value = element
    return key, value
