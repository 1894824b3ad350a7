"""Durations as people write them to Consul and registrator: Go's syntax."""

from __future__ import annotations

import re

DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+")
DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
UNIT = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

MAX_DURATION = 366 * 24 * 3600.0
MAX_TEXT = 64  # characters: a longer text is nobody's duration


def parse_duration(text: str) -> float | None:
    """Seconds of a Go duration ("1m30s"); a bare number is seconds; None for anything else."""
    text = text.strip()
    if len(text) > MAX_TEXT:
        return None
    if text.isascii() and text.isdigit() and len(text) < 10:
        seconds = float(text)
    elif DURATION.fullmatch(text):
        seconds = sum(float(number) * UNIT[unit] for number, unit in DURATION_PART.findall(text))
    else:
        return None
    return seconds if 0 < seconds <= MAX_DURATION else None
