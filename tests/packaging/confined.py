"""Runs a command under what packaging/registrator.service allows, as far as that can be done without systemd.

    python confined.py SYSCALL[,SYSCALL...] COMMAND...

Only these system calls are allowed; for any other the kernel ends the process.
Memory is never writable and executable, sockets are of the unit's families,
and no namespaces are made: as MemoryDenyWriteExecute=, RestrictAddressFamilies=
and RestrictNamespaces= have it.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
import sys
from pathlib import Path

HEADER = Path(f"/usr/include/{os.uname().machine}-linux-musl/bits/syscall.h")  # of musl-tools
NUMBER = re.compile(r"^#define __NR_(\w+)\s+(\d+)$", re.MULTILINE)
# linux/bpf_common.h, linux/filter.h, linux/seccomp.h, linux/prctl.h
LOAD, EQUAL, ANY_BIT, AND, RETURN = 0x20, 0x15, 0x45, 0x54, 0x06
ALLOW, KILL = 0x7FFF0000, 0x80000000
NUMBER_AT, ARGUMENTS_AT = 0, 16
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
WRITE_AND_EXECUTE, EXECUTE, NAMESPACES = 6, 4, 0x7E020080
FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK

Instruction = tuple[int, int, int, int]


def numbers() -> dict[str, int]:
    """The system calls of this machine, by name. Raises OSError where the header is missing."""
    return {name: int(number) for name, number in NUMBER.findall(HEADER.read_text())}


def program(allowed: list[str]) -> list[Instruction]:
    """The filter; names that this machine does not have are left out."""
    known = numbers()
    code: list[Instruction] = [(LOAD, 0, 0, NUMBER_AT)]
    for name, argument, tests in (
        ("mmap", 2, [(AND, 0, 0, WRITE_AND_EXECUTE), (EQUAL, 0, 1, WRITE_AND_EXECUTE)]),
        ("mprotect", 2, [(ANY_BIT, 0, 1, EXECUTE)]),
        ("pkey_mprotect", 2, [(ANY_BIT, 0, 1, EXECUTE)]),
        ("unshare", 0, [(ANY_BIT, 0, 1, NAMESPACES)]),
        ("clone", 0, [(ANY_BIT, 0, 1, NAMESPACES)]),
    ):
        body = [
            (LOAD, 0, 0, ARGUMENTS_AT + 8 * argument),
            *tests,
            (RETURN, 0, 0, KILL),
            (RETURN, 0, 0, ALLOW),
        ]
        code += [(EQUAL, 0, len(body), known[name]), *body]
    families = [(LOAD, 0, 0, ARGUMENTS_AT)]
    for family in FAMILIES:
        families += [(EQUAL, 0, 1, family), (RETURN, 0, 0, ALLOW)]
    families.append((RETURN, 0, 0, KILL))
    code += [(EQUAL, 0, len(families), known["socket"]), *families]
    for name in allowed:
        if name in known:
            code += [(EQUAL, 0, 1, known[name]), (RETURN, 0, 0, ALLOW)]
    return [*code, (RETURN, 0, 0, KILL)]


def confine(allowed: list[str]) -> None:
    """Put the filter in place, for this process and all that it starts. Raises OSError."""
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program(allowed))
    buffer = ctypes.create_string_buffer(code)
    header = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0)):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    confine(sys.argv[1].split(","))
    os.execvp(sys.argv[2], sys.argv[2:])
