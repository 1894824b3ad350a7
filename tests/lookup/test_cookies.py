"""DNS cookies (RFC 7873): who proves its address gets long UDP replies, and nobody else does."""

from __future__ import annotations

import dns.edns
import dns.message
import pytest

from registrator.lookup.cookies import AHEAD, LIFE, RENEWED, SECRET_LIFE, Cookies
from registrator.lookup.resolver import Resolver
from registrator.stats import Stats
from tests.lookup.fakes import FakeDirectory, entry, snapshot_of
from tests.lookup.messages import ZONE, text
from tests.lookup.test_dns import dig, serving
from tests.lookup.test_fast_path import Front

CLIENT = b"\1\2\3\4\5\6\7\x08"
ASKER, OTHER = "192.0.2.7", "192.0.2.8"
NOW = 1_700_000_000.0
MANY = snapshot_of(
    *(entry("many", n, address=f"10.0.{n // 250}.{n % 250}") for n in range(300)), entry("web")
)


def asked(cookie: bytes | None, name: str = "many.service.consul", size: int = 4096) -> bytes:
    """A query with a COOKIE option of these octets."""
    message = dns.message.make_query(name, "A")
    options: list[dns.edns.Option] = (
        [] if cookie is None else [dns.edns.GenericOption(dns.edns.OptionType.COOKIE, cookie)]
    )
    message.use_edns(0, payload=size, options=options)
    return message.to_wire()


def cookie_of(reply: bytes) -> bytes:
    """The data of a reply's COOKIE option; b"" for none."""
    options = dns.message.from_wire(reply).options
    return b"".join(
        option.to_wire() or b"" for option in options if option.otype == dns.edns.OptionType.COOKIE
    )


def count(reply: bytes) -> int:
    return len(text(dns.message.from_wire(reply).answer))


# The cookie itself -------------------------------------------------------------


def test_a_cookie_proves_the_address_that_it_was_given_to() -> None:
    """It counts from the same address and with the same client cookie, and with nothing else."""
    cookies = Cookies()
    given = cookies.judge(CLIENT, ASKER, NOW)
    assert (given.proven, given.cookie[:8], len(given.cookie)) == (False, CLIENT, 24)
    assert cookies.judge(given.cookie, ASKER, NOW).proven
    assert not cookies.judge(given.cookie, OTHER, NOW).proven
    assert not cookies.judge(given.cookie, "2001:db8::7", NOW).proven
    assert not cookies.judge(b"x" * 8 + given.cookie[8:], ASKER, NOW).proven
    assert not Cookies().judge(given.cookie, ASKER, NOW).proven  # another agent's secret
    for at in range(8, 24):
        bent = bytearray(given.cookie)
        bent[at] ^= 1
        reserved = at in (9, 10, 11)  # not looked at; what comes back is what was sent
        assert cookies.judge(bytes(bent), ASKER, NOW).proven is reserved
    for length in (16, 23, 25, 40):
        assert not cookies.judge(given.cookie[:8] + b"\1" * (length - 8), ASKER, NOW).proven


@pytest.mark.parametrize(
    ("age", "proven", "same"),
    [(0, True, True), (RENEWED - 1, True, True), (RENEWED, True, False), (LIFE, True, False),
     (LIFE + 1, False, False), (-AHEAD, True, True), (-AHEAD - 1, False, False)],
)  # fmt: skip
def test_how_long_a_cookie_is_good(age: int, proven: int, same: int) -> None:
    """An hour, with a new one after half of that, and with some patience for a clock that was set back."""
    cookies = Cookies()
    first = cookies.judge(CLIENT, ASKER, NOW).cookie
    found = cookies.judge(first, ASKER, NOW + age)
    assert (found.proven, found.cookie == first) == (proven, same)
    assert cookies.judge(found.cookie, ASKER, NOW + age).proven


def test_a_new_secret_leaves_the_cookies_of_the_last_hour_good() -> None:
    """Once a day the secret is another; the one before still counts, the one before that does not."""
    cookies = Cookies()
    cookies.judge(CLIENT, ASKER, NOW)
    late = NOW + SECRET_LIFE - 10
    given = cookies.judge(CLIENT, ASKER, late).cookie
    assert cookies.judge(given, ASKER, late + 20).proven
    cookies.judge(CLIENT, ASKER, late + 20 + SECRET_LIFE)
    assert not cookies.judge(given, ASKER, late + 30).proven


# In replies --------------------------------------------------------------------


def test_only_a_proven_asker_gets_more_than_1232_octets() -> None:
    """Without a cookie, with a client's alone, with a made-up one and with another's it is 1232 at most."""
    front = Front(MANY)
    given = cookie_of(front.ask(asked(CLIENT)))
    assert given[:8] == CLIENT
    for cookie in (None, CLIENT, CLIENT + b"\1" * 16, CLIENT + b"\1" * 32):
        for _ in range(4):
            reply = front.ask(asked(cookie))
            assert len(reply) <= 1232
            assert count(reply) < 75
    assert len(front.ask(asked(given), OTHER)) <= 1232
    for _ in range(4):
        reply = front.ask(asked(given))
        assert 1232 < len(reply) <= 4096
        assert count(reply) > 240
        assert cookie_of(reply) == given


@pytest.mark.parametrize("size", [0, 512, 540, 1200, 1232, 4096])
@pytest.mark.parametrize("name", ["many.service.consul", "web.service.consul", "none.consul", "example.org"])
def test_a_cookie_fits_into_every_reply(name: str, size: int) -> None:
    """Who sends one gets one back, in a reply that is no longer than it takes."""
    front = Front(MANY)
    for cookie in (CLIENT, cookie_of(front.ask(asked(CLIENT)))):
        for _ in range(3):
            reply = front.ask(asked(cookie, name, size))
            assert cookie_of(reply)[:8] == CLIENT
            assert len(reply) <= max(512, size)
            assert dns.message.from_wire(reply).edns == 0
    assert cookie_of(front.ask(asked(None, name, size))) == b""


@pytest.mark.parametrize("length", [0, 1, 7, 9, 15, 41, 200])
def test_a_cookie_of_a_length_that_none_has_is_malformed(length: int) -> None:
    """FORMERR (RFC 7873, 5.2.2)."""
    assert Front(MANY).ask(asked(b"x" * length))[3] & 0xF == 1


async def test_servfail_has_the_cookie_too() -> None:
    """A client that knows our cookie takes no reply without it."""
    resolver = Resolver(
        FakeDirectory(None), ZONE, view_of=lambda _: (_ for _ in ()).throw(OSError), stats=Stats()
    )
    assert cookie_of(resolver.servfail(asked(CLIENT), ASKER, "udp"))[:8] == CLIENT


async def test_over_tcp_there_is_a_cookie_as_well() -> None:
    """So that the next query may come over UDP."""
    resolver = Front(MANY).resolver
    reply = await resolver.resolve(asked(CLIENT), ASKER, "tcp")
    assert reply is not None
    assert count(reply) == 300
    given = cookie_of(reply)
    long = await resolver.resolve(asked(given), ASKER, "udp")
    assert long is not None
    assert len(long) > 1232


async def test_dig_proves_its_address() -> None:
    """A real client, which sends back what it was given, gets 4096 octets where it got 1232 before."""
    async with serving() as server:
        address = server.addresses[0]
        options = ["+ignore", "+bufsize=4096", "many.service.consul"]
        first = await dig(address, f"+cookie={CLIENT.hex()}", *options)
        assert first.count("\tA\t") < 76
        cookie = first.partition("; COOKIE: ")[2].split()[0]
        assert "(good)" in first
        assert cookie.startswith(CLIENT.hex())
        second = await dig(address, f"+cookie={cookie}", *options)
        assert second.count("\tA\t") > 230
        forged = await dig(address, f"+cookie={CLIENT.hex()}{'00' * 16}", *options)
        assert forged.count("\tA\t") < 76
