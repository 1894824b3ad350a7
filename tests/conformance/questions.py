"""The questions, made from the catalog: every form of a name, every type that matters, every size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dns.reversename

from tests.conformance import catalog
from tests.conformance.compare import Question

TYPES = ("A", "AAAA", "SRV", "ANY", "TXT", "MX")
ALL_TYPES = (*TYPES, "SOA", "NS", "PTR", "CNAME", "HTTPS", "IXFR", "AXFR")
SIZES = (None, 512, 1232, 4096, 65535)

TAGGED = (
    "blue.web", "BLUE.WEB", "v1.2.web", "red.web", "nope.web", "closed.web", "tcp.web", "udp.web",
    "mixed.upper", "snake_tag.under_score", "a.b.c.web",
)  # fmt: skip
RFC_2782 = (
    "_web._tcp", "_web._tcp.service", "_WEB._TCP.service", "_web._udp", "_web._udp.service",
    "_web._blue.service", "_web._v1.2.service", "_web._v1._2.service", "_web._tcp.service.dc1",
    "_web._tcp.dc1", "_web._tcp.dc9", "_under_score._tcp", "_web.service", "_web._.service",
    "__web._tcp.service", "x._web._tcp.service", "_tcp.web.service", "web._tcp.service", "_web._tcp.node",
)  # fmt: skip
MESH = (
    "web.connect", "WEB.connect", "native.connect", "nobody.connect", "solo.connect", "blue.web.connect",
    "a.b.connect", "web.connect.dc1", "web.connect.dc2", "web.connect.dc9", "far-web.connect.dc2",
    "solo.ingress", "web.ingress", "nobody.ingress", "x.solo.ingress", "solo.ingress.dc1",
    "solo.ingress.dc9", "web.virtual",
)  # fmt: skip
QUERIES = (
    "any-solo.query", "any-none.query", "FIND-WEB.query", "find-upper.query", "nope.query",
    "find-web.query.dc1", "find-web.query.dc2", "find-web.query.dc9",
)  # fmt: skip
DATACENTERS = (
    "far-web.service.dc2", "far-web.service.DC2", "blue.far-web.service.dc2", "far-bare.service.dc2",
    "solo.service.dc2", "web.service.dc2", "nobody.service.dc2", "_far-web._tcp.dc2", "far-node.node.dc2",
    "FAR-NODE.node.dc2", "nobody.node.dc2", "web.service.dc1", "node-1.node.dc1", "web.service.dc9",
    "node-1.node.dc9", "web.service.dc1.dc", "web.service.a.b", "node-1.node.a.b",
)  # fmt: skip
ADDRESSES = (
    "0a000001.addr", "0A000001.addr", "0a000001.addr.dc1", "0a000001.addr.a.b.c", "ffffffff.addr",
    "20010db8000000000000000000000006.addr", "00000000000000000000ffff0a000001.addr", "0a01.addr",
    "zzzzzzzz.addr", "0a0000011.addr", "x.0a000001.addr",
)  # fmt: skip
NOTHINGS = (
    "", "service", "node", "query", "addr", "connect", "ingress", "web", "dc1", "web.service.node",
    "web.node.service", "service.service", "node.node", "web.foo", "tag.web.service.dc1.foo", "ns", "NS",
)  # fmt: skip
OUTSIDE = (
    "", "org", "example.org", "consul.org", "notconsul", "_web._tcp", "arpa", "10.in-addr.arpa",
    "999.0.0.10.in-addr.arpa",
)  # fmt: skip
REVERSED = (
    "10.1.0.1", "10.1.0.2", "10.1.0.4", "10.0.0.9", "10.0.0.2", "10.0.0.3", "10.0.0.21", "10.2.1.7",
    "10.3.0.1", "10.0.0.41", "10.0.0.61", "10.99.0.1", "203.0.113.2", "10.9.0.1", "127.0.0.1", "2001:db8::6",
    "2001:db8::4", "2001:db8:1::1", "2001:db8:1::4", "2001:db8::99",
)  # fmt: skip

# What few askers send, as fields of a Question.
OPCODES = ("IQUERY", "STATUS", "NOTIFY", "UPDATE", "3", "6", "15")
CLASSES = ("CH", "HS", "ANY", "NONE", "CLASS77", "RESERVED0")
FLAGS = ("", "RD CD", "RD AD", "CD", "AA RD", "TC RD", "RA RD")
VERSIONS = (1, 2, 255)
COUNTS = (0, 2, 3)
OFFERS = (0, 100, 511, 513)
UNKNOWN_TYPES = (
    "TYPE0", "OPT", "HINFO", "NAPTR", "DNAME", "DS", "RRSIG", "DNSKEY", "SVCB", "TSIG", "MAILB", "URI", "CAA",
    "TYPE65280", "TYPE65535",
)  # fmt: skip
SUBNETS = ("198.51.100.0/24", "2001:db8::/56")
TOLD_BY_OTHERS = ("version.bind", "hostname.bind", "id.server", "version.server", "authors.bind")


def services() -> list[str]:
    """All service names, and one that is none."""
    return [*sorted({r["Service"]["Service"] for r in catalog.registrations()}), "nobody"]


def nodes() -> list[str]:
    """All node names, and some that are none."""
    return [*catalog.NODES, "consul-test", "NODE-1", "nobody", "lan"]


def table(domain: str = "consul") -> dict[str, list[Question]]:
    """Every question once, by its name; names are in `domain` where they are in a zone at all."""
    found: dict[str, list[Question]] = {}
    for question in dict.fromkeys([*_plain(domain), *_sized(domain), *_unusual(domain)]):
        found.setdefault(question.name, []).append(question)
    return found


def _plain(domain: str) -> list[Question]:
    """Every name, with EDNS for what is large."""
    queries = [f"{query['Name']}.query" for query in catalog.QUERIES] + list(QUERIES)
    return [
        *_asked(domain, [f"{name}.service" for name in services()], TYPES),
        *_asked(domain, [f"{name}.service" for name in TAGGED], ("A", "SRV")),
        *_asked(domain, RFC_2782, ("SRV", "A")),
        *_asked(domain, [f"{name}.node" for name in nodes()], (*TYPES, "CNAME")),
        *_asked(domain, MESH, ("A", "AAAA", "SRV", "ANY")),
        *_asked(domain, queries, ("A", "AAAA", "SRV", "ANY")),
        *_asked(domain, DATACENTERS, ("A", "SRV", "TXT", "NS", "SOA")),
        *_asked(domain, ADDRESSES, ("A", "AAAA", "ANY", "SRV")),
        *_asked(domain, NOTHINGS, ("A", "SRV")),
        *_asked(domain, ["web.service", "WeB.sErViCe", "node-1.node", ""], ALL_TYPES),
        *(Question(name, qtype) for name in OUTSIDE for qtype in ("A", "SOA", "AXFR")),
        *(Question(_reversed(ip), qtype) for ip in REVERSED for qtype in ("PTR", "ANY", "A", "SOA")),
    ]


def _asked(domain: str, names: list[str] | tuple[str, ...], types: tuple[str, ...]) -> list[Question]:
    return [Question(".".join(filter(None, (name, domain))), qtype) for name in names for qtype in types]


def _sized(domain: str) -> list[Question]:
    """Crowds in every size, over both transports; a node and what is not there, too."""
    names = [
        f"{name}.service.{domain}" for name in ("web", "solo", "bare", "three", "thirty", "many", "nobody")
    ]
    names += [f"under_score.node.{domain}", f"find-many.query.{domain}"]
    return [
        Question(name, qtype, size, tcp)
        for name in names
        for qtype in ("A", "SRV", "ANY")
        for size in SIZES
        for tcp in (False, True)
    ]


def _unusual(domain: str) -> list[Question]:
    """What few askers send, about what is there, what is not and what is not ours."""
    zone = [f"{name}.{domain}" for name in ("WEB.service", "nobody.service", "Node-1.node")]
    usual = [Question(name, "A") for name in (*zone, domain, "Example.org", _reversed("10.1.0.1"))]
    changes: list[dict[str, Any]] = [
        *({"opcode": opcode} for opcode in OPCODES),
        *({"qclass": qclass} for qclass in CLASSES),
        *({"flags": flags} for flags in FLAGS),
        *({"version": version} for version in VERSIONS),
        *({"count": count} for count in COUNTS),
        *({"size": size} for size in OFFERS),
        *({"qtype": qtype} for qtype in UNKNOWN_TYPES),
        *({"subnet": subnet} for subnet in SUBNETS),
        {"dnssec_ok": True},
        {"dnssec_ok": True, "flags": "RD AD CD"},
    ]
    odd = [replace(question, **change) for question in usual for change in changes]
    without = [replace(question, size=None) for question in odd if not (question.version or question.subnet)]
    told = [Question(name, "TXT", qclass=qclass) for name in TOLD_BY_OTHERS for qclass in ("CH", "IN")]
    return [*odd, *without, *told, *(replace(question, tcp=True) for question in (*odd, *told))]


def _reversed(ip: str) -> str:
    return str(dns.reversename.from_address(ip)).removesuffix(".")
