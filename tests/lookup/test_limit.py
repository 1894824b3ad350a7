"""The rate limit: who has one, what it lets through, and that a flood costs no memory."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.lookup.askers import client_of, is_local, peer_of
from registrator.lookup.limit import MAX_CLIENTS, OTHERS, RateLimit, Verdict

REPLY, SLIP, DROP = Verdict.REPLY, Verdict.SLIP, Verdict.DROP


@pytest.mark.parametrize(
    ("source", "client", "sentence"),
    [
        ("127.0.0.1", None, "the host itself is a neighbour"),
        ("::1", None, "in both families"),
        ("10.1.2.3", None, "a container or a host of a private network"),
        ("172.31.255.255", None, "the last address of the second block of RFC 1918"),
        ("172.32.0.0", "172.32.0.0/24", "and the first behind it"),
        ("192.168.7.7", None, "the third block"),
        ("100.127.0.1", None, "behind a carrier's NAT"),
        ("100.128.0.1", "100.128.0.0/24", "no more"),
        ("169.254.53.53", None, "link-local"),
        ("fe80::1", None, "link-local, IPv6"),
        ("fd00:1::2", None, "unique local"),
        ("192.0.2.77", "192.0.2.0/24", "256 public addresses are one client"),
        ("2001:db8:0:1ff::1", "2001:db8:0:100::/56", "and what one IPv6 customer has"),
        ("no address", "", "nobody knows what that is"),
    ],
)
def test_who_counts_as_one_client(source: str, client: str | None, sentence: str) -> None:
    assert client_of(source) == client, sentence
    assert is_local(source) == (client is None), sentence


@pytest.mark.parametrize(
    ("source", "client", "sentence"),
    [
        ("192.0.2.77", "192.0.2.77", "nobody can connect from another's address"),
        ("2001:db8:0:1ff::1", "2001:db8:0:100::/56", "but who has one IPv6 address has many"),
        ("fd00:1::2", "fd00:1::2", "containers of one network are many clients"),
        ("::1", "::1", "the host is one"),
    ],
)
def test_who_counts_as_one_client_over_tcp(source: str, client: str, sentence: str) -> None:
    assert peer_of(source) == client, sentence


def test_beyond_the_limit_every_second_query_is_sent_to_tcp() -> None:
    """Three replies, then an empty one with TC and none in turn; the next second begins anew."""
    limit = RateLimit(3)
    assert [limit.judge("one", 10.0) for _ in range(7)] == [REPLY] * 3 + [SLIP, DROP] * 2
    assert limit.judge("one", 10.9) is SLIP
    assert limit.judge("another", 10.9) is REPLY
    assert limit.judge("one", 11.0) is REPLY


def test_zero_is_no_limit() -> None:
    limit = RateLimit(0)
    assert {limit.judge("one", 0.0) for _ in range(1000)} == {REPLY}


def test_a_flood_from_forged_networks_takes_no_more_memory() -> None:
    """Beyond the cap all new networks share one count; those that were there before keep their own."""
    limit = RateLimit(5)
    known = "one"
    limit.judge(known, 0.0)
    for number in range(MAX_CLIENTS + 500):
        limit.judge(f"network {number}", 0.0)
    assert len(limit._counts) == MAX_CLIENTS + 1
    assert limit.judge("one more", 0.0) is not REPLY
    assert limit.judge(known, 0.0) is REPLY
    assert OTHERS in limit._counts


@given(
    most=st.integers(1, 20),
    queries=st.lists(st.tuples(st.floats(0, 5), st.sampled_from(["one", "another"]))),
)
def test_no_client_has_more_replies_in_a_second_than_twice_the_limit(
    most: int, queries: list[tuple[float, str]]
) -> None:
    """Whenever they come: a second may lie across two of the limit's own."""
    limit, replies = RateLimit(most), []
    for now, client in sorted(queries):
        if limit.judge(client, now) is REPLY:
            replies.append((now, client))
    for begin, _ in replies:
        within = Counter(client for now, client in replies if begin <= now < begin + 1)
        assert max(within.values()) <= 2 * most
