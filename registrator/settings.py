"""What an operator may set, validated once: frozen `Settings`, one-line errors.

Addresses are checked here, before anything is opened, so that a wrong value
is a usage error (exit 2) and never a failure in the middle of the work.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from registrator.duration import parse_duration
from registrator.policy import Constraint, Policy
from registrator.secret_file import Unfit, check_file, read_secret

LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


CONSTRAINT = re.compile(r"(?P<bang>!)?(?P<key>[^=!\s]+)(?:(?P<operator>!?=)(?P<value>.*))?", re.DOTALL)
PORT = re.compile(r"[0-9]{1,5}")
NAME_GLOB = re.compile(r"[a-z0-9_*?\[\]!-]{1,63}")
META = re.compile(r"(?!consul-|registrator-)[A-Za-z0-9_-]{1,128}")


class SettingError(ValueError):
    """A setting that makes no sense: one line that says what and what to write instead."""


@dataclass(frozen=True, slots=True)
class Listen:
    """A socket address to listen on or to ask at; `host` is an IPv4 or IPv6 address without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return join_host_port(self.host, self.port)


@dataclass(frozen=True, slots=True)
class ConsulAddress:
    """Where Consul's HTTP API is and how to speak to it.

    `base` is "http://host:port" or "https://host:port" ("http://localhost" for
    a unix socket, whose path is `socket`). `token` is the ACL token, kept out
    of every repr and log; `ca_cert`, `client_cert` and `client_key` are files.
    """

    base: str
    socket: str = ""
    token: str = field(default="", repr=False)
    ca_cert: str = ""
    client_cert: str = ""
    client_key: str = ""
    verify: bool = True

    def __str__(self) -> str:
        return f"unix://{self.socket}" if self.socket else self.base


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """Everything about DNS answers that an operator may set; TTLs are in seconds.

    `service_ttls` maps a service's name, a prefix ("web*") or "*" to its TTL.
    `udp_answers` is how many instances an UDP answer of 512 octets has at the
    most. `near`: this node's own come first. `bare_names`: one label alone is
    a service's name. `rate_limit`: UDP replies a second to one client network
    that is not local, 0 for any number. What is outside the zone is asked of
    `recursors`, or, with `system_recursors`, of the nameservers of the host's
    resolv.conf, for neighbours and for the networks `recursion_allow`.
    """

    alt_domain: str = ""
    node_ttl: int = 0
    service_ttls: Mapping[str, int] = field(default_factory=dict)
    only_passing: bool = False
    udp_answers: int = 3
    near: bool = False
    bare_names: bool = False
    rate_limit: int = 1000
    recursors: tuple[Listen, ...] = ()
    system_recursors: bool = False
    recursion_allow: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything `registrator agent` can be told; the defaults are the command line's."""

    docker: str = ""  # "": DOCKER_HOST, else the standard socket
    consul: ConsulAddress | None = None
    max_stale: float = 0.0  # seconds for which lookups are answered without Consul, 0: without end
    dns: tuple[Listen, ...] = (Listen("127.0.0.1", 8053),)
    dns_link_local: str = ""
    reuse_port: bool = False
    http: tuple[Listen, ...] = (Listen("127.0.0.1", 8580),)
    http_hosts: tuple[str, ...] = ()  # further names that a Host header may have
    domain: str = "consul"
    dns_answers: DnsSettings = DnsSettings()
    ips: tuple[str, ...] = ()  # at most one of each family
    policy: Policy = Policy()  # noqa: RUF009 - frozen
    resync: float = 60.0
    deregister_on_exit: bool = False
    linger: float = 0.0
    log_level: str = "info"
    log_format: str = "text"


def join_host_port(host: str, port: int) -> str:
    """Give host:port, with brackets around an IPv6 address (RFC 3986, 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_listen(text: str) -> Listen:
    """Parse "ADDR:PORT" or "[ADDR]:PORT"; a name is no address. Raises SettingError."""
    host, separator, port = text.rpartition(":")
    if not separator or not PORT.fullmatch(port) or int(port) > 65535:
        raise SettingError(f"{text!r} is no ADDR:PORT; write for instance 127.0.0.1:8053 or [::1]:8053")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise SettingError(f"{text!r} is ambiguous; put an IPv6 address in brackets, as in [::1]:8053")
    return Listen(parse_ip(host.removeprefix("[").removesuffix("]")), int(port))


def parse_listens(texts: tuple[str, ...]) -> tuple[Listen, ...]:
    """Parse the values of a repeatable ADDR:PORT option; "off" alone means none."""
    if "off" in texts:
        if len(texts) > 1:
            raise SettingError('"off" goes alone; drop it or drop the addresses beside it')
        return ()
    return tuple(dict.fromkeys(parse_listen(text) for text in texts))


def parse_ip(text: str) -> str:
    """An IPv4 or IPv6 address in canonical form. Raises SettingError."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise SettingError(f"{text!r} is no IP address; write one such as 10.0.0.5 or fd00::5") from None


def parse_ips(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The node's own addresses: at most one of each family."""
    ips = tuple(dict.fromkeys(parse_ip(text) for text in texts))
    if len({":" in ip for ip in ips}) < len(ips):
        raise SettingError(f"--ip was given {' and '.join(ips)}; give at most one IPv4 and one IPv6 address")
    for ip in ips:
        address = ipaddress.ip_address(ip)
        if address.is_unspecified or address.is_multicast:
            raise SettingError(
                f"nobody can connect to {ip}; give the address of one of the node's interfaces"
            )
    return ips


def parse_domain(text: str) -> str:
    """A DNS zone, lower-cased, without the final dot. Raises SettingError."""
    domain = text.removesuffix(".").lower()
    if not domain or len(domain) > 200 or not all(LABEL.fullmatch(part) for part in domain.split(".")):
        raise SettingError(f"{text!r} is no DNS zone; write for instance consul or svc.example.org")
    return domain


def parse_hosts(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Host names, lower-cased, without the final dot. Raises SettingError."""
    hosts = tuple(dict.fromkeys(text.removesuffix(".").lower() for text in texts))
    for host in hosts:
        if len(host) > 253 or not all(LABEL.fullmatch(part) for part in host.split(".")):
            raise SettingError(f"{host!r} is not a host name; write for instance registrator.example.org")
    return hosts


def parse_constraint(text: str) -> Constraint:
    """Parse a condition on labels: "key", "!key", "key=value" or "key!=value". Raises SettingError."""
    match = CONSTRAINT.fullmatch(text.strip())
    if match is None or (match["bang"] and match["operator"]):
        raise SettingError(f"{text!r} is no constraint; write key, !key, key=value or key!=value")
    negated = bool(match["bang"]) or match["operator"] == "!="
    return Constraint(match["key"], match["value"] if match["operator"] else None, negated)


def parse_names(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Globs of service names, repeated or in comma lists, lower-cased. Raises SettingError."""
    globs = [part.strip().lower() for text in texts for part in text.split(",")]
    for glob in filter(None, globs):
        if not NAME_GLOB.fullmatch(glob):
            raise SettingError(
                f"{glob!r} is not a pattern for names; use letters, digits, -, _ and the wildcards * ? [...]"
            )
    return tuple(dict.fromkeys(filter(None, globs)))


def parse_meta(text: str) -> tuple[str, str]:
    """Parse KEY=VALUE, within Consul's limits on service metadata. Raises SettingError."""
    key, separator, value = text.partition("=")
    if not separator or not META.fullmatch(key) or len(value.encode(errors="surrogateescape")) > 512:
        raise SettingError(
            f"{text!r} is no KEY=VALUE; a key is letters, digits, - and _, a value at most 512 bytes"
        )
    return key, value


def parse_seconds(text: str) -> float:
    """Parse a duration ("90s", "10m"); "0" and "0s" are none. Raises SettingError."""
    seconds = 0.0 if text.strip() in ("0", "0s") else parse_duration(text)
    if seconds is None:
        raise SettingError(f"{text!r} is no duration; write for instance 90s, 10m or 1h30m")
    return seconds


def parse_consul(text: str, env: Mapping[str, str], token_file: str = "") -> ConsulAddress:
    """Parse `--consul`: http://, https://, unix://, or "env" for CONSUL_HTTP_ADDR.

    TLS files, verification and the token come from Consul's standard
    environment (CONSUL_CACERT, CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY,
    CONSUL_HTTP_SSL_VERIFY, CONSUL_HTTP_TOKEN, CONSUL_HTTP_TOKEN_FILE);
    `token_file` wins. Raises SettingError.
    """
    if text == "env":
        text = _consul_from_environment(env)
    base, socket = _consul_endpoint(text)
    address = ConsulAddress(
        base=base,
        socket=socket,
        token=_read_token(token_file or env.get("CONSUL_HTTP_TOKEN_FILE", ""), env),
        ca_cert=env.get("CONSUL_CACERT", ""),
        client_cert=env.get("CONSUL_CLIENT_CERT", ""),
        client_key=env.get("CONSUL_CLIENT_KEY", ""),
        verify=env.get("CONSUL_HTTP_SSL_VERIFY", "true").lower() not in ("0", "false"),
    )
    for file in filter(None, (address.ca_cert, address.client_cert, address.client_key)):
        try:
            check_file(file)
        except Unfit as error:
            raise SettingError(f"the TLS file {file} for Consul is refused: {error}") from None
    tls_context(address)
    return address


def tls_context(address: ConsulAddress) -> ssl.SSLContext | None:
    """The TLS context for Consul, or None for plain HTTP. Raises SettingError for unusable files."""
    if not address.base.startswith("https://"):
        return None
    try:
        context = ssl.create_default_context(cafile=address.ca_cert or None)
        if address.client_cert:
            context.load_cert_chain(address.client_cert, address.client_key or None)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(f for f in (address.ca_cert, address.client_cert, address.client_key) if f)
        raise SettingError(
            f"the TLS files for Consul ({files}) cannot be used: {error}; check CONSUL_CACERT, "
            "CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY"
        ) from None
    if not address.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _consul_from_environment(env: Mapping[str, str]) -> str:
    """CONSUL_HTTP_ADDR as a URL: like Consul's own tools, it may lack the scheme."""
    text = env.get("CONSUL_HTTP_ADDR", "")
    if not text:
        raise SettingError(
            "--consul env needs CONSUL_HTTP_ADDR in the environment; set it, or give --consul URL"
        )
    if "://" in text:
        return text
    scheme = "https" if env.get("CONSUL_HTTP_SSL", "").lower() in ("1", "true") else "http"
    return f"{scheme}://{text}"


def _consul_endpoint(text: str) -> tuple[str, str]:
    """Split a Consul URL into (base URL, unix socket path or "")."""
    example = (
        "write for instance http://127.0.0.1:8500, https://consul.example.org:8501 or unix:///run/consul.sock"
    )
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise SettingError(f"{text!r} is no Consul URL; {example}") from None
    if parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc:
        return "http://localhost", parts.path
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise SettingError(f"{text!r} is no Consul URL; {example}")
    if parts.username is not None:
        raise SettingError(
            "the Consul URL must not hold a user or password; give a token by CONSUL_HTTP_TOKEN_FILE"
        )
    return f"{parts.scheme}://{join_host_port(parts.hostname, port or 8500)}", ""


def _read_token(path: str, env: Mapping[str, str]) -> str:
    if not path:
        return env.get("CONSUL_HTTP_TOKEN", "")
    try:
        return read_secret(path)
    except Unfit as error:
        raise SettingError(f"the Consul token file {path} is refused: {error}") from None
    except OSError as error:
        raise SettingError(
            f"the Consul token file {path} cannot be read ({os.strerror(error.errno or 0)}); check its path "
            "and rights"
        ) from None
