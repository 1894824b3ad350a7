"""What `doctor` says of one thing that it looked at."""

from __future__ import annotations

from dataclasses import dataclass

from registrator.model import Failure

GOOD, WARNING, BAD = "good", "warning", "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: how it is, in words, and the remedy where it is not good."""

    level: str
    about: str
    what: str
    remedy: str = ""


def from_failure(about: str, failure: Failure) -> Finding:
    """A failure as a finding. Its own line says what to do, after the first semicolon or the last colon."""
    line = str(failure)
    what, found, remedy = line.partition("; ")
    if not found:
        what, found, remedy = line.rpartition(": ")
    return Finding(BAD, about, what, remedy) if found else Finding(BAD, about, line, "see the agent's log")
