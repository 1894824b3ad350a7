"""JSON of others, taken apart element by element as it comes in: pure.

A listing of Consul or of the engine is an array or an object of many elements,
and one of them may be anything: nested a thousand deep, a number of 4300
digits, a hundred megabytes long. It is left out and said to be; the others are
used. So memory is bounded by what is used, and a document that breaks off is
`Malformed` as a whole: a part of it is never taken for the truth.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from registrator.parts import decode, in_parts
from registrator.shapes import Malformed, as_text

OVERHEAD = 100  # about what the smallest element takes of memory, in octets

LONG = 2**15  # characters; what is shorter is decoded in a millisecond, what is longer in parts

_TOKENS = 500  # brackets and strings that are stepped over in one slice of work: a third of a millisecond
CLOSING = {"[": "]", "{": "}"}

_AFTER_NUMBER = frozenset(" \t\n\r,]}")
_LONGEST_WORD = len("-Infinity")
_comma = re.compile(r"[ \t\n\r]*+,[ \t\n\r]*+")
_plain_key = re.compile(r'"([^"\\\x00-\x1f]*+)"[ \t\n\r]*+:[ \t\n\r]*+')
_space = re.compile(r"[ \t\n\r]*+")
# What matters on the way through an element, by groups: a string's closing quote ("" where that has not
# come), a run of opening brackets, a run of closing ones. Inside of brackets a comma does not matter, nor
# does a string, nor a pair of brackets with no other in it.
_STRING, _RUNS = r'"[^"\\]*+(?:\\.[^"\\]*+)*+("?)', r"([\[{]++)|([\]}]++)"
_QUIET, _CLOSED = r'[^"\[\]{}]*+', r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_PAIR = rf"[\[{{]{_QUIET}(?:{_CLOSED}{_QUIET})*+[\]}}]"
_inside = re.compile(rf"(?:{_QUIET}(?:{_CLOSED}|{_PAIR}))*+{_QUIET}(?:{_STRING}|{_RUNS})", re.DOTALL)
_outside = re.compile(rf'[^"\[\]{{}},]*+(?:{_STRING}|{_RUNS}|,)', re.DOTALL)
_rest_of_string = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+("?)', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Unusable:
    """Stands for a value that was left out; `too_long` where that is why, else it could not be read."""

    too_long: bool

    @property
    def why(self) -> str:
        """In words, as the end of "an element"."""
        return "is too long" if self.too_long else "cannot be read"


class Kind(Enum):
    """What a document must be: how it begins, and whether `null` is an empty one, as Go writes it."""

    ARRAY = "["
    ARRAY_OR_NULL = "[ or null"
    OBJECT = "{"
    OBJECT_OR_NULL = "{ or null"


class Element(NamedTuple):
    """One element: its key ("" in an array) and its value; `within` is the member that it is part of."""

    key: str
    value: Any
    within: str = ""


def parse(octets: bytes) -> Any:  # noqa: ANN401 - JSON is anything
    """A whole document. Raises `Malformed` for what cannot be read."""
    try:
        value, end = decode(text := octets.decode("utf-8", "replace").strip())
    except (ValueError, RecursionError):
        raise Malformed("it is not JSON") from None
    if end < len(text):
        raise Malformed("something follows the JSON document")
    return value


def parse_in_parts(octets: bytes) -> Generator[None, None, Any]:
    """Like `parse`; where the document is long, it yields after each slice of work."""
    if len(octets) < LONG:
        return parse(octets)
    try:
        return (yield from in_parts(octets.decode("utf-8", "replace")))
    except (ValueError, RecursionError):
        raise Malformed("it is not JSON") from None


class Elements:
    """Takes a document in pieces (`feed`, then `finish`) and gives its elements as soon as they are there.

    An array's elements or an object's members, as `kind` says. The elements of a
    member named in `inside` come one by one as well. An element of more than
    `longest` characters, or one that cannot be read, comes as `Unusable`. Both
    methods raise `Malformed` for what is of another kind, breaks off, or has more
    than `most` characters in elements that are used, where each counts for
    `OVERHEAD` more than it has.
    """

    def __init__(self, kind: Kind, longest: int, most: int, inside: Collection[str] = ()) -> None:
        self._kind = kind
        self._longest, self._left, self._inside = longest, most, inside
        self._octets = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._at = 0
        self._enough = 1  # characters from which on it makes sense to look again
        self._last = False
        self._open: list[str] = []  # what closes the containers that we are in
        self._within = ""
        self._state: Callable[[], Element | None] = self._begin
        self._key = ""
        self._skip = _Skip()
        self._long = ""  # an element that has come and is to be decoded in parts

    def feed(self, octets: bytes, *, last: bool = False) -> Iterator[Element | None]:
        """The elements that end in this piece; iterate to the end before the next is fed.

        A None among them is none: it stands where a slice of work is over.
        """
        self._text = self._text[self._at :] + self._octets.decode(octets, last)
        self._at, self._last = 0, last
        while self._text and (last or len(self._text) - self._at >= self._enough):
            if self._state == self._element:
                yield from self._swift()
            before = self._at, self._state
            element = self._state()
            if before == (self._at, self._state):
                return  # the rest has not come yet
            if self._long:
                element = yield from self._decode_long()
            if element is not None or self._state == self._skipping:
                yield element

    def _swift(self) -> Iterator[Element]:
        """From here on, the elements that are plain and followed by another; the rest is `_element`'s."""
        text, longest, within = self._text, self._longest, self._within
        members = self._open[-1] == "}"
        inside = self._inside if len(self._open) == 1 else ()
        at, key = self._after_space(self._at), ""
        while True:
            start = at
            if members:
                found = _plain_key.match(text, at)
                if not found or (key := found[1]) in inside:
                    return
                start = found.end()
            try:
                value, end = decode(text, start)
            except (ValueError, RecursionError, StopIteration):
                return
            followed = _comma.match(text, end)
            left = self._left - (end - at + OVERHEAD)
            if not followed or end - at > longest or left < 0:
                return
            self._left, self._enough = left, 1
            at = self._at = followed.end()
            yield Element(key, value, within)

    def finish(self) -> Iterator[Element | None]:
        """The elements that are left at the end of the document."""
        yield from self.feed(b"", last=True)
        if self._state != self._end:
            raise Malformed("the JSON document breaks off")

    # States: each goes on from `_at`, past space, and stays there if it needs more.

    def _begin(self) -> None:
        opening = self._next_character()
        if opening == self._kind.value[0]:
            self._enter()
        elif not self._kind.value.endswith("null"):
            self._refuse(opening)
        elif self._text.startswith("null", self._at):
            self._at, self._state = self._at + 4, self._end
        elif self._last or not "null".startswith(self._text[self._at :]):
            self._refuse(opening)

    def _refuse(self, opening: str) -> None:
        if opening:
            raise Malformed("not a JSON array" if self._kind.value[0] == "[" else "not a JSON object")

    def _enter(self) -> None:
        self._open.append(CLOSING[self._text[self._at]])
        self._at, self._state = self._at + 1, self._first

    def _first(self) -> None:
        """At the first element of a container, or at its end."""
        character = self._next_character()
        if character == self._open[-1]:
            self._leave()
        elif character:
            self._state = self._element

    def _leave(self) -> None:
        self._open.pop()
        self._within = ""
        self._at, self._state = self._at + 1, self._next if self._open else self._end

    def _next(self) -> None:
        """After an element: a comma, or the container's end."""
        character = self._next_character()
        if character == ",":
            self._at, self._state = self._at + 1, self._element
        elif character == self._open[-1]:
            self._leave()
        elif character:
            raise Malformed("the JSON document is broken between two elements")

    def _element(self) -> Element | None:
        """At an element, or at a member's key."""
        if not self._next_character():
            return None
        start, self._key = self._at, ""
        if self._open[-1] == "}":
            value_at = self._read_key()
            if value_at is None:
                return None
            start = value_at
        if len(self._open) == 1 and self._key in self._inside and self._text[start] in CLOSING:
            self._within, self._at = self._key, start
            self._enter()
            return None
        return self._read_value(start)

    def _read_value(self, start: int) -> Element | None:
        error: Exception | None = None
        found, end = None, start
        try:
            found, end = decode(self._text, start)
        except (ValueError, RecursionError) as raised:
            error = raised
        # 1 may be the beginning of 1e5.
        goes_on = isinstance(found, int | float) and self._text[end : end + 1] not in _AFTER_NUMBER
        if error or goes_on:
            self._unread(start, error)
            return None
        if end - self._at > self._longest:
            self._leave_out(start, too_long=True)
            return None
        self._left -= end - self._at + OVERHEAD
        if self._left < 0:
            raise Malformed("the JSON document is too long")
        self._at, self._state, self._enough = end, self._next, 1
        return Element(self._key, found, self._within)

    def _read_key(self) -> int | None:
        """Where this member's value begins; None if that has not come, or the member is left out."""
        try:
            key, end = decode(self._text, self._at)
        except (ValueError, RecursionError):
            key, end = "", len(self._text)
        end = self._after_space(end)
        if end < len(self._text):
            if not isinstance(key, str) or self._text[end] != ":":
                raise Malformed("a member of a JSON object has no key")
            self._key = as_text(key)
            end = self._after_space(end + 1)
        if end - self._at > self._longest:
            self._key = ""
            self._leave_out(self._at, too_long=True)
            return None
        if end < len(self._text):
            return end
        self._wait(self._longest)
        return None

    def _unread(self, start: int, error: Exception | None) -> None:
        """An element that could not be read: too long, broken, or not all of it is there yet."""
        there = len(self._text)
        if isinstance(error, json.JSONDecodeError) and not error.msg.startswith("Unterminated string"):
            broken = error.pos + _LONGEST_WORD < there
        else:  # too deep, or a number of too many digits; None: a number that goes on
            broken = error is not None and not isinstance(error, json.JSONDecodeError)
        if broken or self._last:
            self._leave_out(start, too_long=False)
        elif there - self._at > min(LONG - 1, self._longest):
            self._skip_over(start, _Skip(room=self._longest - (start - self._at)))
        else:
            self._wait(LONG)

    def _leave_out(self, start: int, *, too_long: bool) -> None:
        self._skip_over(start, _Skip(Unusable(too_long)))

    def _skip_over(self, start: int, skip: _Skip) -> None:
        self._skip = skip
        self._at, self._state, self._enough = start, self._skipping, 1

    def _skipping(self) -> Element | None:
        """In an element that is left out, or is long: on to its end."""
        self._at = self._skip.go_on(self._text, self._at)
        if not self._skip.over:
            return None
        self._state = self._next
        if self._skip.unusable:
            return Element(self._key, self._skip.unusable, self._within)
        self._long = "".join(self._skip.kept)
        return None

    def _decode_long(self) -> Generator[None, None, Element]:
        """A long element that has come, whatever it is."""
        text, self._long, self._skip = self._long, "", _Skip()
        self._left -= len(self._key) + len(text) + OVERHEAD
        if self._left < 0:
            raise Malformed("the JSON document is too long")
        try:
            value = yield from in_parts(text)
        except (ValueError, RecursionError):
            value = Unusable(too_long=False)
        return Element(self._key, value, self._within)

    def _end(self) -> None:
        """After the document."""
        if self._next_character():
            raise Malformed("something follows the JSON document")

    def _wait(self, most: int) -> None:
        """Look again when there is twice as much: so what comes in small pieces is read twice at most."""
        self._enough = min(2 * (len(self._text) - self._at), most, self._longest + 1)

    def _next_character(self) -> str:
        """Step over space; what stands there, "" where nothing has come yet."""
        self._at = self._after_space(self._at)
        return self._text[self._at : self._at + 1]

    def _after_space(self, start: int) -> int:
        found = _space.match(self._text, start)
        return found.end() if found else start


class _Skip:
    """The way to the end of an element, however deep it is nested; linear, without a stack.

    What is stepped over is `kept`, up to `room` characters, unless it is `unusable` anyway.
    """

    def __init__(self, unusable: Unusable | None = None, room: int = 0) -> None:
        self.unusable = unusable
        self.kept: list[str] = []
        self.over = False
        self._room = room
        self._depth = 0
        self._in_string = False

    def go_on(self, text: str, at: int) -> int:
        """Where the element ends, if `over`; else how far it was followed in one slice of work."""
        end = self._follow(text, at)
        if not self.unusable:
            self._room -= end - at
            if self._room < 0:
                self.kept, self.unusable = [], Unusable(too_long=True)
            else:
                self.kept.append(text[at:end])
        return end

    def _follow(self, text: str, at: int) -> int:
        if self._in_string:
            found = _rest_of_string.match(text, at)
            if not found or not found[1]:
                return found.end() if found else at
            at, self._in_string = found.end(), False
        for _ in range(_TOKENS):
            found = (_inside if self._depth else _outside).match(text, at)
            if not found:
                return len(text)
            quote, opened, closed = found.groups()
            at = found.end()
            if opened:
                self._depth += len(opened)
            elif closed:
                self._depth -= len(closed)
                if self._depth < 0:  # the last of them close what is around the element
                    self.over = True
                    return at + self._depth
            elif quote is None:  # a comma
                self.over = True
                return at - 1
            elif not quote:
                self._in_string = True
                return at
        return at
