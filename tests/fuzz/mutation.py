"""Other inputs made of a target's sound ones: pieces put together, repeated, cut and exchanged."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from tests.fuzz.targets import Target

TELLING = (0, 1, 9, 10, 13, 34, 44, 46, 58, 61, 91, 92, 123, 127, 128, 192, 255)  # octets that mean something
ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 5, 10**30, 1e300, "", "x", "\x1b[31m\n", "\ud800", [], {}, [None], {"": None}, [[]]),
    *("x" * 3000, ["x"] * 500, {str(n): n for n in range(300)}),
)


def mutated(target: Target, data: bytes, rng: Random) -> bytes:
    """The input with one to six changes, no longer than the target's inputs get."""
    if target.document and rng.random() < 0.7:
        return _exchanged(data, rng)[: target.longest]
    pieces = (*target.words, target.plain, *target.seeds)
    for _ in range(1 + int(rng.random() ** 2 * 6)):
        data = _changed(data, rng.choice(pieces), rng)[: target.longest]
    return data


def _changed(data: bytes, piece: bytes, rng: Random) -> bytes:
    at = int(rng.random() * (len(data) + 1))
    end = min(len(data), at + int(rng.random() ** 3 * 60))
    many = int(2 ** (rng.random() * 10))
    middle, rest = rng.choice(
        (
            (piece, data[at:]),
            (b"", data[end:]),
            (bytes([rng.choice(TELLING)]), data[at + 1 :]),
            (data[at:end] * many, data[end:]),
            (piece * many, data[at:]),
            (piece[int(rng.random() * len(piece)) :], b""),
            (rng.randbytes(int(rng.random() * 8)), data[end:]),
        )
    )
    return data[:at] + middle + rest


def _exchanged(data: bytes, rng: Random) -> bytes:
    """A JSON document with one of its values exchanged for an odd one, or nested."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return data[: int(rng.random() * (len(data) + 1))]
    places: list[tuple[Any, Any]] = []
    if isinstance(document, dict | list):
        _collect(document, places)
    odd = rng.choice(ODD)
    if rng.random() < 0.1:
        for _ in range(int(2 ** (rng.random() * 9))):
            odd = [odd] if rng.random() < 0.5 else {"a": odd}
    if not places or rng.random() < 0.05:
        return json.dumps(odd).encode()
    holder, key = rng.choice(places)
    holder[key] = odd
    return json.dumps(document).encode()


def _collect(value: Any, places: list[tuple[Any, Any]]) -> None:
    """All places in a document, of which one can be exchanged; deep ones are left alone."""
    waiting = [value]
    while waiting and len(places) < 1000:
        holder = waiting.pop()
        items = holder.items() if isinstance(holder, dict) else enumerate(holder)
        for key, element in items:
            places.append((holder, key))
            if isinstance(element, dict | list):
                waiting.append(element)
