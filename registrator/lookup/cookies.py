"""DNS cookies: how an asker proves over UDP that its address is its own (RFC 7873, RFC 9018).

Whoever sends our cookie back has received it at the address that it asks from:
only to those goes a UDP reply of more than 1232 octets. A cookie holds its
time and a keyed hash of the asker's address, so nothing is kept for any asker.
It is good for an hour; a new one is given after half of that.

The secret never leaves the process, and is replaced once a day. Another agent
that shares the port has another one: its cookies are not valid here, and who
sends one is answered like an asker without, and given ours.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from hmac import compare_digest

SERVER = struct.Struct("!BxxxI8s")  # version, reserved, time, hash (RFC 9018, 4)
VERSION = 1
HASH = 8  # octets
CLIENT = 8
LIFE = 3600  # seconds
RENEWED = 1800  # seconds after which another one is given
AHEAD = 300  # seconds that a clock that was set back may make of it
SECRET_LIFE = 86_400.0  # seconds
SPACE = 4 + CLIENT + SERVER.size  # octets of the option in a reply


@dataclass(frozen=True, slots=True)
class Proof:
    """What a query's cookie says: whether the asker's address is `proven`, and the cookie to send back."""

    proven: bool = False
    cookie: bytes = b""


NONE = Proof()


class Cookies:
    """Makes and checks server cookies. Times are seconds since 1970."""

    def __init__(self) -> None:
        self._secrets = (os.urandom(32), os.urandom(32))  # the present one and the one before
        self._until = 0.0

    def judge(self, cookie: bytes, source: str, now: float) -> Proof:
        """What the data of a COOKIE option from this address prove, b"" for none."""
        if not cookie:
            return NONE
        if not self._until - SECRET_LIFE <= now < self._until:
            self._secrets = (os.urandom(32), self._secrets[0])
            self._until = now + SECRET_LIFE
        client, server, seconds = cookie[:CLIENT], cookie[CLIENT:], int(now) & 0xFFFFFFFF
        age = self._age(client, server, source, seconds)
        if age is not None and age < RENEWED:
            return Proof(proven=True, cookie=cookie)
        mine = SERVER.pack(VERSION, seconds, _hash(self._secrets[0], client, source, seconds))
        return Proof(age is not None, client + mine)

    def _age(self, client: bytes, server: bytes, source: str, now: int) -> int | None:
        """How many seconds old a server cookie of ours is; None for one that is not valid."""
        if len(server) != SERVER.size:
            return None
        version, made, digest = SERVER.unpack(server)
        age: int = (now - made + 0x80000000) % 0x100000000 - 0x80000000  # RFC 1982: the time is 32 bits
        if version != VERSION or not -AHEAD <= age <= LIFE:
            return None
        genuine = any(compare_digest(digest, _hash(secret, client, source, made)) for secret in self._secrets)
        return age if genuine else None


def _hash(secret: bytes, client: bytes, source: str, seconds: int) -> bytes:
    head = client + SERVER.pack(VERSION, seconds, b"")[:-HASH]
    return hashlib.blake2s(head + source.encode(), digest_size=HASH, key=secret).digest()
