"""The resolvers of this machine, for containers: glibc's, musl's (as in Alpine), Python's and dig.

A container that has `programs` mounted looks names up by each of `CLIENTS`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support import unavailable

MUSL_PROGRAM = r"""
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int count, char **words) {
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
    int code = getaddrinfo(words[1], NULL, &hints, &found);
    if (code) return puts(gai_strerror(code)), 1;
    for (char text[64]; found; found = found->ai_next) {
        getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST);
        puts(text);
    }
}
"""
PYTHON_PROGRAM = """
import socket, sys
print({found[4][0] for found in socket.getaddrinfo(sys.argv[1], None, socket.AF_INET)})
"""
# By name the command that, followed by a host name, prints its IPv4 addresses.
CLIENTS = {
    "glibc": ["getent", "ahostsv4"],
    "musl": ["/resolve"],
    "python": [str(Path(sys.base_prefix, "bin", "python3")), "-c", PYTHON_PROGRAM],
    "dig": ["dig", "+search", "+ndots=1", "+short", "+tries=1"],
}


def programs(folder: Path) -> list[str]:
    """What a container has to have mounted, as "path:path:ro": this machine's programs and libraries.

    The program with musl's resolver is compiled in `folder`.
    """
    if not shutil.which("musl-gcc"):
        unavailable("musl-gcc is missing; install Debian's musl-tools")
    (folder / "resolve.c").write_text(MUSL_PROGRAM)
    subprocess.run(["musl-gcc", "-static", "-o", folder / "resolve", folder / "resolve.c"], check=True)
    paths = {"/usr", "/lib", "/lib64", "/etc/ld.so.cache", sys.base_prefix}
    here = sorted(path for path in paths if Path(path).exists())
    return [f"{folder}/resolve:/resolve:ro", *(f"{path}:{path}:ro" for path in here)]


def addresses(told: str) -> set[str]:
    """The addresses in what a client printed."""
    return set(re.findall(r"^\W*(\d+\.\d+\.\d+\.\d+)\b", told, re.MULTILINE))
