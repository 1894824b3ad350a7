"""The cache of recursors' replies: for how long, and how many."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from registrator.lookup.records import Rcode, Type
from registrator.lookup.recursor_cache import Cache, Room
from registrator.lookup.recursor_message import Inquiry, Reply


def inquiry(name: str = "www") -> Inquiry:
    return Inquiry.of((name.encode(), b"example", b"org"), Type.A)


def found(octets: int = 10, ttl: int = 60, rcode: Rcode = Rcode.NOERROR) -> Reply:
    return Reply(rcode, b"q", bytes(octets), (), (1, 0, 0), ttl)


def test_the_cache_forgets_by_ttl() -> None:
    cache = Cache()
    cache.keep(inquiry(), found(ttl=60), 100.0)
    assert cache.find(inquiry(), 107.5) == (found(ttl=60), 7)
    assert cache.find(inquiry(), 160.0) is None
    cache.keep(inquiry(), found(ttl=0), 161.0)
    assert (len(cache), cache.octets) == (0, 0)


def test_the_cache_is_bounded_and_drops_what_is_used_least() -> None:
    cache = Cache()
    cache._found, cache._missing = Room(3, 10_000), Room(2, 10_000)
    for number in range(3):
        cache.keep(inquiry(f"n{number}"), found(), 0.0)
    assert cache.find(inquiry("n0"), 1.0)
    cache.keep(inquiry("n3"), found(), 0.0)
    assert [cache.find(inquiry(f"n{n}"), 1.0) is not None for n in range(4)] == [True, False, True, True]
    for number in range(100):
        cache.keep(inquiry(f"missing{number}"), found(rcode=Rcode.NXDOMAIN), 0.0)
    assert len(cache) == 5
    cache.keep(inquiry("large"), found(octets=9_200), 0.0)
    assert cache.octets < 20_000
    assert cache.find(inquiry("n0"), 1.0) is None


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.booleans()), max_size=40))
def test_the_cache_counts_its_octets_right(steps: Sequence[tuple[int, int, bool]]) -> None:
    cache = Cache()
    cache._found, cache._missing = Room(3, 5_000), Room(2, 2_000)
    for name, ttl, exists in steps:
        rcode = Rcode.NOERROR if exists else Rcode.NXDOMAIN
        cache.keep(inquiry(f"n{name}"), found(octets=name * 300, ttl=ttl, rcode=rcode), 0.0)
        cache.find(inquiry("n1"), 0.0)
    rooms = (cache._found, cache._missing)
    assert cache.octets == sum(kept.size for room in rooms for kept in room._kept.values())
    assert len(cache._found) <= 3
    assert cache._found.octets <= 5_000
