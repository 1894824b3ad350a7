"""What a visitor sees of the page, and what the browser notes about it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.support.engine import wait_for

# What is shown, in one round trip: a tile can go between two.
TILES = """return [...document.querySelectorAll(".tile")].filter((tile) => !tile.hidden)
  .map((tile) => [tile.closest(".node").querySelector("h2").textContent, tile.children[0].textContent,
                  tile.dataset.status])"""


class Page:
    """The page in a browser; all methods block."""

    def __init__(self, chrome: Chrome) -> None:
        self.chrome = chrome
        self.drain()

    def open(self, url: str, view: str = "nodes") -> None:
        """Load a view and wait until it is live."""
        self.chrome.get(f"{url}/#/{view}")
        wait_for(lambda: self.one("#link").get_attribute("data-state") == "live", "live page")

    def one(self, selector: str) -> WebElement:
        return self.chrome.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """The text of all that are there, hidden or not."""
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
        return [str(text) for text in self.chrome.execute_script(script, selector)]

    def tiles(self) -> list[tuple[str, str, str]]:
        """Node, service and status of every tile that is shown."""
        return [tuple(tile) for tile in self.chrome.execute_script(TILES)]

    def up_since(self) -> list[str]:
        """In the view of a service: since when the containers run of those of which it is known."""
        script = """return [...document.querySelectorAll(".instance dt")]
          .filter((term) => term.textContent === "up since")
          .map((term) => term.nextSibling.querySelector("time")?.dateTime).filter(Boolean)"""
        return [str(time).replace(".000Z", "Z") for time in self.chrome.execute_script(script)]

    def until_text(self, selector: str, text: str) -> None:
        wait_for(lambda: any(text in found for found in self.texts(selector)), f"{text!r} in {selector}")

    def drain(self) -> tuple[list[str], list[str]]:
        """What the console said, and the URLs that were requested, since the last time."""
        console = [entry["message"] for entry in self._log("browser")]
        messages: list[Any] = [json.loads(e["message"])["message"] for e in self._log("performance")]
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return console, sent

    def _log(self, kind: str) -> list[dict[str, Any]]:
        return list(self.chrome.get_log(kind))  # type: ignore[no-untyped-call]  # selenium's own gap

    def assert_clean(self, url: str) -> None:
        """No word in the console (a violated policy is one), and no request but to the agent."""
        console, sent = self.drain()
        assert console == [], console
        assert sent, "the page asked for something"
        hosts = {urlsplit(address).netloc for address in sent}
        assert hosts <= {urlsplit(url).netloc}, sent
