"""Consul's filter expressions: what is refused, and that nothing else can happen.

What they choose is compared with a real Consul in test_http_consul.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.lookup.consul_filter import HEALTH_SERVICE, MAX_DEPTH, MAX_LENGTH, BadFilter, parse

WEB = {
    "Node": {"Node": "n1", "Meta": {}},
    "Service": {"ID": "web-1", "Port": 80, "Tags": ["a b", 'say "hi"'], "Meta": {"k": "v"}},
    "Checks": [{"Status": "passing"}, {"Status": "warning"}],
}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("Service.Port==80", True),
        ("  Service.Port  !=  80  ", False),
        ('"a b" in Service.Tags', True),
        (r'Service.Tags contains "say \"hi\""', True),
        ("Service.Tags contains `a b`", True),
        ("Checks.Status == warning", True),
        ("Checks.Status == passing and Checks.Status == warning", True),
        ("Checks.Status == critical or Service.ID == `web-1` and Service.Port == 81", False),
        ("not not Service.Port == 80", True),
        ("(Service.Port == 80)", True),
        ("Service.Meta.k == v", True),
        ("Service.Meta.absent == v", False),
        ("Service.TaggedAddresses.lan_ipv4.Port == 80", False),
    ],
)
def test_an_expression_holds_or_does_not(expression: str, *, expected: bool) -> None:
    assert parse(expression, HEALTH_SERVICE)(WEB) is expected


@pytest.mark.parametrize(
    ("expression", "line"),
    [
        ("Service.Prot == 80", 'Selector "Service.Prot" is not valid'),
        ("Service.ID matches `web.*`", "this agent does not support matches"),
        ("Service.ID not matches `web.*`", "this agent does not support matches"),
        ("Service.ID = web", "character 12 begins nothing that is known here"),
        ("Service.ID == web or", "at its end, expected a selector or a value"),
        ("Service.ID == web )", "at ')' (character 19), expected and or or or the end"),
        ("(" * (MAX_DEPTH + 1), f"the expression is nested deeper than {MAX_DEPTH}"),
        ("not " * (MAX_DEPTH + 1), f"the expression is nested deeper than {MAX_DEPTH}"),
        ("x" * (MAX_LENGTH + 1), f"the expression is longer than {MAX_LENGTH} characters"),
    ],
)
def test_a_refusal_says_where_or_why(expression: str, line: str) -> None:
    with pytest.raises(BadFilter) as refusal:
        parse(expression, HEALTH_SERVICE)
    assert str(refusal.value).startswith(line)


WORDS = [
    "Service.ID",
    "Service.Tags",
    "Checks",
    "Node.Meta",
    "k",
    '"',
    "`",
    "(",
    ")",
    "[",
    "]",
    ".",
    "==",
    "!=",
    "in",
    "not",
    "and",
    "or",
    "is",
    "empty",
    "contains",
    "matches",
    "80",
]


@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS)).map(" ".join)))
def test_any_text_is_a_test_or_is_refused(text: str) -> None:
    try:
        holds = parse(text, HEALTH_SERVICE)
    except BadFilter:
        return
    assert holds(WEB) in (True, False)
