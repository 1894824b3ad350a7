"""python-consul2's `base`, without what its package imports beside it.

`import consul` brings requests, for a client that blocks and is not used here:
6 MiB of memory and 35 ms of every start. `base` stands alone.
"""

from __future__ import annotations

import importlib.util
from importlib.machinery import PathFinder
from types import ModuleType


def load_base() -> ModuleType:
    """The module `consul.base`. Raises ImportError where python-consul2 is not installed."""
    package = importlib.util.find_spec("consul")
    spec = package and PathFinder.find_spec("consul.base", package.submodule_search_locations)
    if spec is None or spec.loader is None:
        raise ImportError("python-consul2 is not installed", name="consul")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
