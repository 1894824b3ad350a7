"""Builders of instances and the waiting that all contract tests share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from registrator.catalog import Directory, Registry
from registrator.model import META_OWNER, Check, Health, Instance, Service, health_check_id


class Catalog(Registry, Directory, Protocol):
    """Both sides of a catalog."""


def instance(service: str, number: int = 1, *, owner: str, health: Health | None = None) -> Instance:
    """An instance of a service as the bridge would make it; with health it has the agent's TTL check."""
    return Instance(
        id=f"{service}:{number}",
        service=service,
        address=f"10.0.0.{number}",
        port=8000 + number,
        tags=("blue", "v1"),
        meta={META_OWNER: owner},
        health=health,
        checks=(health_check(f"{service}:{number}"),) if health else (),
    )


def health_check(instance_id: str) -> Check:
    return Check(health_check_id(instance_id), "Docker health", "ttl", ttl=600.0)


async def shown(
    catalog: Catalog, name: str, condition: Callable[[Service], bool] = bool, within: float = 5.0
) -> Service:
    """The service as lookups see it, as soon as the condition holds; fails after `within` seconds."""
    service: Service | None = None
    try:
        async with asyncio.timeout(within):
            while True:
                snapshot = catalog.snapshot
                if snapshot and name in snapshot.names:
                    service = (await catalog.load(name)).services.get(name)
                    if service and condition(service):
                        return service
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"{name} is still {service}") from None


async def gone(catalog: Catalog, name: str, within: float = 5.0) -> None:
    """Return when lookups do not know the service any more."""
    async with asyncio.timeout(within):
        while (snapshot := catalog.snapshot) is None or name in snapshot.names:
            await asyncio.sleep(0.005)


def ids(service: Service) -> set[str]:
    return {entry.instance.id for entry in service.entries}


def status(service: Service) -> str:
    """The status of a service's only instance."""
    (entry,) = service.entries
    return entry.status


def has_ids(*wanted: str) -> Callable[[Service], bool]:
    return lambda service: ids(service) == set(wanted)


def has_count(wanted: int) -> Callable[[Service], bool]:
    return lambda service: len(service.entries) == wanted


def has_status(wanted: str) -> Callable[[Service], bool]:
    return lambda service: status(service) == wanted
