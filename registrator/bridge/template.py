"""The part of Go's text/template that tags and names are written in.

    {{.Name}}  {{.Config.Hostname}}  {{index .Config.Labels "team"}}
    {{.Config.Image | splitIndex 0 ":" | toUpper}}  {{or (index .Config.Labels "x") "none"}}

Fields, string and number literals, parentheses, pipelines and the functions of
`FUNCTIONS`, which are registrator's. No control structures, and neither its
`httpGet` nor `jsonParse`: a template must not make the agent call anybody.
The document is what `Templates` makes of a container: a part of Docker's inspect
document, under Docker's own names, made when the first template asks for it.

Every text and list on the way to a result has a limit, which is looked at
before it is made, and all templates of a container together have so many steps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

from registrator.bridge.bounds import longer_than, octets
from registrator.bridge.labels import short
from registrator.limits import (
    TEMPLATE_LIST,
    TEMPLATE_MATCH,
    TEMPLATE_OCTETS,
    TEMPLATE_RESULT,
    TEMPLATE_STEPS,
    Limit,
)
from registrator.model import Container

TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:\\.|[^"\\])*"|`[^`]*`)|(?P<number>-?[0-9]{1,9})|(?P<field>(?:\.\w+)+|\.)"""
    r"""|(?P<name>[A-Za-z]\w*)|(?P<mark>[()|]))"""
)
MAX_DEPTH = 20
OCTETS_A_STEP = 256  # a function that handles so many characters has taken a step
ELEMENT = 32  # characters that an element of a list or a map counts for

_LONGEST, _MOST = TEMPLATE_RESULT.value, TEMPLATE_LIST.value


class TemplateError(ValueError):
    """A template that makes no sense, or asks for what a container does not have: one line.

    `limit` is the name of the limit that it hit, if it did.
    """

    limit = ""


class _TooMuch(TemplateError):
    def __init__(self, limit: Limit) -> None:
        super().__init__(f"more than {limit.value:,} {limit.unit} ({limit.name})")
        self.limit = limit.name


def is_template(text: str) -> bool:
    """Whether there is anything to render in a text."""
    return "{{" in text


class Templates:
    """A container as its templates see it, and what they have cost so far."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._steps = {False: 0, True: 0}  # the container's cannot use up the operator's
        self._rendered: dict[tuple[str, bool], str | TemplateError] = {}

    @cached_property
    def document(self) -> dict[str, Any]:
        """The part of Docker's inspect document that a template can ask for."""
        container = self._container
        networks = {
            n.network: {"NetworkID": n.network_id, "IPAddress": n.ipv4, "GlobalIPv6Address": n.ipv6}
            for n in container.networks
        }
        config = {
            "Hostname": container.hostname,
            "Image": container.image,
            "Env": [f"{key}={value}" for key, value in islice(container.env.items(), _MOST)],
            "Labels": container.labels,
        }
        return {
            "ID": container.id,
            "Name": f"/{container.name}",
            "Image": container.image,
            "Config": config,
            "HostConfig": {"NetworkMode": container.network_mode},
            "NetworkSettings": {"Networks": networks},
            "State": {"Status": container.state},
        }

    def render(self, text: str, *, trusted: bool = False) -> str:
        """Fill in a template, the same one only once.

        `trusted` is the operator's, who may also match patterns. Raises TemplateError.
        """
        key = text, trusted
        if key not in self._rendered:
            try:
                self._rendered[key] = _rendered(text, self, trusted=trusted)
            except TemplateError as error:
                self._rendered[key] = error
        result = self._rendered[key]
        if isinstance(result, TemplateError):
            raise result.with_traceback(None)
        return result

    def spend(self, steps: int, *, trusted: bool) -> None:
        """Count steps; raises TemplateError when the templates of one side have taken too many."""
        self._steps[trusted] += steps
        if self._steps[trusted] > TEMPLATE_STEPS.value:
            raise _TooMuch(TEMPLATE_STEPS)


def render(text: str, container: Container, *, trusted: bool = False) -> str:
    """Fill in one template; see `Templates.render`."""
    return Templates(container).render(text, trusted=trusted)


def _rendered(text: str, templates: Templates, *, trusted: bool) -> str:
    if longer_than(TEMPLATE_OCTETS.value, text):
        raise _TooMuch(TEMPLATE_OCTETS)
    parts: list[str] = []
    length = 0
    for literal, action in _split(text):
        made = "" if action is None else _text(_Expression(action, templates, trusted=trusted).value())
        length += octets(literal) + octets(made)
        if length > _LONGEST:
            raise _TooMuch(TEMPLATE_RESULT)
        parts += literal, made
    return "".join(parts)


def _split(text: str) -> Iterator[tuple[str, str | None]]:
    """The literal texts, each with the action after it: the last has none."""
    end = 0
    trim = False
    while (start := text.find("{{", end)) >= 0:
        stop = text.find("}}", start + 2)
        if stop < 0:
            raise TemplateError("a {{ is never closed by }}")
        action = text[start + 2 : stop]
        right = action[:1] == "-" and action[1:2].isspace()
        left, trim = trim, len(action) > 3 * right and action[-1:] == "-" and action[-2:-1].isspace()
        yield _trimmed(text[end:start], left=left, right=right), action[2 * right : -2 if trim else None]
        end = stop + 2
    yield _trimmed(text[end:], left=trim, right=False), None


class _Expression:
    """One action: parsed and evaluated in one pass over its tokens."""

    def __init__(self, text: str, templates: Templates, *, trusted: bool) -> None:
        text = text.strip()
        self._source = short(text)
        self._functions = TRUSTED_FUNCTIONS if trusted else FUNCTIONS
        self._trusted = trusted
        self._tokens = _tokens(text)
        self._templates = templates
        self._next: tuple[str, str] | None = next(self._tokens, None)
        self._depth = 0

    def value(self) -> Any:  # noqa: ANN401 - a template's values are JSON's
        """What the whole action gives."""
        result = self._pipeline()
        if self._next is not None:
            raise TemplateError(f"{self._source!r} has a {short(self._next[1])!r} too many")
        return result

    def _spend(self, steps: int) -> None:
        self._templates.spend(steps, trusted=self._trusted)

    def _take(self) -> tuple[str, str]:
        if self._next is None:
            raise TemplateError(f"{self._source!r} is not complete")
        self._spend(1)
        token, self._next = self._next, next(self._tokens, None)
        return token

    def _pipeline(self) -> Any:  # noqa: ANN401
        result = self._command()
        while self._next == ("mark", "|"):
            self._take()
            result = self._command(result)
        return result

    def _command(self, *piped: Any) -> Any:  # noqa: ANN401
        """A function with its arguments, the piped value last; or one operand."""
        if self._next is not None and self._next[0] == "name":
            name = self._take()[1]
            arguments = []
            while self._next is not None and self._next not in (("mark", "|"), ("mark", ")")):
                arguments.append(self._operand())
            function = self._functions.get(name)
            if function is None:
                raise TemplateError(
                    f"there is no function {short(name)}; there are {', '.join(sorted(self._functions))}"
                )
            return self._call(function, name, [*arguments, *piped])
        if piped:
            raise TemplateError(f"{self._source!r} pipes into what is no function")
        return self._operand()

    def _call(self, function: Callable[..., Any], name: str, arguments: Sequence[Any]) -> Any:  # noqa: ANN401
        self._spend(sum(map(_size, arguments)) // OCTETS_A_STEP)
        try:
            result = function(*arguments)
        except TemplateError:
            raise
        except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError, re.error):
            raise TemplateError(f"{name} cannot take {len(arguments)} such arguments") from None
        self._spend(_size(result) // OCTETS_A_STEP)
        return result

    def _operand(self) -> Any:  # noqa: ANN401
        kind, text = self._take()
        if kind == "text":
            return text[1:-1] if text[0] == "`" else re.sub(r"\\(.)", r"\1", text[1:-1])
        if kind == "number":
            return int(text)
        if kind == "field":
            return _field(self._templates.document, text)
        if text != "(":
            raise TemplateError(f"{self._source!r} cannot have {short(text)!r} there")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise TemplateError("parentheses are nested too deeply")
        result = self._pipeline()
        if self._take() != ("mark", ")"):
            raise TemplateError(f"{self._source!r} has a parenthesis that is not closed")
        self._depth -= 1
        return result


def _tokens(source: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(source):
        match = TOKEN.match(source, position)
        if match is None or match.lastgroup is None:
            raise TemplateError(f"{short(source)!r} cannot be read at {source[position : position + 20]!r}")
        yield match.lastgroup, match[match.lastgroup]
        position = match.end()


def _field(data: Any, path: str) -> Any:  # noqa: ANN401
    """Follow ".A.B"; a label that is absent is "", any other absent field is an error."""
    for name in filter(None, path.split(".")):
        if not isinstance(data, Mapping) or (name not in data and "Config" in data):
            raise TemplateError(f"there is no field {short(path)}")
        data = data.get(name, "")
    return data


def _size(value: Any) -> int:  # noqa: ANN401
    """How much a value is to handle: a text's characters, and as many for each element of a list or a map.

    Raises TemplateError for a text or a list that is beyond its limit.
    """
    if isinstance(value, str):
        if longer_than(_LONGEST, value):
            raise _TooMuch(TEMPLATE_RESULT)
        return len(value)
    if isinstance(value, list) and len(value) > _MOST:
        raise _TooMuch(TEMPLATE_LIST)
    return len(value) * ELEMENT if isinstance(value, (list, Mapping)) else 0


def _room(length: int) -> None:
    """Raise TemplateError for a text that is about to be made so long."""
    if length > _LONGEST:
        raise _TooMuch(TEMPLATE_RESULT)


def _join(separator: str, items: Sequence[str]) -> str:
    _room(sum(map(len, items)) + len(separator) * (len(items) - 1))
    return separator.join(items)


def _replace(count: int, old: str, new: str, text: str) -> str:
    found = text.count(old)
    _room(len(text) + (found if count < 0 else min(count, found)) * (len(new) - len(old)))
    return text.replace(old, new, count)


def _parts(separator: str, text: str) -> list[str]:
    parts = text.split(separator, _MOST)
    if len(parts) > _MOST:
        raise _TooMuch(TEMPLATE_LIST)
    return parts


def _matching(pattern: str, items: Sequence[str]) -> Iterator[str]:
    """The elements in which a pattern is found. Long ones are not tried: the work may be their square."""
    return (item for item in items if len(item) <= TEMPLATE_MATCH.value and re.search(pattern, item))


def _index(collection: Any, *keys: Any) -> Any:  # noqa: ANN401
    """Go's own `index`: an absent key of a map gives ""."""
    for key in keys:
        collection = collection.get(key, "") if isinstance(collection, Mapping) else collection[key]
    return collection


def _element(position: int, items: Sequence[str]) -> str:
    """An element, from the end where negative; a position beyond either end gives that end's."""
    return items[max(-len(items), min(position, len(items) - 1))]


def _slice(text: str, start: int, end: int | None = None) -> str:
    return text[start:end]


# By name; the order of arguments is registrator's own, the last can be piped in.
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "index": _index,
    "join": _join,
    "len": len,
    "mIndex": lambda key, mapping: mapping.get(key, ""),
    "or": lambda *values: next((value for value in values if value), values[-1]),
    "replace": _replace,
    "sIndex": _element,
    "split": _parts,
    "splitIndex": lambda position, separator, text: _element(position, _parts(separator, text)),
    "strSlice": _slice,
    "toLower": lambda text: text.lower(),
    "toUpper": lambda text: text.upper(),
}

# Regular expressions can be made to run for ever, so only the operator may write them.
TRUSTED_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **FUNCTIONS,
    "matchAllElements": lambda pattern, items: list(_matching(pattern, items)),
    "matchFirstElement": lambda pattern, items: next(_matching(pattern, items), ""),
}


def _trimmed(text: str, *, left: bool, right: bool) -> str:
    text = text.lstrip() if left else text
    return text.rstrip() if right else text


def _text(value: Any) -> str:  # noqa: ANN401
    _size(value)
    if isinstance(value, (str, int)):
        return str(value)
    raise TemplateError("the result is a list or a map; take one element of it with index")
