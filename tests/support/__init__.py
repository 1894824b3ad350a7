"""What several test folders share: a real Docker engine, a real Consul, and how to do without."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def unavailable(reason: str) -> NoReturn:
    """Skip the test for want of something real, or fail it where nothing may be skipped.

    `reason` says what is missing and how to get it. CI sets
    REGISTRATOR_REQUIRE_ALL, so that a test never goes missing there unseen.
    """
    if os.environ.get("REGISTRATOR_REQUIRE_ALL"):
        pytest.fail(f"{reason} (REGISTRATOR_REQUIRE_ALL is set: nothing may be skipped)", pytrace=False)
    pytest.skip(reason)
