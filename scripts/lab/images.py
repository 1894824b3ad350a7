"""What the stack file names, made here, since the lab can reach no image registry.

They are built on the machine's own engine under names that nobody else has, and
get the names of the stack file on the nodes alone: no engine of the user's ever
holds a `redis:7` that is not the official one.
"""

import hashlib
import shutil
from pathlib import Path

from scripts.demo import images
from scripts.demo.steps import ask, run, step

PROJECT = "registrator-lab"
# As the stack file names them: as they are built.
NAMES = {
    "registrator/agent:latest": "agent",
    "registrator/counter:latest": "counter",
    "registrator/whoami:latest": "whoami",
    "registrator/lab-tools:latest": "lab-tools",
    "redis:7": "redis",  # Debian bookworm's is a 7
    "hashicorp/consul:1.15": "consul",  # whatever version scripts/consul.sh finds
}


def archive(folder: Path) -> Path:
    """Build them all; the path of a tar archive of them, made anew only when one of them has changed."""
    images.build(PROJECT)
    images.build_one(PROJECT, "lab-tools")
    context = folder / "consul"
    context.mkdir(parents=True, exist_ok=True)
    shutil.copy(ask("scripts/consul.sh"), context / "consul")
    images.build_one(PROJECT, "consul", str(context))
    images.prune(PROJECT)
    built = [f"{PROJECT}/{name}" for name in NAMES.values()]
    ids = run("docker", "image", "inspect", "--format", "{{.Id}}", *built)
    path = folder / f"images-{hashlib.sha256(ids.encode()).hexdigest()[:12]}.tar"
    if not path.exists():
        for old in folder.glob("images-*.tar*"):
            old.unlink()
        with step("Images: packing them for the nodes"):
            run("docker", "save", "--output", f"{path}.new", *built)
            Path(f"{path}.new").rename(path)
    return path


def remove() -> None:
    """Remove what was built on the machine's own engine."""
    images.remove(PROJECT, NAMES.values())
