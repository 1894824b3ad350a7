"""One browser for all tests of the page; a page for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome

from tests.page.browser import chromium, missing
from tests.page.page import Page
from tests.support import unavailable


@pytest.fixture(scope="session")
def chrome() -> Iterator[Chrome]:
    """The browser; skipped, or failed under REGISTRATOR_REQUIRE_ALL, where there is none."""
    if lacking := missing():
        unavailable(f"{lacking} not installed; scripts/test-tools.sh installs it")
    with chromium() as driver:
        driver.get("about:blank")  # away from the new tab's own page and its requests
        yield driver


@pytest.fixture
def page(chrome: Chrome) -> Iterator[Page]:
    """The page as a visitor has it, with an empty log."""
    page = Page(chrome)
    yield page
    chrome.get("about:blank")
    page.drain()
