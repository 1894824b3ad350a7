"""The law of the round trip: what is registered is reported back equal, or the plan never gets empty."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registrator.model import (
    CRITICAL,
    META_OWNER,
    PASSING,
    WARNING,
    Address,
    Health,
    Instance,
    Weights,
)
from tests.contract.build import Catalog, health_check

# What the bridge may write: tags, meta and weights within Consul's limits, addresses that can be
# connected to, tags sorted and once each, addresses sorted by key and one for each.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
words = st.text("abcXYZ019-_.", min_size=1, max_size=20)
ports = st.integers(0, 65535)
ips = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).filter(lambda ip: not ip.is_unspecified).map(str)
meta_keys = st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True).filter(
    lambda key: not key.lower().startswith("consul-") and key != META_OWNER
)
addresses = st.lists(
    st.builds(
        Address,
        network=st.text("abcXYZ019-_./ ü", max_size=20),
        network_id=st.one_of(st.just(""), st.text("0123456789abcdefz", min_size=12, max_size=12)),
        ip=ips,
        port=ports,
    ),
    max_size=6,
    unique_by=lambda address: address.key,
).map(lambda found: tuple(sorted(found, key=lambda address: address.key)))


@st.composite
def instances(draw: st.DrawFn) -> Instance:
    return Instance(
        id=draw(st.text("abcXYZ019-_.:", min_size=1, max_size=30)),
        service=draw(words),
        address=draw(st.one_of(st.just(""), st.just("db.example.org"), ips)),
        port=draw(ports),
        tags=tuple(sorted(draw(st.sets(texts, max_size=5)))),
        meta=draw(st.dictionaries(meta_keys, texts, max_size=5)),
        addresses=draw(addresses),
        weights=Weights(draw(st.integers(1, 65535)), draw(st.integers(0, 65535))),
        health=draw(st.none() | st.builds(Health, st.sampled_from([PASSING, WARNING, CRITICAL]), texts)),
        enable_tag_override=draw(st.booleans()),
    )


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=instances())
async def test_what_is_registered_comes_back_equal(
    opened: Catalog, name: str, owner: str, drawn: Instance
) -> None:
    """Every field but the checks, whatever was registered under that id before."""
    wanted = replace(drawn, id=f"{name}:{drawn.id}", meta={**drawn.meta, META_OWNER: owner})
    wanted = replace(wanted, checks=(health_check(wanted.id),) if wanted.health else ())
    await opened.register(wanted)
    assert (await opened.owned(owner))[wanted.id] == replace(wanted, checks=())
    await opened.deregister(wanted.id)
    assert await opened.owned(owner) == {}
