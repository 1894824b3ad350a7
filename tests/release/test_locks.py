"""What is installed is pinned, each file by its hash, on every Python and machine."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import requires
from itertools import product
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts import locks, platforms
from tests.support import unavailable

ROOT = locks.ROOT
DOCKERFILE = ROOT / "docker/agent/Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
each_lock = pytest.mark.parametrize("lock", locks.SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
RELEASES = [f"{python}.{number}" for python in locks.PYTHONS for number in (0, 99)]


def pinned(lock: Path) -> dict[str, locks.Pin]:
    return {pin.name: pin for pin in locks.pins(lock)}


def unsatisfied(requirement: Requirement, pins: dict[str, locks.Pin], environment: dict[str, str]) -> bool:
    """Whether that is needed there and no pin answers it."""
    if requirement.marker and not requirement.marker.evaluate({**environment, "extra": ""}):
        return False
    pin = pins.get(canonicalize_name(requirement.name))
    return pin is None or not pin.holds(environment) or not requirement.specifier.contains(pin.version)


@each_lock
def test_every_pin_has_hashes_and_no_host_is_named(lock: Path) -> None:
    """A lock serves with whatever index a machine has."""
    assert all(re.fullmatch("sha256:[0-9a-f]{64}", each) for pin in locks.pins(lock) for each in pin.hashes)
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host", lock.read_text())


@pytest.mark.parametrize(
    ("lock", "asked"),
    [
        (locks.RUN_TIME, PROJECT["dependencies"]),
        (locks.TESTS, [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]),
        (locks.COUNTER, (ROOT / "docker/counter/requirements.txt").read_text().split()),
    ],
    ids=["run time", "tests", "counter"],
)
def test_a_lock_answers_what_is_asked_for(lock: Path, asked: list[str]) -> None:
    """A changed floor or a new dependency without `make lock` is seen."""
    pins = pinned(lock)
    for text, machine, release in product(asked, locks.MACHINES.values(), RELEASES):
        assert not unsatisfied(Requirement(text), pins, locks.environment(release, machine)), text


def test_what_the_dependencies_need_is_pinned_too() -> None:
    """Transitively, on every Python and machine, by what the installed packages say of themselves."""
    pins = pinned(locks.RUN_TIME)
    for name, machine, release in product(pins, locks.MACHINES.values(), RELEASES):
        environment = locks.environment(release, machine)
        if pins[name].holds(environment):
            for text in requires(name) or ():
                assert not unsatisfied(Requirement(text), pins, environment), f"{name} needs {text}"


def test_tests_run_on_the_versions_that_are_shipped() -> None:
    tested = pinned(locks.TESTS)
    assert {name: tested[name].version for name in pinned(locks.RUN_TIME)} == {
        name: pin.version for name, pin in pinned(locks.RUN_TIME).items()
    }


def test_a_line_without_a_hash_is_refused(tmp_path: Path) -> None:
    for line in ("six==1.17.0\n", "six>=1.17 --hash=sha256:00\n"):
        lock = tmp_path / "requirements.lock"
        lock.write_text(line)
        with pytest.raises(ValueError, match="not a pin with hashes"):
            list(locks.pins(lock))


def test_markers_of_any_release_of_a_python_count() -> None:
    """Debian's 3.11 is 3.11.2, and redis needs async-timeout below 3.11.3."""
    assert "async-timeout==" in locks.lines_for(locks.COUNTER, "3.11", "x86_64")
    assert "async-timeout==" not in locks.lines_for(locks.COUNTER, "3.13", "x86_64")
    assert ";" not in locks.lines_for(locks.TESTS, "3.11", "x86_64")


def test_everything_that_pip_installs_is_held_to_a_hash() -> None:
    """In Dockerfiles, in scripts/ and in the unit's install steps."""
    files = (
        *ROOT.glob("docker/*/Dockerfile"),
        *ROOT.glob("scripts/**/*.sh"),
        *ROOT.glob("packaging/*.service"),
    )
    found = 0
    for path in files:
        text = path.read_text().replace("\\\n", " ")
        text = text.replace('"${install[@]}"', "pip install --no-deps")  # scripts/venv.sh
        for line in re.findall(r"pip install(?!ing).*[^)\n]$", text, re.MULTILINE):
            found += 1
            assert "--no-deps" in line, f"{path.name}: {line}"
            # The project itself has no hash, and nothing is fetched to build it.
            own = "--no-index" in line or line.rstrip().endswith(".whl")
            assert "--require-hashes" in line or own, f"{path.name}: {line}"
    assert found >= 5


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where no package index answers."""
    lock = tmp_path_factory.mktemp("index") / "requirements.lock"
    pin = pinned(locks.RUN_TIME)["six"]
    lock.write_text(f"six=={pin.version} {' '.join(f'--hash={each}' for each in pin.hashes)}\n")
    if platforms.missing(lock, locks.PYTHONS[0], "x86_64"):
        unavailable("no package index answers here")


@pytest.mark.parametrize("machine", locks.MACHINES)
def test_the_image_can_be_made_for_every_machine(machine: str, index: None) -> None:
    """For each there is a wheel of each package, with a hash that the lock has: nothing has to be built."""
    (python,) = re.findall(r"^ARG BASE=python:(\d+\.\d+)", DOCKERFILE.read_text(), re.MULTILINE)
    assert platforms.missing(locks.RUN_TIME, python, locks.MACHINES[machine]) == ""
