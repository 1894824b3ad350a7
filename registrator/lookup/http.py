"""The HTTP front: what the agent tells over HTTP, read-only.

`HttpFront` is an aiohttp application without sockets (`http_server` puts it on
the network). Every request passes `_respond`; the routes are in `http_consul`
(Consul's read API with its blocking queries), `http_lookup` (our own lookups
and why they are as they are), `http_events` (what changes) and `http_page`;
those for who runs the agent (`/livez`, `/readyz`, `/metrics`) are here.

One way out for every error: a handler raises `Unserved`, `_respond` writes it
as one line. Nobody but a program on purpose may ask: a web page that reaches
us through DNS rebinding names a host that is not this agent and is refused,
and no reply carries CORS headers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from aiohttp import HttpVersion10, web

from registrator.catalog import CatalogError, Directory
from registrator.journal import Journal
from registrator.lookup import lookup_api
from registrator.lookup.http_connection import BUSY, Connection
from registrator.lookup.http_consul import ConsulRoutes
from registrator.lookup.http_events import EventRoutes
from registrator.lookup.http_gate import TURN, Gate, Turn, in_slices
from registrator.lookup.http_lookup import Containers, LookupRoutes, NoContainers
from registrator.lookup.http_page import PageRoutes
from registrator.lookup.http_places import client_of
from registrator.lookup.http_reads import Reads
from registrator.lookup.http_reply import HEADERS, RETRY, Unserved, compress, error_reply, json_reply
from registrator.lookup.openapi import DOCUMENT
from registrator.lookup.records import to_name
from registrator.model import View
from registrator.stats import Stats

log = logging.getLogger(__name__)

CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
HEALTH = frozenset({"/livez", "/readyz"})  # what is answered when all places are taken

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpFront:
    """Answers from a directory.

    `view_of` tells what the asker at an IP address can reach, `containers` the
    same for a container's name; `domain` is the DNS zone, without the final
    dot, that names may end in; `journal` is what `/events` tells; `local`
    finds out the name of the agent's own node (without it: the only one).
    `hosts` are further names, lower-cased, that a Host header may have.
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
        hosts: Collection[str] = (),
    ) -> None:
        self.stats, self.gate = stats, Gate(stats)
        self._directory = directory
        self._domain = domain
        self._hosts = frozenset({"localhost", socket.gethostname().lower(), *hosts})
        self._namespace = str(Path("/proc/self/ns/mnt").stat().st_ino)
        self._find_local = local
        self._local = ""
        self._reads = Reads(directory, stats)
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
        self._metrics: tuple[Callable[[Any], bytes], Callable[[], Iterable[Any]]] | None = None
        self._document = ""  # /openapi.json

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
            app.router.add_route("*", path, handler, expect_handler=_expect)
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
        turn = Turn(self.gate, client_of(request.remote or ""))
        TURN.set(turn)
        try:
            await self._admit(request)
            response = await handler(request)
        except Unserved as failure:
            response = error_reply(request, failure)
        except CatalogError as error:
            response = error_reply(request, Unserved(503, f"the catalog cannot be read: {error}", RETRY))
        except web.HTTPException:  # the router's own: no such path
            response = error_reply(request, Unserved(404, "not found; see /openapi.json for the paths"))
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a line and the agent goes on
            self._log_once(route, error)
            response = error_reply(request, Unserved(500, "this agent failed to answer; its log says why"))
        finally:
            turn.end()
        self.stats.http_requests[route, response.status] += 1
        if not response.prepared and "index" not in request.query:  # those wait because they were asked to
            self.stats.http_seconds.observe(time.perf_counter() - begin)
        if not response.prepared:  # a stream is over by now
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            if self._reads.closing or _is_spare(request) or request.body_exists:
                response.force_close()
            compress(request, response)
        return response

    async def _admit(self, request: web.Request) -> None:
        """Refuse writes, foreign hosts and control characters. Raises Unserved."""
        if _is_spare(request) and request.path not in HEALTH:
            raise Unserved(503, BUSY, RETRY)
        if request.method not in ("GET", "HEAD"):
            raise Unserved(405, f"method {request.method} not allowed: read only", {"Allow": "GET, HEAD"})
        if request.version < HttpVersion10:
            raise Unserved(400, "the agent speaks HTTP/1.0 and 1.1")
        hosts = (request.headers.get("Host", ""), request.url.raw_authority if _is_absolute(request) else "")
        if not all([await self._is_own(host) for host in hosts]):
            remedy = "ask by IP address, localhost or the node's name, or set --http-host"
            raise Unserved(421, f"not a name of this agent; {remedy}")
        if CONTROLS.search(request.path):
            raise Unserved(400, "the path holds control characters")

    async def _is_own(self, host: str) -> bool:
        """Whether a Host header can only mean this agent.

        That is an IP address, localhost, the node's host name, the name of
        the agent's own node in the catalog and in DNS, and what the operator
        named. Any other could be a web page's that points its own name at us
        (DNS rebinding), and a container's name, below the zone or without a
        dot, is that container's. Browsers always send the header, so none is
        fine.
        """
        name = lookup_api.named_host(host)
        if name is None or name in self._hosts:
            return True
        snapshot = self._directory.snapshot
        if snapshot is None or not (name in snapshot.nodes or ".node." in name):
            return False
        try:
            node = await self._local_node()
        except CatalogError:
            return False
        return bool(node) and name in lookup_api.node_names(node, self._domain, snapshot.datacenter)

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
        if not self.stats.ready:
            raise Unserved(503, "not ready: the first complete reconcile with Docker is not over", RETRY)
        return web.Response(text="ok\n")

    async def _scrape(self, _request: web.Request) -> web.Response:
        if self._metrics is None:
            self._metrics = await asyncio.to_thread(self._make_metrics)
        render, families = self._metrics
        parts = await in_slices(render, families())
        return web.Response(
            body=b"".join(parts), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    def _make_metrics(self) -> tuple[Callable[[Any], bytes], Callable[[], Iterable[Any]]]:
        from registrator.lookup.metrics import Metrics, exposition  # noqa: PLC0415  (dear, and few agents are scraped)

        return exposition, Metrics(self.stats, self._directory).families

    async def _openapi(self, _request: web.Request) -> web.Response:
        self._document = self._document or json.dumps(DOCUMENT)
        return json_reply(self._document)

    async def _local_node(self) -> str:
        """The name of the agent's own node; "" while nobody can tell."""
        if not self._local and self._find_local:
            self._local = await self._find_local()
        if not self._local and (snapshot := self._directory.snapshot) and len(snapshot.nodes) == 1:
            return next(iter(snapshot.nodes.values())).name
        return self._local


def _is_spare(request: web.Request) -> bool:
    """Whether the connection is beyond the limits, and has a place for health alone."""
    return isinstance(request.protocol, Connection) and request.protocol.spare


def _is_absolute(request: web.Request) -> bool:
    """Whether the request line names a host too (RFC 9112, 3.2.2)."""
    return not request.raw_path.startswith(("/", "*"))


async def _expect(_request: web.Request) -> None:
    """Let `Expect: 100-continue` pass without a word: the final reply comes at once (RFC 9110, 10.1.1)."""
