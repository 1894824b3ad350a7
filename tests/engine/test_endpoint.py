"""The engine is found as the `docker` command finds it, or refused in one line."""

from __future__ import annotations

import hashlib
import json
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from registrator.engine import DockerEngine
from registrator.engine.endpoint import resolve
from registrator.settings import SettingError
from registrator.stats import Stats
from tests.support.tls import Authority


@pytest.fixture(autouse=True)
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without Docker's configuration, and an environment that says nothing."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("url", "environment", "name", "base", "socket"),
    [
        ("", {}, "unix:///var/run/docker.sock", "http://docker", "/var/run/docker.sock"),
        ("", {"DOCKER_HOST": "unix:///x.sock"}, "unix:///x.sock", "http://docker", "/x.sock"),
        ("unix:///y.sock", {"DOCKER_HOST": "tcp://a:1"}, "unix:///y.sock", "http://docker", "/y.sock"),
        ("unix://run/y.sock", {}, "unix:///run/y.sock", "http://docker", "/run/y.sock"),
        ("unix://", {}, "unix:///var/run/docker.sock", "http://docker", "/var/run/docker.sock"),
        ("tcp://10.0.0.5:2375", {}, "tcp://10.0.0.5:2375", "http://10.0.0.5:2375", ""),
        ("10.0.0.5:2375", {}, "10.0.0.5:2375", "http://10.0.0.5:2375", ""),
        ("tcp://[fd00::5]:2375", {}, "tcp://[fd00::5]:2375", "http://[fd00::5]:2375", ""),
        ("https://far:2376", {}, "https://far:2376", "https://far:2376", ""),
    ],
)
def test_where_the_engine_is(
    url: str, environment: dict[str, str], name: str, base: str, socket: str
) -> None:
    """The option wins over DOCKER_HOST, which wins over the standard socket."""
    endpoint = resolve(url, environment)
    assert (str(endpoint), endpoint.base, endpoint.socket) == (name, base, socket)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ssh://host", "ssh is not supported; forward the socket"),
        ("npipe:////./pipe/docker_engine", "is no Docker engine's URL; write for instance unix:///var/run"),
        ("tcp://", "is no Docker engine's URL"),
        ("tcp://10.0.0.5", "is no Docker engine's URL"),
        ("tcp://10.0.0.5:port", "is no Docker engine's URL"),
        ("tcp://user:secret@10.0.0.5:2375", "is no Docker engine's URL"),
        ("unix:///x?y", "is no Docker engine's URL"),
        ("nonsense", "is no Docker engine's URL"),
    ],
)
def test_what_no_engine_is_reached_by(url: str, message: str) -> None:
    """A URL that makes no sense is a usage error before anything is opened."""
    with pytest.raises(SettingError, match=message):
        DockerEngine(url, stats=Stats())


def test_a_unix_socket_needs_no_sdk() -> None:
    """The SDK's import is spared where the answer is plain."""
    use = "from registrator.engine.endpoint import resolve; resolve('', {})"
    code = f"{use}; import sys; print('docker' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as DOCKER_CERT_PATH wants it: ca.pem, cert.pem and key.pem."""
    folder = tmp_path_factory.mktemp("tls")
    _, key = Authority(folder).issue("cert")
    key.rename(folder / "key.pem")
    return folder


def test_tls_from_the_environment(certificates: Path) -> None:
    """DOCKER_TLS_VERIFY and DOCKER_CERT_PATH make a context that verifies the engine."""
    environment = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(certificates)}
    endpoint = resolve("tcp://127.0.0.1:2376", environment)
    context = endpoint.ssl_context()
    assert endpoint.base == "https://127.0.0.1:2376"
    assert context is not None
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_tls_without_verification(certificates: Path) -> None:
    """DOCKER_CERT_PATH alone encrypts without verifying, as with the SDK."""
    context = resolve("tcp://127.0.0.1:2376", {"DOCKER_CERT_PATH": str(certificates)}).ssl_context()
    assert context is not None
    assert context.verify_mode == ssl.CERT_NONE


def test_tls_is_not_for_a_socket(certificates: Path) -> None:
    """A unix socket is plain, whatever the environment says of TLS."""
    environment = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(certificates)}
    assert resolve("unix:///x.sock", environment).ssl_context() is None


@pytest.mark.parametrize("content", [None, "no certificate"], ids=["missing", "nonsense"])
def test_tls_files_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    """Missing or useless files are a usage error that names the variable."""
    for name in ("ca.pem", "cert.pem", "key.pem"):
        if content:
            (tmp_path / name).write_text(content)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    with pytest.raises(SettingError, match="check DOCKER_CERT_PATH"):
        DockerEngine("tcp://127.0.0.1:2376", stats=Stats())


def make_context(home: Path, name: str, host: str) -> None:
    """What `docker context create` and `docker context use` leave behind."""
    meta = home / ".docker" / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    meta.mkdir(parents=True)
    document = {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": False}}}
    (meta / "meta.json").write_text(json.dumps(document))
    (home / ".docker" / "config.json").write_text(json.dumps({"currentContext": name}))


def test_the_current_context(tmp_path: Path) -> None:
    """Without a URL and DOCKER_HOST the current context is meant, or the one that DOCKER_CONTEXT names."""
    make_context(tmp_path, "far", "tcp://10.0.0.5:2375")
    assert str(resolve("", {})) == "tcp://10.0.0.5:2375"
    assert str(resolve("", {"DOCKER_CONTEXT": "default"})) == "unix:///var/run/docker.sock"
    assert str(resolve("", {"DOCKER_HOST": "unix:///x.sock"})) == "unix:///x.sock"


def test_a_context_that_does_not_exist(tmp_path: Path) -> None:
    """A context that nobody made is a usage error."""
    with pytest.raises(SettingError, match="the Docker context 'nowhere' names no engine"):
        resolve("", {"DOCKER_CONTEXT": "nowhere"})


def test_a_context_that_is_corrupt(tmp_path: Path) -> None:
    """A broken context is a usage error, not a traceback."""
    make_context(tmp_path, "far", "tcp://10.0.0.5:2375")
    for meta in tmp_path.rglob("meta.json"):
        meta.write_text("{")
    with pytest.raises(SettingError, match="cannot be used"):
        resolve("", {})


def test_a_configuration_without_contexts(tmp_path: Path) -> None:
    """A configuration that only holds logins leaves the standard socket."""
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text("{}")
    assert str(resolve("", {})) == "unix:///var/run/docker.sock"


def test_a_configuration_that_may_not_be_read_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service's user whose HOME is root's: pathlib raises where one only asks whether a file exists."""

    def refuse(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    assert resolve("", {}).socket == "/var/run/docker.sock"
