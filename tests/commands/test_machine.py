"""`doctor` on a machine: every finding that its files and sockets can lead to."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from registrator.commands.finding import BAD, GOOD, WARNING, Finding, from_failure
from registrator.commands.machine import LINK_LOCAL, is_taken, link_local, machine
from registrator.model import Failure
from registrator.settings import Listen


def found(folder: Path, daemon: str | None, *, ipvs: bool = True) -> dict[str, Finding]:
    """The findings by what they are about, on a machine with this daemon.json."""
    configuration, table = folder / "daemon.json", folder / "ip_vs"
    if daemon is not None:
        configuration.write_text(daemon)
    if ipvs:
        table.touch()
    return {finding.about: finding for finding in machine(LINK_LOCAL, configuration, table)}


ROWS = [
    ("without a file containers need `dns:`", None, "resolver", GOOD, "containers need `dns: ["),
    ("a file that names other resolvers", '{"dns": ["10.0.0.2"]}', "resolver", GOOD, "names no agent"),
    ("the agent as the first", f'{{"dns": ["{LINK_LOCAL}", "10.0.0.2"]}}', "resolver", GOOD, "first"),
    ("the agent behind another", f'{{"dns": ["10.0.0.2", "{LINK_LOCAL}"]}}', "resolver", WARNING, "behind"),
    ("a file that is no JSON", "{", "daemon.json", BAD, "cannot be read"),
    ("a file that is JSON but no object", "[]", "daemon.json", BAD, "cannot be read"),
]


@pytest.mark.parametrize(
    ("daemon", "about", "level", "words"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_what_daemon_json_says(tmp_path: Path, daemon: str, about: str, level: str, words: str) -> None:
    finding = found(tmp_path, daemon)[about]
    assert finding.level == level
    assert words in finding.what
    assert bool(finding.remedy) == (level != GOOD)


def test_a_folder_in_place_of_the_file_is_told_and_the_rest_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "daemon.json").mkdir()
    findings = found(tmp_path, None)
    assert findings["daemon.json"].level == BAD
    assert findings["ipvs"].level == GOOD


def test_a_kernel_without_ipvs_is_a_warning_with_both_ways_out(tmp_path: Path) -> None:
    finding = found(tmp_path, None, ipvs=False)["ipvs"]
    assert finding.level == WARNING
    assert "modprobe ip_vs" in finding.remedy
    assert "dnsrr" in finding.remedy


@pytest.mark.parametrize(
    ("host", "asked"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "::1"), ("::", "::1")]
)
@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_a_port_that_some_socket_has_is_seen(host: str, asked: str, kind: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as taken:
        taken.bind((host, 0))
        listen = Listen(asked, taken.getsockname()[1])
        if kind == "tcp":
            assert not is_taken(listen, kind)
            taken.listen()
        assert is_taken(listen, kind)
        other = "tcp" if kind == "udp" else "udp"
        assert not is_taken(listen, other)
    assert not is_taken(listen, kind)


def test_a_port_taken_on_another_address_is_not_taken_on_this_one() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.2", 0))
        port = taken.getsockname()[1]
        assert is_taken(Listen("127.0.0.2", port), "udp")
        assert not is_taken(Listen("127.0.0.3", port), "udp")


def test_without_proc_nothing_is_taken(tmp_path: Path) -> None:
    assert not is_taken(Listen("127.0.0.1", 53), "udp", tmp_path)


def test_an_address_is_on_this_machine_or_not_and_then_the_option_is_told() -> None:
    assert link_local("127.0.0.7").level == GOOD
    assert link_local("::1").level == GOOD
    absent = link_local("203.0.113.5")
    assert absent.level == BAD
    assert "--dns-link-local 203.0.113.5" in absent.remedy


@pytest.mark.parametrize(
    ("line", "what", "remedy"),
    [
        ("no engine at x: no socket; start dockerd", "no engine at x: no socket", "start dockerd"),
        ("Consul at x cannot be reached (refused): is it running?", "Consul at x cannot be reached (refused)",
         "is it running?"),
        ("just so", "just so", "see the agent's log"),
    ],
)  # fmt: skip
def test_a_failures_own_line_is_split_into_what_and_remedy(line: str, what: str, remedy: str) -> None:
    assert from_failure("it", Failure(line)) == Finding(BAD, "it", what, remedy)
