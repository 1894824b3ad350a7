"""Whether a locked version has a known fault.

    python -m scripts.audit [--advisories FOLDER]

holds every pin of every lock, and the floors in pyproject.toml, against:

1. packaging/advisories.toml, which needs no network;
2. with --advisories, every OSV document (JSON or YAML) below FOLDER: a clone of
   PyPA's advisory database, or an unpacked export of OSV's;
3. else pip-audit, which asks an advisory service.

Exit code 1: a fault was found. 2: nothing newer than the recorded list could be
asked, so that nothing can be said of what was published since.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from scripts import locks

RECORDED = locks.ROOT / "packaging/advisories.toml"
SERVICES = ("osv", "pypi")  # that pip-audit can ask, the more complete one first
PATIENCE = 120.0  # seconds for one of them


@dataclass(frozen=True, order=True)
class Subject:
    """A version of a package that is looked up, and where it was written."""

    package: str
    version: str
    where: str


@dataclass(frozen=True)
class Span:
    """Versions that have a fault: from `introduced` on, before `fixed` (None: no end), or `last` of them."""

    introduced: Version
    fixed: Version | None = None
    last: Version | None = None

    def has(self, version: Version) -> bool:
        """Whether a version lies in it."""
        return (
            self.introduced <= version
            and (self.fixed is None or version < self.fixed)
            and (self.last is None or version <= self.last)
        )


@dataclass(frozen=True)
class Fault:
    """What is known of one fault of a package."""

    package: str
    ids: tuple[str, ...]
    spans: tuple[Span, ...] = ()
    versions: frozenset[str] = frozenset()

    def spoils(self, subject: Subject) -> bool:
        """Whether that version has it."""
        if self.package != subject.package:
            return False
        version = Version(subject.version)
        return subject.version in self.versions or any(span.has(version) for span in self.spans)


class Unreachable(Exception):
    """No advisory service answered for all packages."""


def locked() -> Iterator[Subject]:
    """The pins of all locks."""
    for lock in locks.SOURCES:
        for pin in locks.pins(lock):
            yield Subject(canonicalize_name(pin.name), pin.version, str(lock.relative_to(locks.ROOT)))


def floors() -> Iterator[Subject]:
    """The lowest versions that pyproject.toml lets users run."""
    project = tomllib.loads((locks.ROOT / "pyproject.toml").read_text())["project"]
    for text in project["dependencies"]:
        requirement = Requirement(text)
        for specifier in requirement.specifier:
            if specifier.operator == ">=":
                yield Subject(
                    canonicalize_name(requirement.name), specifier.version, "pyproject.toml's floor"
                )


def recorded() -> Iterator[Fault]:
    """The faults of the recorded list."""
    for fault in tomllib.loads(RECORDED.read_text())["fault"]:
        span = Span(Version("0"), fixed=Version(fault["fixed"]))
        yield Fault(canonicalize_name(fault["package"]), tuple(fault["ids"]), (span,))


def from_osv(document: dict[str, Any]) -> Iterator[Fault]:
    """The faults of an OSV document, one for each PyPI package in it; none where it was withdrawn."""
    if document.get("withdrawn"):
        return
    ids = (document["id"], *document.get("aliases", ()))
    for affected in document.get("affected", ()):
        package = affected.get("package", {})
        if package.get("ecosystem") == "PyPI":
            yield Fault(
                canonicalize_name(package["name"]),
                ids,
                tuple(_spans(affected.get("ranges", ()))),
                frozenset(map(str, affected.get("versions", ()))),
            )


def _spans(ranges: Iterable[dict[str, Any]]) -> Iterator[Span]:
    """The spans of versions; those of commits say nothing here."""
    for each in ranges:
        start: Version | None = None
        for event in each["events"] if each["type"] == "ECOSYSTEM" else ():
            ((kind, text),) = event.items()
            try:
                version = Version(str(text))
            except InvalidVersion:
                continue
            if kind == "introduced":
                start = version
            elif start is not None and kind in ("fixed", "last_affected"):
                yield Span(start, **{"fixed" if kind == "fixed" else "last": version})
                start = None
        if start is not None:
            yield Span(start)


def in_folder(folder: Path, packages: frozenset[str]) -> Iterator[Fault]:
    """The faults of these packages in all OSV documents below a folder."""
    for path in sorted((*folder.rglob("*.yaml"), *folder.rglob("*.json"))):
        text = path.read_text()
        # Reading a document is dear, and most are about other packages.
        if any(name in text.lower() for name in packages):
            document = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
            if isinstance(document, dict) and "id" in document:
                yield from from_osv(document)


def ask_services() -> list[str]:
    """What pip-audit finds, one line each. Raises Unreachable."""
    reasons = []
    for service in SERVICES:
        try:
            return [line for lock in locks.SOURCES for line in _ask(service, lock)]
        except Unreachable as error:
            reasons.append(f"{service}: {error}")
    raise Unreachable("; ".join(reasons))


def _ask(service: str, lock: Path) -> Iterator[str]:
    command = (
        *(sys.executable, "-m", "pip_audit", "--vulnerability-service", service, "--progress-spinner=off"),
        *("--disable-pip", "--require-hashes", "--requirement", str(lock), "--format=json"),
    )
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        dependencies = json.loads(run.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        raise Unreachable("no answer") from None
    except ValueError:
        last = run.stderr.strip().splitlines()[-1:] or ["no answer"]
        raise Unreachable(last[0][:200]) from None
    skipped = [each["name"] for each in dependencies if "skip_reason" in each]
    if skipped:
        raise Unreachable(f"knows nothing of {skipped[0]} and {len(skipped) - 1} others")
    for each in dependencies:
        for fault in each["vulns"]:
            yield f"{lock.name}: {each['name']} {each['version']}: {fault['id']}"


def found(faults: Iterable[Fault], subjects: Iterable[Subject]) -> list[str]:
    """A line for each fault of a subject."""
    subjects = list(subjects)
    return [
        f"{subject.where}: {subject.package} {subject.version}: {', '.join(fault.ids)}"
        for fault in faults
        for subject in subjects
        if fault.spoils(subject)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.audit")
    parser.add_argument("--advisories", type=Path, help="a folder of OSV documents, in place of a service")
    options = parser.parse_args()
    subjects = [*locked(), *floors()]
    lines = found(recorded(), subjects)
    missing = ""
    if options.advisories:
        packages = frozenset(subject.package for subject in subjects)
        faults = list(in_folder(options.advisories, packages))
        if not faults:
            missing = f"no OSV document below {options.advisories} is about a package of ours"
        lines += found(faults, locked())
    else:
        try:
            lines += ask_services()
        except Unreachable as error:
            missing = str(error)
    for line in lines:
        print(f"audit: {line}")
    as_of = tomllib.loads(RECORDED.read_text())["as_of"]
    checked = f"{len(subjects)} versions"
    if lines:
        return 1
    if missing:
        print(
            f"audit: {checked} have none of the faults recorded on {as_of}, but nothing newer could be asked "
            f"({missing}); try again online, or with ADVISORIES=FOLDER of OSV documents",
            file=sys.stderr,
        )
        return 2
    print(f"audit: {checked}, no known fault")
    return 0


if __name__ == "__main__":
    sys.exit(main())
