"""How the agent speaks to people (text) and to machines (one JSON object a line), on standard error."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime


class JsonFormatter(logging.Formatter):
    """One object a line with stable keys: time (RFC 3339, UTC), level, logger, message, error."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record; `error` holds the traceback where there is one."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """`time level message`; a line break in a message, as a label may hold, stays within its line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Render a record's message on one line, whatever it holds."""
        line = super().formatMessage(record)
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def set_up(level: str, form: str) -> None:
    """Send the log to standard error; `level` is debug, info, warning or error, `form` text or json."""
    # A log that cannot be written (disk full, reader gone) must not disturb the work.
    logging.raiseExceptions = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("aiohttp.access", "docker", "urllib3", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
