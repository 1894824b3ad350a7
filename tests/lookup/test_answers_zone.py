"""What is answered beyond the snapshot (mesh, queries, datacenters, reverse) and by the zone's rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import dns.rcode
import pytest

from registrator.lookup.ask import NotLoaded, Ttls, Zone
from registrator.model import CRITICAL, WARNING, Node, Selected, Selection
from tests.lookup.fakes import entry, snapshot_of
from tests.lookup.messages import NOW, answer, text

BARE = Zone.named("consul", bare_names=True)

N1 = Node("Node-1", "192.0.2.1", tagged_addresses={"lan_ipv4": "192.0.2.1", "lan_ipv6": "2001:db8::1"})
FAR = Node("far", "198.51.100.1", "dc2")

SNAPSHOT = replace(
    snapshot_of(
        entry("web", 1, node=N1),
        entry("web", 2, node=N1, status=WARNING),
        entry("bare", address="", node=N1),
        entry("abroad", address="web.service.dc2.consul", node=N1),
    ),
    datacenters=("dc1", "dc2"),
)
FOUND: Mapping[Selection, Selected] = {
    Selection("connect", "web"): Selected((entry("web-proxy", 21), entry("web-proxy", 22, status=CRITICAL))),
    Selection("connect", "none"): Selected(),
    Selection("ingress", "web"): Selected((entry("gateway", 31, port=8888),)),
    Selection("query", "geo.web"): Selected((entry("web", 3, status=CRITICAL),), service="Web", ttl=11),
    Selection("query", "any"): Selected((entry("web", 3),), service="Web"),
    Selection("query", "none"): Selected(),
    Selection("service", "web", "dc2"): Selected((entry("web", 41, node=FAR, tags=("Blue",)),)),
    Selection("service", "none", "dc2"): Selected(),
    Selection("node", "far", "dc2"): Selected(node=FAR),
    Selection("node", "none", "dc2"): Selected(),
    Selection("address", "10.0.0.1"): Selected((entry("web", 1, node=N1), entry("other", 1, node=N1))),
    Selection("address", "10.0.0.9"): Selected(),
}


@pytest.mark.parametrize(
    ("name", "qtype", "records", "law"),
    [
        ("web.connect.consul", "A", ["web.connect.consul. A 10.0.0.21"], "a critical proxy is left out"),
        ("x.web.connect.dc1.consul", "A", ["x.web.connect.dc1.consul. A 10.0.0.21"], "our own datacenter"),
        ("web.ingress.consul", "SRV",
         ["web.ingress.consul. SRV 1 1 8888 0a00001f.addr.dc1.consul."], "a gateway's port"),
        ("Geo.web.query.consul", "A", ["Geo.web.query.consul. A 10.0.0.3"],
         "a query's instances are taken as they are: Consul has chosen them"),
        ("web.service.dc2.consul", "SRV",
         ["web.service.dc2.consul. SRV 1 1 80 0a000029.addr.dc2.consul."], "targets are in their datacenter"),
        ("blue.web.service.DC2.consul", "A", ["blue.web.service.DC2.consul. A 10.0.0.41"], "with a tag"),
        ("far.node.dc2.consul", "A", ["far.node.dc2.consul. A 198.51.100.1"], "a node elsewhere"),
        ("abroad.service.consul", "A",
         ["abroad.service.consul. CNAME web.service.dc2.consul.", "web.service.dc2.consul. A 10.0.0.41"],
         "a CNAME is followed to another datacenter"),
        ("1.2.0.192.in-addr.arpa", "PTR",
         ["1.2.0.192.in-addr.arpa. PTR Node-1.node.dc1.consul."], "a node's address"),
        (".".join("1" + "0" * 23 + "8bd01002") + ".ip6.arpa", "PTR",
         [".".join("1" + "0" * 23 + "8bd01002") + ".ip6.arpa. PTR Node-1.node.dc1.consul."],
         "its address of the other family"),
        ("1.0.0.10.in-addr.arpa", "PTR",
         ["1.0.0.10.in-addr.arpa. PTR web.service.dc1.consul."], "a service's, the first of several"),
        ("1.0.0.10.in-addr.arpa", "A",
         ["1.0.0.10.in-addr.arpa. PTR web.service.dc1.consul."], "whatever type was asked, as in Consul"),
    ],
)  # fmt: skip
def test_found(name: str, qtype: str, records: list[str], law: str) -> None:
    """What the catalog finds on request is answered like what is in the snapshot."""
    reply = answer(SNAPSHOT, name, qtype, selections=FOUND)
    assert (dns.rcode.to_text(reply.rcode()), text(reply.answer)) == ("NOERROR", records), law


@pytest.mark.parametrize(
    "name",
    ["none.connect.consul", "none.query.consul", "none.service.dc2.consul", "none.node.dc2.consul",
     "web.service.dc3.consul", "web.connect.dc3.consul", "9.0.0.10.in-addr.arpa"],
)  # fmt: skip
def test_not_found(name: str) -> None:
    """What is not found does not exist; a datacenter that is not known needs no request."""
    reply = answer(SNAPSHOT, name, "A", selections=FOUND)
    assert reply.rcode() == dns.rcode.NXDOMAIN
    assert text(reply.authority) == [f"consul. SOA ns.consul. hostmaster.consul. {NOW} 3600 600 86400 0"]


@pytest.mark.parametrize(
    ("name", "selection"),
    [
        ("web.connect.dc1.consul", Selection("connect", "web")),
        ("a.b.query.dc2.consul", Selection("query", "a.b", "dc2")),
        ("none.service.dc2.consul", Selection("service", "none", "dc2")),
        ("far.node.dc2.consul", Selection("node", "far", "dc2")),
        ("9.0.0.10.in-addr.arpa", Selection("address", "10.0.0.9")),
        ("abroad.service.consul", Selection("service", "web", "dc2")),
    ],
)
def test_what_must_be_asked_for_is_named(name: str, selection: Selection) -> None:
    """Nothing is assumed of what no snapshot holds."""
    with pytest.raises(NotLoaded) as caught:
        answer(SNAPSHOT, name, "A")
    assert caught.value.selection == selection


def test_the_answer_is_in_the_domain_that_was_asked() -> None:
    """Targets and SOA carry the alternative domain where it was asked; reverse names have the first."""
    zone = Zone.named("consul", "SD.example")
    reply = answer(SNAPSHOT, "bare.service.sd.example", "SRV", zone=zone)
    assert text(reply.answer) == ["bare.service.sd.example. SRV 1 1 80 Node-1.node.dc1.sd.example."]
    assert "Node-1.node.dc1.sd.example. A 192.0.2.1" in text(reply.additional)
    assert text(answer(SNAPSHOT, "x.sd.example", "A", zone=zone).authority)[0].startswith("sd.example. SOA")
    reply = answer(SNAPSHOT, "1.2.0.192.in-addr.arpa", "PTR", zone=zone)
    assert text(reply.answer) == ["1.2.0.192.in-addr.arpa. PTR Node-1.node.dc1.consul."]


@pytest.mark.parametrize(
    ("service", "ttl"), [("web", 1), ("website", 2), ("weird", 3), ("other", 4), ("w", 4), ("", 4)]
)
def test_ttls_by_name(service: str, ttl: int) -> None:
    """The name itself counts before the longest prefix, and that before the star."""
    assert Ttls(services={"*": 4, "we*": 3, "web": 1, "web*": 2}).of(service) == ttl


def test_ttls_where_nothing_is_set() -> None:
    """Without a rule that fits the TTL is 0."""
    assert Ttls(services={"web*": 2}).of("other") == 0


@pytest.mark.parametrize(
    ("name", "qtype", "ttl"),
    [
        ("web.service.consul", "A", 5),
        ("bare.service.consul", "SRV", 7),
        ("web.connect.consul", "A", 5),
        ("geo.web.query.consul", "A", 11),
        ("any.query.consul", "A", 5),
        ("abroad.service.consul", "A", 7),
        ("node-1.node.consul", "ANY", 60),
        ("0a000001.addr.consul", "A", 60),
        ("consul", "NS", 60),
        ("1.2.0.192.in-addr.arpa", "PTR", 0),
    ],
)
def test_which_ttl_is_given(name: str, qtype: str, ttl: int) -> None:
    """A service's, a query's own, a node's; records that come along have that of what was asked."""
    zone = Zone.named("consul", ttls=Ttls(60, {"*": 7, "web": 5}))
    reply = answer(SNAPSHOT, name, qtype, zone=zone, selections=FOUND)
    assert {rrset.ttl for rrset in (*reply.answer, *reply.additional)} == {ttl}


def test_only_passing() -> None:
    """Where it is set, a warning instance is left out like a critical one."""
    zone = Zone.named("consul", only_passing=True)
    assert text(answer(SNAPSHOT, "web.service.consul", "A", zone=zone).answer) == [
        "web.service.consul. A 10.0.0.1"
    ]


# Bare names -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "qtype", "rcode", "records", "law"),
    [
        ("Web", "A", "NOERROR", ["Web. A 10.0.0.1", "Web. A 10.0.0.2"], "the name asked owns the records"),
        ("web", "SRV", "NOERROR",
         ["web. SRV 1 1 80 0a000001.addr.dc1.consul.", "web. SRV 1 1 80 0a000002.addr.dc1.consul."],
         "their targets are in the zone"),
        ("web", "AAAA", "NOERROR", [], "there is no address of this family"),
        ("web", "NS", "NOERROR", [], "nor a zone"),
        ("down", "A", "NXDOMAIN", [], "a service without a healthy instance, as in the zone"),
        ("alias", "A", "NOERROR",
         ["alias. CNAME web.", "web. A 10.0.0.1", "web. A 10.0.0.2"],
         "a CNAME to a bare name is followed"),
        ("self", "A", "NOERROR", ["self. A 192.0.2.1"], "a service whose address is the name asked"),
    ],
)  # fmt: skip
def test_bare_names(name: str, qtype: str, rcode: str, records: list[str], law: str) -> None:
    """A service's bare name is answered with authority, but without the zone's SOA: it is not in the zone."""
    snapshot = snapshot_of(
        *SNAPSHOT.services["web"].entries,
        entry("down", status=CRITICAL),
        entry("alias", address="web"),
        entry("self", address="self", node=N1),
    )
    reply = answer(snapshot, name, qtype, zone=BARE)
    assert (dns.rcode.to_text(reply.rcode()), text(reply.answer)) == (rcode, records), law
    assert text(reply.authority) == []
    assert dns.flags.to_text(reply.flags) == "QR AA RD"


@pytest.mark.parametrize("name", ["nobody", "blue.web", "com"])
def test_a_bare_name_of_no_service_is_outside(name: str) -> None:
    """It is refused, so that resolvers ask the next server for it: another one may know it."""
    reply = answer(SNAPSHOT, name, "A", zone=BARE)
    assert (dns.rcode.to_text(reply.rcode()), dns.flags.to_text(reply.flags)) == ("REFUSED", "QR RD")


def test_a_bare_name_before_the_first_snapshot() -> None:
    """Whether it is a service's is not known yet: SERVFAIL."""
    assert answer(None, "web", "A", zone=BARE).rcode() == dns.rcode.SERVFAIL


def test_a_bare_name_that_is_not_loaded_is_named() -> None:
    """It is loaded like the name in the zone."""
    with pytest.raises(NotLoaded):
        answer(replace(SNAPSHOT, services={}), "web", "A", zone=BARE)
    assert answer(replace(SNAPSHOT, services={}), "web", "A").rcode() == dns.rcode.REFUSED
