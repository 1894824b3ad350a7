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
BUDGET = 15 if os.environ.get("CI") else 6  # seconds of questions, about a hundred in each
# These are not asked: a stream has no end, and 404 and 503 answer what is well-formed.
LEFT_OUT = ["--exclude-path", "/events", "--exclude-checks", "positive_data_acceptance"]


def test_schemathesis_finds_no_answer_that_the_document_does_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consul_api, "DEFAULT_WAIT", 0.02)
    monkeypatch.setattr(consul_api, "MAX_WAIT", 0.02)
    with served(SNAPSHOT, shop="id1") as front:
        run = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"),
                "run",
                f"{front.url}/openapi.json",
                *(
                    "--max-time",
                    str(BUDGET),
                    "--phases",
                    "examples,coverage,fuzzing",
                    "--checks",
                    "all",
                    *LEFT_OUT,
                ),
                *("--max-examples", "20", "--seed", "1", "--no-color", "--request-timeout", "5"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert run.returncode == 0, run.stdout[-6000:]
    asked = re.search(r"(\d+) generated, (\d+) passed", run.stdout)
    assert asked, run.stdout[-2000:]
    assert int(asked[1]) == int(asked[2]) > 20 * BUDGET
