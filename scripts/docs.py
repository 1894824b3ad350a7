"""Write the generated tables into the documents: `make docs`.

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`; everything between
the two lines is replaced. `--check` writes nothing and exits with 1 when a
document is stale.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from registrator import limits
from registrator.cli import cli
from registrator.lookup.metrics import StatsCollector
from registrator.lookup.openapi import ROUTES
from registrator.stats import Stats

ROOT = Path(__file__).resolve().parents[1]
DEFAULT = re.compile(r"\s*\[default: (.+?)\]")


class NoDirectory:
    """As much of a Directory as the metrics' names and help need."""

    snapshot = None
    age = 0.0


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines)


def limits_table() -> str:
    """Every limit, from `registrator.limits`."""
    rows = [
        (f"`{limit.name}`", f"{limit.value:,} {limit.unit}", limit.why, limit.beyond)
        for limit in limits.all_limits()
    ]
    return table(("limit", "value", "why", "beyond it"), rows)


def options_table() -> str:
    """The options of `registrator agent`, from click."""
    return table(
        ("option", "variable", "default", "meaning"), map(option_row, options(cli.commands["agent"]))
    )


def commands_tables() -> str:
    """The other commands with their options, from click."""
    parts = []
    for name, command in cli.commands.items():
        if name == "agent":
            continue
        arguments = [
            (p.metavar or p.name or "").upper() for p in command.params if isinstance(p, click.Argument)
        ]
        help_text = " ".join((command.help or "").partition("\n\n")[0].split())
        rows = [(row[0], row[1], row[3]) for row in map(option_row, options(command))]
        part = f"**`{' '.join(('registrator', name, *arguments))}`**: {help_text}"
        parts.append(part + (f"\n\n{table(('option', 'variable', 'meaning'), rows)}" if rows else ""))
    return "\n\n".join(parts)


def options(command: click.Command) -> Iterator[click.Option]:
    """A command's own options."""
    return (p for p in command.params if isinstance(p, click.Option) and not p.hidden)


def option_row(option: click.Option) -> tuple[str, str, str, str]:
    """An option as a row: name with its argument, variable, default, meaning."""
    name = " ".join(filter(None, ("/".join((*option.opts, *option.secondary_opts)), metavar(option))))
    help_text = DEFAULT.sub("", option.help or "")
    return f"`{name}`", f"`{option.envvar}`" if option.envvar else "", default(option), help_text


def metavar(option: click.Option) -> str:
    """What an option takes: its metavar, or its choices."""
    if option.is_flag:
        return ""
    if isinstance(option.type, click.Choice):
        return "|".join(map(str, option.type.choices))
    return option.metavar or ""


def default(option: click.Option) -> str:
    """An option's default, from its help where only that names it."""
    named = DEFAULT.search(option.help or "")
    if named:
        return named[1]
    if option.is_flag:
        return "off"
    value: Any = option.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"`{value:g}`"
    if isinstance(value, tuple | list):
        value = " ".join(value)
    return f"`{value}`" if isinstance(value, str) and value else "none"


def routes_table() -> str:
    """The HTTP routes, from the OpenAPI document."""
    rows = []
    for path, (summary, parameters, _) in ROUTES.items():
        names = ", ".join(f"`{parameter['name']}`" for parameter in parameters)
        rows.append((f"`{path}`", summary, names))
    return table(("path", "answer", "parameters"), rows)


def metrics_table() -> str:
    """Every metric with its labels, from the collector."""
    rows = []
    for family in StatsCollector(Stats(), NoDirectory()).collect():  # type: ignore[arg-type]  # see NoDirectory
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(f"`{label}`" for label in getattr(family, "_labelnames", ()))
        rows.append((f"`{name}`", family.type, labels, family.documentation))
    return table(("metric", "type", "labels", "meaning"), rows)


# What is generated, by document and marker.
TABLES: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "docs/security.md": {"limits": limits_table},
    "docs/options.md": {"options": options_table, "commands": commands_tables},
    "docs/http.md": {"routes": routes_table},
    "docs/metrics.md": {"metrics": metrics_table},
}


def rendered(document: str) -> str:
    """A document with its tables as they should be."""
    text = (ROOT / document).read_text()
    for name, make in TABLES[document].items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if text.count(start) != 1 or text.count(end) != 1:
            raise SystemExit(f"{document}: each marker of {name} must occur once")
        before, _, rest = text.partition(start)
        text = f"{before}{start}{make()}\n{end}{rest.partition(end)[2]}"
    return text


def stale() -> list[str]:
    """The documents whose tables are not what the code says."""
    return [document for document in TABLES if (ROOT / document).read_text() != rendered(document)]


def main() -> None:
    documents = stale()
    if "--check" in sys.argv[1:]:
        if documents:
            raise SystemExit(f"stale: {', '.join(documents)}; run make docs")
        return
    for document in documents:
        (ROOT / document).write_text(rendered(document))
        print(f"wrote {document}")


if __name__ == "__main__":
    main()
