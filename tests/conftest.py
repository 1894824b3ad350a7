"""The fixtures that every test folder may use; each module below documents its own."""

from __future__ import annotations

import pytest

pytest_plugins = (
    "tests.support.engine",
    "tests.support.consul",
    "tests.support.agent",
    "tests.support.browser",
    "tests.support.swarm",
)

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
