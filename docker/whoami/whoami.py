"""Answers every GET with the container's id (its host name) and its addresses."""

import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 8000
LINGER = 1.0  # seconds between SIGTERM and the last connection: whoever was told of us may still come


class Handler(BaseHTTPRequestHandler):
    timeout = 5  # seconds that a silent client may hold a thread, and the end

    def do_GET(self) -> None:
        """One line with the id, one with each address."""
        name = socket.gethostname()
        addresses = {info[4][0] for info in socket.getaddrinfo(name, None)}
        body = "".join(f"{line}\n" for line in (name, *sorted(addresses))).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = False  # server_close() waits for the answers that are under way

    def server_bind(self) -> None:
        """Listen on both address families with one socket."""
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def main() -> None:
    with Server(("::", PORT), Handler) as server:
        # As process 1 it must handle the signal itself; shutdown() waits for
        # serve_forever() and so may not be called by the thread that runs it.
        signal.signal(signal.SIGTERM, lambda *_: threading.Timer(LINGER, server.shutdown).start())
        server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
