"""A port that two agents share while one takes over from the other (SO_REUSEPORT, socket(7)).

The kernel spreads what arrives over all sockets of an address. A socket that
is about to be closed must get nothing more first, or what has just arrived for
it is lost with it: a packet in its buffer, a handshake half done.

- A UDP socket is connected, to itself: only packets of that one peer are for
  it from then on, and all others go to its neighbour.
- Listening TCP sockets cannot be connected. Their group takes a filter that
  says which of them a new connection is for, by its number in the group
  (SO_ATTACH_REUSEPORT_CBPF): the one that has been there longest is number 0,
  the next 1, and a gap is closed by the last. So with two, the older one names
  1 and the younger one 0; where the number is none (any more), the kernel
  spreads as before. The filter stays when its author goes, until the next one
  comes and takes it away.

The kernel lets processes of one effective user share, and nobody else.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

LISTENING = "0A"  # TCP_LISTEN in include/net/tcp_states.h
# asm-generic/socket.h; the socket module lacks them
SO_ATTACH_REUSEPORT_CBPF, SO_DETACH_REUSEPORT_BPF = 51, 68
BPF_RETURN = 0x06  # BPF_RET | BPF_K
INSTRUCTION = struct.Struct("=HBBI")  # linux/filter.h, struct sock_filter: code, two jumps, operand
PROGRAM = struct.Struct("@HP")  # struct sock_fprog: how many instructions, where they are
UNROUTED = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def share(sock: socket.socket) -> None:
    """Let other sockets of this user be bound to the same address; call it before bind."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def listeners(host: str, port: int) -> frozenset[int]:
    """The inodes of the TCP sockets that listen on an address of this network namespace."""
    return frozenset(
        int(columns[9])
        for columns in _listening("tcp6" if ":" in host else "tcp")
        if columns[1] == f"{hexadecimal(host)}:{port:04X}"
    )


def turn_away(sock: socket.socket) -> None:
    """Let a shared UDP socket get no more packets; what is in its buffer stays there."""
    host, *rest = sock.getsockname()
    with contextlib.suppress(OSError):  # its address is gone: nothing arrives there
        sock.connect((UNROUTED.get(host, host), *rest))


class Seat:
    """A listening TCP socket's place among those that share its address."""

    def __init__(self, sock: socket.socket) -> None:
        """Take `sock`, which has begun to listen just now: who is there was there before it."""
        self._socket = sock
        with contextlib.suppress(OSError):  # there is no filter
            sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0)
        self._elders = self.others()

    def others(self) -> frozenset[int]:
        """The inodes of the others that listen on the address now."""
        own = os.fstat(self._socket.fileno()).st_ino
        return listeners(*self._socket.getsockname()[:2]) - {own}

    def turn_away(self) -> bool:
        """Send new connections to another one; False when there is none."""
        others = self.others()
        if not others:
            return False
        _steer(self._socket, 0 if others & self._elders else 1)
        return True


def hexadecimal(host: str) -> str:
    """An IP address as the tables in /proc/net write it: words of 4 octets in the machine's own order."""
    packed = ipaddress.ip_address(host.partition("%")[0]).packed
    return "".join(f"{word:08X}" for word in struct.unpack(f"={len(packed) // 4}I", packed))


def _listening(table: str) -> Iterator[list[str]]:
    """The columns (proc(5)) of sockets that listen; they come first, before maybe very many others."""
    try:
        with Path("/proc/net", table).open(encoding="ascii") as lines:
            next(lines)
            for line in lines:
                columns = line.split()
                if columns[3] != LISTENING:
                    return
                yield columns
    except FileNotFoundError:  # no IPv6 in this kernel
        return


def _steer(sock: socket.socket, number: int) -> None:
    """Give new connections to the socket of this number in the group of `sock`."""
    instruction = ctypes.create_string_buffer(INSTRUCTION.pack(BPF_RETURN, 0, 0, number))
    program = PROGRAM.pack(1, ctypes.addressof(instruction))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, program)
