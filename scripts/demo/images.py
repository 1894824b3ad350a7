"""The demo's images: wheels fetched on the host, a base from a registry or of Debian packages, four builds.

Build containers may have no trust in the TLS of the network that they are in
(a company's proxy), so they fetch no Python packages themselves: pip runs on
the host, for the base's own Python, and the builds take its wheels.
"""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from scripts import locks
from scripts.demo.steps import CACHE, ROOT, DemoError, ask, run, step

IMAGES = ("agent", "counter", "whoami", "redis")
BASE_PYTHON = "3.11"
LABEL = "registrator.demo"  # on each image, with the project as its value


def build(project: str) -> None:
    """Build all images as `<project>/<name>`, or find that they are there already."""
    fetch_wheels("agent", locks.RUN_TIME)
    fetch_wheels("counter", locks.COUNTER)
    for name in IMAGES:
        build_one(project, name)
    prune(project)


def build_one(project: str, name: str, context: str = ".") -> None:
    """Build `<project>/<name>` from docker/<name>/Dockerfile and a folder."""
    base = make_base(project)
    with step(f"Images: building {project}/{name}"):
        run(
            *("docker", "build", "--quiet", "--force-rm", "--build-arg", f"BASE={base}"),
            *("--label", f"{LABEL}={project}", "--tag", f"{project}/{name}"),
            *("--file", f"docker/{name}/Dockerfile", context),
        )


def fetch_wheels(name: str, lock: Path) -> None:
    """Fill build/wheels/<name> with what a lock pins, unless it was filled for the same pins and machine."""
    machine = engine_machine()
    folder = ROOT / "build/wheels" / name
    stamp = folder / "made-from"
    wanted = locks.lines_for(lock, BASE_PYTHON, machine)
    key = hashlib.sha256(repr((machine, BASE_PYTHON, wanted)).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == key:
        return
    with step(f"Images: fetching wheels for the {name}"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "wanted").write_text(wanted)
        run(
            *(sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder)),
            *("--no-deps", "--require-hashes", *locks.wheels_for(BASE_PYTHON, machine)),
            *("--requirement", str(folder / "wanted")),
        )
        stamp.write_text(key)


def engine_machine() -> str:
    """The engine's architecture, in Python's words."""
    architecture = run("docker", "version", "--format", "{{.Server.Arch}}")
    if architecture not in locks.MACHINES:
        known = ", ".join(locks.MACHINES)
        raise DemoError(f"the demo has images for {known}; this engine is {architecture}")
    return locks.MACHINES[architecture]


def make_base(project: str) -> str:
    """The name of the image to start from (docker/base/make.sh says which, and shows its steps)."""
    return ask("docker/base/make.sh", f"{project}/base", f"{LABEL}={project}")


def prune(project: str) -> None:
    """Remove what a newer build has replaced."""
    run("docker", "image", "prune", "--force", "--filter", f"label={LABEL}={project}")


def remove(project: str, built: Iterable[str] = IMAGES) -> None:
    """Remove what was built for this project, and the official base if it was pulled for it."""
    names = [f"{project}/{name}" for name in built]
    listed = run("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    tags = [tag for tag in listed if tag.rpartition(":")[0] in names]
    bases = [tag for tag in listed if tag.startswith(f"{project}/base:")]
    pulled = CACHE / "pulled-base"
    if pulled.exists():
        bases += [tag for tag in listed if tag == pulled.read_text().strip()]
    for tag in (*tags, *bases):  # the base last: what starts from it comes first
        remove_one(tag)
    pulled.unlink(missing_ok=True)
    prune(project)


def remove_one(tag: str) -> None:
    """Remove an image, or say that somebody else uses it."""
    result = subprocess.run(("docker", "image", "rm", tag), capture_output=True, text=True, check=False)
    if result.returncode:
        print(f"Images: {tag} stays: {result.stderr.strip()}")
