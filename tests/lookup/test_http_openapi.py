"""The API against its own document: schemathesis asks a running front what that allows, and more."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from registrator.lookup import consul_api
from registrator.model import CRITICAL
from tests.lookup.fakes import entry, snapshot_of
from tests.page.served import served

SNAPSHOT = snapshot_of(entry("redis", 1, tags=("a",)), entry("redis", 2, status=CRITICAL), entry("web"))
BUDGET = 15 if os.environ.get("CI") else 6  # seconds of questions, some dozens in each
ENOUGH = 60  # about two for each path
# These are not asked: a stream has no end, and 404 and 503 answer what is well-formed.
LEFT_OUT = ["--exclude-path", "/events", "--exclude-checks", "positive_data_acceptance"]


def test_schemathesis_finds_no_answer_that_the_document_does_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consul_api, "DEFAULT_WAIT", 0.02)
    monkeypatch.setattr(consul_api, "MAX_WAIT", 0.02)
    with served(SNAPSHOT, shop="id1") as front:
        asked = questions(front.url, tmp_path, BUDGET)
        if asked <= ENOUGH:  # a busy machine asks slowly
            asked = questions(front.url, tmp_path, 3 * BUDGET)
    assert asked > ENOUGH


def questions(url: str, folder: Path, seconds: int) -> int:
    """Have schemathesis ask for so long: how many questions it asked, which were all answered as told."""
    options = [
        "--max-time",
        str(seconds),
        "--phases",
        "examples,coverage,fuzzing",
        "--checks",
        "all",
        *LEFT_OUT,
    ]
    options += ["--max-examples", "20", "--seed", "1", "--no-color", "--request-timeout", "5"]
    run = subprocess.run(
        [Path(sys.executable).with_name("schemathesis"), "run", f"{url}/openapi.json", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6000:]
    asked = re.search(r"(\d+) generated, (\d+) passed", run.stdout)
    assert asked, run.stdout[-2000:]
    assert asked[1] == asked[2]
    return int(asked[1])
