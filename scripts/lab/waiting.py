"""Waiting for a condition, with an end and a word about what did not come."""

import time
from collections.abc import Callable
from typing import TypeVar

from scripts.demo.steps import DemoError

T = TypeVar("T")


def until(look: Callable[[], T | None], what: str, seconds: float = 60.0, pause: float = 0.1) -> T:
    """The first true value that `look` returns; an OSError or DemoError is not there yet.

    Raises DemoError after `seconds`, with what was looked for and seen last.
    """
    give_up = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < give_up:
        try:
            value = look()
        except (OSError, DemoError) as error:
            last = error
        else:
            if value:
                return value
            last = value
        time.sleep(pause)
    raise DemoError(f"{what}: not so within {seconds:g} s (last seen: {last!r})")
