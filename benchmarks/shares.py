"""Where a cold start's time goes: the agent under Python's own profiler, its seconds by who spent them.

A profiler makes calls dearer than they are, so read the shares and not the seconds.
Only the loop's thread is seen.
"""

from __future__ import annotations

import pstats
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks import startup
from benchmarks.figures import Row, table
from benchmarks.lab import Laboratory

LEAST = 0.01  # of the whole: less is summed up
PROFILED = Path(__file__).with_name("profiled.py")
BUILTIN = "~"  # how pstats writes the file of what is written in C
LOADING = ("marshal.loads", "posix.stat", "posix.listdir", "io.open_code", "_imp.", "__build_class__")
WAITING = ("epoll", "poll' of 'select")

Function = tuple[str, int, str]  # file, line, name, as pstats has them


def report(lab: Laboratory, catalogs: Sequence[str], number: int) -> None:
    """The shares of one cold start with `number` containers, and where most of each is spent."""
    for catalog in catalogs:
        file = Path(tempfile.mkdtemp(dir=lab.folder)) / "profile"
        with lab.recorded(number) as url:
            agent = lab.agent(catalog, docker=url)
            agent.enter = [sys.executable, str(PROFILED), str(file)]
            lab.empty_consul()
            agent.start()
            startup.wait_until(agent.ready)
            agent.stop()
        shares, dearest = by_owner(pstats.Stats(str(file)))
        whole = sum(shares.values())
        rows = [
            Row(f"{owner}  ({dearest[owner]})", [100 * seconds / whole], "%")
            for owner, seconds in shares.most_common()
            if seconds > LEAST * whole
        ]
        rows.append(Row("all else", [100 - sum(row.median for row in rows)], "%"))
        table(f"{catalog}: a cold start with {number} containers, by who spends its CPU", rows)


def by_owner(stats: pstats.Stats) -> tuple[Counter[str], dict[str, str]]:
    """Own seconds by owner, and the function of each in which most of them were spent."""
    shares: Counter[str] = Counter()
    most: dict[str, tuple[float, str]] = {}
    for function, (_, _, own, _, _) in stats.stats.items():  # type: ignore[attr-defined] # not in typeshed
        owner = owner_of(function)
        if owner is None:
            continue
        shares[owner] += own
        most[owner] = max(most.get(owner, (0.0, "")), (own, function[2].strip("<>")))
    return shares, {owner: name for owner, (_, name) in most.items()}


def owner_of(function: Function) -> str | None:
    """Imports, a package, a room of ours or Python itself; None for waiting."""
    file, _, name = function
    if file == BUILTIN:
        if any(part in name for part in WAITING):
            return None
        return "imports" if any(part in name for part in LOADING) else "Python, in C"
    if "importlib" in file or name == "<module>":
        return "imports"
    parts = Path(file).parts
    if "registrator" in parts[:-1]:
        at = len(parts) - 1 - parts[::-1].index("registrator")
        return f"registrator/{parts[at + 1].removesuffix('.py')}"
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1].removesuffix(".py")
    return "Python's asyncio" if "asyncio" in parts else "Python's library"
