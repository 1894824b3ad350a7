"""What is beyond a limit, as a `Problem`; texts that are cut to one. Pure."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import TypeVar

from registrator.limits import PROBLEMS, Limit
from registrator.model import Problem

T = TypeVar("T")


def beyond(limit: Limit, subject: str, remedy: str) -> Problem:
    """The problem of something that is beyond a limit."""
    what = f"more than {limit.value:,} {limit.unit}; {limit.beyond}"
    return Problem(subject, what, remedy, limit.name)


def octets(text: str) -> int:
    """How long a text is in UTF-8."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def longer_than(limit: int, text: str) -> bool:
    """Whether a text has more than `limit` octets in UTF-8."""
    return len(text) > limit or octets(text) > limit


def clipped(text: str, limit: int) -> str:
    """The beginning of a text, of at most `limit` octets in UTF-8."""
    if not longer_than(limit, text):
        return text
    return text[:limit].encode(errors="ignore")[:limit].decode(errors="ignore")


def gather(known: dict[Problem, None], new: Iterable[Problem]) -> None:
    """Add problems to those that are known of a container, each once and only so many."""
    for problem in new:
        if len(known) >= PROBLEMS.value:
            return
        last = len(known) == PROBLEMS.value - 1 and problem not in known
        known[_MORE if last else problem] = None


_MORE = beyond(PROBLEMS, "SERVICE_*", "correct those that are logged")


def result_of(steps: Generator[None, None, T]) -> T:
    """The result of work that is done in steps, taken one after the other."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            made: T = end.value
            return made
