"""Checks against real servers: both catalogs come to the same status, as Consul's checks do."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from registrator.model import CRITICAL, PASSING, WARNING, Check
from registrator.settings import join_host_port
from tests.catalog.servers import answer, serving
from tests.contract.build import Catalog, has_status, instance, shown, status

INTERVAL = 1.0  # seconds: Consul's least


@pytest.fixture
async def server() -> AsyncIterator[str]:
    """Answers /<number> with that HTTP status, and /slow never."""
    async with serving(answer) as url:
        yield url


@pytest.fixture
def refusing() -> Iterator[str]:
    """A "host:port" at which nobody listens: it is held, not listened on, so that nobody else takes it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield join_host_port(*held.getsockname())


def http(target: str, initial: str = CRITICAL) -> Check:
    return Check("", "http", "http", target, interval=INTERVAL, timeout=0.3, status=initial)


def tcp(target: str, initial: str = CRITICAL) -> Check:
    return Check("", "tcp", "tcp", target, interval=INTERVAL, timeout=0.3, status=initial)


async def test_what_probes_find(catalog: Catalog, name: str, owner: str, server: str, refusing: str) -> None:
    """One row for each outcome: the check starts with another status and comes to this one."""
    address = server.removeprefix("http://")
    rows = [
        # what                                        the check                              its status
        ("200 is passing",                            http(f"{server}/200"),                 PASSING),
        ("any 2xx is passing",                        http(f"{server}/204"),                 PASSING),
        ("429 is warning",                            http(f"{server}/429"),                 WARNING),
        ("404 is critical",                           http(f"{server}/404", PASSING),        CRITICAL),
        ("500 is critical",                           http(f"{server}/500", PASSING),        CRITICAL),
        ("a server that does not answer is critical", http(f"{server}/slow", PASSING),       CRITICAL),
        ("a refused connection is critical",          http(f"http://{refusing}/", PASSING),  CRITICAL),
        ("a TCP port that accepts is passing",        tcp(address),                          PASSING),
        ("a TCP port that refuses is critical",       tcp(refusing, PASSING),                CRITICAL),
    ]  # fmt: skip
    for number, (_, check, _) in enumerate(rows):
        service = instance(f"{name}-{number}", owner=owner)
        await catalog.register(replace(service, checks=(replace(check, id=f"{service.id}:check"),)))

    async def come_to(number: int, what: str, wanted: str) -> None:
        try:
            await shown(catalog, f"{name}-{number}", has_status(wanted))
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}") from None

    await asyncio.gather(*(come_to(number, what, wanted) for number, (what, _, wanted) in enumerate(rows)))


async def test_ipv6_targets(catalog: Catalog, name: str, owner: str) -> None:
    """Targets of both kinds may be IPv6 addresses, in brackets."""
    async with serving(answer, "::1") as url:
        checks = (
            replace(http(f"{url}/200"), id=f"{name}:1:http"),
            replace(tcp(url.removeprefix("http://")), id=f"{name}:1:tcp"),
        )
        await catalog.register(replace(instance(name, owner=owner), checks=checks))
        await shown(catalog, name, has_status(PASSING))


@pytest.mark.parametrize("initial", [PASSING, WARNING, CRITICAL])
async def test_a_check_has_its_initial_status_first(
    catalog: Catalog, name: str, owner: str, initial: str
) -> None:
    """Until the first result, the definition's status holds."""
    check = Check(f"{name}:1:app", "app", "ttl", ttl=600, status=initial)
    await catalog.register(replace(instance(name, owner=owner), checks=(check,)))
    assert status(await shown(catalog, name)) == initial


async def test_an_instance_without_checks_is_passing(catalog: Catalog, name: str, owner: str) -> None:
    """Only the node's own check is there."""
    await catalog.register(instance(name, owner=owner))
    service = await shown(catalog, name)
    assert status(service) == PASSING
    assert [c.service_id for c in service.entries[0].checks] == [""]


async def test_replaced_checks_are_gone(catalog: Catalog, name: str, owner: str) -> None:
    """Registered again with other checks, an instance has those and no others."""
    bare = instance(name, owner=owner)
    old = tuple(Check(f"{name}:1:{n}", f"check {n}", "ttl", ttl=600, status=CRITICAL) for n in (1, 2))
    new = Check(f"{name}:1:3", "check 3", "ttl", ttl=600, status=PASSING)
    await catalog.register(replace(bare, checks=old))
    assert status(await shown(catalog, name)) == CRITICAL
    await catalog.register(replace(bare, checks=(new,)))
    service = await shown(catalog, name, has_status(PASSING))
    assert [c.id for c in service.entries[0].checks if c.service_id] == [new.id]


async def test_a_ttl_that_is_over_is_critical(catalog: Catalog, name: str, owner: str) -> None:
    """A check that nobody refreshes within its TTL falls to critical by itself."""
    check = Check(f"{name}:1:app", "app", "ttl", ttl=0.3, status=PASSING)
    await catalog.register(replace(instance(name, owner=owner), checks=(check,)))
    await shown(catalog, name, has_status(CRITICAL))


async def test_a_check_is_shown_with_its_kind_and_service(catalog: Catalog, name: str, owner: str) -> None:
    """Readers see which service a check belongs to, what kind it is and what it is called."""
    check = Check(f"{name}:1:app", "app is fine", "ttl", ttl=600, status=PASSING)
    await catalog.register(replace(instance(name, owner=owner), checks=(check,)))
    (result,) = [c for c in (await shown(catalog, name)).entries[0].checks if c.service_id]
    assert (result.id, result.name, result.kind) == (check.id, "app is fine", "ttl")
    assert (result.service_id, result.service) == (f"{name}:1", name)
