"""The plan writes differences only, and after it nothing is left to write."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.bridge.plan import Plan, plan
from registrator.model import CRITICAL, PASSING, Check, Health, Instance

WEB = Instance("a", "web", "10.0.0.5", 80, meta={"x": "1"})
WELL, ILL = Health(PASSING, "OK"), Health(CRITICAL, "refused")

ROWS = [
    ("nothing wanted, nothing there", [], [], Plan()),
    ("wanted and not there: register", [WEB], [], Plan(register=(WEB,))),
    ("wanted and there: nothing", [WEB], [WEB], Plan()),
    ("not wanted any more: deregister", [], [WEB], Plan(deregister=("a",))),
    ("another port: register anew", [WEB], [replace(WEB, port=81)], Plan(register=(WEB,))),
    (
        "another Meta, which holds the checks' digest: register anew",
        [WEB],
        [replace(WEB, meta={})],
        Plan(register=(WEB,)),
    ),
    (
        "checks are not reported back, so they are not compared",
        [replace(WEB, checks=(Check("c", "c", "tcp"),))],
        [WEB],
        Plan(),
    ),
    (
        "another health: report",
        [replace(WEB, health=ILL)],
        [replace(WEB, health=WELL)],
        Plan(report=(("a", ILL),)),
    ),
    ("the same health: nothing", [replace(WEB, health=ILL)], [replace(WEB, health=ILL)], Plan()),
    (
        "tags that anybody may override are not compared",
        [replace(WEB, enable_tag_override=True, tags=("mine",))],
        [replace(WEB, enable_tag_override=True, tags=("theirs",))],
        Plan(),
    ),
]


@pytest.mark.parametrize(
    ("desired", "actual", "wanted"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_plan(desired: list[Instance], actual: list[Instance], wanted: Plan) -> None:
    assert plan(desired, {i.id: i for i in actual}) == wanted


instance = st.builds(
    Instance,
    id=st.sampled_from("abcd"),
    service=st.sampled_from(["web", "redis"]),
    address=st.just("10.0.0.5"),
    port=st.integers(0, 3),
    tags=st.sampled_from([(), ("a",)]),
    meta=st.sampled_from([{}, {"x": "1"}]),
    health=st.sampled_from([None, WELL, ILL]),
    enable_tag_override=st.booleans(),
)
catalogs = st.lists(instance, unique_by=lambda i: i.id).map(lambda found: {i.id: i for i in found})


@given(catalogs, catalogs)
def test_after_apply_the_plan_is_empty(desired: dict[str, Instance], actual: dict[str, Instance]) -> None:
    todo = plan(desired.values(), actual)
    catalog = {k: v for k, v in actual.items() if k not in todo.deregister}
    catalog.update({i.id: i for i in todo.register})
    for instance_id, health in todo.report:
        catalog[instance_id] = replace(catalog[instance_id], health=health)
    assert not plan(desired.values(), catalog)
