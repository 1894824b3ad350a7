"""A real gRPC server with the standard health service: grpcio, which is none of our own work."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # a client that hangs up is part of these tests

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SERVING, NOT_SERVING, UNKNOWN = 1, 2, 0
STATUSES = {"": SERVING, "up": SERVING, "down": NOT_SERVING, "unknown": UNKNOWN, "a/b": SERVING, "é": SERVING}


class Odd(health.HealthServicer):  # type: ignore[misc]  # grpcio-health-checking has no types
    """Answers by the service's name: "slow" not in time, "abort <code> <words>" with that status."""

    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - grpcio's name
        if request.service == "slow":
            time.sleep(1.5)
        if request.service.startswith("abort "):
            _, code, words = request.service.split(" ", 2)
            context.abort(next(c for c in grpc.StatusCode if c.value[0] == int(code)), words)
        return super().Check(request, context)


@contextmanager
def health_server(
    host: str = "127.0.0.1", *, tls: Path | None = None, servicer: Callable[[], Any] | None = Odd
) -> Iterator[str]:
    """A gRPC server that knows `STATUSES`; yields "host:port".

    `tls` is a folder with what `self_signed` writes; without a `servicer` the
    server has no health service.
    """
    server = grpc.server(ThreadPoolExecutor(4))
    if servicer is not None:
        known = servicer()
        for service, status in STATUSES.items():
            known.set(service, health_pb2.HealthCheckResponse.ServingStatus.Name(status))
        health_pb2_grpc.add_HealthServicer_to_server(known, server)
    if tls is None:
        port = server.add_insecure_port(f"{host}:0")
    else:
        pair = ((tls / "key.pem").read_bytes(), (tls / "certificate.pem").read_bytes())
        port = server.add_secure_port(f"{host}:0", grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        yield f"{host}:{port}"
    finally:
        server.stop(0).wait()
