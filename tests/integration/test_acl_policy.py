"""The documented ACL policies, word for word, on a Consul that denies what no token allows."""

from __future__ import annotations

import asyncio
import re
import secrets
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from registrator.catalog import CatalogError, Refused
from registrator.catalog.consul import ConsulCatalog
from registrator.model import (
    CRITICAL,
    META_OWNER,
    PASSING,
    Check,
    Health,
    Instance,
    SwarmService,
    health_check_id,
)
from registrator.settings import ConsulAddress
from registrator.stats import Stats
from tests.support.consul import ConsulServer

pytestmark = pytest.mark.consul

POLICY_FILES = Path(__file__).resolve().parents[2] / "compose/policies"
CONSUL = Path(__file__).resolve().parents[2] / "docs" / "consul.md"
POLICIES = re.findall(r"^```hcl\n(.*?)^```$", CONSUL.read_text(), re.MULTILINE | re.DOTALL)
EVERY_NAME, SOME_NAMES = POLICIES  # the least, and the one for names that start with "web"
RULE = re.compile(r"^\w+ \"\w*\" \{\n.*?^\}\n", re.MULTILINE | re.DOTALL)

ROOT_TOKEN = "root-secret"
OWNER = "engine-1"
SOON = 5.0  # seconds in which a lookup must follow a write
LONG = 1.0  # seconds after which what has not come is taken not to come


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulServer]:
    """A Consul with ACLs as in production: everything denied, an agent token, a service of somebody else."""
    tokens = {"master": ROOT_TOKEN, "agent": ROOT_TOKEN}
    acl = {"enabled": True, "default_policy": "deny", "tokens": tokens}
    with ConsulServer(tmp_path_factory.mktemp("acl"), {"acl": acl}, token=ROOT_TOKEN) as server:
        server.put("/v1/agent/service/register", {"ID": "db:1", "Name": "db", "Address": "10.0.0.9"})
        yield server


@asynccontextmanager
async def catalog_of(server: ConsulServer, rules: str) -> AsyncIterator[ConsulCatalog]:
    """The agent's catalog, running, with a token of this policy alone."""
    name = f"registrator-{secrets.token_hex(4)}"
    policy = await asyncio.to_thread(server.put, "/v1/acl/policy", {"Name": name, "Rules": rules})
    token = await asyncio.to_thread(server.put, "/v1/acl/token", {"Policies": [{"ID": policy["ID"]}]})
    address = ConsulAddress(server.url, token=token["SecretID"])
    async with ConsulCatalog(address, Stats()) as catalog:
        running = asyncio.create_task(catalog.run())
        try:
            yield catalog
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


def instance(service: str) -> Instance:
    """An instance with a probe and with health of its own, as the bridge makes them."""
    instance_id = f"{service}:{secrets.token_hex(4)}"
    checks = (
        Check(f"{instance_id}:tcp", "TCP", "tcp", "127.0.0.1:1"),
        Check(health_check_id(instance_id), "Docker health", "ttl", ttl=600.0),
    )
    health, meta = Health(PASSING, "healthy"), {META_OWNER: OWNER}
    return Instance(instance_id, service, "10.0.0.1", 80, meta=meta, checks=checks, health=health)


async def live(catalog: ConsulCatalog, service: str, within: float = SOON) -> None:
    """All that the agent does with a catalog in its life. Raises CatalogError and TimeoutError."""
    mine = instance(service)
    await catalog.register(mine)
    try:
        assert set(await catalog.owned(OWNER)) == {mine.id}
        await catalog.report(mine.id, Health(CRITICAL, "paused"))
        assert (await catalog.owned(OWNER))[mine.id].health == Health(CRITICAL, "paused")
        for name, instance_id in ((service, mine.id), ("db", "db:1")):
            await shown(catalog, name, instance_id, within)
    finally:
        await catalog.deregister(mine.id)
    assert not await catalog.owned(OWNER)


async def shown(catalog: ConsulCatalog, name: str, instance_id: str, within: float) -> None:
    """Return when lookups have the instance with its node; raises TimeoutError."""
    async with asyncio.timeout(within):
        while True:
            with suppress(CatalogError):
                found = (await catalog.load(name)).services.get(name)
                if found and any(entry.instance.id == instance_id for entry in found.entries):
                    return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("rules", "service"), [(EVERY_NAME, "anything"), (SOME_NAMES, "web-front")])
async def test_the_policy_is_enough(guarded: ConsulServer, rules: str, service: str) -> None:
    """Everything that the agent asks of Consul is allowed, and lookups see its own services and others'."""
    async with catalog_of(guarded, rules) as catalog:
        await live(catalog, service)


@pytest.mark.parametrize("role", ["manager", "worker"])
async def test_the_policies_of_the_stack_are_enough(guarded: ConsulServer, role: str) -> None:
    """compose/policies: agents of both kinds live with theirs."""
    async with catalog_of(guarded, (POLICY_FILES / f"registrator-{role}.hcl").read_text()) as catalog:
        await live(catalog, "anything")


async def told() -> list[SwarmService]:
    """What a manager knows of its Swarm."""
    return [SwarmService("service1", "web")]


async def test_only_a_managers_token_publishes_facts_of_the_swarm(guarded: ConsulServer) -> None:
    """Neither a worker's, which reads them, nor one for services only; nor does it help to have none."""
    rules = {name: (POLICY_FILES / f"registrator-{name}.hcl").read_text() for name in ("manager", "worker")}
    async with catalog_of(guarded, rules["worker"]) as worker, catalog_of(guarded, EVERY_NAME) as other:
        for catalog in (worker, other):
            with pytest.raises(Refused):
                await catalog.publish("cluster", told)
        async with catalog_of(guarded, rules["manager"]) as manager:
            await manager.publish("cluster", told)
        assert set(await anext(worker.published())) == {"service1"}
    request = urllib.request.Request(f"{guarded.url}/v1/kv/registrator/swarm/cluster/x", b"{}", method="PUT")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        await asyncio.to_thread(urllib.request.urlopen, request)


@pytest.mark.parametrize(
    ("rules", "without", "service"),
    [
        (rules, rule, service)
        for rules, service in ((EVERY_NAME, "anything"), (SOME_NAMES, "web-front"))
        for rule in RULE.findall(rules)
    ],
)
async def test_no_rule_can_be_left_out(guarded: ConsulServer, rules: str, without: str, service: str) -> None:
    """Without any one of its rules the policy is too little: writes are refused, or lookups see nothing."""
    async with catalog_of(guarded, rules.replace(without, "")) as catalog:
        with pytest.raises((Refused, TimeoutError)):
            await live(catalog, service, LONG)


async def test_other_names_than_those_allowed_are_refused(guarded: ConsulServer) -> None:
    """A label cannot make the agent take the name of a service that the policy keeps from it."""
    async with catalog_of(guarded, SOME_NAMES) as catalog:
        with pytest.raises(Refused, match="Missing service:write on db"):
            await catalog.register(instance("db"))
