"""Files that hold a secret, or on which trust rests: who else may change them.

Whoever can put another token, CA or key in place decides which Consul an agent
believes, and with what rights it writes. So such a file must be root's or the
agent's own, writable by nobody else, in folders of which the same holds. Who
may read it is the operator's choice: Docker's own secrets are for all users of
a container.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from registrator.limits import TOKEN_FILE

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Unfit(Exception):
    """The file cannot be used; `str()` says why, and what to do."""


def read_secret(path: str) -> str:
    """The one word that a file holds. Raises Unfit, and OSError where it cannot be read."""
    with Path(path).open("rb") as file:
        _check(path, os.fstat(file.fileno()))
        _check_way(path)
        octets = file.read(TOKEN_FILE.value + 1)
    if len(octets) > TOKEN_FILE.value:
        raise Unfit(f"it has more than {TOKEN_FILE.value} octets; a token is one word")
    text = octets.decode("ascii", "replace").strip()
    if not text.isprintable() or not text.isascii() or " " in text:
        raise Unfit("it holds more than one word of letters, digits and signs; write nothing but the token")
    return text


def check_file(path: str) -> None:
    """See to it that nobody else may change a file. Raises Unfit; one that cannot be read is its reader's."""
    try:
        _check(path, Path(path).stat())
        _check_way(path)
    except OSError:
        return


def _check_way(path: str) -> None:
    """Check the folders that lead to a file, by its name and by what symbolic links make of it."""
    given = Path(path).absolute()
    if given.is_symlink():
        _check_owner(str(given), given.lstat())
    for folder in _folders(given):
        _check(str(folder), folder.stat())


def _folders(path: Path) -> Iterator[Path]:
    yield from path.parents
    for folder in path.resolve().parents:
        if folder.exists():  # a pipe (/dev/fd/63) has a name that leads nowhere
            yield folder


def _check(path: str, found: os.stat_result) -> None:
    _check_owner(path, found)
    sticky = (
        stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    )  # others cannot replace what is there
    if found.st_mode & OTHERS_WRITE and not sticky:
        raise Unfit(f"others may write to {path} (mode {stat.S_IMODE(found.st_mode):o}); chmod go-w {path}")


def _check_owner(path: str, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.geteuid()):
        raise Unfit(
            f"{path} belongs to the user {found.st_uid}, neither root nor the agent's own "
            f"({os.geteuid()}); chown root {path}"
        )
