"""Three Consul servers, of which one is lost: lookups go on everywhere, registrations with the other two."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from scripts.lab.lab import Lab
from tests.lab.outages import Outage, cut_off, killed, worker_leads
from tests.lab.services import HEALTH_CHECK, Service, service

pytestmark = [pytest.mark.engine, pytest.mark.consul, pytest.mark.lab]


@pytest.fixture(scope="module")
def made(lab: Lab) -> Iterator[Service]:
    """A service with a task on each node."""
    with service(lab, *HEALTH_CHECK, "--mode", "global", replicas=3) as made:
        yield made


def hold(outage: Outage) -> None:
    """What holds in each: nobody who looked a name up was left without an answer."""
    assert outage.clients.turns > 100
    assert not outage.clients.failures, outage.clients


@pytest.mark.parametrize("leading", [False, True], ids=["a follower", "the leader"])
def test_a_server_killed(lab: Lab, made: Service, measured: Callable[[str], None], *, leading: bool) -> None:
    """Killed like a crash, and started again by Swarm: all three agree again."""
    outage = killed(lab, made, leading=leading)
    measured(f"Consul server killed, {'the leader' if leading else 'a follower'}: {outage}")
    hold(outage)


def test_a_minority_cut_off(lab: Lab, made: Service, measured: Callable[[str], None]) -> None:
    """Even the leader's node: it answers with what it knew, and the others take its instances out.

    What dies on it meanwhile is out of all lookups when it is back.
    """
    outage = cut_off(lab, made, worker_leads(lab))
    measured(
        f"node of Consul's leader cut off: out of the others' lookups after {outage.out:.1f} s; {outage}"
    )
    hold(outage)
