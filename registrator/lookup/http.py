"""The HTTP front: what the agent tells over HTTP, read-only.

`/lookup/<name>` is ours; `/v1/...` is Consul's read API with its blocking
queries; `/livez`, `/readyz` and `/metrics` are for those who run the agent.
`HttpFront` is an aiohttp application without sockets: `consul_api` and
`lookup_api` say what is shown, `http_server` puts it on the network.

One way out for every error: a handler raises `Unserved`, `_respond` writes it
as one line. Nobody but a program on purpose may ask: a web page that reaches
us through DNS rebinding names a foreign host and is refused, and no reply
carries CORS headers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeVar

from aiohttp import web

from registrator.catalog import CatalogError, Directory
from registrator.lookup import consul_api, lookup_api
from registrator.lookup.records import to_name
from registrator.model import CRITICAL, Entry, Snapshot, View
from registrator.stats import Stats

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")
R = TypeVar("R")

MAX_WAITING = 384  # blocking queries at once; the connections beyond stay free for others
SLICE = 32  # documents rendered before the loop gets its turn: well under 1 ms

RETRY = {"Retry-After": "1"}
HEADERS = {
    "Server": "registrator",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Unserved(Exception):
    """A request that cannot be served: `status`, and one line that says why."""

    def __init__(self, status: int, line: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(line)
        self.status = status
        self.headers = headers or {}


class HttpFront:
    """Answers from a directory.

    `view_of` tells what the asker at an address can reach; `domain` is the
    DNS zone, without the final dot, that names may end in.
    """

    def __init__(
        self, directory: Directory, *, stats: Stats, view_of: Callable[[str], View], domain: str
    ) -> None:
        self._directory = directory
        self._stats = stats
        self._view_of = view_of
        self._domain = domain
        self._zone = to_name(domain) or ()
        self._hostname = socket.gethostname().lower()
        self._waiting: set[asyncio.Task[Snapshot]] = set()
        self._closing = False
        self._logged: set[str] = set()
        self._metrics: Callable[[], bytes] | None = None

    def application(self) -> web.Application:
        """The routes. Every method is routed, so that one place refuses all but GET and HEAD."""
        app = web.Application(middlewares=[self._respond])
        routes: dict[str, Handler] = {
            "/lookup/{name:[^/]*}": self._lookup,
            "/v1/catalog/services": self._catalog_services,
            "/v1/catalog/service/{name:[^/]*}": self._catalog_service,
            "/v1/catalog/nodes": self._catalog_nodes,
            "/v1/health/service/{name:[^/]*}": self._health_service,
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._scrape,
        }
        for path, handler in routes.items():
            app.router.add_route("*", path, handler)
        return app

    def end_waits(self) -> None:
        """Answer all blocking queries now, with what there is; later ones do not block."""
        self._closing = True
        for waiter in self._waiting:
            waiter.cancel()

    # Every request passes here ------------------------------------------------

    @web.middleware
    async def _respond(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse what may not be asked, turn every error into one line, count the reply."""
        resource = request.match_info.route.resource
        route = resource.canonical if resource else "other"
        try:
            self._admit(request)
            response = await handler(request)
        except Unserved as failure:
            response = _error(request, failure)
        except CatalogError as error:
            response = _error(request, Unserved(503, f"the catalog cannot be read: {error}", RETRY))
        except web.HTTPException:  # the router's own: no such path
            response = _error(request, Unserved(404, "no such path; see the README for what can be asked"))
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a line and the agent goes on
            self._log_once(route, error)
            response = _error(request, Unserved(500, "this agent failed to answer; its log says why"))
        response.headers.update(HEADERS)
        self._stats.http_requests[route, response.status] += 1
        return response

    def _admit(self, request: web.Request) -> None:
        """Refuse writes, foreign hosts and control characters. Raises Unserved."""
        if request.method not in ("GET", "HEAD"):
            raise Unserved(405, f"method {request.method} not allowed: read only", {"Allow": "GET, HEAD"})
        if not lookup_api.host_allowed(request.headers.get("Host", ""), self._domain, self._hostname):
            raise Unserved(421, "this Host is not served here; ask by IP address, localhost or a local name")
        if not request.path.isprintable():
            raise Unserved(400, "the path holds control characters")

    def _log_once(self, route: str, error: Exception) -> None:
        kind = f"{route} {type(error).__name__}"
        if kind not in self._logged:
            self._logged.add(kind)
            log.error("GET %s failed; this is a bug, please report it (logged once)", route, exc_info=error)

    # Consul's read API --------------------------------------------------------

    async def _catalog_services(self, request: web.Request) -> web.Response:
        snapshot = await self._read("", self._query(request))
        return self._json(json.dumps(consul_api.catalog_services(snapshot)), snapshot.index)

    async def _catalog_nodes(self, request: web.Request) -> web.Response:
        snapshot = await self._read("", self._query(request))
        index = snapshot.index
        nodes = await _in_slices(
            lambda node: json.dumps(consul_api.catalog_node(node, index)), snapshot.nodes.values()
        )
        return self._json(f"[{','.join(nodes)}]", index)

    async def _catalog_service(self, request: web.Request) -> web.Response:
        return await self._instances(request, consul_api.catalog_service)

    async def _health_service(self, request: web.Request) -> web.Response:
        return await self._instances(request, consul_api.health_service)

    async def _instances(
        self, request: web.Request, document: Callable[[Entry, int], consul_api.Json]
    ) -> web.Response:
        """All instances of a service, each as a `document`; an unknown service has none, as in Consul."""
        name = request.match_info["name"].lower()
        if not name:
            raise Unserved(400, "Missing service name")
        query = self._query(request)
        snapshot = await self._read(name, query)
        service = snapshot.services.get(name)
        index, entries = (service.index, service.entries) if service else (snapshot.index, ())
        documents = await _in_slices(
            lambda entry: json.dumps(document(entry, index)) if query.wants(entry) else None, entries
        )
        return self._json(f"[{','.join(documents)}]", index)

    def _query(self, request: web.Request) -> consul_api.Query:
        try:
            return consul_api.parse_query(request.query.items(), self._snapshot().datacenter)
        except consul_api.BadQuery as error:
            raise Unserved(400, str(error)) from None

    # Ours ---------------------------------------------------------------------

    async def _lookup(self, request: web.Request) -> web.Response:
        """The instances that a client may use now, each with the address that this asker can reach.

        An unknown name is 404; a known one without a healthy instance is 200
        with an empty list.
        """
        text = request.match_info["name"]
        found = lookup_api.find_service(text, self._snapshot(), self._zone)
        service = (await self._load(found.service)).services.get(found.service) if found else None
        if not found or not service:
            raise Unserved(404, f"no service is called {text!r}; /v1/catalog/services lists those that are")
        tags = [*request.query.getall("tag", ()), *([found.tag] if found.tag else ())]
        query = consul_api.Query(tags=frozenset(tag.lower() for tag in tags))
        view = self._view_of(request.remote or "")
        text_form = _wants_text(request)
        render = lookup_api.line if text_form else lookup_api.document
        rendered = await _in_slices(
            lambda entry: render(entry, view) if entry.status != CRITICAL and query.wants(entry) else None,
            service.entries,
        )
        if text_form:
            return self._text("".join(rendered), service.index)
        instances = ",".join(rendered)
        return self._json(
            f'{{"service":{json.dumps(service.name)},"instances":[{instances}]}}', service.index
        )

    async def _livez(self, _request: web.Request) -> web.Response:
        """200 as long as the loop runs: that it answers is the answer."""
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        """200 when lookups answer from a complete catalog; else 503 and what is waited for."""
        if self._directory.snapshot is None:
            raise Unserved(503, "not ready: the catalog has not been read yet", RETRY)
        if not self._stats.ready:
            raise Unserved(503, "not ready: the first complete reconcile with Docker is not over", RETRY)
        return web.Response(text="ok\n")

    async def _scrape(self, _request: web.Request) -> web.Response:
        if self._metrics is None:
            self._metrics = await asyncio.to_thread(self._make_metrics)
        return web.Response(
            body=self._metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    def _make_metrics(self) -> Callable[[], bytes]:
        from registrator.lookup.metrics import Metrics  # noqa: PLC0415  (dear, and few agents are scraped)

        return Metrics(self._stats, self._directory).render

    # Reading the catalog ------------------------------------------------------

    def _snapshot(self) -> Snapshot:
        snapshot = self._directory.snapshot
        if snapshot is None:
            raise Unserved(503, "the catalog has not been read yet; try again in a second", RETRY)
        return snapshot

    async def _read(self, name: str, query: consul_api.Query) -> Snapshot:
        """The snapshot with service `name` loaded where it exists ("": the names and nodes alone).

        With an index it waits first until what is asked for is newer. Raises
        Unserved and CatalogError.
        """
        snapshot = await self._load(name)
        if query.index and snapshot.index_of(name) <= query.index:
            await self._wait(name if name in snapshot.names else None, query)
            snapshot = await self._load(name)
        return snapshot

    async def _load(self, name: str) -> Snapshot:
        snapshot = self._snapshot()
        if name in snapshot.names and name not in snapshot.services:
            return await self._directory.load(name)
        return snapshot

    async def _wait(self, name: str | None, query: consul_api.Query) -> None:
        """Block until the index grows, the time is over, or the server closes."""
        if self._closing:
            return
        if len(self._waiting) >= MAX_WAITING:
            raise Unserved(503, f"{MAX_WAITING} blocking queries are open already; close some", RETRY)
        waiter = asyncio.ensure_future(self._directory.wait(name, query.index, query.wait))
        self._waiting.add(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            handler = asyncio.current_task()
            if handler is None or handler.cancelling():  # the client has gone: it was not `end_waits`
                raise
        finally:
            self._waiting.discard(waiter)

    # Replies ------------------------------------------------------------------

    def _json(self, text: str, index: int) -> web.Response:
        return web.Response(
            body=f"{text}\n".encode(), content_type="application/json", headers=self._data_headers(index)
        )

    def _text(self, text: str, index: int) -> web.Response:
        return web.Response(text=text, headers=self._data_headers(index))

    def _data_headers(self, index: int) -> dict[str, str]:
        """Consul's headers, and ours that says how old the answer is when the catalog is out of contact."""
        age = self._directory.age
        headers = consul_api.headers(index, age)
        if age:
            headers["X-Registrator-Age"] = str(round(age))
        return headers


async def _in_slices(render: Callable[[T], R | None], items: Iterable[T]) -> list[R]:
    """Render every item, without the Nones, and let the loop have its turn in between."""
    rendered: list[R] = []
    for number, item in enumerate(items, 1):
        if (one := render(item)) is not None:
            rendered.append(one)
        if number % SLICE == 0:
            await asyncio.sleep(0)
    return rendered


def _wants_text(request: web.Request) -> bool:
    """Whether the reply is lines of text; Consul's own API always tells errors so."""
    return request.query.get("format") == "text" or not request.path.startswith("/lookup/")


def _error(request: web.Request, failure: Unserved) -> web.Response:
    """One line: text, or {"error": ...} where the answer would have been JSON."""
    if _wants_text(request):
        response = web.Response(text=f"{failure}\n", status=failure.status)
    else:
        body = f"{json.dumps({'error': str(failure)})}\n"
        response = web.Response(text=body, status=failure.status, content_type="application/json")
    response.headers.update(failure.headers)
    return response
