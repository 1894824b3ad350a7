"""What may stand in a JSON document where something else is meant, at every place of a real one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

# As JSON text, for some of it cannot be written by `json.dumps`.
VALUES = [
    "null",
    "true",
    "7",
    "-1",
    "1e999",
    "NaN",
    "1" * 400,
    "1" * 5000,
    '""',
    '"x"',
    r'"\ud800"',
    r'"\u001b[31m\u2028"',
    "[]",
    "[null]",
    "[7]",
    "{}",
    '{"a": null}',
    '{"a": 1, "a": [2]}',
    "[" * 1200 + "]" * 1200,
    '{"a":' * 1200 + "1" + "}" * 1200,
]

HOLE = "\x00hole\x00"

json_values = st.recursive(
    st.sampled_from([None, True, False, 0, -1, 2**63, 0.5, "", "x", "\x1b", "é" * 3])
    | st.integers()
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def with_holes(document: Any) -> Iterator[Any]:
    """The document with a hole at each of its places, one at a time, the whole of it first."""
    yield HOLE
    if isinstance(document, dict):
        for key, value in document.items():
            for holed in with_holes(value):
                yield {**document, key: holed}
    elif isinstance(document, list):
        for number, value in enumerate(document):
            for holed in with_holes(value):
                yield [*document[:number], holed, *document[number + 1 :]]


def spoilt(document: Any) -> Iterator[str]:
    """The document's text with each of `VALUES` at each of its places."""
    for holed in with_holes(document):
        text = json.dumps(holed)
        for value in VALUES:
            yield text.replace(json.dumps(HOLE), value)
