"""A real Chromium for tests, driven by chromedriver, without errands of its own.

The fixture `chrome` is one browser for all tests; where there is none they are
skipped, or fail when REGISTRATOR_REQUIRE_ALL is set.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from tests.support import unavailable

# Nothing of a browser's own errands: no updates, no services of its vendor.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--window-size=1280,860",
)


def missing() -> str:
    """What is not installed of what a browser test needs; "" when all is there."""
    tools = ("chromium", "chromedriver")
    return ", ".join(tool for tool in tools if shutil.which(tool) is None)


@contextmanager
def chromium(*flags: str) -> Iterator[Chrome]:
    """A browser with a profile of its own, which logs its console and its requests."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in (*FLAGS, f"--user-data-dir={Path(profile)}", *flags):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = Chrome(options, Service(shutil.which("chromedriver")))
        driver.set_page_load_timeout(30)
        driver.set_script_timeout(30)
        try:
            yield driver
        finally:
            driver.quit()


@pytest.fixture(scope="session")
def chrome() -> Iterator[Chrome]:
    """The browser, on an empty page."""
    if lacking := missing():
        unavailable(f"{lacking} not installed; scripts/test-tools.sh installs it")
    with chromium() as driver:
        driver.get("about:blank")  # away from the new tab's own page and its requests
        yield driver
