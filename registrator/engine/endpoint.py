"""Where the engine is: a URL, DOCKER_HOST, a Docker context or the standard socket.

The order and the meaning are those of the `docker` command. A plain unix
socket, by far the commonest, is found without importing the SDK.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registrator.settings import SettingError

STANDARD_SOCKET = "/var/run/docker.sock"
SCHEMES = ("unix", "tcp", "http", "https")
EXAMPLE = "write for instance unix:///var/run/docker.sock or tcp://10.0.0.5:2376"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An engine's address; `str()` is what a person knows it by.

    `base` is the URL that requests start with. `socket` is the path of a unix
    socket, "" for TCP. `tls` is the SDK's own TLSConfig, or None.
    """

    url: str
    base: str
    socket: str = ""
    tls: Any = None

    def __str__(self) -> str:
        return self.url

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context that `tls` describes; None where requests are not encrypted.

        Raises `SettingError` for files that cannot be used.
        """
        if not self.base.startswith("https://"):
            return None
        ca_cert, cert, verify = (
            (self.tls.ca_cert, self.tls.cert, self.tls.verify) if self.tls else ("", (), True)
        )
        try:
            context = ssl.create_default_context(cafile=(ca_cert or None) if verify else None)
            if cert:
                context.load_cert_chain(*cert)
        except OSError as error:  # ssl.SSLError is one
            raise SettingError(
                f"the TLS files for {self.url} cannot be used ({error}); check DOCKER_CERT_PATH"
            ) from None
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def resolve(url: str, environment: Mapping[str, str] = os.environ) -> Endpoint:
    """Find the engine: `url`, else DOCKER_HOST, else the current context, else the standard socket.

    Opens no connection; reads the files of TLS and contexts where they are
    asked for. Raises `SettingError` for what no engine can be reached by.
    """
    url = url or environment.get("DOCKER_HOST", "")
    if not url and _has_contexts(environment):
        return _from_context(environment.get("DOCKER_CONTEXT", ""))
    url = (url or f"unix://{STANDARD_SOCKET}").strip()
    if url.startswith("unix://"):
        return _unix(url)
    return _tcp(url, _environment_tls(environment))


def _unix(url: str) -> Endpoint:
    path = url.removeprefix("unix://") or STANDARD_SOCKET
    path = path if path.startswith("/") else f"/{path}"  # unix://run/x.sock, as the SDK understands it
    if any(character in path for character in "?#;\0"):
        raise SettingError(f"{url!r} is no Docker engine's URL; {EXAMPLE}")
    return Endpoint(f"unix://{path}", "http://docker", socket=path)


def _tcp(url: str, tls: Any) -> Endpoint:  # noqa: ANN401 - the SDK has no types
    scheme = url.partition("://")[0] if "://" in url else "tcp"
    if scheme == "ssh":
        raise SettingError(
            f"{url!r}: ssh is not supported; forward the socket (ssh -L /run/far.sock:/var/run/docker.sock) "
            "and give unix:///run/far.sock"
        )
    if scheme not in SCHEMES:
        raise SettingError(f"{url!r} is no Docker engine's URL; {EXAMPLE}")
    from docker.errors import DockerException  # noqa: PLC0415 - only who needs the SDK pays for its import
    from docker.utils import parse_host  # noqa: PLC0415

    try:
        base = parse_host(url, tls=bool(tls))
    except (DockerException, ValueError):  # ValueError: a port that is no number
        raise SettingError(f"{url!r} is no Docker engine's URL; {EXAMPLE}") from None
    return Endpoint(url, base, tls=tls if base.startswith("https://") else None)


def _environment_tls(environment: Mapping[str, str]) -> Any:  # noqa: ANN401 - the SDK has no types
    """DOCKER_TLS_VERIFY and DOCKER_CERT_PATH as the SDK reads them; None without."""
    if not (environment.get("DOCKER_TLS_VERIFY") or environment.get("DOCKER_CERT_PATH")):
        return None
    from docker.errors import DockerException  # noqa: PLC0415 - only who needs the SDK pays for its import
    from docker.utils import kwargs_from_env  # noqa: PLC0415

    try:
        return kwargs_from_env(dict(environment)).get("tls")
    except DockerException as error:
        raise SettingError(f"{error}; check DOCKER_CERT_PATH (it holds ca.pem, cert.pem, key.pem)") from None


def _has_contexts(environment: Mapping[str, str]) -> bool:
    """Whether anything names a context: without, the SDK need not be asked."""
    if environment.get("DOCKER_CONTEXT"):
        return True
    try:
        folder = environment.get("DOCKER_CONFIG") or Path.home() / ".docker"
        return Path(folder, "config.json").exists()
    except (OSError, RuntimeError):  # somebody else's home, or none: no context of ours
        return False


def _from_context(name: str) -> Endpoint:
    """The engine that a Docker context (`name`, or the current one) points at."""
    from docker.context import ContextAPI  # noqa: PLC0415 - only who needs the SDK pays for its import

    what = f"the Docker context {name!r}" if name else "the current Docker context"
    try:
        context = ContextAPI.get_context(name or None)
    except Exception as error:  # noqa: BLE001 - the SDK raises bare Exceptions for a corrupt context
        raise SettingError(f"{what} cannot be used ({error}); see docker context ls") from None
    if context is None or not context.Host:
        raise SettingError(f"{what} names no engine; see docker context ls")
    if context.Host.startswith("unix://"):
        return _unix(context.Host)
    return _tcp(context.Host, context.TLSConfig)
