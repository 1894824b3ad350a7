"""What the demo's scripts share: steps that are said and timed, commands whose failure is one line."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "registrator"


class DemoError(Exception):
    """The demo cannot go on: one line that says what, where and what to do."""


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say on standard error what is being done and, at its end, how many seconds it took."""
    started = time.monotonic()
    print(f"{text} ... ", end="", file=sys.stderr, flush=True)
    try:
        yield
    except BaseException:
        print("failed", file=sys.stderr, flush=True)
        raise
    print(f"{time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)


def run(*command: str, env: Mapping[str, str] | None = None) -> str:
    """Run a command and return its standard output, stripped.

    When it fails, the last lines that it printed are shown and DemoError is
    raised with the command.
    """
    result = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        tail = "\n".join((result.stdout + result.stderr).splitlines()[-15:])
        print(f"\n{tail}", file=sys.stderr, flush=True)
        raise DemoError(f"{' '.join(command[:4])} ... failed with {result.returncode}; see above")
    return result.stdout.strip()


def ask(script: str, *arguments: str) -> str:
    """Run one of this checkout's scripts, which says its own steps, and return what it prints.

    Raises DemoError when it fails; it has said why.
    """
    result = subprocess.run(
        (str(ROOT / script), *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if result.returncode:
        raise DemoError(f"{script} failed; see above")
    return result.stdout.strip()
