"""SERVICE_CHECK_* -> checks: what an instance's keys say of how it is to be probed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from registrator.model import CRITICAL, PASSING, WARNING, Check, Problem
from registrator.settings import join_host_port

# Go's duration syntax, which Consul and registrator's users write: "10s", "1m30s", "500ms".
DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+")
DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
UNIT = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

DEFAULT_INTERVAL = 10.0
LEAST_INTERVAL = 1.0  # Consul raises shorter intervals to this one
MAX_DURATION = 366 * 24 * 3600.0


def parse_checks(
    at: Mapping[str, str], instance_id: str, ip: str, port: int
) -> tuple[tuple[Check, ...], list[Problem]]:
    """The checks that the keys of one port ask for; `ip`, `port` are what they probe."""
    problems: list[Problem] = []
    target = join_host_port(ip, port)
    probe = partial(
        Check,
        interval=max(LEAST_INTERVAL, _duration(at, "check_interval", DEFAULT_INTERVAL, problems)),
        timeout=_duration(at, "check_timeout", 0.0, problems),
        status=_initial_status(at, problems),
    )
    checks: list[Check] = []
    for scheme in ("http", "https"):
        path = at.get(f"check_{scheme}", "").strip()
        if path:
            url = f"{scheme}://{target}{path if path.startswith('/') else '/' + path}"
            method = at.get(f"check_{scheme}_method", "").strip().upper()
            checks.append(
                probe(f"{instance_id}:{scheme}", f"{scheme.upper()} {path}", "http", url, method=method)
            )
    if at.get("check_tcp", "").strip():
        checks.append(probe(f"{instance_id}:tcp", f"TCP {target}", "tcp", target))
    if checks and not port:
        problems.append(
            Problem(
                "SERVICE_CHECK_*", "no port is known to probe, the checks are left out", "set SERVICE_PORT"
            )
        )
        return (), problems
    return tuple(checks), problems


def parse_duration(text: str) -> float | None:
    """Seconds of a Go duration ("1m30s"); a bare number is seconds; None for anything else."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        seconds = float(text)
    elif DURATION.fullmatch(text):
        seconds = sum(float(number) * UNIT[unit] for number, unit in DURATION_PART.findall(text))
    else:
        return None
    return seconds if 0 < seconds <= MAX_DURATION else None


def _duration(at: Mapping[str, str], key: str, default: float, problems: list[Problem]) -> float:
    text = at.get(key, "").strip()
    if not text:
        return default
    seconds = parse_duration(text)
    if seconds is None:
        used = f"{default:g}s" if default else "the catalog's default"
        problems.append(
            Problem(
                f"SERVICE_{key.upper()}",
                f"{text[:40]!r} is no duration, {used} is used",
                "write for instance 10s or 1m30s",
            )
        )
        return default
    return seconds


def _initial_status(at: Mapping[str, str], problems: list[Problem]) -> str:
    status = at.get("check_initial_status", "").strip().lower()
    if status and status not in (PASSING, WARNING, CRITICAL):
        problems.append(
            Problem(
                "SERVICE_CHECK_INITIAL_STATUS",
                f"{status[:40]!r} is no status",
                "write passing, warning or critical",
            )
        )
        return CRITICAL
    return status or CRITICAL
