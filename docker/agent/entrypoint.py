#!/opt/registrator/bin/python3 -IS
"""The image's `registrator`: runs the real one as a user that is not root.

Wherever the Docker socket lets that user in by its group or by its mode. Of the
capabilities the user keeps two, and those only where the container was given
them: NET_ADMIN (--dns-link-local puts an address on the loopback) and
NET_BIND_SERVICE (port 53).

Nothing else of the image is needed, no shell and no tool.
"""

import ctypes
import os
import stat
import struct
import sys

PYTHON = "/opt/registrator/bin/python3"
UID = GID = 853  # of the user registrator, made in the Dockerfile
SOCKET, GLIDERLABS = "/var/run/docker.sock", "/tmp/docker.sock"
KEPT = {"net_admin": 12, "net_bind_service": 10}  # linux/capability.h
LAST = 63
VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
# linux/prctl.h
PR_SET_KEEPCAPS, PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 8, 23, 24, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 47, 2


def main() -> None:
    arguments = sys.argv[1:]
    # gliderlabs/registrator's users mount the engine's socket there.
    named = os.environ.get("REGISTRATOR_DOCKER") or os.environ.get("DOCKER_HOST")
    if not named and not is_socket(SOCKET) and is_socket(GLIDERLABS):
        os.environ["DOCKER_HOST"] = f"unix://{GLIDERLABS}"
    if os.geteuid() == 0:
        socket = docker_url(arguments).removeprefix("unix://")
        groups = groups_for(socket)
        if groups is None:
            mode = stat.S_IMODE(os.stat(socket).st_mode)
            sys.stderr.write(
                f"registrator: running as root, since {socket} (mode {mode:o}) lets in nobody else; "
                "to change that: chmod 660\n"
            )
        else:
            try:
                become_registrator(groups)
            except OSError as error:
                sys.exit(
                    f"registrator: cannot change to the user registrator ({error.strerror}); give the "
                    "container the capabilities SETUID, SETGID and SETPCAP, or start it with --user"
                )
    os.execv(PYTHON, [PYTHON, "-m", "registrator", *arguments])


def docker_url(arguments: list[str]) -> str:
    """What the agent will take for its engine."""
    url = os.environ.get("REGISTRATOR_DOCKER") or os.environ.get("DOCKER_HOST") or f"unix://{SOCKET}"
    for previous, argument in zip(["", *arguments], arguments, strict=False):
        if previous == "--docker":
            url = argument
        if argument.startswith("--docker="):
            url = argument.removeprefix("--docker=")
    return url


def is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def groups_for(socket: str) -> list[int] | None:
    """The groups that the user needs for the socket; None where only root is let in."""
    if not is_socket(socket):
        return []
    found = os.stat(socket)
    if found.st_mode & 0o006 == 0o006:
        return []
    return [found.st_gid] if found.st_mode & 0o060 == 0o060 else None


def become_registrator(groups: list[int]) -> None:
    """Change user and groups, keep what may be kept of capabilities, and gain nothing more by any program."""
    kept = [number for number in KEPT.values() if libc.prctl(PR_CAPBSET_READ, number, 0, 0, 0) == 1]
    for number in range(LAST + 1):
        if number not in kept and libc.prctl(PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            prctl(PR_CAPBSET_DROP, number)
    prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups(groups)
    os.setresgid(GID, GID, GID)
    os.setresuid(UID, UID, UID)
    set_capabilities(kept)
    for number in kept:
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    os.environ["HOME"] = "/"  # root's may not even be looked into


def set_capabilities(kept: list[int]) -> None:
    """Make these the effective, permitted and inheritable ones (capset(2))."""
    mask = sum(1 << number for number in kept)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = struct.pack("Ii", VERSION, 0)
    data = struct.pack("6I", low, low, low, high, high, high)
    check(libc.capset(header, data))


def prctl(*arguments: int) -> None:
    check(libc.prctl(*(ctypes.c_ulong(number) for number in (*arguments, 0, 0, 0, 0)[:5])))


def check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


libc = ctypes.CDLL(None, use_errno=True)

if __name__ == "__main__":
    main()
