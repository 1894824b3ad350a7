"""The fixtures that every test folder may use; each module below documents its own."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = (
    "tests.support.engine",
    "tests.support.consul",
    "tests.support.agent",
    "tests.support.browser",
    "tests.support.swarm",
)

# How long an example takes says how busy the machine is, and nothing about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# What a test needs, and so the marker that it has, by the fixtures that it uses.
NEEDS = {
    "consul": "consul",
    "consul_binary": "consul",
    "consul_shared": "consul",
    "engine_url": "engine",
    "private_engine": "engine",
    "swarm": "engine",
    "chrome": "browser",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by what they use, so that `-m` leaves none out and takes none too many."""
    for item in items:
        for name in NEEDS.keys() & getattr(item, "fixturenames", ()):
            item.add_marker(NEEDS[name])
