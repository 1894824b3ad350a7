"""The fixtures that every test folder may use; each module below documents its own."""

pytest_plugins = (
    "tests.support.engine",
    "tests.support.consul",
    "tests.support.agent",
    "tests.support.browser",
    "tests.support.swarm",
)
