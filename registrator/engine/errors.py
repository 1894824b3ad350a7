"""What can go wrong with a Docker engine, each as one line that says where and what to do."""

from __future__ import annotations

import grp
import pwd
import ssl
from pathlib import Path

import aiohttp

from registrator.documents import parse
from registrator.engine.endpoint import Endpoint
from registrator.model import Failure
from registrator.printable import printable
from registrator.shapes import Malformed, as_mapping, as_text


class EngineError(Failure):
    """The engine could not be read; `str()` is one line to act on."""


class Unreachable(EngineError):
    """The engine is absent or lost: wait and try again."""


class Refused(EngineError):
    """The engine, or a proxy before it, answered `path` with another HTTP `status` than 200.

    `said` is the engine's own message, "" where the answer is none of Docker's
    (API, schema ErrorResponse): a proxy speaks otherwise.
    """

    def __init__(self, endpoint: Endpoint, path: str, status: int, body: str) -> None:
        self.status = status
        self.said = _message(body)
        advice = "let the proxy before it pass this path" if status in (401, 403) else "look at its log"
        said = _line(self.said or body or "it said no more")
        super().__init__(
            f"the Docker engine at {endpoint} answered {path} with status {status}: {said}; {advice}"
        )


class TooLong(EngineError):
    """The engine answered `path` with more than `most` octets."""

    def __init__(self, endpoint: Endpoint, path: str, most: int) -> None:
        super().__init__(
            f"the Docker engine at {endpoint} answered {path} with over {most:,} octets; "
            "has a container labels or an environment of that size?"
        )


def explain(endpoint: Endpoint, error: Exception, timeout: float) -> EngineError:
    """The error of one line for what a request to the engine ended with, whatever that is.

    `error` is what aiohttp or a decoder raised; `timeout` (seconds) is what
    the request was given.
    """
    if isinstance(error, TimeoutError):
        return Unreachable(
            f"the Docker engine at {endpoint} gave no answer in {timeout:g} s; look at its log"
        )
    if isinstance(error, aiohttp.ClientConnectorError):
        return _unconnected(endpoint, getattr(error, "os_error", error))
    expected = isinstance(error, aiohttp.ClientError | OSError)
    if isinstance(error, aiohttp.ClientResponseError | ValueError) or not expected:
        return not_an_engine(endpoint, _line(error))
    return Unreachable(
        f"contact with the Docker engine at {endpoint} was lost: {_line(error)}; look at its log"
    )


def _unconnected(endpoint: Endpoint, cause: OSError) -> EngineError:
    """The error for a connection that did not come about; `cause` is what the system or TLS said."""
    if isinstance(cause, FileNotFoundError):
        return Unreachable(
            f"no Docker engine at {endpoint}: the socket does not exist; "
            "start dockerd, or say by --docker or DOCKER_HOST where the engine is"
        )
    if isinstance(cause, PermissionError) and endpoint.socket:
        return EngineError(f"no permission to use {endpoint}; {_who_may(Path(endpoint.socket))}")
    if isinstance(cause, ConnectionRefusedError):
        return Unreachable(f"nothing listens at {endpoint}; start dockerd there, or correct the address")
    if isinstance(cause, ssl.SSLError):
        return EngineError(
            f"no TLS with {endpoint}: {_line(cause)}; check DOCKER_TLS_VERIFY and DOCKER_CERT_PATH"
        )
    return Unreachable(
        f"the Docker engine at {endpoint} cannot be reached: {_line(cause)}; check the address"
    )


def not_an_engine(endpoint: Endpoint, why: str) -> EngineError:
    """The error for an answer that no Docker engine gives."""
    return EngineError(
        f"what answers at {endpoint} is no Docker engine ({why}); say by --docker or DOCKER_HOST where it is"
    )


def _message(body: str) -> str:
    try:
        return as_text(as_mapping(parse(body.encode("utf-8", "replace"))).get("message"))
    except Malformed:
        return ""


def _line(said: object) -> str:
    """Somebody else's words, as a part of one line."""
    return printable(" ".join(str(said)[:1000].split()))[:200] or type(said).__name__


def _who_may(socket: Path) -> str:
    """What to do about a socket that this process may not use."""
    try:
        status = socket.stat()
    except OSError:  # a folder on the way is closed as well
        return "run as root"
    owner, group = str(status.st_uid), str(status.st_gid)
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        pass  # an id without a name, as in most containers, is told as it is
    if status.st_mode & 0o060 != 0o060:
        return f"run as {owner}"
    return f"run as {owner} or in the group {group} (in a container: --group-add {status.st_gid})"
