"""Write the generated tables into the documents: `make docs`.

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`; everything between
the two lines is replaced. `--check` writes nothing and exits with 1 when a
document is stale.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from registrator import limits

ROOT = Path(__file__).resolve().parents[1]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines)


def limits_table() -> str:
    """The table of limits, from `registrator.limits`."""
    rows = [
        (f"`{limit.name}`", f"{limit.value:,} {limit.unit}", limit.why, limit.beyond)
        for limit in limits.all_limits()
    ]
    return table(("limit", "value", "why", "beyond it"), rows)


# What is generated, by document and marker.
TABLES: Mapping[str, Mapping[str, Callable[[], str]]] = {"docs/security.md": {"limits": limits_table}}


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
