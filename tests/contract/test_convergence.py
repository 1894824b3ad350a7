"""Once what the bridge wants is registered, its plan is empty: on either catalog nothing is written twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from registrator.bridge.instances import instances
from registrator.bridge.plan import plan
from registrator.model import Container
from tests.bridge.build import APP, BRIDGE, DUAL, HOST, POLICY, container, exposed, published
from tests.contract.build import Catalog

CONTAINERS = [
    ("one network, nothing published", container(exposed(80))),
    ("published", container(published(80, 32768))),
    ("published on both families", container(published(80, 32768), published(81, 32769, "::"))),
    ("several networks of both families", container(published(80, 32768), networks=(DUAL, APP, BRIDGE))),
    ("the host's network", container(exposed(80), network_mode="host", networks=())),
    ("a HEALTHCHECK that passes", container(exposed(80), health="healthy", health_output="fine\n")),
    ("a HEALTHCHECK that says a lot", container(exposed(80), health="unhealthy", health_output="é" * 500)),
    ("paused", container(exposed(80), state="paused")),
    (
        "everything that labels may ask for",
        container(
            published(80, 32768),
            exposed(53, "udp"),
            labels={
                "SERVICE_TAGS": "b,a,b,größer",
                "SERVICE_COLOUR": "bläulich",
                "SERVICE_WEIGHT_PASSING": "10",
                "SERVICE_WEIGHT_WARNING": "0",
                "SERVICE_80_CHECK_HTTP": "/health",
                "SERVICE_CHECK_INTERVAL": "15s",
                "SERVICE_CHECK_TIMEOUT": "1500ms",
            },
        ),
    ),
    ("a weight that Consul does not take", container(exposed(80), labels={"SERVICE_WEIGHT_PASSING": "0"})),
]


@pytest.mark.parametrize("subject", [row[1] for row in CONTAINERS], ids=[row[0] for row in CONTAINERS])
async def test_the_plan_is_empty_afterwards(
    opened: Catalog, subject: Container, token: str, owner: str
) -> None:
    """Whatever the container, what is read back is what was wanted."""
    host = replace(HOST, owner=owner, name=f"node-{token}")
    desired, _ = instances(subject, host, POLICY)
    assert desired
    for instance in plan(desired, {}).register:
        await opened.register(instance)
    assert not plan(desired, await opened.owned(owner))
