"""The part of Go's text/template that tags and names are written in.

    {{.Name}}  {{.Config.Hostname}}  {{index .Config.Labels "team"}}
    {{.Config.Image | splitIndex 0 ":" | toUpper}}  {{or (index .Config.Labels "x") "none"}}

Fields, string and number literals, parentheses, pipelines and the functions of
`FUNCTIONS`, which are registrator's. No control structures, and neither its
`httpGet` nor `jsonParse`: a template must not make the agent call anybody.
The document is what `document` makes of a container: a part of Docker's
inspect document, under Docker's own names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from registrator.model import Container

ACTION = re.compile(r"\{\{(-\s)?(.*?)(\s-)?\}\}", re.DOTALL)
TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:\\.|[^"\\])*"|`[^`]*`)|(?P<number>-?\d+)|(?P<field>(?:\.\w+)+|\.)"""
    r"""|(?P<name>[A-Za-z]\w*)|(?P<mark>[()|]))"""
)
MAX_TEMPLATE = 4096
MAX_DEPTH = 20


class TemplateError(ValueError):
    """A template that makes no sense, or asks for what a container does not have: one line."""


def is_template(text: str) -> bool:
    """Whether there is anything to render in a text."""
    return "{{" in text


def render(text: str, container: Container, *, trusted: bool = False) -> str:
    """Fill in a template; `trusted` is the operator's, who may also match patterns. Raises TemplateError."""
    if len(text) > MAX_TEMPLATE:
        raise TemplateError(f"a template of {len(text)} characters, the most is {MAX_TEMPLATE}")
    data = document(container)
    functions = TRUSTED_FUNCTIONS if trusted else FUNCTIONS
    parts: list[str] = []
    end = 0
    trim = False
    for action in ACTION.finditer(text):
        literal = text[end : action.start()]
        parts.append(_trimmed(literal, left=trim, right=bool(action[1])))
        parts.append(_text(_Expression(action[2], data, functions).value()))
        end, trim = action.end(), bool(action[3])
    rest = text[end:]
    if is_template(rest):
        raise TemplateError("a {{ is never closed by }}")
    return "".join((*parts, _trimmed(rest, left=trim, right=False)))


def document(container: Container) -> dict[str, Any]:
    """The part of Docker's inspect document that a template can ask for."""
    networks = {
        n.network: {"NetworkID": n.network_id, "IPAddress": n.ipv4, "GlobalIPv6Address": n.ipv6}
        for n in container.networks
    }
    config = {
        "Hostname": container.hostname,
        "Image": container.image,
        "Env": [f"{key}={value}" for key, value in container.env.items()],
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


class _Expression:
    """One action: parsed and evaluated in one pass over its tokens."""

    def __init__(
        self, text: str, data: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]]
    ) -> None:
        self._source = text.strip()
        self._functions = functions
        self._tokens = _tokens(self._source)
        self._data = data
        self._next: tuple[str, str] | None = next(self._tokens, None)
        self._depth = 0

    def value(self) -> Any:  # noqa: ANN401 - a template's values are JSON's
        """What the whole action gives."""
        result = self._pipeline()
        if self._next is not None:
            raise TemplateError(f"{self._source!r} has a {self._next[1]!r} too many")
        return result

    def _take(self) -> tuple[str, str]:
        if self._next is None:
            raise TemplateError(f"{self._source!r} is not complete")
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
                    f"there is no function {name}; there are {', '.join(sorted(self._functions))}"
                )
            return _call(function, name, [*arguments, *piped])
        if piped:
            raise TemplateError(f"{self._source!r} pipes into what is no function")
        return self._operand()

    def _operand(self) -> Any:  # noqa: ANN401
        kind, text = self._take()
        if kind == "text":
            return text[1:-1] if text[0] == "`" else re.sub(r"\\(.)", r"\1", text[1:-1])
        if kind == "number":
            return int(text)
        if kind == "field":
            return _field(self._data, text)
        if text != "(":
            raise TemplateError(f"{self._source!r} cannot have {text!r} there")
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
            raise TemplateError(f"{source!r} cannot be read at {source[position:][:20]!r}")
        yield match.lastgroup, match[match.lastgroup]
        position = match.end()


def _field(data: Any, path: str) -> Any:  # noqa: ANN401
    """Follow ".A.B"; a label that is absent is "", any other absent field is an error."""
    for name in filter(None, path.split(".")):
        if not isinstance(data, Mapping) or (name not in data and "Config" in data):
            raise TemplateError(f"there is no field {path}")
        data = data.get(name, "")
    return data


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
    "join": lambda separator, items: separator.join(items),
    "len": len,
    "mIndex": lambda key, mapping: mapping.get(key, ""),
    "or": lambda *values: next((value for value in values if value), values[-1]),
    "replace": lambda count, old, new, text: text.replace(old, new, count),
    "sIndex": _element,
    "split": lambda separator, text: text.split(separator),
    "splitIndex": lambda position, separator, text: _element(position, text.split(separator)),
    "strSlice": _slice,
    "toLower": lambda text: text.lower(),
    "toUpper": lambda text: text.upper(),
}

# Regular expressions can be made to run for ever, so only the operator may write them.
TRUSTED_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **FUNCTIONS,
    "matchAllElements": lambda pattern, items: [item for item in items if re.search(pattern, item)],
    "matchFirstElement": lambda pattern, items: next(
        (item for item in items if re.search(pattern, item)), ""
    ),
}


def _call(function: Callable[..., Any], name: str, arguments: Sequence[Any]) -> Any:  # noqa: ANN401
    try:
        return function(*arguments)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, re.error):
        raise TemplateError(f"{name} cannot take {len(arguments)} such arguments") from None


def _trimmed(text: str, *, left: bool, right: bool) -> str:
    text = text.lstrip() if left else text
    return text.rstrip() if right else text


def _text(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, (str, int)):
        return str(value)
    raise TemplateError("the result is a list or a map; take one element of it with index")
