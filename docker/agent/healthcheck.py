"""The image's HEALTHCHECK: exit 0 if the agent's /livez answers, else 1 with a line that says why.

The agent's address is taken from where the agent itself takes it: process 1's
arguments, else REGISTRATOR_HTTP, else the default.
"""

import os
import sys
import urllib.request
from pathlib import Path


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
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(f"http://{host}:{port}/livez", timeout=2).close()
    except OSError as error:
        sys.exit(f"http://{host}:{port}/livez: {error}")


if __name__ == "__main__":
    main()
