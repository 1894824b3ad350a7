"""How late the event loop is: a timer, and by how much it missed its time.

A stall of less than `EVERY` may pass between two samples, so the histogram is
a sample of what askers feel; a longer one is always seen.
"""

from __future__ import annotations

import asyncio

from registrator.stats import Histogram

EVERY = 0.25  # seconds


async def sample_lag(lag: Histogram) -> None:
    """Measure until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + EVERY
        await asyncio.sleep(EVERY)
        lag.observe(loop.time() - due)
