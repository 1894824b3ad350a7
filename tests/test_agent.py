"""The wiring, where it can be shown without an engine; the rest is in tests/integration."""

from __future__ import annotations

import gc
import subprocess
import sys

from registrator.agent import _collect_from_now_on


def test_garbage_is_collected_again_but_what_the_start_made_is_spared() -> None:
    """Else each full collection would walk all modules, and the loop would stand still meanwhile."""
    gc.disable()
    try:
        made = len(gc.get_objects())
        _collect_from_now_on()
        assert gc.isenabled()
        assert len(gc.get_objects()) < made / 10
    finally:
        gc.unfreeze()
        gc.enable()


def test_a_start_imports_no_second_http_library() -> None:
    """The SDK, requests and the metrics library take 9 MiB and 50 ms: they wait until they are needed."""
    code = """
import sys
import registrator.agent, registrator.catalog.consul, registrator.cli
print(*sorted({"docker", "requests", "urllib3", "prometheus_client"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
