"""A long JSON text in parts: the same as in one piece, wherever it is cut."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator import parts
from registrator.parts import in_parts

# Texts that look like the end of a member.
TEXTS = st.text(max_size=5) | st.sampled_from(
    [',"', '","', "},{", '},{"I', "]", "}", "\\", '\\"', "a,", "1,"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(TEXTS, inner, max_size=8),
    max_leaves=60,
)


def whole(steps: Generator[None, None, Any]) -> Any:
    """What a generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def compact(document: object) -> str:
    """As an engine writes it."""
    return json.dumps(document, separators=(",", ":"))


@pytest.mark.parametrize("part", [1, 6, 30])
@given(
    document=JSON, written=st.sampled_from([compact, json.dumps, lambda d: f" {json.dumps(d, indent=1)}\n"])
)
def test_a_document_in_parts_is_the_document(
    part: int, document: Any, written: Callable[[object], str]
) -> None:
    """Whatever its texts hold, wherever it is cut."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("STEP", 2), ("PART", part)):
            patch.setattr(parts, name, value)
        assert whole(in_parts(written(document))) == document


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"a"',
        '{"a":',
        '{"a":1',
        '{"a":1,',
        '{"a":1,}',
        "{1:2}",
        "[1",
        "[1,",
        "[1 2]",
        "{} {}",
        "[" * 9999,
    ],
)
@pytest.mark.parametrize("part", [1, 6, 30])
def test_what_is_no_document_in_parts_is_an_error(
    monkeypatch: pytest.MonkeyPatch, text: str, part: int
) -> None:
    monkeypatch.setattr(parts, "PART", part)
    with pytest.raises((ValueError, RecursionError)):
        whole(in_parts(text))


def test_it_is_cut_wherever_it_is_long() -> None:
    """No part has more than some thousand characters."""
    documents: list[object] = [
        {"a": {"b": {str(n): {} for n in range(50_000)}}},
        [[{"n": n} for n in range(50_000)]],
    ]
    for document in documents:
        assert sum(1 for _ in in_parts(compact(document))) > len(compact(document)) / (3 * parts.PART)
