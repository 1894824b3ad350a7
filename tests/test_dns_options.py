"""Recursors and networks on the command line: what is accepted, and the one line for what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.cli import agent, read_settings
from registrator.dns_options import parse_networks, parse_recursor, parse_recursors
from registrator.settings import DnsSettings, Listen, SettingError


def dns(*arguments: str) -> DnsSettings:
    """The settings of `registrator agent` with these arguments."""
    context = agent.make_context("agent", list(arguments))
    return read_settings(context.params).dns_answers


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("10.0.0.2", Listen("10.0.0.2", 53)),
        ("10.0.0.2:5353", Listen("10.0.0.2", 5353)),
        ("fd00::2", Listen("fd00::2", 53)),
        ("[fd00::2]", Listen("fd00::2", 53)),
        ("[fd00::2]:5353", Listen("fd00::2", 5353)),
        ("FD00:0::2", Listen("fd00::2", 53)),
        ("fe80::1%eth0", Listen("fe80::1%eth0", 53)),
    ],
)
def test_a_recursor(text: str, server: Listen) -> None:
    assert parse_recursor(text) == server


@pytest.mark.parametrize(
    "text",
    [
        *("", "dns.example.org", "10.0.0", "10.0.0.2:", "10.0.0.2:x", "10.0.0.2:0", "10.0.0.2:65536"),
        *("[fd00::2", "0.0.0.0", "::", "[::]:53", "224.0.0.1", "ff02::1", "10.0.0.2/8", "system"),
    ],
)
def test_no_recursor(text: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_recursor(text)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=30))
def test_any_text_is_a_recursor_or_refused(text: str) -> None:
    message = ""
    try:
        assert parse_recursor(text).port
    except SettingError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1


def test_recursors_keep_their_order_and_are_told_from_system() -> None:
    several = dns("--recursor", "10.0.0.3", "--recursor", "10.0.0.2:53", "--recursor", "10.0.0.3:53")
    assert several.recursors == (Listen("10.0.0.3", 53), Listen("10.0.0.2", 53))
    assert not several.system_recursors
    system = dns("--recursor", "system")
    assert (system.recursors, system.system_recursors) == ((), True)
    assert dns() == DnsSettings()


def test_system_goes_alone() -> None:
    with pytest.raises(SettingError, match=r'^"system" goes alone'):
        parse_recursors(("10.0.0.2", "system"))


def test_networks_of_askers() -> None:
    allow = dns("--recursion-allow", "203.0.113.0/24", "--recursion-allow", "2001:db8::7")
    assert allow.recursion_allow == ("203.0.113.0/24", "2001:db8::7/128")
    for text in ("203.0.113.1/24", "all", "10.0.0.0/33", ""):
        with pytest.raises(SettingError, match="is no network"):
            parse_networks((text,))
