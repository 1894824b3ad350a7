"""A stack changed in place, moved, and removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.demo.proof import GREETING
from scripts.lab.lab import Lab
from scripts.lab.waiting import until
from tests.lab.clients import calling
from tests.lab.services import LINK_LOCAL, TOOLS, Service
from tests.lab.truth import agree, count, desired, get

pytestmark = [pytest.mark.engine, pytest.mark.consul, pytest.mark.lab]

COUNT = ("run", "--rm", "--network", "demo_backend", "--dns", LINK_LOCAL, TOOLS, "curl", "-sSf")
