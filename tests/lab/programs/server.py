"""A well-behaved server on port 8000; this file runs in a container, as its process 1.

    python3 server.py [LINGER]

After SIGTERM it goes on for LINGER seconds, 1 by default, and then stops
accepting, answers what it has, and ends. It answers with its host name and
VERSION from its environment. When /told is there, it leaves a file in it, named
as its address, that says when it was told to stop, when it took its last
connection and when it took no more (Unix time, JSON).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LINGER = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
times = {"told": 0.0, "last": 0.0, "closed": 0.0}


class Handler(BaseHTTPRequestHandler):
    timeout = 5

    def do_GET(self) -> None:
        body = f"{socket.gethostname()} {os.environ.get('VERSION', '')}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = False

    def verify_request(self, *_: object) -> bool:
        times["last"] = time.time()
        return True


def main() -> None:
    with Server(("0.0.0.0", 8000), Handler) as server:

        def told(*_: object) -> None:
            times["told"] = time.time()
            threading.Timer(LINGER, server.shutdown).start()

        signal.signal(signal.SIGTERM, told)
        server.serve_forever(poll_interval=0.01)
        times["closed"] = time.time()
    folder = Path("/told")
    if folder.is_dir():
        (folder / socket.gethostbyname(socket.gethostname())).write_text(json.dumps(times))


if __name__ == "__main__":
    main()
