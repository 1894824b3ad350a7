"""What the documents say is what is there: options, paths, labels, files, targets, modules, commands."""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from aiohttp import web

from registrator.bridge.checks import parse_checks
from registrator.bridge.labels import RESERVED
from registrator.cli import cli, read_settings
from registrator.compat import is_compat, translate
from registrator.lookup.http import HttpFront
from registrator.lookup.metrics import Metrics
from registrator.lookup.openapi import ROUTES
from registrator.model import OUTSIDE, Instance
from registrator.policy import Policy
from registrator.stats import Stats
from scripts.docs import stale
from tests.lookup.fakes import FakeDirectory, entry, snapshot_of

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
LABELS = ROOT / "docs" / "labels.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
DOCUMENTS = sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
# A path in a code span: it has a slash or an ending that files here have.
PATH = re.compile(r"\.?[A-Za-z_][\w.-]*(?:/[\w.-]+)*/?")
ENDINGS = (".py", ".md", ".sh", ".toml", ".yml", ".service", ".svg", "/")

AGENT = cli.commands["agent"]
OPTIONS = {option.opts[0]: option for option in AGENT.params if isinstance(option, click.Option)}


def fences(document: Path) -> Iterator[tuple[str, str]]:
    """The fenced blocks of a document: (language, text)."""
    for match in FENCE.finditer(document.read_text()):
        yield match[1], match[2]


def prose(document: Path) -> str:
    """A document without its fenced blocks."""
    return FENCE.sub("", document.read_text())


def rows(document: Path, first: str) -> dict[str, list[str]]:
    """The rows of all tables whose first cell starts with `first`, by that cell."""
    found = {}
    for line in prose(document).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("|") and cells[0].startswith(first):
            found[cells[0]] = cells
    return found


def commands(document: Path) -> Iterator[str]:
    """The commands of fenced blocks, with what a backslash continues and without prompt and comment."""
    for language, text in fences(document):
        if language in ("sh", "console"):
            for line in text.replace("\\\n", " ").splitlines():
                if language == "sh" or line.startswith("$ "):
                    yield line.removeprefix("$ ").partition(" # ")[0].strip()


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


# The command line -----------------------------------------------------------


def test_the_readmes_options_exist() -> None:
    assert {SPAN.findall(cell)[0].split()[0] for cell in rows(README, "`--")} <= set(OPTIONS)


def test_the_readme_can_be_read_in_two_minutes() -> None:
    assert len(README.read_text().splitlines()) <= 200


@each_document
def test_commands_of_ours_are_understood(document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fenced lines that run registrator, by itself or in a container, have right options and values."""
    for variable in [name for name in os.environ if name.startswith(("REGISTRATOR_", "CONSUL_"))]:
        monkeypatch.delenv(variable)
    for line in commands(document):
        match = re.match(r"registrator (.*)", line) or re.search(r"[ /]registrator (agent\b.*)", line)
        if match:
            words = shlex.split(match[1])
            command, *arguments = translate(words) if is_compat(words, tuple(cli.commands)) else words
            options = cli.commands[command].make_context(command, arguments).params
            if command == "agent":
                read_settings({**options, "consul_token_file": ""})


@each_document
def test_variables_named_exist(document: Path) -> None:
    options = (option for command in cli.commands.values() for option in command.params)
    # REQUIRE_ALL is for tests; _REGISTRATOR_COMPLETE is click's own, for shells.
    known = {option.envvar for option in options} | {"REGISTRATOR_REQUIRE_ALL", "REGISTRATOR_COMPLETE"}
    assert set(re.findall(r"REGISTRATOR_[A-Z_]+", document.read_text())) <= known


# What is served, and what labels may say ------------------------------------


def test_the_openapi_document_has_every_http_path_and_no_other() -> None:
    front = HttpFront(FakeDirectory(), stats=Stats(), view_of=lambda _: OUTSIDE, domain="consul")
    resources = front.application().router.resources()
    served = {resource.canonical for resource in resources if isinstance(resource, web.Resource)}
    assert set(ROUTES) == served


@each_document
def test_metrics_named_exist(document: Path) -> None:
    text = Metrics(Stats(), FakeDirectory(snapshot_of(entry("web")))).render().decode()
    named = set(re.findall(r"`(registrator_[a-z_]+)", document.read_text()))
    # A histogram has no sample of its own name.
    assert named <= set(re.findall(r"^(?:# TYPE )?(registrator_[a-z_]+)[ {]", text, re.MULTILINE))


class Asked(dict[str, str]):
    """Keys of labels; `names` are all that were asked for, there or not."""

    def __init__(self, keys: dict[str, str]) -> None:
        super().__init__(keys)
        self.names: set[str] = set()

    def get(self, key: str, default: str = "") -> str:  # type: ignore[override]  # as narrow as its callers
        self.names.add(key)
        return super().get(key, default)


def documented_labels() -> set[str]:
    """The keys in the table of labels, lower-cased, without the prefix."""
    cells = rows(LABELS, "`SERVICE_")
    return {name.removeprefix("SERVICE_").lower() for cell in cells for name in SPAN.findall(cell)}


def test_the_table_of_labels_has_every_label_and_no_other() -> None:
    """Those of the grammar, and those that checks ask for, given all that are documented or all but one."""
    documented = documented_labels()
    checks = {key for key in documented if key.startswith("check_")}
    asked: set[str] = set()
    for absent in ("", *checks):
        at = Asked(dict.fromkeys(checks - {absent}, "1"))
        parse_checks(at, Instance("i", "web", "10.0.0.1", 80), "c" * 64, Policy(allow_script_checks=True))
        asked |= at.names
    assert asked == checks
    assert documented - checks == RESERVED


# Files, targets, modules ----------------------------------------------------


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    """Relative links name files that exist, and anchors headings of theirs."""
    for link in LINK.findall(prose(document)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in map(slug, HEADING.findall(target.read_text())), link


@each_document
def test_files_named_exist(document: Path) -> None:
    """Paths in code spans, from the checkout's root or the package's; and scripts that fenced lines run."""
    named = [span for span in SPAN.findall(prose(document)) if PATH.fullmatch(span)]
    named = [span for span in named if span.endswith(ENDINGS) and not span.startswith("docker.")]
    named += [word for line in commands(document) for word in line.split() if word.startswith("scripts/")]
    for path in (path.rstrip(")") for path in named):
        assert (ROOT / path).exists() or (ROOT / "registrator" / path).exists(), path


@each_document
def test_tests_named_exist(document: Path) -> None:
    """A test that is run as an example can be run."""
    sources = "".join(path.read_text() for path in ROOT.glob("tests/**/test_*.py"))
    for line in commands(document):
        for name in re.findall(r"-k (\w+)", line):
            assert f"def {name}(" in sources


@each_document
def test_make_targets_named_exist(document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    spans = [span for span in SPAN.findall(prose(document)) if span.startswith("make ")]
    lines = [line for line in commands(document) if line.startswith("make ")]
    named = {word for command in (*spans, *lines) for word in command.split()[1:]}
    assert {word for word in named - {"&&"} if re.fullmatch(r"[a-z-]+", word)} <= targets
    variables = {word.partition("=")[0] for word in named if "=" in word}
    assert all(f"{variable} ?=" in makefile for variable in variables)


def module_map() -> dict[str, str]:
    """What docs/architecture.md says of each module, by its path in the package."""
    (_, section) = ARCHITECTURE.read_text().split("\n## Module map\n")
    return dict(re.findall(r"^- `([\w/]+\.py)`: (.+)$", section, re.MULTILINE))


def test_the_module_map_has_every_module_and_no_other() -> None:
    package = ROOT / "registrator"
    assert sorted(module_map()) == sorted(str(path.relative_to(package)) for path in package.rglob("*.py"))


def test_the_module_map_marks_what_is_held_to_be_pure() -> None:
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = (contract for contract in linter["contracts"] if "pure" in contract["name"])
    modules = {
        name.removeprefix("registrator.").replace(".", "/") + ".py" for name in contract["source_modules"]
    }
    assert modules <= {module for module, text in module_map().items() if text.endswith("(pure)")}


def test_generated_tables_are_what_the_code_says() -> None:
    """`make docs` would change nothing."""
    assert stale() == []
