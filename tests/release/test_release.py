"""What `make release` writes, made for real."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from registrator import __version__
from scripts import locks, release
from tests.support import unavailable

ROOT = release.ROOT


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole release."""
    out = tmp_path_factory.mktemp("dist")
    try:
        release.make(out)
    except SystemExit as error:
        unavailable(f"the release cannot be made here (it takes a package index): {error}")
    return out


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def copied(folder: Path, *, mode: int, time: int) -> Path:
    """The checkout's files, elsewhere, with another mode and another time."""
    listed = subprocess.run(
        ("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"),
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
            target.chmod(mode)
            os.utime(target, (time, time))
    return folder


def test_the_archives_are_the_same_octets_whenever_and_wherever_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another folder, with files of another mode and another time."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    one, two = (
        copied(tmp_path / "one", mode=0o644, time=1_600_000_000),
        copied(tmp_path / "longer/two", mode=0o600, time=1_800_000_000),
    )
    release.archives(tmp_path / "dist-one", one)
    release.archives(tmp_path / "dist-two", two)
    names = sorted(path.name for path in (tmp_path / "dist-one").iterdir())
    assert names == [f"registrator-{__version__}-py3-none-any.whl", f"registrator-{__version__}.tar.gz"]
    for name in names:
        assert (tmp_path / "dist-one" / name).read_bytes() == (tmp_path / "dist-two" / name).read_bytes()


def test_the_archives_hold_the_package_and_what_installs_it(dist: Path) -> None:
    """The wheel the package alone; the sdist the lock too."""
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "registrator").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    wheel = set(zipfile.ZipFile(only(dist, "*.whl")).namelist())
    assert {name for name in wheel if ".dist-info/" not in name} == package
    assert any(name.endswith("licenses/LICENSE") for name in wheel)
    with tarfile.open(only(dist, "*.tar.gz")) as archive:
        sdist = {name.partition("/")[2] for name in archive.getnames()}
    assert sdist >= package | {"pyproject.toml", "README.md", "LICENSE", "requirements.lock"}
    assert not any(name.startswith(("tests", ".venv", "build")) for name in sdist)


def test_the_sbom_names_what_is_shipped_and_under_which_licence(dist: Path) -> None:
    """Every pin of the run-time lock and no other package; cyclonedx-bom checks it against its schema."""
    document = json.loads(only(dist, "*.cdx.json").read_text())
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["version"] == __version__
    components = {(canonicalize_name(each["name"]), each["version"]) for each in document["components"]}
    assert components == {(pin.name, pin.version) for pin in locks.pins(locks.RUN_TIME) if pin.holds({})}
    assert all(each["licenses"] for each in document["components"])
    assert all(each["purl"].startswith("pkg:pypi/") for each in document["components"])
    reasons = {each["ref"]: each.get("dependsOn", ()) for each in document["dependencies"]}
    assert any(ref.startswith("aiohttp==") for ref in reasons["root-component"])


def test_the_licences_have_every_package(dist: Path) -> None:
    lines = (dist / "THIRD-PARTY-LICENSES.txt").read_text().splitlines()
    for pin in locks.pins(locks.RUN_TIME):
        if pin.holds({}):
            (at,) = (
                at
                for at, line in enumerate(lines)
                if canonicalize_name(line) == pin.name and lines[at + 1] == pin.version
            )
            assert lines[at + 2] != "UNKNOWN"


def test_the_build_file_is_for_three_machines_on_a_pinned_base(dist: Path) -> None:
    """The base that docker/base/make.sh pulls, by a release's tag."""
    agent = json.loads((dist / "docker-bake.json").read_text())["target"]["agent"]
    assert agent["platforms"] == ["linux/amd64", "linux/arm64", "linux/arm/v7"]
    assert len(agent["platforms"]) == len(locks.MACHINES)
    assert (ROOT / agent["dockerfile"]).exists()
    base = agent["args"]["BASE"]
    assert f"official={base}\n" in (ROOT / "docker/base/make.sh").read_text()
    assert base.partition(":")[2].count(".") == 2
    for dockerfile in ROOT.glob("docker/*/Dockerfile"):
        assert f"ARG BASE={base}\n" in dockerfile.read_text()


def test_the_sums_are_those_of_all_files(dist: Path) -> None:
    lines = (dist / "SHA256SUMS").read_text().splitlines()
    named = {line.split("  ")[1]: line.split("  ")[0] for line in lines}
    assert named == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in dist.iterdir()
        if path.name != "SHA256SUMS"
    }
