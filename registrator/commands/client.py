"""One agent's HTTP API, asked over one kept connection."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

from registrator.model import Failure
from registrator.settings import SettingError

TIMEOUT = 10.0  # seconds; a blocking query takes its own wait longer


class NotThere(Failure):
    """The agent does not know what was asked for; `str()` is its own line."""


class AgentClient:
    """Asks the agent at `url` ("http://127.0.0.1:8580"). Raises SettingError for what is no URL.

    `timeout` is in seconds, for each step of a request.
    """

    def __init__(self, url: str, timeout: float = TIMEOUT) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            port = parts.port or 80
        except ValueError:
            port = 0
        if parts.scheme != "http" or not parts.hostname or not port:
            raise SettingError(
                f"--agent: {url!r} is no agent's address; write for instance http://127.0.0.1:8580"
            )
        self.url = url
        self._connection = http.client.HTTPConnection(parts.hostname, port, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self, path: str, **parameters: str) -> Any:  # noqa: ANN401 - whatever JSON the agent gives
        """A JSON document. Raises NotThere for 404, Failure for anything else that is not 200."""
        try:
            return json.loads(self.read(path, parameters))
        except ValueError:
            raise Failure(f"what answers at {self.url} is no agent; --agent names another address") from None

    def read(self, path: str, parameters: Mapping[str, str] | None = None) -> bytes:
        """A reply's body; raises as `get` does."""
        target = f"{path}?{urlencode(parameters)}" if parameters else path
        try:
            self._connection.request("GET", target)
            reply = self._connection.getresponse()
            body = reply.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Failure(
                f"no agent answers at {self.url} ({reason}); is it running? --agent names another address"
            ) from None
        if reply.status == 200:
            return body
        line = _line(body) or f"HTTP {reply.status}"
        raise NotThere(line) if reply.status == 404 else Failure(f"the agent at {self.url} says: {line}")


def path_of(route: str, name: str) -> str:
    """A route with a name in it, whatever the name holds."""
    return f"{route}/{quote(name, safe='')}"


def _line(body: bytes) -> str:
    """The one line of an error reply, which may be JSON."""
    text = body.decode(errors="replace").strip()
    try:
        document = json.loads(text)
    except ValueError:
        return text
    return str(document.get("error", text)) if isinstance(document, dict) else text
