"""What a release consists of, in dist/.

    python -m scripts.release [--out dist]

- the wheel and the sdist: the same octets whenever and wherever they are made
  of the same commit (SOURCE_DATE_EPOCH, else the commit's own time, dates them)
- `registrator-VERSION.cdx.json`: what the image and a node's venv hold, as a
  CycloneDX SBOM
- `THIRD-PARTY-LICENSES.txt`: under which licences, with their texts
- `docker-bake.json`: `docker buildx bake -f dist/docker-bake.json` builds the
  image for all machines, from the checkout
- `SHA256SUMS` of them

SBOM and licences are read from a venv of requirements.lock, so that they name
the versions that are shipped, and nothing that only tests use.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

from registrator import __version__
from scripts import locks

ROOT = locks.ROOT
PLATFORMS = ("linux/amd64", "linux/arm64", "linux/arm/v7")


def epoch() -> str:
    """The date of everything in the archives, in seconds since 1970."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return given
    command = ("git", "log", "-1", "--format=%ct")
    asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if asked.returncode:
        sys.exit("release: this is not a git checkout; set SOURCE_DATE_EPOCH to date the archives")
    return asked.stdout.strip()


def run(*command: str, **env: str) -> None:
    """Run a command quietly; its words are shown if it fails."""
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"release: {' '.join(command[:4])} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def archives(out: Path, checkout: Path = ROOT) -> None:
    """The sdist, and the wheel that is made from it."""
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(checkout))
    run(*command, SOURCE_DATE_EPOCH=epoch())


def installed(folder: Path) -> Path:
    """A venv of what the lock of run time pins; the path of its Python."""
    run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    python = folder / "bin/python"
    run(
        *(sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"),
        *("--disable-pip-version-check", "--no-deps", "--require-hashes", "-r", str(locks.RUN_TIME)),
    )
    return python


def sbom(python: Path, out: Path) -> None:
    """The components of that Python's venv and what needs what, with registrator as the root."""
    run(
        *(sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", str(ROOT / "pyproject.toml")),
        *("--mc-type", "application", "--output-format", "JSON", "--output-reproducible"),
        *("--output-file", str(out), str(python)),
    )
    document = json.loads(out.read_text())
    # pyproject.toml leaves the version to the code.
    document["metadata"]["component"]["version"] = __version__
    (packages,) = python.parents[1].glob("lib/python*/site-packages")
    declared = {each.name: each.metadata["License"] for each in distributions(path=[str(packages)])}
    for component in document["components"]:
        # cyclonedx-bom leaves out what is not SPDX's name of a licence.
        component.setdefault("licenses", [{"license": {"name": declared[component["name"]]}}])
    out.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")


def licences(python: Path, out: Path) -> None:
    """The licences of that Python's packages, with their texts."""
    run(
        *(sys.executable, "-m", "piplicenses", "--python", str(python), "--from", "mixed", "--order", "name"),
        *("--format", "plain-vertical", "--with-urls", "--with-license-file", "--with-notice-file"),
        *("--no-license-path", "--output-file", str(out)),
    )


def bake(out: Path) -> None:
    """The image for all machines, as `docker buildx bake` reads it."""
    dockerfile = (ROOT / "docker/agent/Dockerfile").read_text()
    (base,) = re.findall(r"^ARG BASE=(\S+)$", dockerfile, re.MULTILINE)
    agent = {
        "context": ".",
        "dockerfile": "docker/agent/Dockerfile",
        "platforms": PLATFORMS,
        "args": {"BASE": base, "SOURCE_DATE_EPOCH": epoch()},
        "tags": (f"registrator/agent:{__version__}", "registrator/agent:latest"),
        "attest": ("type=sbom", "type=provenance,mode=max"),
    }
    out.write_text(
        json.dumps({"group": {"default": {"targets": ["agent"]}}, "target": {"agent": agent}}, indent=2)
    )


def sums(folder: Path) -> None:
    """The hashes of all that lies there, for `sha256sum --check`."""
    files = sorted(path for path in folder.iterdir() if path.name != "SHA256SUMS" and path.is_file())
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines))


def make(out: Path) -> Sequence[Path]:
    """All of it; what lies in the folder then."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.iterdir():
        if old.is_file():
            old.unlink()
    archives(out)
    with tempfile.TemporaryDirectory() as folder:
        python = installed(Path(folder))
        sbom(python, out / f"registrator-{__version__}.cdx.json")
        licences(python, out / "THIRD-PARTY-LICENSES.txt")
    bake(out / "docker-bake.json")
    sums(out)
    return sorted(out.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.release")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    for path in make(parser.parse_args().out.resolve()):
        print(f"{path.stat().st_size:>9,}  {path.name}")


if __name__ == "__main__":
    main()
