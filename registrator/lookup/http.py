"""The HTTP front: what the agent tells over HTTP, read-only.

`HttpFront` is an aiohttp application without sockets (`http_server` puts it on
the network). Every request passes `_respond`; the routes are in `http_consul`
(Consul's read API with its blocking queries), `http_lookup` (our own lookups
and why they are as they are), `http_events` (what changes) and `http_page`;
those for who runs the agent (`/livez`, `/readyz`, `/metrics`) are here.

One way out for every error: a handler raises `Unserved`, `_respond` writes it
as one line. Nobody but a program on purpose may ask: a web page that reaches
us through DNS rebinding names a foreign host and is refused, and no reply
carries CORS headers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import HttpVersion10, web

from registrator.catalog import CatalogError, Directory
from registrator.journal import Journal
from registrator.lookup import lookup_api
from registrator.lookup.http_consul import ConsulRoutes
from registrator.lookup.http_events import EventRoutes
from registrator.lookup.http_lookup import Containers, LookupRoutes, NoContainers
from registrator.lookup.http_page import PageRoutes
from registrator.lookup.http_reads import Reads
from registrator.lookup.http_reply import HEADERS, RETRY, Unserved, compress, error_reply, json_reply
from registrator.lookup.openapi import DOCUMENT
from registrator.lookup.records import to_name
from registrator.model import View
from registrator.stats import Stats

log = logging.getLogger(__name__)

CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpFront:
    """Answers from a directory.

    `view_of` tells what the asker at an IP address can reach, `containers` the
    same for a container's name; `domain` is the DNS zone, without the final
    dot, that names may end in; `journal` is what `/events` tells; `local`
    finds out the name of the agent's own node (without it: the only one).
    """

    def __init__(
        self,
        directory: Directory,
        *,
        stats: Stats,
        view_of: Callable[[str], View],
        domain: str,
        containers: Containers | None = None,
        journal: Journal | None = None,
        local: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        self._directory = directory
        self._stats = stats
        self._domain = domain
        self._hostname = socket.gethostname().lower()
        self._namespace = str(Path("/proc/self/ns/mnt").stat().st_ino)
        self._find_local = local
        self._local = ""
        self._reads = Reads(directory)
        self._events = EventRoutes(self._reads, journal or Journal())
        lookups = LookupRoutes(
            self._reads,
            view_of=view_of,
            containers=containers or NoContainers(),
            zone=to_name(domain) or (),
            local=self._local_node,
        )
        consul = ConsulRoutes(self._reads, self._local_node)
        self._parts = (PageRoutes(), lookups, consul, self._events)
        self._logged: set[str] = set()
        self._metrics: Callable[[], bytes] | None = None

    def application(self) -> web.Application:
        """The routes. Every method is routed, so that one place refuses all but GET and HEAD."""
        app = web.Application(middlewares=[self._respond])
        routes: dict[str, Handler] = {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._scrape,
            "/openapi.json": self._openapi,
        }
        for part in self._parts:
            routes |= part.routes()
        for path, handler in routes.items():
            app.router.add_route("*", path, handler)
        return app

    def end_waits(self) -> None:
        """Answer all blocking queries now, with what there is; later ones do not block."""
        self._reads.end_waits()
        self._events.close()

    # Every request passes here ------------------------------------------------

    @web.middleware
    async def _respond(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse what may not be asked, turn every error into one line, count the reply."""
        resource = request.match_info.route.resource
        route = resource.canonical if resource else "other"
        begin = time.perf_counter()
        try:
            self._admit(request)
            response = await handler(request)
        except Unserved as failure:
            response = error_reply(request, failure)
        except CatalogError as error:
            response = error_reply(request, Unserved(503, f"the catalog cannot be read: {error}", RETRY))
        except web.HTTPException:  # the router's own: no such path
            line = "no such path; /openapi.json and the README tell what can be asked"
            response = error_reply(request, Unserved(404, line))
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a line and the agent goes on
            self._log_once(route, error)
            response = error_reply(request, Unserved(500, "this agent failed to answer; its log says why"))
        self._stats.http_requests[route, response.status] += 1
        if not response.prepared and "index" not in request.query:  # those wait because they were asked to
            self._stats.http_seconds.observe(time.perf_counter() - begin)
        if not response.prepared:  # a stream is over by now
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            if self._reads.closing:
                response.force_close()
            compress(request, response)
        return response

    def _admit(self, request: web.Request) -> None:
        """Refuse writes, foreign hosts and control characters. Raises Unserved."""
        if request.method not in ("GET", "HEAD"):
            raise Unserved(405, f"method {request.method} not allowed: read only", {"Allow": "GET, HEAD"})
        if request.version < HttpVersion10:
            raise Unserved(400, "the agent speaks HTTP/1.0 and 1.1")
        if not lookup_api.host_allowed(request.headers.get("Host", ""), self._domain, self._hostname):
            raise Unserved(421, "this Host is not served here; ask by IP address, localhost or a local name")
        if CONTROLS.search(request.path):
            raise Unserved(400, "the path holds control characters")

    def _log_once(self, route: str, error: Exception) -> None:
        kind = f"{route} {type(error).__name__}"
        if kind not in self._logged:
            self._logged.add(kind)
            log.error("GET %s failed; this is a bug, please report it (logged once)", route, exc_info=error)

    # For those who run the agent ----------------------------------------------

    async def _livez(self, _request: web.Request) -> web.Response:
        """200 as long as the loop runs: that it answers is the answer.

        The header tells agents that share a port apart, where each has its
        own container: by the mount namespace (namespaces(7)).
        """
        return web.Response(text="ok\n", headers={"X-Registrator-Namespace": self._namespace})

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

    async def _openapi(self, _request: web.Request) -> web.Response:
        return json_reply(json.dumps(DOCUMENT))

    async def _local_node(self) -> str:
        """The name of the agent's own node; "" while nobody can tell."""
        if not self._local and self._find_local:
            self._local = await self._find_local()
        if not self._local and (snapshot := self._directory.snapshot) and len(snapshot.nodes) == 1:
            return next(iter(snapshot.nodes.values())).name
        return self._local
