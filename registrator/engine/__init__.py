"""The engine room: what Docker says of this node, and nothing about what it means.

    endpoint       which engine: URL, DOCKER_HOST, context, TLS files
    client         requests to it, on the event loop
    subscription   its events, as they come
    parse          its documents -> the model's words (pure)
    errors         what went wrong, in one line
    engine         `DockerEngine`, which joins them

The reads are complete or raise `EngineError`; `events` goes on for ever, across
restarts of the engine.
"""

from __future__ import annotations

from registrator.engine.engine import DockerEngine
from registrator.engine.errors import EngineError, Unreachable
from registrator.engine.parse import Listed

__all__ = ["DockerEngine", "EngineError", "Listed", "Unreachable"]
