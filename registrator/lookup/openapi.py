"""The HTTP API as an OpenAPI 3.1 document, served at `/openapi.json`.

Written by hand and short: a table of routes, and the shapes that are ours.
Consul's documents are described by their outline, their own documentation says
the rest. A test compares the paths with the routes, and schemathesis asks a
running agent everything that the document allows.
"""

from __future__ import annotations

from typing import Any

from registrator import __version__

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}
TEXTS: Schema = {"type": "array", "items": TEXT}
OBJECT: Schema = {"type": "object"}
OBJECTS: Schema = {"type": "array", "items": OBJECT}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def _query(name: str, description: str, schema: Schema | None = None) -> Schema:
    return {"name": name, "in": "query", "description": description, "schema": schema or TEXT}


INSTANCE = _object(
    id=TEXT, address=TEXT, port=NUMBER, network=TEXT, node=TEXT, status=TEXT, tags=TEXTS, meta=OBJECT
)
EXPLAINED = _object(
    id=TEXT,
    node=TEXT,
    status=TEXT,
    answered={"type": "boolean"},
    why=TEXT,
    addresses=_list(_object(address=TEXT, port=NUMBER, network=TEXT)),
)
EXPLANATION = _object(
    service=TEXT,
    tag=TEXT,
    asker=_object(what=TEXT, networks=TEXTS),
    answered=NUMBER,
    left_out=NUMBER,
    instances=_list(EXPLAINED),
)
CHECKS = _list(_object(Node=TEXT, CheckID=TEXT, Name=TEXT, Status=TEXT, Output=TEXT, ServiceID=TEXT))
SERVICES: Schema = {"type": "object", "additionalProperties": TEXTS}

BLOCKING = [
    _query("index", "Answer when the index is above this one (X-Consul-Index of an earlier reply)."),
    _query("wait", "How long to wait for that at the longest: a Go duration, 5m by default."),
]
DATACENTER = _query("dc", "The agent's own datacenter; any other is refused.")
NEAR = _query("near", "A node whose own come first; _agent is the agent's.")
FILTER = _query("filter", "A filter expression of Consul's, without `matches`.")
NODE_META = _query("node-meta", "key:value that a node's Meta holds; repeatable.", TEXTS)
CONSUL = [*BLOCKING, DATACENTER]
LISTS = [*CONSUL, NEAR, FILTER, NODE_META]
TAG = _query("tag", "A tag that the instances have; repeatable: all must hold.", TEXTS)
PASSING = _query("passing", "Only instances that pass all checks.")
FORMAT = _query("format", "`text`: address:port a line.", {"type": "string", "enum": ["json", "text"]})
FROM = _query("from", "Who asks: an IP address, or a container of the agent's node; else the client itself.")
ONE_NEAR = _query("near", "Of the instances on this node while it has any; empty is the agent's own.")
SINCE = _query("since", "The id of the last event known, where Last-Event-ID cannot be sent.")

# Path: what it tells, its parameters, the shape of its answer (a media type where that is not JSON).
ROUTES: dict[str, tuple[str, list[Schema], Schema | str]] = {
    "/": ("The page.", [], "text/html"),
    "/page.css": ("The page's style sheet.", [], "text/css"),
    "/page.js": ("The page's script.", [], "text/javascript"),
    "/icon.svg": ("The page's icon.", [], "image/svg+xml"),
    "/openapi.json": ("This document.", [], OBJECT),
    "/livez": ("Whether the agent lives.", [], "text/plain"),
    "/readyz": ("Whether lookups answer from a complete catalog; 503 until then.", [], "text/plain"),
    "/metrics": ("Prometheus' metrics.", [], "text/plain"),
    "/events": ("What changes, as server-sent events `change` and `services`.", [SINCE], "text/event-stream"),
    "/askers": ("The containers of the agent's node.", [], _object(containers=TEXTS)),
    "/lookup/{name}": (
        "The healthy instances, each with the address that this client reaches.",
        [TAG, FORMAT],
        _object(service=TEXT, instances=_list(INSTANCE)),
    ),
    "/lookup/{name}/one": (
        "One healthy instance, the next at each request.",
        [TAG, FORMAT, ONE_NEAR],
        INSTANCE,
    ),
    "/explain/{name}": ("For each instance whether an asker is given it, and why.", [FROM], EXPLANATION),
    "/v1/agent/self": ("Consul: the agent, its datacenter and node.", [], OBJECT),
    "/v1/agent/services": ("Consul: what is registered on the agent's node, by id.", [FILTER], OBJECT),
    "/v1/catalog/datacenters": ("Consul: the datacenters.", [], TEXTS),
    "/v1/catalog/node/{name}": (
        "Consul: a node and what is registered on it; null for an unknown one.",
        [*CONSUL, FILTER],
        {"type": ["object", "null"]},
    ),
    "/v1/catalog/nodes": ("Consul: the nodes.", LISTS, OBJECTS),
    "/v1/catalog/service/{name}": ("Consul: all instances of a service.", [*LISTS, TAG], OBJECTS),
    "/v1/catalog/services": ("Consul: all names with their tags.", [*CONSUL, NODE_META], SERVICES),
    "/v1/health/checks/{name}": ("Consul: the checks of a service.", LISTS, CHECKS),
    "/v1/health/node/{name}": ("Consul: the checks on a node.", LISTS, CHECKS),
    "/v1/health/service/{name}": ("Consul: all instances with checks.", [*LISTS, TAG, PASSING], OBJECTS),
    "/v1/health/state/{name}": ("Consul: all checks in a state, or in `any`.", LISTS, CHECKS),
    "/v1/status/leader": ("Consul: the leader; empty while out of contact.", [], TEXT),
    "/v1/status/peers": ("Consul: the servers.", [], TEXTS),
}

NAME: Schema = {"name": "name", "in": "path", "required": True, "schema": TEXT, "example": "redis"}
ERRORS = {
    "400": "A parameter that makes no sense; one line says which.",
    "404": "Nothing has that name.",
    "405": "Anything but GET and HEAD.",
    "421": "A Host header that is a foreign name.",
    "503": "The catalog cannot be read now, or too much waits.",
}


def _operation(path: str) -> Schema:
    summary, parameters, shape = ROUTES[path]
    media, schema = (shape, TEXT) if isinstance(shape, str) else ("application/json", shape)
    content: Schema = {media: {"schema": schema}}
    if FORMAT in parameters:
        content["text/plain"] = {"schema": TEXT}
    anything: Schema = {"text/plain": {"schema": TEXT}, "application/json": {"schema": OBJECT}}
    responses: Schema = {"200": {"description": "The answer.", "content": content}}
    responses |= {code: {"description": why, "content": anything} for code, why in ERRORS.items()}
    if path in ("/", "/page.css", "/page.js", "/icon.svg"):
        responses["304"] = {"description": "As in If-None-Match."}
    return {
        "summary": summary,
        "parameters": [*([NAME] if "{name}" in path else []), *parameters],
        "responses": responses,
    }


DOCUMENT: Schema = {
    "openapi": "3.1.0",
    "info": {
        "title": "registrator",
        "version": __version__,
        "description": "Service discovery for containers. Read only; /v1 is Consul's read API.",
    },
    "paths": {path: {"get": _operation(path)} for path in ROUTES},
}
