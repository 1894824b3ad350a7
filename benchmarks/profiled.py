"""A Python module's command under Python's profiler.

    python benchmarks/profiled.py FILE python -m MODULE ARGUMENTS

FILE has the profile of its main thread when it ends, for the module pstats.
"""

from __future__ import annotations

import cProfile
import runpy
import sys


def main() -> None:
    """Run the module with its arguments."""
    sys.path.pop(0)  # this folder, where a dns.py lies
    file, _, _, module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    profile = cProfile.Profile()
    try:
        profile.runcall(runpy.run_module, module, run_name="__main__", alter_sys=True)
    finally:
        profile.dump_stats(file)


if __name__ == "__main__":
    main()
