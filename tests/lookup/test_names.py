"""What a DNS name means, by Consul's grammar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.lookup.names import (
    AddressName,
    Authority,
    MeshName,
    NodeName,
    Nothing,
    Outside,
    QueryName,
    ReverseName,
    ServiceName,
    Subject,
    Transfer,
    parse,
)
from registrator.lookup.records import Name, Type

CONSUL: Name = (b"consul",)


def labels(text: str) -> Name:
    return tuple(part.encode() for part in text.split(".")) if text else ()


@pytest.mark.parametrize(
    ("name", "qtype", "meaning", "why"),
    [
        ("web.service.consul", Type.A, ServiceName("web"), "the plain form"),
        ("WEB.Service.CONSUL", Type.A, ServiceName("web"), "case does not matter"),
        ("blue.web.service.consul", Type.A, ServiceName("web", "blue"), "a tag stands before the name"),
        (
            "v1.2.web.service.consul",
            Type.A,
            ServiceName("web", "v1.2"),
            "a tag's dots are labels of their own",
        ),
        ("web.service.dc1.consul", Type.A, ServiceName("web", datacenter="dc1"), "a datacenter follows"),
        ("web.service.dc1.dc.consul", Type.A, ServiceName("web", datacenter="dc1"), "its long form"),
        ("web.service.dc1.x.consul", Type.A, Nothing(), "no other locality has two labels"),
        ("web.service.a.b.dc.consul", Type.A, Nothing(), "nor has any three"),
        ("_web._tcp.service.consul", Type.SRV, ServiceName("web"), "RFC 2782: tcp is no tag"),
        ("_web._TCP.service.consul", Type.A, ServiceName("web"), "RFC 2782 for addresses too, in any case"),
        ("_web._udp.service.consul", Type.SRV, ServiceName("web", "udp"), "RFC 2782: udp is a tag"),
        ("_web._tcp.consul", Type.SRV, ServiceName("web"), "SRV may leave out the word service"),
        ("_web._blue.dc1.consul", Type.SRV, ServiceName("web", "blue", "dc1"), "also before a datacenter"),
        ("_web._tcp.consul", Type.A, Nothing(), "other types may not"),
        (
            "_x._web._tcp.consul",
            Type.SRV,
            ServiceName("_tcp", "_x._web"),
            "three labels are no RFC 2782 name",
        ),
        ("_web.service.consul", Type.SRV, ServiceName("_web"), "nor is one"),
        ("tcp.web.service.consul", Type.SRV, ServiceName("web", "tcp"), "in the plain form tcp is a tag"),
        ("service.consul", Type.A, Nothing(), "a kind without a name"),
        ("web.node.service.consul", Type.A, ServiceName("node", "web"), "the kind farthest right counts"),
        ("n1.node.consul", Type.A, NodeName("n1"), "a node"),
        ("a.b.node.dc1.consul", Type.TXT, NodeName("a.b", "dc1"), "a node's name may have dots"),
        ("n1.node.x.y.consul", Type.A, Nothing(), "a node has the same localities"),
        ("node.consul", Type.A, Nothing(), "a node without a name"),
        ("0a000001.addr.consul", Type.A, AddressName((b"\x0a\0\0\x01",)), "an IPv4 address"),
        ("0A000001.addr.dc7.x.y.consul", Type.A, AddressName((b"\x0a\0\0\x01",)), "in any place and case"),
        (
            "fd00" + "0" * 27 + "5.addr.consul",
            Type.AAAA,
            AddressName((b"\xfd" + b"\0" * 14 + b"\5",)),
            "an IPv6 one",
        ),
        (
            "0a000001fd00" + "0" * 27 + "5.addr.consul",
            Type.A,
            AddressName((b"\x0a\0\0\x01", b"\xfd" + b"\0" * 14 + b"\5")),
            "both addresses of a dual-stack instance, which Consul does not know",
        ),
        ("0a0001.addr.consul", Type.A, Nothing(), "no address has six digits"),
        ("+a000001.addr.consul", Type.A, Nothing(), "no digit is a sign"),
        ("\u0660a000001.addr.consul", Type.A, Nothing(), "nor of another script"),
        ("x.0a000001.addr.consul", Type.A, Nothing(), "an address is one label"),
        ("web.connect.consul", Type.A, MeshName("connect", "web"), "a service through the mesh"),
        (
            "x.web.connect.dc2.consul",
            Type.A,
            MeshName("connect", "web", "dc2"),
            "what is left of it is no tag",
        ),
        ("web.ingress.consul", Type.SRV, MeshName("ingress", "web"), "the gateways to a service"),
        ("web.connect.x.y.consul", Type.A, Nothing(), "the mesh has the same localities"),
        ("geo.web.query.consul", Type.A, QueryName("geo.web"), "a prepared query's name may have dots"),
        ("q.query.DC2.consul", Type.A, QueryName("q", "dc2"), "and a datacenter"),
        ("query.consul", Type.A, Nothing(), "a query without a name"),
        ("web.virtual.consul", Type.A, Nothing(), "virtual addresses came after 1.8.7"),
        ("5.0.0.10.in-addr.ARPA", Type.PTR, ReverseName("10.0.0.5"), "an address in reverse"),
        (".".join("5" + "0" * 27 + "00df") + ".ip6.arpa", Type.PTR, ReverseName("fd00::5"), "of IPv6, too"),
        ("5.0.0.10.in-addr.arpa", Type.SOA, ReverseName("10.0.0.5"), "whatever is asked of it"),
        ("0.0.10.in-addr.arpa", Type.PTR, Outside(), "a part of an address is not ours"),
        ("256.0.0.10.in-addr.arpa", Type.PTR, Outside(), "nor what is no address"),
        (".".join("g" * 32) + ".ip6.arpa", Type.PTR, Outside(), "of either family"),
        ("arpa", Type.PTR, Outside(), "nor the rest of arpa"),
        ("web.consul", Type.A, Nothing(), "no kind at all"),
        ("consul", Type.A, Nothing(), "the zone's own name has no address"),
        ("consul", Type.SOA, Authority(), "but it has an SOA record"),
        ("any.thing.consul", Type.NS, Authority(), "as has every name in it"),
        ("web.service.consul", Type.AXFR, Transfer(), "a zone transfer is told apart"),
        ("example.org", Type.A, Outside(), "another zone"),
        ("notconsul", Type.A, Outside(), "labels are compared, not letters"),
        ("consul.org", Type.A, Outside(), "and from the right"),
        ("", Type.NS, Outside(), "the root is not ours"),
    ],
)
def test_names(name: str, qtype: Type, meaning: Subject, why: str) -> None:
    """Each form of a name means what Consul takes it for."""
    assert parse(labels(name), qtype, [CONSUL]).subject == meaning, why


@pytest.mark.parametrize(
    ("name", "qtype", "meaning", "why"),
    [
        ("redis", Type.A, ServiceName("redis"), "one label alone"),
        ("ReDis", Type.SRV, ServiceName("redis"), "in any case and of any type"),
        ("redis", Type.NS, ServiceName("redis"), "it is no zone, so NS is a type like others"),
        ("_redis", Type.SRV, ServiceName("_redis"), "an underscore says nothing where no tag can follow"),
        ("service", Type.A, ServiceName("service"), "the words of the grammar are names like others"),
        ("redis", Type.AXFR, Outside(), "it is no zone that could be transferred"),
        ("blue.redis", Type.A, Outside(), "with a tag it would be a name of the domain redis"),
        ("_redis._tcp", Type.SRV, Outside(), "RFC 2782 names need a domain"),
        ("consul", Type.A, Nothing(), "our own zone stays itself"),
        ("", Type.A, Outside(), "and so does the root"),
    ],
)
def test_bare_names(name: str, qtype: Type, meaning: Subject, why: str) -> None:
    """Where the operator wants it, one label is a service's name, and is marked so."""
    question = parse(labels(name), qtype, [CONSUL], bare=True)
    assert question.subject == meaning, why
    assert question.is_bare == isinstance(meaning, ServiceName)
    assert question.domain == CONSUL
    assert not parse(labels(name), qtype, [CONSUL]).is_bare


@pytest.mark.parametrize("zone", [(), CONSUL])
def test_a_name_in_the_zone_is_not_bare(zone: Name) -> None:
    """However short it is, and whatever a dot inside its only label looks like."""
    assert not parse((b"_redis._tcp", *zone), Type.SRV, [CONSUL], bare=True).is_bare
    assert not parse((b"redis", b"service", *CONSUL), Type.A, [CONSUL], bare=True).is_bare


def test_a_zone_may_have_several_labels() -> None:
    """A zone of two labels needs both."""
    domain = (b"sd", b"example")
    assert parse(labels("web.service.SD.Example"), Type.A, [domain]).subject == ServiceName("web")
    assert parse(labels("web.service.example"), Type.A, [domain]).subject == Outside()


@pytest.mark.parametrize("name", [(b"web.service", b"consul"), (b"a.b", b"web", b"service", b"consul")])
def test_a_dot_inside_a_label_joins_nothing(name: Name) -> None:
    """A label that holds a dot is not two labels."""
    assert parse(name, Type.A, [CONSUL]).subject == Nothing()


def test_the_question_keeps_its_case() -> None:
    """The name stays as it was asked, for the reply."""
    assert parse(labels("WeB.service.consul"), Type.A, [CONSUL]).name == labels("WeB.service.consul")


@given(st.lists(st.binary(min_size=1, max_size=63), max_size=8), st.integers(0, 65535))
def test_any_octets_have_a_meaning(left: list[bytes], qtype: int) -> None:
    """No label, be it text or not, makes the parse fail."""
    assert not isinstance(parse((*left, b"consul"), qtype, [CONSUL]).subject, Outside)


def test_the_longest_of_our_domains_counts() -> None:
    """A name in several zones of ours is read in the longest; the answer is made in it."""
    ours = [CONSUL, labels("node.consul"), labels("sd.example")]
    inner = parse(labels("web.service.Node.consul"), Type.A, ours)
    assert (inner.subject, inner.domain) == (ServiceName("web"), labels("node.consul"))
    assert parse(labels("web.service.sd.example"), Type.A, ours).domain == labels("sd.example")
    assert parse(labels("5.0.0.10.in-addr.arpa"), Type.PTR, ours).domain == CONSUL
