"""The overview: which status an instance counts with."""

from __future__ import annotations

import pytest

from registrator.commands.overview import status_of

ROWS: list[tuple[str, list[str], str]] = [
    ("without checks it is passing", [], "passing"),
    ("one warning outweighs what passes", ["passing", "warning"], "warning"),
    ("one critical outweighs all", ["warning", "critical", "passing"], "critical"),
    ("a word that Consul does not have is critical", ["maintenance"], "critical"),
]


@pytest.mark.parametrize(("told", "status"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_the_status_of_an_instance(told: list[str], status: str) -> None:
    assert status_of([{"Status": one} for one in told]) == status
