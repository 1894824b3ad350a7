"""Whatever JSON may hold -> the type that is meant, or its empty value: pure, and forgiving.

An engine says null for an empty map, and versions differ in what they leave
out, so whatever is missing or odd counts as absent. Only a document that does
not say what it is about is `Malformed`.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

_LIST_START = re.compile(r"\s*\[\s*")
_LIST_NEXT = re.compile(r"\s*([,\]])\s*")


class Malformed(ValueError):
    """A document that no Docker engine writes; `str()` says what is wrong with it."""


def iterate_list(text: str) -> Iterator[Any]:
    """Decode a JSON array element by element, so that a long one can be taken in slices.

    Raises `Malformed` where it is none.
    """
    decode = json.JSONDecoder().raw_decode
    start = _LIST_START.match(text)
    if not start:
        raise Malformed("no JSON array")
    position = start.end()
    closed = text.startswith("]", position)
    while not closed:
        try:
            element, position = decode(text, position)
        except (ValueError, RecursionError):
            raise Malformed("broken JSON in a list") from None
        yield element
        separator = _LIST_NEXT.match(text, position)
        if not separator:
            raise Malformed("a JSON array without an end")
        position, closed = separator.end(), separator[1] == "]"


def as_mapping(value: object) -> Mapping[str, Any]:
    """A JSON object, or an empty one."""
    return value if isinstance(value, Mapping) else {}


def as_list(value: object) -> list[Any]:
    """A JSON array, or an empty one."""
    return value if isinstance(value, list) else []


def as_text(value: object) -> str:
    """A string, or ""."""
    return value if isinstance(value, str) else ""


def as_texts(value: object) -> dict[str, str]:
    """The members of an object that are strings."""
    return {key: content for key, content in as_mapping(value).items() if isinstance(content, str)}


def as_integer(value: object) -> int | None:
    """A whole number of at most 64 bits, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


def as_port(text: str) -> int:
    """1 to 65535, or 0 for what is no port."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    return number if number <= 65535 else 0


def as_address(value: object) -> str:
    """An IP address in canonical form, or "" for what is none."""
    return _canonical(as_text(value))


@lru_cache(1024)  # the same few come again and again: "::", "0.0.0.0", the containers' own
def _canonical(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
