"""Consul's `?filter=` expressions over its JSON documents: parse once, ask of each document. Pure.

The grammar (Consul 1.8, "Filtering"), loosest first:

    expression := term ("or" term)*          term := factor ("and" factor)*
    factor     := "not" factor | "(" expression ")" | match
    match      := selector ("==" | "!=" | ["not"] "contains" | ["not"] "matches") value
                | value ["not"] "in" selector
                | selector "is" ["not"] "empty"
    selector   := name ("." name | '["' text '"]')*
    value      := "text" | `text` | bare word

A selector is checked against the fields of the documents it will meet, so that
a misspelt one is an error, not an empty answer. Regular expressions are left
out: Go's run in linear time and Python's do not, and anybody may ask.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from registrator import limits

Test = Callable[[Mapping[str, Any]], bool]

MAX_LENGTH = limits.FILTER_LENGTH.value  # characters
MAX_DEPTH = limits.FILTER_DEPTH.value  # parentheses and "not"s within one another
MAX_MATCHES = limits.FILTER_MATCHES.value
MAX_DIGITS = 20  # of a number: Go's int64 has 19

TOKEN = re.compile(
    r"\s*(?:(?P<quoted>\"(?:[^\"\\]|\\.)*\"|`[^`]*`)|(?P<mark>==|!=|[()\[\]])|(?P<word>[^\s\"`()\[\]=!]+))"
)
INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
KEYWORDS = frozenset({"and", "or", "not", "in", "is", "empty", "contains", "matches"})


class BadFilter(ValueError):
    """An expression that cannot be understood; `str()` is one line that says where or why."""


# The fields of Consul's documents ------------------------------------------


@dataclass(frozen=True, slots=True)
class Texts:
    """A list of texts (tags)."""


@dataclass(frozen=True, slots=True)
class Map:
    """Keys that anybody may choose, with values of one kind."""

    of: Kind


@dataclass(frozen=True, slots=True)
class Many:
    """A list of documents: an expression holds when it does for any of them."""

    of: Fields


Fields = dict[str, Any]  # name -> Kind
Kind = type[str] | type[int] | type[bool] | Texts | Map | Many | Fields

_WEIGHTS: Fields = {"Passing": int, "Warning": int}
_ADDRESSES = Map({"Address": str, "Port": int})

NODE: Fields = {
    "ID": str,
    "Node": str,
    "Address": str,
    "Datacenter": str,
    "TaggedAddresses": Map(str),
    "Meta": Map(str),
}
SERVICE: Fields = {
    "ID": str,
    "Service": str,
    "Tags": Texts(),
    "Address": str,
    "TaggedAddresses": _ADDRESSES,
    "Meta": Map(str),
    "Port": int,
    "Weights": _WEIGHTS,
    "EnableTagOverride": bool,
}
CHECK: Fields = {
    "Node": str,
    "CheckID": str,
    "Name": str,
    "Status": str,
    "Notes": str,
    "Output": str,
    "ServiceID": str,
    "ServiceName": str,
    "ServiceTags": Texts(),
}
CATALOG_SERVICE: Fields = {
    **{name: kind for name, kind in NODE.items() if name != "Meta"},
    "NodeMeta": Map(str),
    "ServiceID": str,
    "ServiceName": str,
    "ServiceTags": Texts(),
    "ServiceAddress": str,
    "ServiceTaggedAddresses": _ADDRESSES,
    "ServiceMeta": Map(str),
    "ServicePort": int,
    "ServiceWeights": _WEIGHTS,
    "ServiceEnableTagOverride": bool,
}
HEALTH_SERVICE: Fields = {"Node": NODE, "Service": SERVICE, "Checks": Many(CHECK)}


def parse(text: str, fields: Fields) -> Test:
    """The test that an expression makes of documents with these fields. Raises BadFilter."""
    if len(text) > MAX_LENGTH:
        raise BadFilter(f"the expression is longer than {MAX_LENGTH} characters")
    return _Parser(text, fields).whole()


# Parsing --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    at: int
    quoted: bool = False


class _Parser:
    """Recursive descent, one method for each rule of the grammar."""

    def __init__(self, text: str, fields: Fields) -> None:
        self._fields = fields
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0
        self._matches = 0

    def whole(self) -> Test:
        test = self._expression()
        if self._peek():
            raise self._unexpected("and", "or", "the end")
        return test

    def _expression(self) -> Test:
        tests = [self._term()]
        while self._take("or"):
            tests.append(self._term())
        return tests[0] if len(tests) == 1 else lambda document: any(test(document) for test in tests)

    def _term(self) -> Test:
        tests = [self._factor()]
        while self._take("and"):
            tests.append(self._factor())
        return tests[0] if len(tests) == 1 else lambda document: all(test(document) for test in tests)

    def _factor(self) -> Test:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise BadFilter(f"the expression is nested deeper than {MAX_DEPTH}")
        try:
            if self._take("not"):
                inner = self._factor()
                return lambda document: not inner(document)
            if self._take("("):
                inner = self._expression()
                self._must(")")
                return inner
            return self._match()
        finally:
            self._depth -= 1

    def _match(self) -> Test:
        self._matches += 1
        if self._matches > MAX_MATCHES:
            raise BadFilter(f"the expression makes more than {MAX_MATCHES} comparisons")
        first = self._operand()
        following = self._peek(1)
        if self._is("in") or (self._is("not") and following and following.text == "in"):
            negated = self._take("not")
            self._must("in")
            return _test(self._selector(self._operand()), "contains", first.text, negated=negated)
        selector = self._selector(first)
        if self._take("is"):
            negated = self._take("not")
            self._must("empty")
            return _test(selector, "empty", "", negated=negated)
        for mark in ("==", "!="):
            if self._take(mark):
                return _test(selector, "==", self._operand().text, negated=mark == "!=")
        negated = self._take("not")
        if self._take("contains"):
            return _test(selector, "contains", self._operand().text, negated=negated)
        if self._is("matches"):
            raise BadFilter("this agent does not support matches; filter the answer, or ask Consul itself")
        raise self._unexpected("==", "!=", "contains", "in", "is", "not")

    def _selector(self, first: _Token) -> _Selector:
        """The selector that begins with `first`, which is taken already."""
        path = [first.text] if first.quoted else first.text.split(".")
        while self._take("["):
            path.append(self._operand().text)
            self._must("]")
            following = self._peek()
            if following and not following.quoted and following.text.startswith("."):
                path += self._operand().text[1:].split(".")
        return _Selector(tuple(path), first.text, self._fields)

    # Tokens

    def _peek(self, ahead: int = 0) -> _Token | None:
        at = self._next + ahead
        return self._tokens[at] if at < len(self._tokens) else None

    def _is(self, text: str) -> bool:
        token = self._peek()
        return token is not None and not token.quoted and token.text == text

    def _take(self, text: str) -> bool:
        found = self._is(text)
        self._next += found
        return found

    def _must(self, text: str) -> None:
        if not self._take(text):
            raise self._unexpected(text)

    def _operand(self) -> _Token:
        """A quoted text, or a word that is no keyword."""
        token = self._peek()
        if token is None or (not token.quoted and (token.text in KEYWORDS or token.text in "()[]==!=")):
            raise self._unexpected("a selector or a value")
        self._next += 1
        return token

    def _unexpected(self, *wanted: str) -> BadFilter:
        token = self._peek()
        where = f"at {token.text!r} (character {token.at + 1})" if token else "at its end"
        return BadFilter(f"{where}, expected {' or '.join(wanted)}")


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        found = TOKEN.match(text, at)
        if found is None:
            at = end - len(text[at:end].lstrip())
            raise BadFilter(f"character {at + 1} begins nothing that is known here")
        quoted = found["quoted"]
        if quoted:
            plain = quoted[1:-1] if quoted[0] == "`" else re.sub(r"\\(.)", r"\1", quoted[1:-1])
            tokens.append(_Token(plain, found.start("quoted"), quoted=True))
        else:
            group = "mark" if found["mark"] else "word"
            tokens.append(_Token(found[group], found.start(group)))
        at = found.end()
    return tokens


# Testing --------------------------------------------------------------------


class _Selector:
    """A path into documents, and the kind of what is there."""

    def __init__(self, path: tuple[str, ...], text: str, fields: Fields) -> None:
        self.path, self.text = path, text
        self.kind: Kind = fields
        for name in path:
            self.kind = self._step(self.kind, name)
        if isinstance(self.kind, dict):
            raise BadFilter(f'Selector "{text}" is not valid')

    def _step(self, kind: Kind, name: str) -> Kind:
        if isinstance(kind, Many):
            kind = kind.of
        if isinstance(kind, dict) and name in kind:
            return kind[name]  # type: ignore[no-any-return]
        if isinstance(kind, Map):
            return kind.of
        raise BadFilter(f'Selector "{self.text}" is not valid')


def _test(selector: _Selector, operator: str, value: str, *, negated: bool) -> Test:
    """The test of one match. Raises BadFilter where the operator does not fit what is selected."""
    compare = _comparison(selector, operator, value)
    return lambda document: _any(document, selector.path, compare, negated)


def _comparison(selector: _Selector, operator: str, value: str) -> Callable[[Any], bool]:
    kind = selector.kind
    several = isinstance(kind, Texts | Map | Many)
    match operator:
        case "empty" if several:
            return lambda found: not found
        case "contains" if isinstance(kind, Texts | Map) or kind is str:
            return lambda found: value in (found or ())
        case "==" if not several:
            wanted = _coerced(selector, value)
            return lambda found: bool(found == wanted)
    word = {"empty": "Is Empty", "contains": "In", "==": "Equal"}[operator]
    raise BadFilter(f'Invalid match operator "{word}" for selector "{selector.text}"')


def _coerced(selector: _Selector, value: str) -> str | int | bool:
    if selector.kind is bool and value.lower() in ("true", "false", "1", "0", "t", "f"):
        return value.lower() in ("true", "1", "t")
    if selector.kind is int and len(value) <= MAX_DIGITS and INTEGER.fullmatch(value):
        return int(value)
    if selector.kind is str:
        return value
    raise BadFilter(f'Failed to coerce value "{value}" for selector "{selector.text}"')


def _any(found: Any, path: tuple[str, ...], compare: Callable[[Any], bool], negated: bool) -> bool:  # noqa: ANN401, FBT001  (JSON)
    """Follow the path; of a list of documents any may fulfil the test, and what is absent equals nothing."""
    for number, name in enumerate(path):
        if isinstance(found, list):
            return any(_any(one, path[number:], compare, negated) for one in found)
        if not isinstance(found, Mapping) or name not in found:
            return negated
        found = found[name]
    return compare(found) is not negated
