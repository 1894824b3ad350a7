"""The only wiring: builds the rooms, runs them together, stops them within two seconds.

engine -> SwarmSource -> Reconciler -> Registry  ]
               ^-----------------------Bulletin  ] one catalog, embedded or Consul
                                       Directory ] -> Resolver -> DNS
                                                   -> HttpFront -> HTTP
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Protocol

from registrator import __version__
from registrator.bridge.addresses import Host
from registrator.bridge.reconcile import Reconciler
from registrator.bridge.swarm import SwarmSource
from registrator.catalog import Bulletin, Directory, Registry
from registrator.catalog.embedded import EmbeddedCatalog
from registrator.descriptors import Allowance, allowance, raise_limit
from registrator.engine import DockerEngine
from registrator.host import Identity, node
from registrator.journal import Journal
from registrator.lag import sample_lag
from registrator.logs import count_lines
from registrator.lookup.acceptor import Shortage
from registrator.lookup.ask import Ttls, Zone
from registrator.lookup.fronts import DNS_PORT, Fronts
from registrator.lookup.http import HttpFront
from registrator.lookup.resolver import Resolver
from registrator.loop import measured_loop
from registrator.model import Engine, Failure
from registrator.settings import Listen, Settings
from registrator.stats import Stats

log = logging.getLogger(__name__)

WITHDRAWAL = 1.5  # seconds that a farewell may take
LOADED_FIRST = 64  # services, before an agent takes over from another
START = 5.0  # seconds without garbage collection


class Catalog(Registry, Bulletin, Directory, AbstractAsyncContextManager["Catalog"], Protocol):
    """All sides of a catalog, open while it is entered."""


def start(settings: Settings) -> None:
    """Run the agent on a loop of its own; see `run`."""
    stats = Stats()
    allowed = allowance(raise_limit())
    with asyncio.Runner(loop_factory=partial(measured_loop, stats)) as runner:
        runner.run(run(settings, stats, allowed))


async def run(settings: Settings, stats: Stats, allowed: Allowance) -> None:
    """Run the agent until SIGTERM or SIGINT.

    Raises `Failure` or `SettingError` for what makes a start pointless (an
    address that cannot be bound); what may come back is waited for instead.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.call_later(START, _collect_from_now_on)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    journal = Journal()
    count_lines(stats.logged)
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(DockerEngine(settings.docker, stats=stats))
        catalog = await stack.enter_async_context(_catalog(settings, stats))
        identity = Identity(settings)
        swarm = SwarmSource(engine, catalog, settings.resync)
        reconciler = Reconciler(
            swarm,
            catalog,
            lambda: _identify(engine, catalog, identity),
            settings.policy,
            stats,
            settings.resync,
            journal,
        )
        resolver = _resolver(stack, settings, catalog, reconciler, identity, stats, allowed)
        fronts = _fronts(settings, resolver, catalog, reconciler, stats, journal, allowed)
        stack.push_async_callback(fronts.close)
        await fronts.start()
        log.info("registrator %s: %s", __version__, _what(settings))
        work = catalog.run(), reconciler.run(), swarm.run(reconciler.look_at), sample_lag(stats.loop_lag)
        known = partial(_load_services, catalog)
        serving = fronts.run(lambda: stats.ready and catalog.snapshot is not None, known)
        succeeded = await _until(_leave(fronts, stop, settings.linger), *work, serving)
        if settings.deregister_on_exit and not succeeded:
            await _withdraw(reconciler)
    log.info("stopped")


def _collect_from_now_on() -> None:
    """Let the garbage collector work, but not on what the start has made for good.

    A full collection would walk all modules each time: 30 ms in which nothing is answered.
    """
    gc.freeze()
    gc.enable()


def _catalog(settings: Settings, stats: Stats) -> Catalog:
    if settings.consul is None:
        return EmbeddedCatalog(stats)
    from registrator.catalog.consul import ConsulCatalog  # noqa: PLC0415 - its imports cost only who uses it

    return ConsulCatalog(settings.consul, stats, settings.max_stale)


async def _identify(engine: DockerEngine, catalog: Catalog, identity: Identity) -> Host:
    """Ask the engine who it is; the embedded catalog's only node is that one."""
    facts: Engine = await engine.info()
    known = identity.of(facts)
    if isinstance(catalog, EmbeddedCatalog):
        catalog.identify(node(facts, known))
    return known


def _fronts(
    settings: Settings,
    resolver: Resolver,
    catalog: Catalog,
    reconciler: Reconciler,
    stats: Stats,
    journal: Journal,
    allowed: Allowance,
) -> Fronts:
    """What answers from the catalog; nothing of it is open yet."""
    front = HttpFront(
        catalog,
        stats=stats,
        view_of=reconciler.views.of,
        domain=settings.domain,
        containers=reconciler.views,
        journal=journal,
        local=lambda: _local_node(catalog),
        hosts=settings.http_hosts,
    )
    return Fronts(
        resolver,
        front,
        dns=settings.dns,
        link_local=settings.dns_link_local,
        http=settings.http,
        rate_limit=settings.dns_answers.rate_limit,
        share=settings.reuse_port,
        allowance=allowed,
        shortage=Shortage(stats),
    )


async def _local_node(catalog: Catalog) -> str:
    """The name of the Consul agent's own node; "" with the embedded catalog, which has no other node."""
    if isinstance(catalog, EmbeddedCatalog):
        return ""
    from registrator.catalog.consul import ConsulCatalog  # noqa: PLC0415 - see `_catalog`

    return (await catalog.node()).name if isinstance(catalog, ConsulCatalog) else ""


async def _load_services(catalog: Catalog) -> None:
    """Load some services, all of them where they are few: which are asked for most cannot be known yet."""
    names = list(catalog.snapshot.names)[:LOADED_FIRST] if catalog.snapshot else []
    await asyncio.gather(*map(catalog.load, names), return_exceptions=True)


async def _leave(fronts: Fronts, stop: asyncio.Event, linger: float) -> bool:
    """Return, when told to stop, as soon as that may be; tell whether another agent goes on here."""
    await _told_to_stop(stop, linger)
    return await fronts.retire()


async def _told_to_stop(stop: asyncio.Event, linger: float) -> None:
    """Return `linger` seconds after the first signal, or at the second.

    A Swarm stops all tasks of a node that it drains at once, and their
    instances must still be taken out of lookups.
    """
    await stop.wait()
    if linger:
        log.info("told to stop: going on for %g s; tell again to end that", linger)
        stop.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), linger)


def _resolver(
    stack: AsyncExitStack,
    settings: Settings,
    catalog: Catalog,
    reconciler: Reconciler,
    identity: Identity,
    stats: Stats,
    allowed: Allowance,
) -> Resolver:
    """DNS with the operator's rules. Raises SettingError for a recursor that is this agent itself."""
    rules = settings.dns_answers
    domains = [settings.domain, *([rules.alt_domain] if rules.alt_domain else [])]
    ttls = Ttls(rules.node_ttl, rules.service_ttls)
    make: Callable[..., Resolver] = Resolver
    if rules.recursors or rules.system_recursors:
        from registrator.lookup.recursor_resolver import (  # noqa: PLC0415 - see `_catalog`
            Clients,
            RecursiveResolver,
            make_recursor,
        )

        own = [*settings.dns]
        if settings.dns_link_local:
            own.append(Listen(settings.dns_link_local, DNS_PORT))
        recursor = make_recursor(rules, own, stats, allowed.recursions)
        stack.push_async_callback(recursor.close)
        make = partial(RecursiveResolver, recursor, Clients(rules.recursion_allow))
    return make(
        catalog,
        Zone.named(*domains, ttls=ttls, only_passing=rules.only_passing, bare_names=rules.bare_names),
        view_of=reconciler.views.of,
        stats=stats,
        most=rules.udp_answers,
        near=lambda: identity.owner if rules.near else "",
        newcomers=reconciler.newcomers,
    )


async def _until(end: Coroutine[None, None, bool], *parts: Coroutine[None, None, None]) -> bool:
    """Keep the parts going until `end` returns, what it returns; an end nobody asked for is an error."""
    stopping = asyncio.create_task(end)
    work = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.wait([stopping, *work], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (stopping, *work):
            task.cancel()
        results = await asyncio.gather(stopping, *work, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return stopping.done() and not stopping.cancelled() and stopping.result()


async def _withdraw(reconciler: Reconciler) -> None:
    try:
        async with asyncio.timeout(WITHDRAWAL):
            await reconciler.withdraw()
    except (Failure, TimeoutError) as error:
        log.warning(
            "some services stay in the catalog (%s); they go when an agent of this node runs again", error
        )


def _what(settings: Settings) -> str:
    """What this agent does, for the first line of its log."""
    catalog = f"Consul at {settings.consul}" if settings.consul else "an embedded catalog"
    dns = [str(listen) for listen in settings.dns]
    if settings.dns_link_local:
        dns.append(str(Listen(settings.dns_link_local, DNS_PORT)))
    http = [str(listen) for listen in settings.http]
    fronts = [
        f"{name} {'on ' + ', '.join(on) if on else 'off'}" for name, on in (("DNS", dns), ("HTTP", http))
    ]
    return ", ".join((catalog, *fronts))
