"""The part of Go's templates that tags and names are written in."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator.bridge.template import TemplateError, render
from tests.bridge.build import container

SUBJECT = container(
    image="registry:5000/team/web:2",
    hostname="h1",
    labels={"team": "Payments", "dotted.key": "x"},
    env={"MODE": "prod", "SERVICE_NAME": "web"},
)

ROWS = [
    ("nothing to fill in", "plain", "plain"),
    ("the container's name, as Docker writes it", "{{.Name}}", "/c1"),
    ("a nested field", "{{.Config.Hostname}}", "h1"),
    ("a label by index, as registrator's docs show", '{{index .Config.Labels "team"}}', "Payments"),
    ("a label with a dot in its key", '{{index .Config.Labels "dotted.key"}}', "x"),
    ("a label by its path", "{{.Config.Labels.team}}", "Payments"),
    ("an absent label is empty", '{{index .Config.Labels "none"}}', ""),
    ("mIndex", '{{mIndex "team" .Config.Labels}}', "Payments"),
    ("sIndex counts from either end", "{{sIndex -1 .Config.Env}}", "SERVICE_NAME=web"),
    ("sIndex beyond the end is the end", "{{sIndex 99 .Config.Env}}", "SERVICE_NAME=web"),
    ("strSlice", "{{strSlice .ID 0 12}}", "c" * 12),
    ("toUpper in a pipeline", '{{index .Config.Labels "team" | toUpper}}', "PAYMENTS"),
    ("splitIndex", '{{splitIndex -1 "/" .Config.Image}}', "web:2"),
    ("split and sIndex", '{{split "/" .Config.Image | sIndex 0}}', "registry:5000"),
    ("replace all", '{{replace -1 "/" "_" .Config.Image}}', "registry:5000_team_web:2"),
    ("replace the first", '{{replace 1 "e" "E" .Config.Image}}', "rEgistry:5000/team/web:2"),
    ("join", '{{join ";" .Config.Env}}', "MODE=prod;SERVICE_NAME=web"),
    ("or takes the first that is there", '{{or (index .Config.Labels "none") "default"}}', "default"),
    ("parentheses", '{{toLower (index .Config.Labels "team")}}', "payments"),
    ("a raw string", "{{index .Config.Labels `team`}}", "Payments"),
    ("an escaped quote", r'{{"a\"b"}}', 'a"b'),
    ("text around, several actions", "a-{{.Config.Hostname}}-{{.State.Status}}-b", "a-h1-running-b"),
    ("trim markers take the space away", "a {{- .Config.Hostname -}} b", "ah1b"),
    ("a number", "{{len .Config.Env}}", "2"),
    ("an address", "{{.NetworkSettings.Networks.app_default.IPAddress}}", "172.20.0.5"),
]


@pytest.mark.parametrize(("text", "result"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_render(text: str, result: str) -> None:
    assert render(text, SUBJECT) == result


@pytest.mark.parametrize(
    "text",
    [
        "{{",
        "{{}}",
        "{{.Nothing}}",
        "{{.Config.Nothing.More}}",
        "{{nothing .Name}}",
        "{{.Config.Labels}}",
        '{{index .Config.Env "x"}}',
        "{{toUpper}}",
        "{{(.Name}}",
        "{{.Name)}}",
        "{{.Name | .Name}}",
        '{{"unclosed}}',
        "{{if .Name}}x{{end}}",
        "{{httpGet .Name}}",
        "{{" + "(" * 500 + ".Name" + ")" * 500 + "}}",
        "x" * 5000 + "{{.Name}}",
    ],
)
def test_what_makes_no_sense_is_one_line(text: str) -> None:
    with pytest.raises(TemplateError) as caught:
        render(text, SUBJECT)
    assert "\n" not in str(caught.value)


def test_only_the_operator_may_match_patterns() -> None:
    """A pattern can be made to run for ever."""
    text = '{{matchFirstElement "^MODE" .Config.Env}}'
    assert render(text, SUBJECT, trusted=True) == "MODE=prod"
    with pytest.raises(TemplateError):
        render(text, SUBJECT)


@given(st.text(alphabet='{}.|()"`-ab1 \\', max_size=40) | st.text(max_size=40).map(lambda t: "{{" + t + "}}"))
def test_any_template_renders_or_is_refused(text: str) -> None:
    with contextlib.suppress(TemplateError):
        assert isinstance(render(text, SUBJECT), str)
