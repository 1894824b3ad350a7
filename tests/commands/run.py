"""The command line as a process of its own, without the settings of whoever runs the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

LONGEST = 60  # seconds; every command here ends by itself

REGISTRATOR = (sys.executable, "-m", "registrator")


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment without what would be read as options."""
    theirs = ("REGISTRATOR_", "CONSUL_", "DOCKER_", "_REGISTRATOR_", "NO_COLOR")
    return {k: v for k, v in os.environ.items() if not k.startswith(theirs)} | dict(more or {})


def run(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `registrator ARGUMENTS` to its end."""
    command = [*REGISTRATOR, *arguments]
    return subprocess.run(
        command, env=environment(env), capture_output=True, text=True, timeout=LONGEST, check=False
    )


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that failed."""
    (line,) = result.stderr.splitlines()
    assert line.startswith("registrator: ")
    return line.removeprefix("registrator: ")
