"""Which address of an instance an asker is given."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from registrator.lookup.reach import reach, within_reach
from registrator.model import CRITICAL, OUTSIDE, Address, CheckResult, Entry, Node, View
from tests.lookup.fakes import entry

RED4, RED6 = Address("red", "aaa", "172.18.0.5", 80), Address("red", "aaa", "fd18::5", 80)
BLUE4 = Address("blue", "bbb", "172.19.0.5", 81)
HOST4, HOST6 = Address("host", "", "192.0.2.1", 32768), Address("host", "", "2001:db8::1", 32768)
ALL = (RED4, RED6, BLUE4, HOST4, HOST6)
NODE = Node("n1", "192.0.2.1", tagged_addresses={"lan_ipv4": "192.0.2.1", "lan_ipv6": "2001:db8::1"})

RED, BLUE, BOTH, ELSEWHERE = (View(frozenset(ids)) for ids in (["aaa"], ["bbb"], ["aaa", "bbb"], ["ccc"]))


@pytest.mark.parametrize(
    ("registered", "addresses", "view", "given", "why"),
    [
        (("192.0.2.1", 32768), ALL, RED, "172.18.0.5:80 fd18::5:80", "a shared network's, both families"),
        (("192.0.2.1", 32768), ALL, BLUE, "172.19.0.5:81", "with that address's own port; it has no IPv6"),
        (("192.0.2.1", 32768), ALL, BOTH, "172.18.0.5:80 fd18::5:80", "one network's where two are shared"),
        (("172.19.0.5", 81), ALL, BOTH, "172.19.0.5:81 fd18::5:80", "the registered one first among shared"),
        (("172.18.0.5", 80), ALL, ELSEWHERE, "192.0.2.1:32768 2001:db8::1:32768",
         "no shared network: where the node publishes it, even if a container address is registered"),
        (("172.18.0.5", 80), (RED4, RED6), ELSEWHERE, "172.18.0.5:80 fd18::5:80",
         "nothing published: the registered address, as Consul"),
        (("192.0.2.1", 32768), ALL, OUTSIDE, "192.0.2.1:32768 2001:db8::1:32768",
         "from outside the registered address, and its sibling of the other family"),
        (("fd18::5", 80), ALL, OUTSIDE, "fd18::5:80 172.18.0.5:80", "the sibling is on the same network"),
        (("172.19.0.5", 81), ALL, OUTSIDE, "172.19.0.5:81", "never one of another network"),
        (("10.9.9.9", 8080), ALL, OUTSIDE, "10.9.9.9:8080", "an address of no network stands alone"),
        (("10.9.9.9", 8080), (), RED, "10.9.9.9:8080", "a service that others registered"),
        (("www.example.org", 443), (), RED, "www.example.org:443", "a host name is given as it is"),
        (("www.example.org", 443), ALL, RED, "172.18.0.5:80 fd18::5:80", "but a shared network comes first"),
        (("", 8080), (), OUTSIDE, "192.0.2.1:8080 2001:db8::1:8080", "no address: the node's, both families"),
    ],
)  # fmt: skip
def test_reach(
    registered: tuple[str, int], addresses: tuple[Address, ...], view: View, given: str, why: str
) -> None:
    """The asker gets an address that it can reach."""
    address, port = registered
    instance = entry("web", address=address, port=port, addresses=addresses, node=NODE)
    assert " ".join(f"{place.ip}:{place.port}" for place in reach(instance, view)) == given, why


def test_a_network_without_id_is_shared_with_nobody() -> None:
    """An asker whose view holds an empty id is not taken for one on the node's own address."""
    instance = entry("web", address="172.18.0.5", addresses=(RED4, HOST4))
    assert reach(instance, View(frozenset([""]))) == (HOST4,)


RED_ID, BLUE_ID, GREEN_ID = "red0red1red2", "blue0blue1bl", "green0green1"
ON_RED, ON_BLUE = Address("red", RED_ID, "10.0.1.5", 80), Address("blue", BLUE_ID, "10.0.2.5", 80)
LOCAL = Address("app_default", "aaaabbbbcccc", "172.18.0.5", 80)
PLACES = {
    "red": ("10.0.1.5", (ON_RED,)),
    "blue": ("10.0.2.5", (ON_BLUE,)),
    "both": ("10.0.1.5", (ON_RED, ON_BLUE)),
    "blue, published": ("192.0.2.1", (HOST4, ON_BLUE)),
    "blue, also local": ("10.0.2.5", (ON_BLUE, LOCAL)),
    "local": ("172.18.0.5", (LOCAL,)),
    "told": ("10.9.9.9", (ON_BLUE,)),
    "foreign": ("10.9.9.9", ()),
}
ON = {name: View(frozenset(ids)) for name, ids in (
    ("red", [RED_ID]), ("blue", [BLUE_ID]), ("both", [RED_ID, BLUE_ID]), ("green", [GREEN_ID]),
    ("local", ["ddddeeeeffff"]), ("outside", []),
)}  # fmt: skip


@pytest.mark.parametrize(
    ("asker", "there", "left", "why"),
    [
        ("red", "red, blue", "red", "two stacks with one name: each asker gets its own"),
        ("blue", "red, blue", "blue", "and so the other one"),
        ("both", "red, blue", "red, blue", "an asker on both overlays gets both"),
        ("red", "both, blue", "both", "one shared network is enough"),
        ("red", "red, blue, published", "red, blue, published", "the node's port is reached from anywhere"),
        ("green", "blue, published, red", "blue, published", "nothing shared: what is published"),
        ("green", "red, blue", "red, blue", "nothing can be reached: all, as Consul would answer"),
        ("green", "red, blue, also local, local", "blue, also local, local", "a bridge may have a route"),
        ("green", "red, told, foreign", "told, foreign", "where the operator or others told the address"),
        ("local", "red, local", "local", "an asker on a bridge is on no overlay either"),
        ("outside", "red, blue, local", "red, blue, local", "an unknown asker may be anybody"),
        ("red", "blue", "blue", "never nothing where there was something"),
    ],
)  # fmt: skip
def test_within_reach(asker: str, there: str, left: str, why: str) -> None:
    """What an asker can never reach is left out, if others remain."""
    found = [make(place) for place in split(there)]
    given = within_reach(found, ON[asker])
    assert [e.instance.addresses for e in given] == [PLACES[place][1] for place in split(left)], why


def split(text: str) -> list[str]:
    """The places in a row: longer names first, since some hold a comma."""
    names = "|".join(sorted(PLACES, key=len, reverse=True))
    return re.findall(names, text)


def make(place: str) -> Entry:
    address, own = PLACES[place]
    return entry("web", address=address, port=80, addresses=own, node=NODE)


def test_a_critical_instance_in_reach_keeps_others_out() -> None:
    """Reach comes before health: an answer out of reach would help nobody, and mix two services."""
    own = replace(make("red"), checks=(CheckResult("tcp", "TCP", CRITICAL),))
    assert within_reach([own, make("blue")], ON["red"]) == [own]
