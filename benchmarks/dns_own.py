"""Our DNS front as a process of its own, on an embedded catalog: what benchmarks/dns.py measures.

    python benchmarks/dns_own.py PORT DATA [CHANGES A SECOND]

Ends on SIGTERM and then prints what it counted, as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import resource
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # run as a file, it must find its own package

from registrator.bridge.lanes import Lanes
from registrator.bridge.newcomers import Newcomers
from registrator.bridge.views import Views
from registrator.catalog.embedded import EmbeddedCatalog
from registrator.lookup.ask import Zone
from registrator.lookup.dns import DnsServer
from registrator.lookup.resolver import Resolver
from registrator.loop import measured_loop
from registrator.model import Instance, Node
from registrator.settings import Listen
from registrator.stats import Stats


async def serve(port: int, data: dict[str, list[str]], changes: float, stats: Stats) -> int:
    """Answer until SIGTERM, while `changes` instances a second get another port.

    Returns by how many octets its memory has grown meanwhile.
    """
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with EmbeddedCatalog(stats) as catalog:
        catalog.identify(Node("bench", "127.0.0.1"))
        instances = [Instance(f"{name}:{ip}", name, ip, 80) for name, ips in data.items() for ip in ips]
        for instance in instances:
            await catalog.register(instance)
        catalog.settled()
        views = Views()
        newcomers = Newcomers(views, Lanes(_never), time.monotonic)
        zone = Zone.named("consul")
        resolver = Resolver(catalog, zone, view_of=views.of, stats=stats, newcomers=newcomers)
        server = DnsServer(resolver, [Listen("127.0.0.1", port)], rate_limit=1000)
        await server.start()
        before = _start_over(stats)
        tasks = [
            asyncio.create_task(catalog.run()),
            asyncio.create_task(_change(catalog, instances, changes)),
        ]
        await stop.wait()
        grown = _memory() - before
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.close()
        return grown


async def _never(key: str) -> bool:
    """No container is looked at here."""
    raise AssertionError(key)


def _start_over(stats: Stats) -> int:
    """Count from here on, with a garbage collector as the agent's; return the memory in use, in octets."""
    gc.collect()
    gc.freeze()
    stats.long_turns, stats.longest_turn = 0, 0.0
    return _memory()


def _memory() -> int:
    """What the process has in memory now, in octets (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def _change(catalog: EmbeddedCatalog, instances: list[Instance], changes: float) -> None:
    if not changes:
        return
    for number, instance in enumerate(itertools.cycle(instances[:: max(1, len(instances) // 997)])):
        await catalog.register(replace(instance, port=81 + number % 1000))
        await asyncio.sleep(1 / changes)


def main() -> None:
    """Read the arguments, serve, tell."""
    port, data = int(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    changes = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    stats = Stats()
    began = time.monotonic()
    with asyncio.Runner(loop_factory=lambda: measured_loop(stats)) as runner:
        grown = runner.run(serve(port, data, changes, stats))
    print(
        json.dumps(
            {
                "seconds": round(time.monotonic() - began),
                "queries": sum(stats.dns_queries.values()),
                "long_turns": stats.long_turns,
                "longest_turn_ms": round(stats.longest_turn * 1000, 1),
                "rendered_replies": stats.dns_replies,
                "octets_each": round(stats.dns_reply_octets / max(1, stats.dns_replies)),
                "memory_grown": grown,
            }
        )
    )


if __name__ == "__main__":
    main()
