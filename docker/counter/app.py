"""A counter of its visitors, kept in a Redis that is known by name alone.

The app knows nothing of registrator: it connects to a host name, and whoever
answers DNS for it decides where that is. Each new connection resolves the name
again, so a Redis that moves is found at its new address.
"""

import os
import socket

from flask import Flask
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

REDIS_HOST = os.environ.get("REDIS_HOST", "redis.service.consul")
REDIS_PORT = int(os.environ.get("REDIS_PORT", "6379"))

app = Flask(__name__)
# Nothing is tried twice: an INCR whose answer was lost may have been done. The
# pool sees for itself that an idle connection was closed, and opens a new one.
redis = Redis(
    host=REDIS_HOST,
    port=REDIS_PORT,
    socket_connect_timeout=1,
    socket_timeout=1,
    retry=Retry(NoBackoff(), 0),
)


@app.get("/")
def count() -> tuple[str, int]:
    """Greet one more visitor; 503 while there is no Redis to count in."""
    try:
        visitors = redis.incr("visitors")
    except RedisError as error:
        return f"No count now: redis at {REDIS_HOST}:{REDIS_PORT} does not answer ({error})\n", 503
    return f"Hello, visitor {visitors} (served by {socket.gethostname()})\n", 200


@app.get("/healthz")
def healthz() -> str:
    """The app itself is well; a Redis that is away is shown by `/`, and is no reason to restart the app."""
    return "ok\n"
