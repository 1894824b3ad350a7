"""The plan: the least writes that make the catalog true.

desired   actual                    plan
-------   ------                    ----
yes       no                        register
yes       other definition          register (it replaces)
yes       same, other health        report
yes       same                      nothing
no        yes                       deregister
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from registrator.model import Health, Instance


@dataclass(frozen=True, slots=True)
class Plan:
    """Writes to a Registry; registrations go first, so that a rename leaves no gap."""

    register: tuple[Instance, ...] = ()
    report: tuple[tuple[str, Health], ...] = ()
    deregister: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.register or self.report or self.deregister)


def plan(desired: Iterable[Instance], actual: Mapping[str, Instance]) -> Plan:
    """Compare what is wanted with what is registered (by instance id)."""
    register: list[Instance] = []
    report: list[tuple[str, Health]] = []
    wanted: set[str] = set()
    for instance in desired:
        wanted.add(instance.id)
        current = actual.get(instance.id)
        if current is None or not same(current, instance):
            register.append(instance)
        elif instance.health is not None and instance.health != current.health:
            report.append((instance.id, instance.health))
    gone = tuple(instance_id for instance_id in actual if instance_id not in wanted)
    return Plan(tuple(register), tuple(report), gone)


def same(one: Instance, other: Instance) -> bool:
    """Whether two instances are the same registration.

    Checks are compared by their digest in Meta, health by itself. Consul holds
    addresses without an order. Where anybody may override the tags they are
    not ours to compare.
    """
    return _facts(one) == _facts(other) and (
        one.addresses == other.addresses or set(one.addresses) == set(other.addresses)
    )


def _facts(instance: Instance) -> tuple[object, ...]:
    """All that makes a registration but its addresses."""
    tags = () if instance.enable_tag_override else instance.tags
    return (
        instance.id,
        instance.service,
        instance.address,
        instance.port,
        tags,
        instance.meta,
        instance.weights,
        instance.enable_tag_override,
    )
