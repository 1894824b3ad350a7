"""The audit: no locked version and no floor has a known fault, and it never claims what it could not ask."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts import audit
from scripts.audit import Subject, found, from_osv

H2 = Subject("h2", "4.2.0", "requirements.lock")


def osv(**affected: Any) -> dict[str, Any]:
    package = {"ecosystem": "PyPI", "name": "h2"}
    return {"id": "X-1", "aliases": ["CVE-1"], "affected": [{"package": package, **affected}]}


def events(*pairs: tuple[str, str], kind: str = "ECOSYSTEM") -> dict[str, Any]:
    return osv(ranges=[{"type": kind, "events": [{name: version} for name, version in pairs]}])


def test_no_locked_version_and_no_floor_has_a_recorded_fault() -> None:
    subjects = [*audit.locked(), *audit.floors()]
    assert len(subjects) > 100
    assert found(audit.recorded(), subjects) == []


def test_versions_with_a_recorded_fault_are_found() -> None:
    """Those that this project once let users run."""
    old = [Subject("aiohttp", "3.14.3", "x"), Subject("h2", "4.2.0", "x"), Subject("urllib3", "2.7.0", "x")]
    assert [line.split()[1] for line in found(audit.recorded(), old)] == ["aiohttp", "h2", "urllib3"]


@pytest.mark.parametrize(
    ("document", "spoils"),
    [
        (events(("introduced", "0"), ("fixed", "4.3.0")), True),
        (events(("introduced", "0"), ("fixed", "4.2.0")), False),
        (events(("introduced", "0"), ("last_affected", "4.2.0")), True),
        (events(("introduced", "0"), ("last_affected", "4.1.9")), False),
        (events(("introduced", "4.2.0")), True),
        (events(("introduced", "4.2.1")), False),
        (events(("introduced", "1"), ("fixed", "2"), ("introduced", "4"), ("fixed", "5")), True),
        (events(("introduced", "1"), ("fixed", "2"), ("introduced", "5"), ("fixed", "6")), False),
        (events(("introduced", "0"), ("fixed", "4" * 40), kind="GIT"), False),
        (osv(versions=["4.1.0", "4.2.0"]), True),
        (osv(versions=["4.1.0"]), False),
        ({**osv(versions=["4.2.0"]), "withdrawn": "2026-01-01T00:00:00Z"}, False),
        (
            {"id": "X", "affected": [{"package": {"ecosystem": "npm", "name": "h2"}, "versions": ["4.2.0"]}]},
            False,
        ),
        (
            {
                "id": "X",
                "affected": [{"package": {"ecosystem": "PyPI", "name": "H2"}, "versions": ["4.2.0"]}],
            },
            True,
        ),
    ],
)
def test_an_osv_document_spoils_the_versions_that_it_names(document: dict[str, Any], *, spoils: bool) -> None:
    assert bool(found(from_osv(document), [H2])) == spoils


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["audit", *arguments])
    return audit.main()


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_a_folder_of_advisories_is_asked_in_place_of_a_service(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON is YAML, so that one document serves; its fault makes the exit code 1."""
    document = events(("introduced", "0"))
    (tmp_path / f"X-1.{suffix}").write_text(json.dumps(document))
    assert run("--advisories", str(tmp_path), monkeypatch=monkeypatch) == 1
    assert "requirements.lock: h2 " in capsys.readouterr().out
    document["affected"][0]["ranges"][0]["events"].append({"fixed": "1.0"})
    (tmp_path / f"X-1.{suffix}").write_text(json.dumps(document))
    assert run("--advisories", str(tmp_path), monkeypatch=monkeypatch) == 0


def test_a_folder_without_advisories_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--advisories", str(tmp_path), monkeypatch=monkeypatch) == 2
    assert "nothing newer could be asked" in capsys.readouterr().err


@pytest.mark.parametrize(
    "answer",
    [
        "",
        json.dumps({"dependencies": [{"name": "h2", "skip_reason": "not found"}]}),
    ],
    ids=["no answer", "a service that does not know the packages"],
)
def test_a_service_that_does_not_answer_is_no_success(
    answer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """pip-audit itself ends with 0 where an index knows none of the packages."""
    asked: list[Any] = []

    def fake(command: Any, **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, answer, "no route\n")

    monkeypatch.setattr(subprocess, "run", fake)
    assert run(monkeypatch=monkeypatch) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "nothing newer could be asked (osv: " in line
    assert len(asked) == len(audit.SERVICES)


def test_what_a_service_finds_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = json.dumps({"dependencies": [{"name": "h2", "version": "4.4.1", "vulns": [{"id": "X-1"}]}]})
    done = subprocess.CompletedProcess((), 1, answer, "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert run(monkeypatch=monkeypatch) == 1
    assert "audit: requirements.lock: h2 4.4.1: X-1" in capsys.readouterr().out
