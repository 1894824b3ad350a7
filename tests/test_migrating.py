"""docs/migrating-from-registrator.md names everything that the old one takes, and what becomes of it."""

from __future__ import annotations

import re
from pathlib import Path

from registrator.bridge.labels import MAX_META_PAIRS, OWN_META_PAIRS, RESERVED
from registrator.compat import NAME_BY_IMAGE, NUMBERS, OTHER_STORES, SAME, SWITCHES, consul_url
from tests.test_docs import documented_labels, rows

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "migrating-from-registrator.md"
SPAN = re.compile(r"`([^`\n]+)`")


def test_every_old_option_has_a_row_that_names_ours() -> None:
    """Those that become one of ours, and those that do nothing any more."""
    told = {}
    for first, cells in rows(GUIDE, "`-").items():
        told.update(
            dict.fromkeys((span.split()[0].removeprefix("-") for span in SPAN.findall(first)), cells[1])
        )
    ours = {**SWITCHES, **SAME, "resync": "--resync"}
    assert told.keys() == ours.keys() | NUMBERS
    for name, cell in told.items():
        assert SPAN.findall(cell) == ([ours[name]] if ours.get(name) else []), name


def test_every_uri_has_a_row_that_gives_ours() -> None:
    """Those of Consul, and one for all the stores that are out of scope."""
    spoken, others = {}, set()
    for first, cells in rows(GUIDE, "`consul").items():
        uris = SPAN.findall(first)
        if len(uris) > 1:
            others = {uri.partition(":")[0] for uri in uris}
        else:
            spoken[uris[0]] = SPAN.findall(cells[1])[0]
    assert others == OTHER_STORES
    for uri, option in spoken.items():
        host = uri.replace("HOST:PORT", "consul:8500").replace("PATH", "/run/consul.sock")
        wanted = option.replace("HOST:PORT", "consul:8500").replace("PATH", "/run/consul.sock")
        assert f"--consul {consul_url(host)}" == wanted.replace("unix://run", "unix:///run")


def test_every_label_is_told_to_be_the_same_or_new() -> None:
    text = GUIDE.read_text().partition("\n## Labels and environment\n")[2].partition("\n## ")[0]
    named = {span.lower() for span in SPAN.findall(text) if re.fullmatch(r"[A-Z_]+", span)}
    assert named == documented_labels()
    assert named >= RESERVED


def test_the_room_for_meta_is_as_told() -> None:
    told = re.findall(r"(\d+)", re.search(r"Consul holds .*?\.", GUIDE.read_text(), re.DOTALL)[0])  # type: ignore[index]
    assert list(map(int, told)) == [MAX_META_PAIRS, MAX_META_PAIRS - OWN_META_PAIRS]


def test_the_new_words_give_the_old_names() -> None:
    assert f"--name-template '{NAME_BY_IMAGE}'" in GUIDE.read_text()
