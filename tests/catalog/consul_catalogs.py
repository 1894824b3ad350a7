"""What the tests of the Consul catalog share: running one, and looking at what it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

from registrator.catalog import CatalogError
from registrator.catalog.consul import ConsulCatalog
from registrator.settings import ConsulAddress
from registrator.stats import Stats


@asynccontextmanager
async def running(
    address: ConsulAddress | str, *, within: float = 5.0, max_stale: float = 0.0
) -> AsyncIterator[ConsulCatalog]:
    """A catalog that is open and runs, with its first snapshot there if Consul gives one `within` seconds."""
    address = ConsulAddress(address) if isinstance(address, str) else address
    async with ConsulCatalog(address, Stats(), max_stale) as catalog:
        run = asyncio.create_task(catalog.run())
        try:
            with suppress(CatalogError):
                await catalog.wait(None, 0, within)
            yield catalog
        finally:
            run.cancel()
            with suppress(asyncio.CancelledError):
                await run


class Disturbed:
    """Collects a catalog's disturbances while it is entered."""

    def __init__(self, catalog: ConsulCatalog) -> None:
        self._catalog = catalog
        self.reasons: list[str] = []

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._collect())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _collect(self) -> None:
        async for reason in self._catalog.disturbances():
            self.reasons.append(reason)


async def eventually(condition: Callable[[], object], within: float = 5.0) -> None:
    """Return as soon as `condition()` is true; fail after `within` seconds."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


def connections_to(port: int) -> int:
    """How many TCP connections to a port on 127.0.0.1 are open or half closed, from the client's side."""
    wanted = f"0100007F:{port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(1 for fields in lines if fields[2] == wanted and fields[3] in _OPEN)


_OPEN = ("01", "08")  # ESTABLISHED and CLOSE_WAIT, in the kernel's numbers
