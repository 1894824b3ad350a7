"""One agent's HTTP API, asked over one kept connection."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

from registrator.documents import parse
from registrator.limits import AGENT_ANSWER
from registrator.model import Failure
from registrator.settings import SettingError
from registrator.shapes import Malformed, as_mapping, as_text

TIMEOUT = 10.0  # seconds; a blocking query takes its own wait longer


class NotThere(Failure):
    """The agent does not know what was asked for; `str()` is its own line."""


class Declined(Failure):
    """The agent answers, but not this."""


class AgentClient:
    """Asks the agent at `url` ("http://127.0.0.1:8580"). Raises SettingError for what is no URL.

    `timeout` is in seconds, for each step of a request.
    """

    def __init__(self, url: str, timeout: float = TIMEOUT) -> None:
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port or 80
        except ValueError:
            parts, port = urlsplit(""), 0
        if parts.scheme != "http" or not parts.hostname or not port:
            raise SettingError(
                f"--agent: {url!r} is no agent's address; write for instance http://127.0.0.1:8580"
            )
        self.url = url
        self._connection = http.client.HTTPConnection(parts.hostname, port, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Close; what the block could not make sense of becomes the Failure that says so."""
        self._connection.close()
        expected = LookupError | TypeError | AttributeError | ValueError | RecursionError
        if isinstance(error, expected) and not isinstance(error, SettingError):
            raise self._stranger() from error

    def _stranger(self) -> Failure:
        return Failure(f"what answers at {self.url} is no agent; --agent names another address")

    def get(self, path: str, **parameters: str) -> Any:  # noqa: ANN401 - whatever JSON the agent gives
        """A JSON document. Raises NotThere for 404, Failure for anything else that is not 200."""
        try:
            return parse(self.read(path, parameters))
        except Malformed:
            raise self._stranger() from None

    def read(self, path: str, parameters: Mapping[str, str] | None = None) -> bytes:
        """A reply's body; raises as `get` does."""
        target = f"{path}?{urlencode(parameters)}" if parameters else path
        try:
            self._connection.request("GET", target)
            reply = self._connection.getresponse()
            body = reply.read(AGENT_ANSWER.value + 1)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Failure(
                f"no agent answers at {self.url} ({reason}); is it running? --agent names another address"
            ) from None
        if len(body) > AGENT_ANSWER.value:
            self._connection.close()
            raise Failure(
                f"{self.url} answers {path} with over {AGENT_ANSWER.value:,} octets; is it an agent?"
            )
        if reply.status == 200:
            return body
        line = _line(body) or f"HTTP {reply.status}"
        raise NotThere(line) if reply.status == 404 else Declined(f"the agent at {self.url} says: {line}")


def path_of(route: str, name: str) -> str:
    """A route with a name in it, whatever the name holds."""
    return f"{route}/{quote(name, safe='', errors='surrogatepass')}"


def _line(body: bytes) -> str:
    """The one line of an error reply, which may be JSON."""
    text = body.decode(errors="replace").strip()
    try:
        return as_text(as_mapping(parse(body)).get("error")) or text
    except Malformed:
        return text
