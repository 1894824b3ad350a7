"""One address for every container of the node: put on its loopback, by netlink.

With 169.254.53.53 on `lo`, containers on any network of the node reach it by
their default gateway, so `dns: [169.254.53.53]` is right in every file. Linux
alone; rtnetlink(7) is spoken directly, in one message each way.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import socket
import struct
from pathlib import Path
from types import TracebackType
from typing import Self

from registrator.lookup.sharing import hexadecimal
from registrator.model import Failure

log = logging.getLogger(__name__)

# linux/rtnetlink.h, linux/netlink.h, linux/if_addr.h
RTM_NEWADDR, RTM_DELADDR = 20, 21
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x4, 0x200, 0x400
NLMSG_ERROR = 2
IFA_ADDRESS, IFA_LOCAL = 1, 2
IFA_F_NODAD = 0x02
RT_SCOPE_UNIVERSE = 0
MESSAGE = struct.Struct("=IHHII")  # length, type, flags, sequence, port
ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, interface
ATTRIBUTE = struct.Struct("=HH")  # length, type


class LinkLocalError(Failure):
    """The address cannot be put on the loopback; `str()` is one line to act on."""


class LinkLocal:
    """An address on the `lo` of this network namespace: ADDR/32, or /128 for IPv6.

    An address that is already there (left by a crash, or shared with another
    agent) is taken over. On exit it is removed, unless some other process
    still has a UDP socket bound to it: the last agent removes it.
    """

    def __init__(self, address: str) -> None:
        self._ip = ipaddress.ip_address(address)

    def __enter__(self) -> Self:
        self.add()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def add(self) -> None:
        """Put the address there, usable at once. Raises LinkLocalError."""
        try:
            _request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, self._ip)
        except FileExistsError:
            log.info("%s is on the loopback already: taken over", self._ip)
        except OSError as error:
            raise LinkLocalError(self._explain(error)) from error

    def remove(self) -> None:
        """Take the address away unless another process serves it; close our own sockets first."""
        if self._is_served():
            log.info("%s stays on the loopback: another process serves it", self._ip)
            return
        try:
            _request(RTM_DELADDR, 0, self._ip)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:  # somebody else took it away
                log.warning("%s; remove it with: ip addr del %s dev lo", self._explain(error), self._prefix)

    @property
    def _prefix(self) -> str:
        return f"{self._ip}/{self._ip.max_prefixlen}"

    def _is_served(self) -> bool:
        """Whether any process of this network namespace has a UDP socket on the address (proc(5))."""
        local = f"{hexadecimal(str(self._ip))}:"
        table = Path("/proc/net/udp" if self._ip.version == 4 else "/proc/net/udp6")
        try:
            lines = table.read_text(encoding="ascii").splitlines()[1:]
        except FileNotFoundError:  # no IPv6 in this kernel
            return False
        return any(line.split()[1].startswith(local) for line in lines)

    def _explain(self, error: OSError) -> str:
        what = f"{self._prefix} cannot be changed on the loopback interface"
        if error.errno == errno.EPERM:
            return (
                f"{what}: this process lacks CAP_NET_ADMIN; "
                "run it with that capability (docker: --network host --cap-add NET_ADMIN), "
                "or without --dns-link-local"
            )
        if self._ip.version == 6 and error.errno in (errno.EACCES, errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
            return (
                f"{what}: IPv6 is disabled there; "
                "enable it (sysctl net.ipv6.conf.lo.disable_ipv6=0) or give an IPv4 address"
            )
        return f"{what}: {error.strerror or error}; give another address with --dns-link-local"


def _request(kind: int, flags: int, ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Send one rtnetlink request about `ip` on `lo` and read its acknowledgement. Raises OSError."""
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    nodad = IFA_F_NODAD if ip.version == 6 else 0  # no duplicate address detection: usable at once
    head = ADDRESS.pack(family, ip.max_prefixlen, nodad, RT_SCOPE_UNIVERSE, socket.if_nametoindex("lo"))
    body = head + b"".join(
        ATTRIBUTE.pack(ATTRIBUTE.size + len(ip.packed), attribute) + ip.packed
        for attribute in (IFA_LOCAL, IFA_ADDRESS)
    )
    flags |= NLM_F_REQUEST | NLM_F_ACK
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.bind((0, 0))
        netlink.send(MESSAGE.pack(MESSAGE.size + len(body), kind, flags, 1, 0) + body)
        reply = netlink.recv(4096)
    _, reply_kind, _, _, _ = MESSAGE.unpack_from(reply)
    (code,) = struct.unpack_from("=i", reply, MESSAGE.size)
    if reply_kind != NLMSG_ERROR:
        raise OSError(errno.EPROTO, f"the kernel answered netlink message type {reply_kind}")
    if code:
        raise OSError(-code, os.strerror(-code))
