"""What is answered to a question about a catalog, as text records; each row is one law."""

from __future__ import annotations

from dataclasses import replace

import dns.flags
import dns.rcode
import pytest

from registrator.lookup import answers, names
from registrator.lookup.ask import Known, NotLoaded, Terms, Ttls, Zone
from registrator.lookup.records import Type
from registrator.model import CRITICAL, OUTSIDE, WARNING, Address, Node, View, Weights
from tests.lookup.fakes import entry, snapshot_of
from tests.lookup.messages import NOW, ZONE, answer, text

N1 = Node("Node-1", "192.0.2.1", meta={"os": "linux", "rfc1035-note": "hello world"})
N2 = Node("n2.lan", "192.0.2.2", tagged_addresses={"lan_ipv4": "192.0.2.2", "lan_ipv6": "2001:db8::2"})
N3 = Node("n3", "n3.example.org")
FRONT, BACK = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
DUAL = (Address("back", BACK, "10.0.9.1", 80), Address("back", BACK, "fd09::1", 80))
BOTH = "0a000901" + "fd09" + "0" * 27 + "1"  # DUAL as a label of an SRV record's target
UNEVEN = (Address("", "", "192.0.2.3", 80), Address("", "", "fd09::1", 81))
PUBLISHED = Address("", "", "192.0.2.2", 32768)

SNAPSHOT = snapshot_of(
    entry("web", 1, tags=("Blue", "v1.2"), weights=Weights(7, 2), node=N1),
    entry("web", 2, tags=("green",), status=WARNING, weights=Weights(7, 2), node=N1),
    entry("web", 3, tags=("red",), status=CRITICAL, node=N1),
    entry("down", 3, status=CRITICAL, node=N1),
    entry("six", address="fd00::6", node=N3),
    entry("dual", address="10.0.9.1", addresses=DUAL, node=N3),
    entry("uneven", address="192.0.2.3", addresses=UNEVEN, node=N3),
    entry("bare", address="", node=N2),
    entry("bare", 2, address="", port=81, node=N2),
    entry("outer", address="www.example.org", port=443, node=N3),
    entry("alias", address="web.service.consul", port=443, node=N3),
    entry("mixed", 1, address="www.example.org", node=N3),
    entry("mixed", 2, node=N3),
    entry("self", address="self.service.consul", node=N2),
    entry("ping", address="pong.service.consul", node=N3),
    entry("pong", address="ping.service.consul", node=N3),
    entry("to-node", address="node-1.node.consul", node=N3),
    entry("broken", address="bad..name", node=N3),
    entry("twice", 1, port=80, node=N3),
    entry("twice", 1, port=81, node=N3),
    entry("twice", 1, port=81, node=N3),
    entry("near", address="10.0.9.1", addresses=(*DUAL, PUBLISHED), node=N3),
    entry("heavy", weights=Weights(100000, -1), node=N3),
    entry("strange", node=Node("no good", "192.0.2.9", meta={"k": "v" * 300})),
    entry("unnamed", address="", node=Node("x" * 64, "192.0.2.9", meta={"a": "b"})),
)
SOA = f"consul. SOA ns.consul. hostmaster.consul. {NOW} 3600 600 86400 0"
META = ['Node-1.node.dc1.consul. TXT "os=linux"', 'Node-1.node.dc1.consul. TXT "hello world"']

# name, type -> answers, additional: "a sentence"
FOUND = [
    ("web.service.consul", "A", ["web.service.consul. A 10.0.0.1", "web.service.consul. A 10.0.0.2"], [],
     "a passing and a warning instance are given, a critical one is not"),
    ("WeB.Service.Consul", "A", ["WeB.Service.Consul. A 10.0.0.1", "WeB.Service.Consul. A 10.0.0.2"], [],
     "the name comes back in the asker's case"),
    ("web.service.consul", "ANY", ["web.service.consul. A 10.0.0.1", "web.service.consul. A 10.0.0.2"], [],
     "ANY gives the addresses"),
    ("web.service.consul", "TXT", ["web.service.consul. A 10.0.0.1", "web.service.consul. A 10.0.0.2"], [],
     "and so does TXT, as Consul's does"),
    ("web.service.consul", "SRV",
     ["web.service.consul. SRV 1 7 80 0a000001.addr.dc1.consul.",
      "web.service.consul. SRV 1 2 80 0a000002.addr.dc1.consul."],
     ["0a000001.addr.dc1.consul. A 10.0.0.1", "0a000002.addr.dc1.consul. A 10.0.0.2", *META],
     "SRV has the weight of the status, the targets' addresses, and behind them each node's meta once"),
    ("blue.web.service.consul", "A", ["blue.web.service.consul. A 10.0.0.1"], [], "a tag, in any case"),
    ("v1.2.web.service.consul", "A", ["v1.2.web.service.consul. A 10.0.0.1"], [], "a tag with a dot"),
    ("_web._green.service.consul", "SRV",
     ["_web._green.service.consul. SRV 1 2 80 0a000002.addr.dc1.consul."],
     ["0a000002.addr.dc1.consul. A 10.0.0.2", *META], "RFC 2782 with a tag"),
    ("web.service.DC1.consul", "A",
     ["web.service.DC1.consul. A 10.0.0.1", "web.service.DC1.consul. A 10.0.0.2"], [],
     "our own datacenter by its name"),
    ("six.service.consul", "AAAA", ["six.service.consul. AAAA fd00::6"], [], "an IPv6 address"),
    ("six.service.consul", "SRV",
     ["six.service.consul. SRV 1 1 80 fd000000000000000000000000000006.addr.dc1.consul."],
     ["fd000000000000000000000000000006.addr.dc1.consul. AAAA fd00::6"], "SRV to an IPv6 address"),
    ("dual.service.consul", "A", ["dual.service.consul. A 10.0.9.1"], [], "both families: A"),
    ("dual.service.consul", "AAAA", ["dual.service.consul. AAAA fd09::1"], [], "both families: AAAA"),
    ("dual.service.consul", "ANY",
     ["dual.service.consul. A 10.0.9.1", "dual.service.consul. AAAA fd09::1"], [],
     "both families: ANY"),
    ("dual.service.consul", "SRV", [f"dual.service.consul. SRV 1 1 80 {BOTH}.addr.dc1.consul."],
     [f"{BOTH}.addr.dc1.consul. A 10.0.9.1", f"{BOTH}.addr.dc1.consul. AAAA fd09::1"],
     "an instance has one SRV record, whose target has both families"),
    ("uneven.service.consul", "SRV", ["uneven.service.consul. SRV 1 1 80 c0000203.addr.dc1.consul."],
     ["c0000203.addr.dc1.consul. A 192.0.2.3"],
     "of different ports for the families the preferred one's: not everybody has both"),
    (f"{BOTH}.addr.consul", "A", [f"{BOTH}.addr.consul. A 10.0.9.1"], [], "that target's own address"),
    (f"{BOTH}.addr.consul", "AAAA", [f"{BOTH}.addr.consul. AAAA fd09::1"], [], "and the other one"),
    (f"{BOTH}.addr.consul", "ANY",
     [f"{BOTH}.addr.consul. A 10.0.9.1", f"{BOTH}.addr.consul. AAAA fd09::1"], [], "and both"),
    ("bare.service.consul", "A", ["bare.service.consul. A 192.0.2.2"], [],
     "a service without an address has its node's, and no duplicate"),
    ("bare.service.consul", "AAAA", ["bare.service.consul. AAAA 2001:db8::2"], [], "the node's other family"),
    ("bare.service.consul", "SRV",
     ["bare.service.consul. SRV 1 1 80 n2.lan.node.dc1.consul.",
      "bare.service.consul. SRV 1 1 81 n2.lan.node.dc1.consul."],
     ["n2.lan.node.dc1.consul. A 192.0.2.2", "n2.lan.node.dc1.consul. AAAA 2001:db8::2"],
     "its SRV target is the node, whose addresses come along"),
    ("outer.service.consul", "A", ["outer.service.consul. CNAME www.example.org."], [],
     "a host name as the address is a CNAME"),
    ("outer.service.consul", "MX", ["outer.service.consul. CNAME www.example.org."], [], "for any type"),
    ("outer.service.consul", "SRV", ["outer.service.consul. SRV 1 1 443 www.example.org."], [],
     "a host name is an SRV target as it is"),
    ("alias.service.consul", "A",
     ["alias.service.consul. CNAME web.service.consul.",
      "web.service.consul. A 10.0.0.1", "web.service.consul. A 10.0.0.2"], [],
     "a CNAME into the zone is followed"),
    ("alias.service.consul", "AAAA",
     ["alias.service.consul. CNAME web.service.consul.",
      "web.service.consul. A 10.0.0.1", "web.service.consul. A 10.0.0.2"], [],
     "with all of its addresses, whichever family was asked for, as Consul does"),
    ("alias.service.consul", "SRV", ["alias.service.consul. SRV 1 1 443 web.service.consul."],
     ["web.service.consul. A 10.0.0.1", "web.service.consul. A 10.0.0.2"],
     "an SRV target in the zone comes with its addresses"),
    ("to-node.service.consul", "A",
     ["to-node.service.consul. CNAME node-1.node.consul.", "node-1.node.consul. A 192.0.2.1"], [],
     "a CNAME to a node"),
    ("mixed.service.consul", "A", ["mixed.service.consul. A 10.0.0.2"], [],
     "addresses come before host names: a name has a CNAME or other records, never both"),
    ("self.service.consul", "A", ["self.service.consul. A 192.0.2.2"], [],
     "a service whose address is its own name has its node's"),
    ("ping.service.consul", "A",
     ["ping.service.consul. CNAME pong.service.consul.",
      "pong.service.consul. CNAME ping.service.consul."], [],
     "a loop of CNAMEs ends"),
    ("twice.service.consul", "A", ["twice.service.consul. A 10.0.0.1"], [], "one address, two ports: one A"),
    ("twice.service.consul", "SRV",
     ["twice.service.consul. SRV 1 1 80 0a000001.addr.dc1.consul.",
      "twice.service.consul. SRV 1 1 81 0a000001.addr.dc1.consul."],
     ["0a000001.addr.dc1.consul. A 10.0.0.1"], "and two SRV records, the same port only once"),
    ("heavy.service.consul", "SRV", ["heavy.service.consul. SRV 1 65535 80 0a000001.addr.dc1.consul."],
     ["0a000001.addr.dc1.consul. A 10.0.0.1"], "a weight is held to 16 bits"),
    ("strange.service.consul", "SRV", ["strange.service.consul. SRV 1 1 80 0a000001.addr.dc1.consul."],
     ["0a000001.addr.dc1.consul. A 10.0.0.1",
      f'no\\032good.node.dc1.consul. TXT "k={"v" * 253}" "{"v" * 47}"'],
     "meta beyond 255 octets is two strings of one record"),
    ("unnamed.service.consul", "A", ["unnamed.service.consul. A 192.0.2.9"], [], "no name is needed for it"),
    ("node-1.node.consul", "A", ["node-1.node.consul. A 192.0.2.1"],
     ['node-1.node.consul. TXT "os=linux"', 'node-1.node.consul. TXT "hello world"'],
     "a node by its name in any case, with its meta beside it"),
    ("node-1.node.dc1.consul", "TXT",
     ['node-1.node.dc1.consul. TXT "os=linux"', 'node-1.node.dc1.consul. TXT "hello world"'], [],
     "a node's meta: key=value, but the value alone for rfc1035- keys"),
    ("node-1.node.consul", "ANY",
     ["node-1.node.consul. A 192.0.2.1",
      'node-1.node.consul. TXT "os=linux"', 'node-1.node.consul. TXT "hello world"'], [],
     "ANY gives a node's addresses and meta"),
    ("n2.lan.node.consul", "AAAA", ["n2.lan.node.consul. AAAA 2001:db8::2"], [], "a node's name with a dot"),
    ("n3.node.consul", "A", ["n3.node.consul. CNAME n3.example.org."], [], "a node known by a host name"),
    ("0a000001.addr.consul", "A", ["0a000001.addr.consul. A 10.0.0.1"], [], "an address in its name"),
    ("0A000001.addr.dc1.consul", "ANY", ["0A000001.addr.dc1.consul. A 10.0.0.1"], [], "for ANY, case kept"),
    ("fd" + "0" * 29 + "7.addr.consul", "AAAA", ["fd" + "0" * 29 + "7.addr.consul. AAAA fd00::7"], [],
     "an IPv6 address in its name"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "qtype", "records", "additional", "law"), FOUND)
def test_found(name: str, qtype: str, records: list[str], additional: list[str], law: str) -> None:
    """What exists is answered with authority, and with no SOA."""
    reply = answer(SNAPSHOT, name, qtype)
    assert (dns.rcode.to_text(reply.rcode()), text(reply.answer)) == ("NOERROR", records), law
    assert text(reply.additional) == _grouped(additional), law
    assert text(reply.authority) == []
    assert dns.flags.to_text(reply.flags) == "QR AA RD"


def _grouped(records: list[str]) -> list[str]:
    """Put the records of one name and type together, as dnspython does."""
    keys = [record.split()[:2] for record in records]
    return sorted(records, key=lambda record: keys.index(record.split()[:2]))


@pytest.mark.parametrize(
    ("name", "qtype", "rcode", "law"),
    [
        ("web.service.consul", "AAAA", "NOERROR", "the name exists, in the other family: no data"),
        ("web.service.consul", "MX", "NOERROR", "and has no such type"),
        (
            "web.service.consul",
            "IXFR",
            "NOERROR",
            "an incremental transfer is a type like others, as in Consul",
        ),
        ("broken.service.consul", "A", "NOERROR", "an address that is neither IP nor name gives no record"),
        ("broken.service.consul", "SRV", "NOERROR", "nor a target"),
        ("unnamed.service.consul", "SRV", "NOERROR", "nor does a node that DNS cannot name"),
        ("n2.lan.node.consul", "SRV", "NOERROR", "a node has no SRV"),
        ("none.service.consul", "A", "NXDOMAIN", "no such service"),
        ("none.service.consul", "SRV", "NXDOMAIN", "no such service, for SRV"),
        ("down.service.consul", "A", "NXDOMAIN", "all of its instances are critical"),
        ("red.web.service.consul", "A", "NXDOMAIN", "the only one with this tag is critical"),
        ("none.web.service.consul", "A", "NXDOMAIN", "no such tag"),
        ("web.service.dc2.consul", "A", "NXDOMAIN", "a datacenter that is not known"),
        ("none.node.consul", "A", "NXDOMAIN", "no such node"),
        ("lan.node.consul", "A", "NXDOMAIN", "half of a node's name"),
        ("node-1.node.dc2.consul", "A", "NXDOMAIN", "a node elsewhere"),
        ("0a01.addr.consul", "A", "NXDOMAIN", "no address at all"),
        ("web.consul", "A", "NXDOMAIN", "no kind of name"),
        ("consul", "A", "NXDOMAIN", "the zone itself, as in Consul"),
    ],
)
def test_not_found(name: str, qtype: str, rcode: str, law: str) -> None:
    """What does not exist is answered with the zone's SOA as authority (RFC 2308)."""
    reply = answer(SNAPSHOT, name, qtype)
    assert (dns.rcode.to_text(reply.rcode()), text(reply.answer), text(reply.authority)) == (
        rcode,
        [],
        [SOA],
    ), law
    assert dns.flags.to_text(reply.flags) == "QR AA RD"


@pytest.mark.parametrize("name", ["", "example.org", "web.service.consul.org", "notconsul"])
def test_refused_outside_the_zone(name: str) -> None:
    """Another zone's names are refused without authority."""
    reply = answer(SNAPSHOT, name, "A")
    assert (dns.rcode.to_text(reply.rcode()), dns.flags.to_text(reply.flags)) == ("REFUSED", "QR RD")


def test_no_transfers() -> None:
    """A zone transfer is not implemented."""
    assert answer(SNAPSHOT, "consul", "AXFR").rcode() == dns.rcode.NOTIMP


def test_servfail_before_the_first_snapshot() -> None:
    """Without a snapshot nothing is known, not even that a name is missing; what is outside still is."""
    assert answer(None, "web.service.consul", "A").rcode() == dns.rcode.SERVFAIL
    assert answer(None, "consul", "SOA").rcode() == dns.rcode.SERVFAIL
    assert answer(None, "example.org", "A").rcode() == dns.rcode.REFUSED


def test_the_wrong_family_of_an_address_is_additional() -> None:
    """AAAA of an IPv4 address's name: no data, and the A record beside it."""
    reply = answer(SNAPSHOT, "0a000001.addr.consul", "AAAA")
    assert (text(reply.answer), text(reply.authority)) == ([], [SOA])
    assert text(reply.additional) == ["0a000001.addr.consul. A 10.0.0.1"]


def test_the_askers_network_decides() -> None:
    """One service, four askers: from its network, from another container, from outside, for SRV."""
    on_it, elsewhere = View(frozenset([BACK, FRONT])), View(frozenset([FRONT]))
    name = "near.service.consul"
    assert text(answer(SNAPSHOT, name, "A", view=on_it).answer) == [f"{name}. A 10.0.9.1"]
    assert text(answer(SNAPSHOT, name, "AAAA", view=on_it).answer) == [f"{name}. AAAA fd09::1"]
    assert text(answer(SNAPSHOT, name, "A", view=elsewhere).answer) == [f"{name}. A 192.0.2.2"]
    assert text(answer(SNAPSHOT, name, "AAAA", view=elsewhere).answer) == []
    assert text(answer(SNAPSHOT, name, "A", view=OUTSIDE).answer) == [f"{name}. A 10.0.9.1"]
    assert text(answer(SNAPSHOT, name, "SRV", view=elsewhere).answer) == [
        f"{name}. SRV 1 1 32768 c0000202.addr.dc1.consul."
    ]


def test_authority_of_consuls_servers() -> None:
    """NS is for every name of the zone the nodes of Consul's servers, three at most; SOA has them too."""
    servers = [entry("consul", n, address="", node=Node(f"S{n}", f"192.0.2.{n}")) for n in range(1, 6)]
    snapshot = snapshot_of(*servers, entry("web"))
    found = [f"consul. NS s{n}.node.dc1.consul." for n in (1, 2, 3)]
    glue = [f"s{n}.node.dc1.consul. A 192.0.2.{n}" for n in (1, 2, 3)]
    reply = answer(snapshot, "any.thing.consul", "NS")
    assert (text(reply.answer), text(reply.authority), text(reply.additional)) == (found, [], glue)
    reply = answer(snapshot, "consul", "SOA")
    assert (text(reply.answer), text(reply.authority), text(reply.additional)) == ([SOA], found, glue)


def test_authority_without_consul() -> None:
    """The embedded catalog's own node is the name server; one that DNS cannot name is left out."""
    nodes = {"n1": Node("n1", "192.0.2.1"), "no good": Node("no good", "192.0.2.2")}
    reply = answer(replace(SNAPSHOT, nodes=nodes), "consul", "NS")
    assert text(reply.answer) == ["consul. NS n1.node.dc1.consul."]
    assert text(reply.additional) == ["n1.node.dc1.consul. A 192.0.2.1"]
    assert text(answer(replace(SNAPSHOT, nodes={}), "consul", "NS").authority) == [SOA]


@pytest.mark.parametrize(
    ("name", "qtype", "service"),
    [("web.service.consul", "A", "web"), ("alias.service.consul", "SRV", "web"), ("consul", "NS", "consul")],
)
def test_what_is_not_loaded_is_named(name: str, qtype: str, service: str) -> None:
    """An answer that needs a known service's instances says which, also behind a CNAME."""
    services = {key: value for key, value in SNAPSHOT.services.items() if key != "web"}
    snapshot = replace(SNAPSHOT, services=services, names={**SNAPSHOT.names, "consul": ()})
    with pytest.raises(NotLoaded) as caught:
        answer(snapshot, name, qtype)
    assert caught.value.selection.name == service


def test_the_ttl_is_in_every_record_but_the_soa() -> None:
    """The zone's TTL goes into answers and additional records; negative answers are not kept."""
    zone = Zone.named("sd.example", ttls=Ttls(node=30, services={"*": 30}))
    reply = answer(SNAPSHOT, "web.service.sd.example", "SRV", zone=zone)
    assert {rrset.ttl for rrset in (*reply.answer, *reply.additional)} == {30}
    assert answer(SNAPSHOT, "none.service.sd.example", "A", zone=zone).authority[0].ttl == 0


def test_instances_are_given_in_the_order_that_the_shuffle_makes() -> None:
    """The shuffle is the caller's, and works on a copy: the snapshot stays as it is."""
    snapshot = snapshot_of(*(entry("web", n) for n in (1, 2, 3)))
    question = names.parse((b"web", b"service", b"consul"), Type.A, ZONE.domains)
    made = answers.answer(
        question, Known(snapshot, lambda _: None), OUTSIDE, ZONE, Terms(NOW, lambda e: e.reverse())
    )
    assert [record.data[-1] for record in made.answers] == [3, 2, 1]
    assert [e.instance.address for e in snapshot.services["web"].entries] == [
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.3",
    ]
