"""The image's HEALTHCHECK: exit 0 if the agent's /livez answers, else 1 with a line that says why.

The agent's address is taken from where the agent itself takes it: process 1's
arguments, else REGISTRATOR_HTTP, else the default.

With --reuse-port the agent of another container may answer at that address.
That one's answer does not count: a new agent is healthy when it has taken its
place beside the old one, and who replaces containers may then stop the old one.
"""

import os
import sys
import urllib.request
from pathlib import Path

TRIES = 20  # the kernel gives each connection to either of two that share a port


def http_address() -> str:
    """The first ADDR:PORT that the agent listens on for HTTP, or "off"."""
    arguments = Path("/proc/1/cmdline").read_text(encoding="utf-8").split("\0")
    for index, argument in enumerate(arguments):
        if argument.startswith("--http="):
            return argument.removeprefix("--http=")
        if argument == "--http" and index + 1 < len(arguments):
            return arguments[index + 1]
    return os.environ.get("REGISTRATOR_HTTP", "127.0.0.1:8580").split()[0]


def main() -> None:
    address = http_address()
    if address == "off":
        sys.exit(0)  # nothing to ask: that the process runs is all that can be known
    host, _, port = address.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
    url = f"http://{host}:{port}/livez"
    own = str(Path("/proc/self/ns/mnt").stat().st_ino)
    try:
        if not any(who_answers(url) == own for _ in range(TRIES)):
            sys.exit(f"{url}: the agent of another container answers, this one's is not ready yet")
    except OSError as error:
        sys.exit(f"{url}: {error}")


def who_answers(url: str) -> str:
    """The mount namespace of the agent that answers; raises OSError where none does."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=2) as reply:
        return reply.headers.get("X-Registrator-Namespace", "")


if __name__ == "__main__":
    main()
