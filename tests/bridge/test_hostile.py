"""What a container may ask for has a bound, whoever set its labels or made its image."""

from __future__ import annotations

import asyncio
import logging
import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from registrator.bridge import wants
from registrator.bridge.facts import with_facts
from registrator.bridge.instances import assemble, instances
from registrator.bridge.labels import parse_keys
from registrator.bridge.reconcile import Reconciler
from registrator.bridge.template import TemplateError, Templates, render
from registrator.bridge.wants import Wants
from registrator.limits import Limit, all_limits
from registrator.model import Attachment, Container, Instance, MeshPort, Problem, SwarmService
from registrator.policy import Policy
from registrator.stats import Stats
from tests.bridge.build import HOST, POLICY, container, exposed, published
from tests.bridge.fakes import MemoryEngine, MemoryRegistry
from tests.bridge.test_reconcile import A, B, running, until

LIMITS: Mapping[str, Limit] = {limit.name: limit for limit in all_limits()}
WEB = published(80, 8080)


def labelled(**labels: str) -> Container:
    return container(WEB, labels={f"SERVICE_{key}": value for key, value in labels.items()})


def many(names: int, keys: int) -> Container:
    """A container with names for so many ports, and so many other keys."""
    labels = {f"SERVICE_{port}_NAME": f"n{port}" for port in range(1, names + 1)}
    return container(WEB, labels=labels | {f"SERVICE_KEY{n}": "v" for n in range(keys)})


def of(number: int, text: str) -> str:
    """A comma list of so many texts."""
    return ",".join(f"{text}{n}" for n in range(number))


def found(subject: Container, policy: Policy = POLICY) -> tuple[tuple[Instance, ...], list[Problem]]:
    made, problems = instances(subject, HOST, policy)
    return made, list(problems)


ROWS: list[tuple[str, Container, str, Callable[[tuple[Instance, ...]], bool]]] = [
    # what it shows, container, limit that is said, what is had all the same
    ("of 2,000 names of ports, 100 instances", many(2000, 0), "instances", lambda made: len(made) == 100),
    (
        "of 2,000 other keys the first 1,024 are read",
        many(0, 2000),
        "service_keys",
        lambda made: len(made) == 1,
    ),
    (
        "labels are read before the environment",
        replace(labelled(NAME="web"), env={f"SERVICE_KEY{n}": "v" for n in range(2000)}),
        "service_keys",
        lambda made: made[0].service == "web",
    ),
    (
        "the name of a key",
        labelled(**{"K" * 300: "v"}),
        "service_key_octets",
        lambda made: len(made[0].meta) == 2,
    ),
    (
        "the value of a key",
        labelled(NAME=of(5000, "n")),
        "service_value_octets",
        lambda made: made[0].service == "web",
    ),
    (
        "a value is measured in octets",
        labelled(TAGS="é" * 8193),
        "service_value_octets",
        lambda made: made[0].tags == (),
    ),
    (
        "all values together",
        labelled(NAME="web", **{f"CHECK_{n}": "v" * 16000 for n in range(20)}),
        "service_octets",
        lambda made: made[0].service == "web",
    ),
    (
        "of 1,000 names of one port the first 16",
        labelled(NAME=of(1000, "n")),
        "names",
        lambda made: [i.service for i in made] == [f"n{n}" for n in range(16)],
    ),
    ("a name is cut", labelled(NAME="n" * 1000), "name_octets", lambda made: made[0].service == "n" * 63),
    ("an id", labelled(ID="i" * 256), "id_octets", lambda made: made[0].id == "node1:c1:80"),
    (
        "an id is measured in octets",
        labelled(ID="é" * 128),
        "id_octets",
        lambda made: made[0].id == "node1:c1:80",
    ),
    (
        "of 1,000 tags the first 64",
        labelled(TAGS=of(1000, "t")),
        "tags",
        lambda made: set(made[0].tags) == {f"t{n}" for n in range(64)},
    ),
    ("one tag", labelled(TAGS=f"a,{'b' * 1025},c"), "tag_octets", lambda made: made[0].tags == ("a", "c")),
    (
        "tags that a template gives",
        labelled(TAGS='{{join "," .Config.Env}}'),
        "",
        lambda made: len(made[0].tags) <= 64,
    ),
    (
        "what is refused is remembered so far",
        labelled(**{f"KEY.{n}": "v" for n in range(1000)}),
        "problems",
        lambda made: len(made) == 1,
    ),
    (
        "headers of a check",
        labelled(CHECK_HTTP="/", CHECK_HEADER="{" + ",".join(f'"{n}":"v"' for n in range(65)) + "}"),
        "check_headers",
        lambda made: made[0].checks[0].header == (),
    ),
    (
        "an image that exposes 1,000 ports, none of them published",
        container(*map(exposed, range(1, 1001))),
        "instances",
        lambda made: [i.port for i in made] == list(range(1, 101)),
    ),
    (
        "a port that a label names comes before the others",
        container(*map(exposed, range(1, 1001)), labels={"SERVICE_999_NAME": "web"}),
        "instances",
        lambda made: made[-1].service == "web" and len(made) == 100,
    ),
    (
        "ports that are ignored do not count",
        container(
            *map(exposed, range(1, 1001)),
            exposed(2000),
            labels={f"SERVICE_{n}-{n + 9}_IGNORE": "1" for n in range(1, 1001, 10)},
        ),
        "",
        lambda made: [i.port for i in made] == [2000],
    ),
    (
        "addresses of all instances together",
        container(
            *(published(n, n) for n in range(1, 51)),
            networks=tuple(
                Attachment(f"n{n}", f"{n:064}", f"10.0.0.{n}", f"fd00::{n}") for n in range(1, 201)
            ),
        ),
        "addresses",
        lambda made: 0 < len(made) < 50 and sum(len(i.addresses) for i in made) <= 4096,
    ),
    (
        "tags and metadata of all instances together",
        container(
            *(published(n, n) for n in range(1, 101)),
            labels={"SERVICE_TAGS": of(64, "t" * 240), **{f"SERVICE_K{n}": "v" * 500 for n in range(40)}},
        ),
        "said_of_instances",
        lambda made: 3 < len(made) < 10,
    ),
    (
        "labels, among which one may forbid it",
        container(WEB, labels={f"l{n}": "" for n in range(4097)}),
        "labels",
        lambda made: made == (),
    ),
]


@pytest.mark.parametrize(
    ("subject", "limit", "holds"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_a_container_beyond_a_limit_gets_what_can_be_had(
    subject: Container, limit: str, holds: Callable[[tuple[Instance, ...]], bool]
) -> None:
    """It loses what is beyond, and one problem says so."""
    subject = subject if subject.env else replace(subject, env={f"E{n}": "v" for n in range(1000)})
    made, problems = found(subject)
    assert holds(made)
    assert len(problems) <= LIMITS["problems"].value
    hit = [problem.limit for problem in problems if problem.limit]
    assert hit.count(limit) == bool(limit)
    assert all(len(str(problem)) < 500 for problem in problems)


def test_a_published_port_comes_before_those_that_are_only_exposed() -> None:
    subject = container(*map(exposed, range(1, 1001)), published(2000, 8080))
    made, _ = found(subject, Policy(internal=True))
    assert len(made) == 100
    assert made[-1].port == 2000


def test_every_label_limit_has_a_row() -> None:
    named = {row[2] for row in ROWS}
    own = {name for name in LIMITS if name.startswith(("service_", "tag", "name", "id_", "instances"))}
    assert own <= named


def test_a_container_within_the_limits_loses_nothing() -> None:
    """100 ports with ten keys each, 64 tags: whoever needs that gets it without a word."""
    keys = {
        "NAME": "shop",
        "TAGS": of(64, "tag"),
        "ID": "x",
        "CHECK_HTTP": "/",
        "CHECK_INTERVAL": "5s",
        "CHECK_TIMEOUT": "2s",
        "REGION": "eu",
        "WEIGHT_PASSING": "7",
    }
    labels = {f"SERVICE_{port}_{key}": value for port in range(1, 101) for key, value in keys.items()}
    labels |= {f"SERVICE_{port}_ID": f"id{port}" for port in range(1, 101)}
    made, problems = found(container(*(published(n, n) for n in range(1, 101)), labels=labels))
    assert problems == []
    assert len(made) == 100
    assert all(len(i.tags) == 64 and len(i.checks) == 1 and i.weights.passing == 7 for i in made)


# Templates ----------------------------------------------------------------

TEN = 'replace -1 "a" "aaaaaaaaaa"'
BIG = container(
    env={f"E{n}": "v" * 30 for n in range(2000)},
    labels={
        "big": "x" * 20000,
        "full": "x" * 16384,
        "half": "x" * 8000,
        "greek": "ΐ" * 5000,
        "s": "ab" * 4000,
    },
)
TEMPLATES = [
    # what it shows, template, limit
    ("a text that grows tenfold, nine times", '{{"a"|' + "|".join([TEN] * 9) + "}}", "template_result"),
    ("the empty text is everywhere", "{{.Config.Labels.half|replace -1 `` `xxxx`}}", "template_result"),
    (
        "a long text in place of each letter",
        "{{replace -1 `x` .Config.Labels.full .Config.Labels.full}}",
        "template_result",
    ),
    (
        "a list joined by a long text",
        "{{join .Config.Labels.half (split `a` .Config.Labels.s)}}",
        "template_list",
    ),
    ("a text joined to itself", "{{join .Config.Labels.half .Config.Labels.half}}", "template_result"),
    ("an environment joined", "{{join `,` .Config.Env}}", "template_result"),
    ("a label beyond the result", "{{.Config.Labels.big}}", "template_result"),
    ("a label beyond the result, in a function", "{{toUpper .Config.Labels.big}}", "template_result"),
    ("a text in many parts", "{{len (split `a` .Config.Labels.s)}}", "template_list"),
    ("a part of very many", "{{splitIndex -1 `a` .Config.Labels.s}}", "template_list"),
    (
        "many texts that are long together",
        "{{.Config.Labels.full}}{{.Config.Labels.full}}",
        "template_result",
    ),
    ("letters that become three", "{{toUpper .Config.Labels.greek}}", "template_result"),
    (
        "many functions of a long text",
        "{{.Config.Labels.full" + "|toUpper|toLower" * 200 + "}}",
        "template_steps",
    ),
    ("many functions of a long list", "{{or" + " (len .Config.Env)" * 200 + "}}", "template_steps"),
    ("a template that is long", "{{" * 2049, "template_octets"),
    ("braces that are never closed", "{{" * 2048, ""),
    ("quotes that are never closed", "{{" + '"' * 4001 + "}}", ""),
    ("a count beyond what a machine counts", "{{replace 99999999999999999999 `a` `b` `c`}}", ""),
    ("a number of 4,000 digits", "{{strSlice .ID 0 " + "9" * 4000 + "}}", ""),
    ("parentheses", "{{" + "(" * 2000 + "}}", ""),
    ("an unknown function of a long name", "{{" + "f" * 4000 + "}}", ""),
]


@pytest.mark.parametrize("trusted", [False, True], ids=["a label's", "the operator's"])
@pytest.mark.parametrize(("text", "limit"), [row[1:] for row in TEMPLATES], ids=[row[0] for row in TEMPLATES])
def test_a_template_has_limits_on_its_way(text: str, limit: str, trusted: bool) -> None:  # noqa: FBT001
    """It ends with an error of one line, and never holds more than some texts of the greatest length."""
    tracemalloc.start()
    try:
        with pytest.raises(TemplateError) as caught:
            render(text, BIG, trusted=trusted)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.limit == limit
    assert len(str(caught.value)) < 500
    assert peak < 1_000_000


def test_templates_of_one_container_share_their_steps() -> None:
    """A hundred ports may each have a template of their own, but not each 4,096 steps."""
    templates = Templates(BIG)
    rendered = 0
    with pytest.raises(TemplateError) as caught:  # noqa: PT012 - some of them can be had
        for rendered in range(100):
            templates.render(f"{rendered}" + "{{.Name}}" * 100)
    assert rendered == 40
    assert caught.value.limit == "template_steps"
    assert templates.render("{{.Name}}", trusted=True) == "/c1", "the operator's have steps of their own"


def test_a_template_is_filled_in_once_for_all_ports() -> None:
    text = ",".join(f"{{{{.Name | toUpper}}}}{n}" for n in range(60))
    ports = [published(n, n) for n in range(1, 101)]
    made, problems = found(container(*ports, labels={"SERVICE_TAGS": text}))
    assert problems == []
    assert all(len(instance.tags) == 60 for instance in made)


def test_long_texts_are_not_matched_against_patterns() -> None:
    """A pattern's work may be the square of its text's length."""
    subject = container(env={"A": "x", "B": "x" * 300})
    assert render('{{matchAllElements "x" .Config.Env | len}}', subject, trusted=True) == "1"
    assert render('{{matchFirstElement "B" .Config.Env}}', subject, trusted=True) == ""


# Work ---------------------------------------------------------------------


def cpu(work: Callable[[], Any]) -> float:
    """The least of some runs: the machine has others to run too."""

    def once() -> float:
        begin = time.process_time()
        work()
        return time.process_time() - begin

    return min(once() for _ in range(3))


@pytest.mark.parametrize(
    ("within", "beyond"),
    [
        (many(100, 900), many(2000, 1000)),
        (labelled(NAME=of(16, "n")), labelled(NAME=of(3000, "n"))),
        (labelled(TAGS=of(64, "t")), labelled(TAGS=of(3000, "t"))),
        (labelled(TAGS="{{" * 256), labelled(TAGS="{{" * 2048)),
        (labelled(ID="i" * 255), labelled(ID="i" * 1_000_000)),
        (labelled(NAME="é" * 255), labelled(NAME="é" * 1_000_000)),
        (container(*map(exposed, range(1, 101))), container(*map(exposed, range(1, 1025)))),
        (
            container(*map(exposed, range(1, 101))),
            container(
                *map(exposed, range(1, 1001)),
                labels={f"SERVICE_{n}-{n}_IGNORE": "1" for n in range(20000, 21000)},
            ),
        ),
    ],
    ids=["names and keys", "names", "tags", "braces", "an id", "a long name", "ports", "ranges"],
)
def test_a_container_beyond_a_limit_costs_little_more_than_one_within(
    within: Container, beyond: Container
) -> None:
    """Without the limits it is fifty to some thousand times as much."""
    assert cpu(lambda: found(beyond)) < 20 * cpu(lambda: found(within)) + 0.005


def test_the_work_on_a_container_is_done_in_steps() -> None:
    assert sum(1 for _ in assemble(many(2000, 1000), HOST, POLICY)) > 100


def test_no_step_of_the_work_on_a_container_is_a_large_part_of_it() -> None:
    """Sixteen names of one port, each with long checks of its own."""
    checks = {"CHECK_HTTP": "/" + "é" * 300, "CHECK_HTTPS": "/" + "é" * 300, "CHECK_GRPC": "é" * 300}
    header = "{" + ",".join(f'"X-{n}": "v"' for n in range(60)) + "}"
    subject = labelled(NAME=of(16, "n"), CHECK_HEADER=header, CHECK_BODY="é" * 4000, **checks)

    def shares() -> float:
        steps = [time.process_time()]
        steps += [time.process_time() for _ in assemble(subject, HOST, POLICY)]
        return max(end - begin for begin, end in pairwise(steps)) / (steps[-1] - steps[0])

    assert len(found(subject)[0]) == 16
    assert min(shares() for _ in range(5)) < 0.4


async def test_others_have_their_turn_while_a_container_is_worked_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wants, "SLICE", 0.0)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await Wants(POLICY, Stats()).of(many(2000, 1000), HOST, None)
    task.cancel()
    assert turns > 100


# The loop -----------------------------------------------------------------


async def test_limits_that_are_hit_are_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    subject = replace(many(2000, 1000), id=A.id, name="a")
    async with running(MemoryEngine(subject, B), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        world.engine.put(subject)
        await until(lambda: world.engine.inspected.count(A.id) > 1)
        await until(world.is_true)
        assert world.stats.limited == {"service_keys": 1, "instances": 1}
        said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert len(said) == 2
        assert all(len(line) < 500 for line in said)


async def test_labels_and_environment_are_not_kept() -> None:
    """An agent keeps of a container what it needs to answer askers, not the megabyte that it was told."""
    subject = replace(A, labels={"l": "x" * 1000}, env={"E": "x" * 1000}, health_output="x" * 500)
    async with running(MemoryEngine(subject), MemoryRegistry()) as world:
        await until(lambda: world.stats.ready)
        assert "xxxx" not in repr(world.loop._containers)


async def test_what_is_unforeseen_of_a_container_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that cannot be handled is looked at again in silence; the others are registered."""
    handle = Reconciler._wanted

    async def baffled(self: Reconciler, subject: Container) -> tuple[Instance, ...]:
        if subject.id == A.id:
            raise RuntimeError("unforeseen")
        return await handle(self, subject)

    monkeypatch.setattr(Reconciler, "_wanted", baffled)
    async with running(MemoryEngine(A, B), MemoryRegistry()) as world:
        for looks in range(1, 6):
            await until(lambda looks=looks: world.engine.inspected.count(A.id) >= looks)  # type: ignore[misc]
            world.engine.say(A.id, "start")
        await until(lambda: "node1:b:80" in world.registry.instances)
    assert sum("cannot be handled" in r.getMessage() for r in caplog.records) == 1


# Swarm --------------------------------------------------------------------


def test_a_services_facts_have_the_limits_of_a_container() -> None:
    """Mesh ports beyond are left out; too many labels leave the task out, as its own would."""
    mesh = tuple(MeshPort(1 + n % 3000, "tcp", 30000) for n in range(9000))
    task = with_facts(container(WEB), SwarmService("s", "web", {"l": ""}, mesh))
    assert len(task.ports) <= LIMITS["ports"].value
    one = with_facts(container(), SwarmService("s", "web", {}, (MeshPort(80, "tcp", 30000),) * 5000))
    assert len(one.ports[0].bindings) == LIMITS["port_bindings"].value
    full = with_facts(container(WEB), SwarmService("s", "web", {f"l{n}": "" for n in range(9000)}))
    assert len(full.labels) <= LIMITS["labels"].value + 1
    assert [problem.limit for problem in found(full)[1]] == ["labels"]


def test_a_thousand_ranges_ignore_as_one_would() -> None:
    labels = {f"SERVICE_{n}-{n + 5}_IGNORE": "1" for n in range(1000, 2000, 3)}
    keys, _ = parse_keys({}, labels | {"SERVICE_1500_IGNORE": "", "SERVICE_9-1_IGNORE": "1"})
    ignored = [port for port in range(990, 2020) if keys.ignores(port, "tcp")]
    assert ignored == list(range(1000, 2005))
    assert not keys.ignores(5, "tcp")
