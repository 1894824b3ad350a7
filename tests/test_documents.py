"""JSON taken apart as it comes in: what `json` gives, and nothing of it costs more than its length."""

from __future__ import annotations

import json
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrator import documents
from registrator.documents import Element, Elements, Kind, Unusable, parse
from registrator.shapes import Malformed

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('aä"\\é', max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)
layouts = st.sampled_from([None, 0, 2])
sizes = st.integers(1, 60)
longs = st.sampled_from([0, 5, 30, 2**16])  # from where on an element is decoded in parts

PLENTY = 10**7


def elements_of(
    octets: bytes, kind: Kind, size: int = 2**16, longest: int = 10**6, most: int = PLENTY, inside: str = ""
) -> list[Element]:
    """All elements of a document that comes in pieces of `size` octets."""
    elements = Elements(kind, longest, most, (inside,) if inside else ())
    found: list[Element | None] = []
    for start in range(0, len(octets), size):
        found += elements.feed(octets[start : start + size])
    found += elements.finish()
    return [element for element in found if element is not None]


def values(octets: bytes, size: int = 2**16, longest: int = 10**6) -> list[object]:
    return [element.value for element in elements_of(octets, Kind.ARRAY_OR_NULL, size, longest)]


@given(st.lists(anything), layouts, sizes, st.booleans(), longs)
def test_arrays(document: list[object], indent: int | None, size: int, escaped: bool, long: int) -> None:  # noqa: FBT001 - hypothesis hands it over
    """Every element of an array, in order, however it is laid out and in whatever pieces it comes."""
    octets = json.dumps(document, indent=indent, ensure_ascii=escaped).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "LONG", long)
        assert values(octets, size) == document


@given(st.dictionaries(st.text('abä"\\', max_size=4), anything), layouts, sizes, longs)
def test_objects(document: dict[str, object], indent: int | None, size: int, long: int) -> None:
    """Every member of an object, in order."""
    octets = json.dumps(document, indent=indent, ensure_ascii=False).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "LONG", long)
        found = elements_of(octets, Kind.OBJECT, size)
    assert [(element.key, element.value) for element in found] == list(document.items())


@given(st.lists(anything, min_size=1), sizes, st.integers(0, 40))
def test_what_is_too_long_is_left_out_and_the_others_are_not(
    document: list[object], size: int, longest: int
) -> None:
    """Each element comes as it is, or as one that was too long, which it then is."""
    found = values(json.dumps(document).encode(), size, longest)
    assert len(found) == len(document)
    for element, original in zip(found, document, strict=True):
        if len(json.dumps(original)) > longest:
            assert element == Unusable(too_long=True)
        else:
            assert element == original


@given(st.lists(anything, min_size=1) | st.dictionaries(st.text(max_size=3), anything, min_size=1), st.data())
def test_what_breaks_off_is_refused(document: object, data: st.DataObject) -> None:
    """A part of a document is never taken for the whole."""
    octets = json.dumps(document).encode()
    kind = Kind.ARRAY if isinstance(document, list) else Kind.OBJECT
    with pytest.raises(Malformed):
        elements_of(octets[: data.draw(st.integers(0, len(octets) - 1))], kind)


@pytest.mark.parametrize(
    ("octets", "kind"),
    [
        (b"", Kind.ARRAY),
        (b"null", Kind.ARRAY),
        (b"null", Kind.OBJECT),
        (b"{}", Kind.ARRAY_OR_NULL),
        (b"[]", Kind.OBJECT),
        (b"<html>", Kind.ARRAY_OR_NULL),
        (b'"text"', Kind.OBJECT),
        (b"12", Kind.ARRAY_OR_NULL),
        (b"nulls", Kind.ARRAY_OR_NULL),
        (b"[1 2]", Kind.ARRAY),
        (b"[1]]", Kind.ARRAY),
        (b"[1] [2]", Kind.ARRAY),
        (b'{"a"}', Kind.OBJECT),
        (b"{1: 2}", Kind.OBJECT),
        (b'{"a": 1, b: 2}', Kind.OBJECT),
        (b"[[" + b"[" * 100_000, Kind.ARRAY),
        (b"\xff\xfe\x00", Kind.ARRAY),
    ],
)
def test_what_is_not_such_a_document_is_refused(octets: bytes, kind: Kind) -> None:
    """Of another kind, broken between two elements, or followed by something: never an empty one."""
    for size in (1, 7, 2**16):
        with pytest.raises(Malformed):
            elements_of(octets, kind, size)


def test_null_is_empty_where_go_writes_an_empty_array_so() -> None:
    assert elements_of(b" null\n", Kind.ARRAY_OR_NULL, 1) == []
    assert elements_of(b" null\n", Kind.OBJECT_OR_NULL, 1) == []


BROKEN = [
    ("nested a hundred thousand deep", b"[" * 100_000 + b"]" * 100_000),
    ("objects nested so", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    ("a number of more digits than Python reads", b"1" * 5000),
    ("a word that is not JSON", b"nul"),
    ("a control character in a string", b'"\x1b"'),
    ("an escape that is none", rb'"\q"'),
    ("a comma too many", b'{"a":1,}'),
]


@pytest.mark.parametrize("element", [row[1] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_an_element_that_cannot_be_read_spoils_itself(element: bytes) -> None:
    """The one before it and the one after it are used."""
    for size in (100, 1000, 2**16):
        assert values(b'[{"a":1},' + element + b',"b"]', size) == [{"a": 1}, Unusable(too_long=False), "b"]
    members = elements_of(b'{"x":' + element + b',"y":2}', Kind.OBJECT)
    assert members == [Element("x", Unusable(too_long=False)), Element("y", 2)]


def test_the_word_for_a_number_that_is_none_is_null() -> None:
    """Python's parser takes NaN and Infinity; nobody who compares or rounds numbers should meet them."""
    assert values(b"[NaN, Infinity, -Infinity]") == [None, None, None]
    assert parse(b'{"a": NaN}') == {"a": None}


def test_a_key_that_is_too_long_spoils_its_member() -> None:
    found = elements_of(b'{"a":1,"' + b"k" * 200 + b'":{"x":[2]},"b":3}', Kind.OBJECT, 16, 100)
    assert found == [Element("a", 1), Element("", Unusable(too_long=True)), Element("b", 3)]


def test_the_elements_of_a_member_come_one_by_one() -> None:
    """Of an array or of an object; so a long member is not one long element."""
    octets = b'{"Node":{"a":1},"Services":{"x":{"b":2},"y":nul},"Nodes":[7]}'
    found = elements_of(octets, Kind.OBJECT, 3, inside="Services")
    assert found == [
        Element("Node", {"a": 1}),
        Element("x", {"b": 2}, "Services"),
        Element("y", Unusable(too_long=False), "Services"),
        Element("Nodes", [7]),
    ]
    assert elements_of(b'{"Services":[1,2]}', Kind.OBJECT, 3, inside="Services") == [
        Element("", 1, "Services"),
        Element("", 2, "Services"),
    ]
    assert elements_of(b'{"Services":null}', Kind.OBJECT, inside="Services") == [Element("Services", None)]


def test_a_document_of_too_many_elements_is_refused() -> None:
    """Each counts for more than it has, as an empty one takes memory too."""
    with pytest.raises(Malformed, match="too long"):
        elements_of(b"[" + b"[]," * 1000 + b"[]]", Kind.ARRAY, most=50_000)


def test_what_is_left_out_does_not_count() -> None:
    """A hundred megabytes in one element do not spoil the others."""
    octets = b'["' + b"x" * 100_000 + b'",1]'
    found = elements_of(octets, Kind.ARRAY, longest=1000, most=2000)
    assert [element.value for element in found] == [Unusable(too_long=True), 1]


HOSTILE = {
    "escaped quotes": b'["' + rb"\"" * 100_000,
    "space": b"[" + b" " * 200_000,
    "space after a key": b'{"a"' + b" " * 200_000,
    "digits": b"[" + b"1" * 200_000,
    "brackets": b"[" * 200_000,
    "nested objects": b"[" + b'{"a":' * 40_000,
    "half strings": b'[["' + b'\\","' * 40_000,
    "a long key": b'{"' + b"k" * 200_000,
    "empty arrays": b"[" + b"[]," * 40_000,
}


@pytest.mark.parametrize("octets", HOSTILE.values(), ids=HOSTILE)
def test_the_cost_grows_with_the_length(octets: bytes) -> None:
    """Ten times as much costs ten times as much, or forty on a busy machine, but not a hundred times."""

    def cost(part: bytes) -> float:
        begin = time.process_time()
        kind = Kind.OBJECT if part.startswith(b"{") else Kind.ARRAY
        with pytest.raises(Malformed):
            elements_of(part, kind, 1000, 2**12, 10**9)
        return time.process_time() - begin

    short, long = (min(cost(octets[:size]) for _ in range(5)) for size in (len(octets) // 10, len(octets)))
    assert long < 40 * max(short, 0.002)


def test_a_long_element_is_not_held_in_memory() -> None:
    """Of 30 MB in one element no more than its longest permitted length is kept."""
    piece = b"x" * 2**16
    tracemalloc.start()
    try:
        elements = Elements(Kind.ARRAY, 2**18, 2**20)
        assert list(elements.feed(b'["')) == []
        for _ in range(480):
            assert not any(elements.feed(piece))
        assert [e for e in elements.feed(b'"]') if e] == [Element("", Unusable(too_long=True))]
        assert list(elements.finish()) == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**22


def test_a_long_element_is_decoded_in_parts() -> None:
    """It counts like the others, and may be followed by what is right, spoilt, or nothing."""
    long = {"Ports": [{"PrivatePort": n, "Type": "tcp"} for n in range(60_000)], "b": '\\"}]' * 9}
    text = json.dumps(long).encode()
    elements = Elements(Kind.ARRAY, PLENTY, PLENTY)
    found: list[Element | None] = []
    for start in range(0, len(octets := b"[1," + text + b',{"a":1},' + text[:-1] + b",}]"), 2**16):
        found += elements.feed(octets[start : start + 2**16])
    found += elements.finish()
    assert [element.value for element in found if element] == [1, long, {"a": 1}, Unusable(too_long=False)]
    assert found.count(None) > 100
    with pytest.raises(Malformed, match="too long"):
        elements_of(b"[" + text + b"]", Kind.ARRAY, longest=PLENTY, most=10**6)
    with pytest.raises(Malformed, match="breaks off"):
        elements_of(b"[" + text, Kind.ARRAY, longest=PLENTY)


@pytest.mark.parametrize("octets", [b"", b"{", b"[" * 100_000, b"1" * 5000, b"{} x", b"<html>"])
def test_a_whole_document_that_is_none_is_refused(octets: bytes) -> None:
    with pytest.raises(Malformed):
        parse(octets)
