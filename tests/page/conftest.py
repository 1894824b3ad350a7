"""The page for each test, in the one browser of all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome

from tests.page.page import Page


@pytest.fixture
def page(chrome: Chrome) -> Iterator[Page]:
    """The page as a visitor has it, with an empty log."""
    page = Page(chrome)
    yield page
    chrome.get("about:blank")
    page.drain()
