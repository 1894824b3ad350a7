"""What an operator may set: what is accepted, and the one line for what is not."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.settings import (
    ConsulAddress,
    Listen,
    SettingError,
    parse_consul,
    parse_domain,
    parse_ips,
    parse_listen,
    parse_listens,
    parse_names,
)


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("127.0.0.1:8053", Listen("127.0.0.1", 8053)),
        ("[::1]:53", Listen("::1", 53)),
        ("[::]:53", Listen("::", 53)),
        ("0.0.0.0:0", Listen("0.0.0.0", 0)),
    ],
)
def test_listens(text: str, listen: Listen) -> None:
    assert parse_listen(text) == listen
    assert str(listen) == text


@pytest.mark.parametrize(
    "text", ["", "8053", "127.0.0.1", "::1:53", "localhost:53", "1.2.3.4:99999", "1.2.3:5", "a:b:c"]
)
def test_what_is_no_listen_is_said(text: str) -> None:
    with pytest.raises(SettingError, match=r"; (write|put) "):
        parse_listen(text)


def test_off_goes_alone_and_repetitions_count_once() -> None:
    assert parse_listens(("off",)) == ()
    assert parse_listens(("127.0.0.1:53", "127.0.0.1:53")) == (Listen("127.0.0.1", 53),)
    with pytest.raises(SettingError, match="alone"):
        parse_listens(("off", "127.0.0.1:53"))


@pytest.mark.parametrize(
    ("texts", "ips"),
    [
        ((), ()),
        (("10.0.0.5",), ("10.0.0.5",)),
        (("10.0.0.5", "FD00::5"), ("10.0.0.5", "fd00::5")),
        (("127.0.0.1",), ("127.0.0.1",)),
    ],
)
def test_the_nodes_addresses(texts: tuple[str, ...], ips: tuple[str, ...]) -> None:
    assert parse_ips(texts) == ips


@pytest.mark.parametrize(
    "texts", [("10.0.0.5", "10.0.0.6"), ("0.0.0.0",), ("::",), ("224.0.0.1",), ("host",)]
)
def test_addresses_that_cannot_be_the_nodes(texts: tuple[str, ...]) -> None:
    with pytest.raises(SettingError):
        parse_ips(texts)


@pytest.mark.parametrize(
    ("text", "domain"), [("consul", "consul"), ("Consul.", "consul"), ("svc.example.org", "svc.example.org")]
)
def test_domains(text: str, domain: str) -> None:
    assert parse_domain(text) == domain


@pytest.mark.parametrize("text", ["", ".", "a..b", "-a", "a b", "x" * 64, "ä", ".".join(["a"] * 120)])
def test_what_is_no_domain(text: str) -> None:
    with pytest.raises(SettingError):
        parse_domain(text)


@pytest.mark.parametrize(
    ("text", "env", "address"),
    [
        ("http://127.0.0.1:8500", {}, ConsulAddress("http://127.0.0.1:8500")),
        ("http://consul", {}, ConsulAddress("http://consul:8500")),
        ("https://[::1]:8501/", {}, ConsulAddress("https://[::1]:8501")),
        ("unix:///run/consul.sock", {}, ConsulAddress("http://localhost", socket="/run/consul.sock")),
        ("env", {"CONSUL_HTTP_ADDR": "10.0.0.1:8500"}, ConsulAddress("http://10.0.0.1:8500")),
        (
            "env",
            {"CONSUL_HTTP_ADDR": "10.0.0.1:8501", "CONSUL_HTTP_SSL": "true"},
            ConsulAddress("https://10.0.0.1:8501"),
        ),
        ("env", {"CONSUL_HTTP_ADDR": "https://c:1"}, ConsulAddress("https://c:1")),
        ("http://c", {"CONSUL_HTTP_ADDR": "elsewhere:1"}, ConsulAddress("http://c:8500")),
        ("http://c", {"CONSUL_HTTP_TOKEN": "secret"}, ConsulAddress("http://c:8500", token="secret")),
        ("https://c", {"CONSUL_HTTP_SSL_VERIFY": "false"}, ConsulAddress("https://c:8500", verify=False)),
    ],
)
def test_consul_addresses(text: str, env: dict[str, str], address: ConsulAddress) -> None:
    assert parse_consul(text, env) == address


@pytest.mark.parametrize(
    ("text", "env"),
    [
        ("127.0.0.1:8500", {}),
        ("ftp://c", {}),
        ("http://", {}),
        ("http://c/path", {}),
        ("http://c:99999", {}),
        ("http://user:pass@c", {}),
        ("unix://relative", {}),
        ("env", {}),
        ("https://c", {"CONSUL_CACERT": "/nowhere.pem"}),
        ("http://c", {"CONSUL_HTTP_TOKEN_FILE": "/nowhere"}),
    ],
)
def test_what_is_no_consul_address_is_one_line(text: str, env: dict[str, str]) -> None:
    with pytest.raises(SettingError) as caught:
        parse_consul(text, env)
    assert "\n" not in str(caught.value)
    assert "pass@" not in str(caught.value)


def test_a_token_comes_from_a_file_and_is_in_no_repr(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("secret\n")
    address = parse_consul("http://c", {"CONSUL_HTTP_TOKEN": "other"}, str(file))
    assert address.token == "secret"
    assert "secret" not in f"{address!r} {address}"


@given(st.text())
def test_any_text_is_an_address_or_a_setting_error(text: str) -> None:
    for parse in (parse_listen, parse_domain, lambda t: parse_consul(t, {}), lambda t: parse_ips((t,))):
        with contextlib.suppress(SettingError):
            parse(text)


def test_names_are_globs_in_lower_case_repeated_or_in_a_list() -> None:
    """As the other repeatable options, and none at all."""
    assert parse_names(("Web*, db", "api-[0-9]", "web*")) == ("web*", "db", "api-[0-9]")
    assert parse_names(("", " , ")) == ()


@pytest.mark.parametrize("text", ["a b", "a.b", "a/b", "x" * 64, "größe", "a\n"])
def test_what_no_name_can_match_is_not_a_pattern(text: str) -> None:
    with pytest.raises(SettingError, match="is not a pattern for names"):
        parse_names((text + "x",))
