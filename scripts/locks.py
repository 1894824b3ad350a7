"""The lock files: what is installed here and in the images, each file of it by its hash.

    python -m scripts.locks [--upgrade]

writes them all again (`make lock`), with uv, from what pyproject.toml and the
requirements files ask for. A pin that still serves stays unless --upgrade is
given. A lock holds for every Python from 3.11 on and every machine: it has
markers, and the hashes of all files of a version.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# What an image can be built for: Docker's words for a machine, and Python's.
MACHINES: Mapping[str, str] = {"amd64": "x86_64", "arm64": "aarch64", "arm": "armv7l"}
GLIBCS = ("manylinux2014", "manylinux_2_28", "manylinux_2_31")
RUN_TIME = ROOT / "requirements.lock"
TESTS = ROOT / "requirements-dev.lock"
COUNTER = ROOT / "docker/counter/requirements.lock"
CLIENT = ROOT / "tests/lookup/clients/requirements.lock"

# What each is made from; those of the tests take the pins of run time.
SOURCES: Mapping[Path, tuple[str, ...]] = {
    RUN_TIME: ("pyproject.toml",),
    TESTS: ("pyproject.toml", "--extra=dev", "--constraint=requirements.lock"),
    COUNTER: ("docker/counter/requirements.txt",),
    # Its dependencies are ours already, so that it is installed without any.
    CLIENT: ("tests/lookup/clients/requirements.txt", "--no-deps"),
}


@dataclass(frozen=True)
class Pin:
    """One version of one package, the machines that it is for, and its files' hashes (`sha256:...`)."""

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.requirement.name

    @property
    def version(self) -> str:
        (specifier,) = self.requirement.specifier
        return specifier.version

    def holds(self, environment: Mapping[str, str]) -> bool:
        """Whether it is needed where markers have these values (those left out: this Python's)."""
        marker = self.requirement.marker
        return marker is None or marker.evaluate(dict(environment))


def pins(lock: Path) -> Iterator[Pin]:
    """The pins of a lock file. Raises ValueError for a line that is not one with a hash."""
    text = "\n".join(line for line in lock.read_text().splitlines() if not line.lstrip().startswith("#"))
    for line in text.replace("\\\n", " ").splitlines():
        words, *hashes = line.strip().split(" --hash=")
        if not words:
            continue
        requirement = Requirement(words)
        specifiers = [specifier.operator for specifier in requirement.specifier]
        if specifiers != ["=="] or not hashes:
            raise ValueError(f"{lock.name}: not a pin with hashes: {line[:80]}")
        yield Pin(requirement, tuple(each.strip() for each in hashes))


def environment(python: str, machine: str) -> dict[str, str]:
    """The values of markers for CPython `python` ("3.11.2") on Linux on a machine ("x86_64")."""
    return {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": python,
        "python_version": ".".join(python.split(".")[:2]),
        "sys_platform": "linux",
    }


def lines_for(lock: Path, python: str, machine: str) -> str:
    """The part of a lock that any release of CPython `python` ("3.11") needs on a machine, in pip's words.

    Without markers: pip reads them with the Python that it runs on, also where it fetches for another.
    """
    releases = [environment(f"{python}.{number}", machine) for number in (0, 99)]
    needed = (pin for pin in pins(lock) if any(map(pin.holds, releases)))
    return "".join(
        f"{pin.name}=={pin.version} {' '.join(f'--hash={each}' for each in pin.hashes)}\n" for pin in needed
    )


def wheels_for(python: str, machine: str) -> tuple[str, ...]:
    """Options of pip to take wheels of one kind of machine, and nothing that has to be built."""
    return (
        *("--only-binary=:all:", "--implementation=cp", f"--python-version={python}"),
        *(f"--abi=cp{python.replace('.', '')}", "--abi=abi3", "--abi=none"),
        *(f"--platform={glibc}_{machine}" for glibc in GLIBCS),
    )


def write(lock: Path, *arguments: str) -> None:
    """Write one lock."""
    command = (
        *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes"),
        *("--no-config", "--no-emit-index-url", "--no-emit-find-links", f"--python-version={PYTHONS[0]}"),
        *("--custom-compile-command=make lock", "--output-file", str(lock.relative_to(ROOT))),
    )
    subprocess.run((*command, *SOURCES[lock], *arguments), cwd=ROOT, check=True)


def main() -> None:
    for lock in SOURCES:
        try:
            write(lock, *sys.argv[1:])
        except subprocess.CalledProcessError:
            sys.exit(f"lock: {lock.relative_to(ROOT)} could not be made; see above")
        print(f"{lock.relative_to(ROOT)}: {sum(1 for _ in pins(lock))} packages")


if __name__ == "__main__":
    main()
