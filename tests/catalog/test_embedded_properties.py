"""Whatever is written to the embedded catalog in whatever order, its snapshots keep their laws."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from registrator.catalog import Refused
from registrator.catalog.embedded import EmbeddedCatalog
from registrator.model import (
    CRITICAL,
    PASSING,
    WARNING,
    Check,
    Health,
    Instance,
    Node,
    Snapshot,
    health_check_id,
)
from registrator.stats import Stats

KEYS = ("web", "db", "cache")
IDS = st.sampled_from(["a", "b", "c", "d", "e"])
HEALTHS = st.builds(Health, st.sampled_from([PASSING, WARNING, CRITICAL]), st.sampled_from(["", "said"]))
INSTANCES = st.builds(
    Instance,
    id=IDS,
    service=st.sampled_from(["web", "Web", "db", "cache"]),
    address=st.sampled_from(["10.0.0.1", "fd00::1"]),
    port=st.sampled_from([0, 80]),
    tags=st.lists(st.sampled_from(["x", "y", "z"]), unique=True).map(tuple),
    meta=st.fixed_dictionaries({"version": st.sampled_from(["1", "2"])}),
    health=st.none() | HEALTHS,
)
Facts = tuple[
    Instance, str, str, str
]  # what is to be shown of an instance: itself, status, output, node's address


@dataclass
class Naive:
    """The catalog as anybody would write it first: what was written last, by id."""

    address: str = "10.1.0.1"
    written: dict[str, Instance] = field(default_factory=dict)

    def facts(self, key: str) -> list[Facts]:
        """What is to be shown of a service, in the order of the ids."""
        return [
            (
                replace(instance, health=None),
                instance.health.status if instance.health else PASSING,
                instance.health.output if instance.health else "",
                self.address,
            )
            for _, instance in sorted(self.written.items())
            if instance.service.lower() == key
        ]

    def tags(self) -> dict[str, set[str]]:
        keys = {instance.service.lower() for instance in self.written.values()}
        return {key: {tag for instance, *_ in self.facts(key) for tag in instance.tags} for key in keys}


def shown(snapshot: Snapshot, key: str) -> list[Facts]:
    """The same of a snapshot."""
    service = snapshot.services.get(key)
    return [
        (entry.instance, entry.status, "".join(c.output for c in entry.checks[1:]), entry.node.address)
        for entry in (service.entries if service else ())
    ]


class Writing(RuleBasedStateMachine):
    """Writes at random, several times in one turn of the loop or once, and looks at what is shown then."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.naive = Naive()
        self.catalog = EmbeddedCatalog(Stats())
        self.todo: list[Callable[[], Awaitable[None]]] = []
        self.before: Snapshot | None = None
        self.kept: list[tuple[Snapshot, str]] = []

    @initialize()
    def begin(self) -> None:
        self.catalog.identify(Node("n", self.naive.address))
        self.catalog.settled()

    @rule(instance=INSTANCES)
    def register(self, instance: Instance) -> None:
        async def write() -> None:
            check = Check(health_check_id(instance.id), "health", "ttl", ttl=600.0)
            await self.catalog.register(replace(instance, checks=(check,) if instance.health else ()))
            self.naive.written[instance.id] = instance

        self.todo.append(write)

    @rule(instance_id=IDS)
    def deregister(self, instance_id: str) -> None:
        async def write() -> None:
            await self.catalog.deregister(instance_id)
            self.naive.written.pop(instance_id, None)

        self.todo.append(write)

    @rule(instance_id=IDS, health=HEALTHS)
    def report(self, instance_id: str, health: Health) -> None:
        async def write() -> None:
            instance = self.naive.written.get(instance_id)
            if instance is None or instance.health is None:
                with pytest.raises(Refused):
                    await self.catalog.report(instance_id, health)
            else:
                await self.catalog.report(instance_id, health)
                self.naive.written[instance_id] = replace(instance, health=health)

        self.todo.append(write)

    @rule(address=st.sampled_from(["10.1.0.1", "10.1.0.2"]))
    def move_the_node(self, address: str) -> None:
        async def write() -> None:
            self.catalog.identify(Node("n", address))
            self.naive.address = address

        self.todo.append(write)

    @rule()
    def look(self) -> None:
        """Write in one turn of the loop, then hold what is shown against the naive catalog."""
        after = self.runner.run(self._carry_out())
        for key in KEYS:
            assert shown(after, key) == self.naive.facts(key)
        assert {key: set(tags) for key, tags in after.names.items()} == self.naive.tags()
        assert after.names.keys() == after.services.keys()
        if self.before is not None:
            compare_indexes(self.before, after)
        self.before = after
        self.kept.append((after, repr(after)))
        assert self.runner.run(self.catalog.owned("")) == self.naive.written

    async def _carry_out(self) -> Snapshot:
        for write in self.todo:
            await write()
        self.todo.clear()
        return await self.catalog.load("web")

    def teardown(self) -> None:
        self.look()
        self.runner.run(self.catalog.__aexit__(None, None, None))
        self.runner.close()
        assert all(repr(snapshot) == then for snapshot, then in self.kept), "a snapshot changed afterwards"


def compare_indexes(before: Snapshot, after: Snapshot) -> None:
    """Indexes never fall, and grow exactly when what they stand for differs."""
    names_differ = before.names != after.names or before.nodes != after.nodes
    assert (after.index > before.index) == names_differ
    for key in KEYS:
        was, now = before.services.get(key), after.services.get(key)
        if (was.entries if was else ()) != (now.entries if now else ()):
            assert after.index_of(key) > before.index_of(key)
        elif was and now:
            assert now is was, "an unchanged service is made anew"
    assert after.index_of(None) >= 1


TestWriting = Writing.TestCase
TestWriting.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
