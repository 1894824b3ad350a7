"""The wiring, where it can be shown without an engine; the rest is in tests/integration."""

from __future__ import annotations

import gc

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
