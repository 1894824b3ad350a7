"""How the agent speaks to people (text) and to machines (one JSON object a line), on standard error.

Whatever a message holds, such as a container's name or label, it stays on its
line and sends nothing to a terminal: what is not printable is written out.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from datetime import UTC, datetime
from types import TracebackType

from registrator.printable import printable

# What a record of a change may say about itself, by logging's `extra`.
FIELDS = ("event", "service", "instance", "container")

Raised = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class JsonFormatter(logging.Formatter):
    """One object a line, in ASCII, with stable keys.

    Always time (RFC 3339, UTC), level, logger and message; error, a
    traceback, where there is one; event, service, instance and container
    where something changed.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Render a record."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: getattr(record, key) for key in FIELDS if hasattr(record, key)}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """`time level message`, and a traceback on indented lines below."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Render a record's message on one line, whatever it holds."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Raised) -> str:  # noqa: N802 - logging's own name
        """Render a traceback so that no line of it, as an error's text may hold, looks like a record."""
        return "\n".join(f"    {printable(line)}" for line in super().formatException(ei).splitlines())


class LineCounter(logging.Handler):
    """Counts the lines that tell of trouble, by their level."""

    def __init__(self, lines: Counter[str]) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Count one; anything worse than an error is one."""
        self._lines["warning" if record.levelno < logging.ERROR else "error"] += 1


def set_up(level: str, form: str) -> None:
    """Send the log to standard error; `level` is debug, info, warning or error, `form` text or json."""
    # A log that cannot be written (disk full, reader gone) must not disturb the work.
    logging.raiseExceptions = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("aiohttp.access", "docker", "urllib3", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def count_lines(lines: Counter[str]) -> None:
    """Count in `lines`, from now on, what is logged as a warning or an error."""
    logging.getLogger().addHandler(LineCounter(lines))
