"""The edge to Consul's documents: whatever they hold, it becomes the model's words or a `CatalogError`.

A document is taken apart as it comes in (`documents.Elements`), in slices of
work between which the loop has its turn. An element that cannot be used is
left out, counted and logged once; the others are used.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import aclosing, contextmanager
from time import perf_counter
from typing import Any, TypeVar

from registrator.catalog import CatalogError
from registrator.catalog.consul import errors
from registrator.catalog.consul.http import BODY_TIMEOUT, REQUEST_TIMEOUT, Reply
from registrator.catalog.consul.slices import SLICE
from registrator.documents import Element, Elements, Kind, Unusable
from registrator.limits import CONSUL_DOCUMENT, CONSUL_ELEMENT
from registrator.settings import ConsulAddress
from registrator.shapes import Malformed
from registrator.spoilt import Spoilt
from registrator.stats import Stats

log = logging.getLogger(__name__)

T = TypeVar("T")


class Reader:
    """Reads documents of the Consul at `address`."""

    def __init__(self, address: ConsulAddress, stats: Stats) -> None:
        self._address = address
        self._stats = stats
        self._spoilt = Spoilt("consul", stats, log)

    async def read(
        self,
        path: str,
        reply: Reply,
        kind: Kind,
        convert: Callable[[Element], T],
        inside: Collection[str] = (),
    ) -> tuple[list[T], str]:
        """The elements of a reply, translated, and what the first one was that had to be left out, and why.

        `convert` may raise `Malformed` for one that cannot be used. The
        elements of the members named in `inside` come one by one. Raises
        `CatalogError` for a document that breaks off or is none.
        """
        read = _Reading(convert, self._spoilt)
        elements = Elements(kind, CONSUL_ELEMENT.value, CONSUL_DOCUMENT.value, inside)
        with self.understanding(path):
            async with asyncio.timeout(REQUEST_TIMEOUT) as limit, aclosing(reply.pieces()) as pieces:
                await _take_in(pieces, elements, read, limit)
        self._spoilt.left_out(f"GET /v1/{path} at Consul at {self._address}", read.left_out, read.first)
        return read.converted, read.first

    @contextmanager
    def understanding(self, path: str) -> Iterator[None]:
        """Turn whatever is raised over a document into the `CatalogError` that says so."""
        request = f"GET /v1/{path}"
        try:
            yield
        except CatalogError:
            raise
        except Malformed as error:
            self._stats.malformed["consul"] += 1
            raise errors.from_nonsense(self._address, request, str(error)) from error
        except Exception as error:  # what is outside never ends the agent
            raise errors.from_exception(self._address, request, BODY_TIMEOUT, error) from error


class _Reading:
    """What was read of one document so far."""

    def __init__(self, convert: Callable[[Element], Any], spoilt: Spoilt) -> None:
        self._convert = convert
        self._spoilt = spoilt
        self.converted: list[Any] = []
        self.left_out = 0
        self.first = ""

    def take(self, element: Element) -> None:
        """Translate one more; one that cannot be used may have a key that can."""
        value = element.value
        why = value.why if isinstance(value, Unusable) else ""
        try:
            self.converted.append(self._convert(element))
        except Malformed as error:
            why = why or str(error)
        except Exception as error:  # noqa: BLE001 - one bad element spoils itself
            why = why or f"cannot be used ({type(error).__name__})"
        if why:
            self._spoilt.count(CONSUL_ELEMENT.name if isinstance(value, Unusable) and value.too_long else "")
            self.first = (
                self.first or f"{element.key or f'number {len(self.converted) + self.left_out}'} {why}"
            )
            self.left_out += 1


async def _take_in(
    pieces: AsyncIterator[bytes], elements: Elements, read: _Reading, limit: asyncio.Timeout
) -> None:
    """Read all of a document; other tasks run at least every 0.5 ms or so."""
    now = asyncio.get_running_loop().time
    end = now() + BODY_TIMEOUT
    slice_ends = perf_counter() + SLICE
    async for octets in pieces:
        for element in elements.feed(octets):
            if element is not None:
                read.take(element)
            if perf_counter() > slice_ends:
                await asyncio.sleep(0)
                slice_ends = perf_counter() + SLICE
        limit.reschedule(min(end, now() + REQUEST_TIMEOUT))
    for element in elements.finish():
        if element is not None:
            read.take(element)
