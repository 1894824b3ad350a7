"""Every question of the table to Consul and to us: the same answer, or a difference that is on the list."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conformance.compare import Question, differences, ours, theirs
from tests.conformance.conftest import Pair
from tests.conformance.deliberate import DELIBERATE, Deliberate
from tests.conformance.questions import (
    ALL_TYPES,
    CLASSES,
    COUNTS,
    FLAGS,
    OFFERS,
    OPCODES,
    SIZES,
    SUBNETS,
    UNKNOWN_TYPES,
    VERSIONS,
    nodes,
    services,
    table,
)

pytestmark = pytest.mark.consul
beside_consul = pytest.mark.asyncio(loop_scope="module")

TABLE, ALTERNATIVE = table(), table("alt.example")


async def compare(question: Question, pair: Pair, rows: Sequence[Deliberate] = DELIBERATE) -> str:
    """What is different about the two answers in parts that no row allows; "" for nothing."""
    mine, consul = await asyncio.gather(ours(question, pair.resolver), theirs(question, pair.port))
    whole = consul
    if mine.answer != consul.answer and not question.tcp:
        whole = await theirs(replace(question, tcp=True), pair.port)
    different = differences(mine, consul, whole)
    for row in rows:
        if different & row.parts and row.holds(question, mine, consul):
            different -= row.parts
    return f"{question}: {sorted(different)}\n  ours:   {mine}\n  Consul: {consul}" if different else ""


async def compare_all(questions: list[Question], pair: Pair) -> None:
    found = [difference for question in questions if (difference := await compare(question, pair))]
    assert not found, "\n".join(found)


@beside_consul
@pytest.mark.parametrize("name", TABLE)
async def test_with_the_defaults(name: str, plain_pair: Pair) -> None:
    """Both as they come."""
    await compare_all(TABLE[name], plain_pair)


@beside_consul
@pytest.mark.parametrize("name", TABLE)
async def test_with_other_options(name: str, tuned_pair: Pair) -> None:
    """Both with TTLs, only passing instances, five answers instead of three, and TC where it is due."""
    await compare_all(TABLE[name], tuned_pair)


@beside_consul
@pytest.mark.parametrize("name", ALTERNATIVE)
async def test_in_the_alternative_domain(name: str, tuned_pair: Pair) -> None:
    """The same names in the second domain; how much fits depends on its length, so nothing that is cut."""
    whole = [q for q in ALTERNATIVE[name] if q.tcp or (q.size == 4096 and "many" not in name)]
    await compare_all(whole, tuned_pair)


KINDS = st.sampled_from(
    ["service", "node", "connect", "ingress", "query", "addr", "virtual", "dc1", "dc2", "x"]
)
WORDS = st.one_of(
    st.sampled_from(
        [*services(), *nodes(), "blue", "v1", "2", "_web", "_tcp", "_blue", "0a000009", "find-web"]
    ),
    st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True),
)
NAMES = st.lists(st.one_of(WORDS, KINDS), max_size=6).map(lambda labels: ".".join([*labels, "consul"]))
QUESTIONS = st.builds(Question, NAMES, st.sampled_from(ALL_TYPES), st.sampled_from(SIZES), st.booleans())
SMALL_NAMES = st.sampled_from([name for name in TABLE if "many" not in name])
UNUSUAL = st.builds(
    Question,
    st.one_of(SMALL_NAMES, NAMES),
    st.sampled_from([*ALL_TYPES, *UNKNOWN_TYPES]),
    st.sampled_from([*SIZES, *OFFERS]),
    st.booleans(),
    qclass=st.sampled_from(["IN", *CLASSES]),
    flags=st.sampled_from(["RD", *FLAGS]),
    opcode=st.sampled_from([*["QUERY"] * len(OPCODES), *OPCODES]),
    count=st.sampled_from([*[1] * len(COUNTS), *COUNTS]),
    version=st.sampled_from([*[0] * len(VERSIONS), *VERSIONS]),
    dnssec_ok=st.booleans(),
    subnet=st.sampled_from(["", *SUBNETS]),
)


@beside_consul
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=QUESTIONS)
async def test_whatever_is_asked(question: Question, plain_pair: Pair) -> None:
    """Names made of the right words in any order, and of others."""
    await compare_all([question], plain_pair)


@beside_consul
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=UNUSUAL)
async def test_however_it_is_asked(question: Question, plain_pair: Pair) -> None:
    """Opcodes, classes, flags, EDNS and counts that few askers send, in any combination."""
    await compare_all([question], plain_pair)


def test_the_table_is_large() -> None:
    """At least 300 questions, each asked with two sets of options."""
    assert sum(map(len, TABLE.values())) >= 300


@beside_consul
@pytest.mark.parametrize("row", DELIBERATE, ids=lambda row: row.reason)
async def test_each_difference_is_there(row: Deliberate, plain_pair: Pair, tuned_pair: Pair) -> None:
    """No row of the list stands there for nothing: its example differs, unless the row allows it."""
    pair = tuned_pair if row.tuned else plain_pair
    others = [other for other in DELIBERATE if other is not row]
    assert await compare(row.example, pair, others)
    assert not await compare(row.example, pair)
