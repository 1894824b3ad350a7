"""gunicorn's settings: where and how to serve, and how to stop without failing anybody.

gunicorn closes its sockets as soon as it is told to stop. Whoever was told of
this instance a moment ago would be refused, so it is told a second later.
"""

import os
import signal
import threading
from types import FrameType

from gunicorn.arbiter import Arbiter

LINGER = 1.0  # seconds

bind = "0.0.0.0:8000"
threads = 4
worker_tmp_dir = "/dev/shm"  # its heartbeats are files: in memory
control_socket_disable = True  # it would be made in the user's home, and this user has none


def when_ready(_server: Arbiter) -> None:
    """Put off the first SIGTERM (gunicorn calls this when its own handlers are in place)."""
    at_once = signal.getsignal(signal.SIGTERM)

    def later(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, at_once)
        threading.Timer(LINGER, os.kill, (os.getpid(), signal.SIGTERM)).start()

    signal.signal(signal.SIGTERM, later)
