"""The set-up scripts: what they do on a machine that lacks something, and what they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.demo.conftest import ROOT
from tests.support import unavailable

KEYRING = "/usr/share/keyrings/archive.gpg"
STANZA = ["Types: deb", "URIs: http://archive.test/debian", "Suites: bullseye", "Components: main"]

APT_FOLDERS = [
    pytest.param(
        "sources.list.d/debian.sources",
        "# a comment\n\nTypes: deb\n# another\nURIs: http://archive.test/debian\n"
        f"Suites: bookworm bookworm-updates\nComponents: main contrib\nSigned-By: {KEYRING}\n\n"
        "Types: deb\nURIs: http://security.test/\n",
        [*STANZA, f"Signed-By: {KEYRING}"],
        id="the first stanza, with another suite and main alone",
    ),
    pytest.param(
        "sources.list",
        "# deb http://old.test/debian buster main\ndeb http://archive.test/debian bookworm main contrib\n"
        "deb http://security.test/ bookworm-security main\n",
        STANZA,
        id="the first line that is no comment",
    ),
    pytest.param(
        "sources.list",
        f"deb [ arch=amd64 signed-by={KEYRING} ] http://archive.test/debian bookworm main\n",
        [*STANZA, f"Signed-By: {KEYRING}"],
        id="a line with options keeps its keyring",
    ),
]


def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("file", "text", "stanza"), APT_FOLDERS)
def test_the_archive_is_taken_from_the_machines_own_sources(
    tmp_path: Path, file: str, text: str, stanza: list[str]
) -> None:
    """One stanza for the suite that is asked for, in either of apt's formats."""
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    result = run("bash", "-c", '. scripts/lib.sh; debian_source bullseye "$1"', "bash", str(tmp_path))
    assert result.stdout.splitlines() == stanza


@pytest.mark.consul
def test_consul_is_fetched_into_an_empty_cache_and_found_there(tmp_path: Path) -> None:
    """The path alone is printed on standard output; a second run fetches nothing."""
    if not shutil.which("apt-get"):
        unavailable("needs Debian, whose package of Consul is fetched")
    path = os.pathsep.join(
        folder for folder in os.environ["PATH"].split(os.pathsep) if not Path(folder, "consul").exists()
    )
    first = run("scripts/consul.sh", PATH=path, XDG_CACHE_HOME=str(tmp_path))
    assert first.returncode == 0, first.stderr
    binary = first.stdout.rstrip("\n")
    assert Path(binary).is_relative_to(tmp_path)
    assert run(binary, "version").stdout.startswith("Consul v")
    second = run("scripts/consul.sh", PATH=path, XDG_CACHE_HOME=str(tmp_path))
    assert (second.stdout, second.stderr) == (first.stdout, "")


def test_a_consul_on_the_path_is_preferred(tmp_path: Path) -> None:
    own = tmp_path / "consul"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    result = run("scripts/consul.sh", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert result.stdout == f"{own}\n"


def test_an_engine_that_does_not_answer_is_told_in_one_line(tmp_path: Path) -> None:
    """DOCKER_HOST is obeyed: no other engine is taken or started in its place."""
    result = run(
        "scripts/engine.sh", DOCKER_HOST=f"unix://{tmp_path}/none.sock", XDG_CACHE_HOME=str(tmp_path)
    )
    assert result.returncode == 1
    assert re.fullmatch(
        r"error: no engine answers at DOCKER_HOST=\S+; start it, or unset .*\n", result.stderr
    )


def test_bare_make_explains_every_target() -> None:
    """A target without a comment beside it would be missing."""
    (declared,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    explained = re.findall(r"^make (\S+) +\S", run("make").stdout, re.MULTILINE)
    assert explained == declared.split()
