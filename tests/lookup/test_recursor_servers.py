"""Which upstream servers there are: resolv.conf as it changes, and never ourselves."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from registrator.lookup.recursor_servers import SystemServers, is_own, nameservers
from registrator.settings import Listen

OWN = (Listen("127.0.0.1", 53), Listen("169.254.53.53", 53))


def test_nameservers_of_a_resolv_conf() -> None:
    text = "# x\nsearch a b\nnameserver 10.0.0.2\nnameserver\t::1 # x\nnameserver fe80::1%eth0\n"
    text += "nameserver example.org\nnameserver\nnameserver 10.0.0.2\noptions ndots:2\n"
    assert nameservers(text) == [Listen("10.0.0.2", 53), Listen("::1", 53), Listen("fe80::1%eth0", 53)]


@pytest.mark.parametrize(
    ("server", "own", "is_ours"),
    [
        (Listen("127.0.0.1", 53), OWN, True),
        (Listen("169.254.53.53", 53), OWN, True),
        (Listen("127.0.0.1", 5353), OWN, False),
        (Listen("127.0.0.53", 53), OWN, False),
        (Listen("127.0.0.53", 53), (Listen("0.0.0.0", 53),), True),
        (Listen("192.0.2.1", 53), (Listen("0.0.0.0", 53),), False),
        (Listen("::1", 53), (Listen("0.0.0.0", 53),), False),
        (Listen("::1", 53), (Listen("::", 53),), True),
        (Listen("2001:db8::1", 53), (Listen("::", 53),), False),
    ],
)
def test_our_own_addresses_are_known(server: Listen, own: Sequence[Listen], *, is_ours: bool) -> None:
    assert is_own(server, own) == is_ours


def test_resolv_conf_is_read_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when it is replaced, as most programs do; while it is missing, what it said holds."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("registrator.lookup.recursor_servers.LOOK", 0.0)
    path = tmp_path / "resolv.conf"
    servers = SystemServers(OWN, path)
    assert servers() == ()
    path.write_text("nameserver 127.0.0.1\nnameserver 10.0.0.2\n")
    assert servers() == (Listen("10.0.0.2", 53),)
    new = tmp_path / "new"
    new.write_text("nameserver 10.0.0.3\nnameserver 10.0.0.4\n")
    new.replace(path)
    assert servers() == (Listen("10.0.0.3", 53), Listen("10.0.0.4", 53))
    path.unlink()
    assert servers() == (Listen("10.0.0.3", 53), Listen("10.0.0.4", 53))
    path.write_text("nameserver 169.254.53.53\n")
    assert servers() == ()
    assert [message.rpartition(": ")[2] for message in caplog.messages] == [
        "10.0.0.2:53",
        "10.0.0.3:53, 10.0.0.4:53",
        "none but this agent",
    ]


def test_the_file_is_looked_at_once_a_second_at_most(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 10.0.0.2\n")
    servers = SystemServers(OWN, path)
    first = servers()
    path.write_text("nameserver 10.0.0.33\n")
    assert servers() is first
