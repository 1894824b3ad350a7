"""Whatever JSON may hold -> the type that is meant, or its empty value: pure, and forgiving.

An engine says null for an empty map, and versions differ in what they leave
out, so whatever is missing or odd counts as absent. Only a document that does
not say what it is about is `Malformed`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

PROTOCOLS = frozenset(("tcp", "udp", "sctp"))


class Malformed(ValueError):
    """A document that no Docker engine writes; `str()` says what is wrong with it."""


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


def as_protocol(text: str) -> str:
    """A port's protocol, tcp where none is written, or "" for what is none.

    An engine takes whatever an image of somebody's own making says ("80/../x"), and it becomes part of an id.
    """
    protocol = text.lower() or "tcp"
    return protocol if protocol in PROTOCOLS else ""


def as_address(value: object) -> str:
    """An IP address in canonical form, or "" for what is none."""
    return _canonical(as_text(value))


@lru_cache(1024)  # the same few come again and again: "::", "0.0.0.0", the containers' own
def _canonical(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
