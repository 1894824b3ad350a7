"""Whatever JSON may hold -> the type that is meant, or its empty value: pure, and forgiving.

An engine says null for an empty map, versions differ in what they leave out,
and whoever may write one service at Consul may write anything into it: so
whatever is missing or odd counts as absent. Only an element that does not say
what it is about is `Malformed`. Nothing here raises anything else, and no text
that leaves it has half of a surrogate pair, which could not be encoded.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

PROTOCOLS = frozenset(("tcp", "udp", "sctp"))
_SURROGATES = re.compile("[\ud800-\udfff]")
_MAX_ADDRESS = 64  # characters; a scope's name is the only part of an address without a length of its own


class Malformed(ValueError):
    """A document, or an element of one, that cannot be used; `str()` says what is wrong with it."""


def as_mapping(value: object) -> Mapping[str, Any]:
    """A JSON object, or an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """A JSON array, or an empty one."""
    return value if isinstance(value, list) else []


def as_text(value: object) -> str:
    """A string, or ""; what cannot be encoded in it becomes U+FFFD, as Go writes it."""
    if not isinstance(value, str):
        return ""
    return value if value.isascii() else _SURROGATES.sub("\ufffd", value)


def as_texts(value: object) -> dict[str, str]:
    """The members of an object that are strings."""
    texts = {key: content for key, content in as_mapping(value).items() if isinstance(content, str)}
    if all(map(str.isascii, texts)) and all(map(str.isascii, texts.values())):
        return texts
    return {as_text(key): as_text(content) for key, content in texts.items()}


def as_text_list(value: object) -> tuple[str, ...]:
    """The elements of an array that are strings."""
    if not isinstance(value, list):
        return ()
    texts = [element for element in value if isinstance(element, str)]
    return tuple(texts if all(map(str.isascii, texts)) else map(as_text, texts))


def as_integer(value: object) -> int | None:
    """A whole number of at most 64 bits, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


def as_port(text: str) -> int:
    """1 to 65535, or 0 for what is no port."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    return number if number <= 65535 else 0


def as_port_number(value: object) -> int:
    """A number from 1 to 65535, or 0 for anything else."""
    number = as_integer(value) or 0
    return number if 0 < number <= 65535 else 0


def as_protocol(text: str) -> str:
    """A port's protocol, tcp where none is written, or "" for what is none.

    An engine takes whatever an image of somebody's own making says ("80/../x"), and it becomes part of an id.
    """
    protocol = text.lower() or "tcp"
    return protocol if protocol in PROTOCOLS else ""


def as_address(value: object) -> str:
    """An IP address in canonical form, or "" for what is none."""
    text = as_text(value)
    return _canonical(text) if len(text) <= _MAX_ADDRESS else ""


@lru_cache(1024)  # the same few come again and again: "::", "0.0.0.0", the containers' own
def _canonical(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
