"""The part of Go's text/template that ``--format`` is used with.

``{{.Names}}``, ``{{.State.Pid}}``, ``{{json .Mounts}}``, ``{{len .Args}}``, ``{{index .Config.Labels "key"}}``,
``{{join .Command " "}}``, ``{{upper .State}}``, ``{{lower .State}}``, and ``{{.}}``. No loops and no conditions:
whoever needs those has ``--format json`` and jq. Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyengine.errors import InvalidValue

_ACTION = re.compile(r"\{\{(-?)(.*?)(-?)\}\}", re.DOTALL)
_TOKEN = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*"|`[^`]*`)|(-?\d+)(?![\w.])|([^\s"`|()]+)|(.))', re.DOTALL)
_FIELD = re.compile(r"\.|(?:\.[A-Za-z_]\w*)+")
_ESCAPES = {r"\t": "\t", r"\n": "\n", r"\\": "\\", r"\"": '"', r"\r": "\r"}
_FUNCTIONS = {"json": (1, 1), "len": (1, 1), "index": (2, 8), "join": (2, 2), "upper": (1, 1), "lower": (1, 1)}
_STATEMENTS = ("range", "if", "else", "end", "with", "define", "template", "block")
MAX_LENGTH = 64 << 10

Value = Any  # what JSON has: the documents come from the engine
Operand = tuple[str, ...] | str | int  # a field's path, a text, a number


@dataclass(frozen=True, slots=True)
class Action:
    """What stands between braces: a function (or none) and what it is applied to."""

    function: str
    operands: tuple[Operand, ...]

    @property
    def field(self) -> str:
        """The name of the first field, which names a column; empty for ``{{.}}``."""
        path = next((operand for operand in self.operands if isinstance(operand, tuple)), ())
        return path[-1] if path else ""


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed format. ``aliases`` are other names of fields: what Go calls a field is not always its JSON key."""

    parts: tuple[str | Action, ...]
    aliases: Mapping[str, str]

    def render(self, record: Mapping[str, Value], escape: Callable[[str], str] = str) -> str:
        """The text for one record, its values as `escape` makes them. `InvalidValue` when it has no such field."""
        return "".join(part if isinstance(part, str) else escape(self._evaluate(part, record)) for part in self.parts)

    def headings(self, names: Mapping[str, str]) -> str:
        """The line above a table: every field's heading in the place of its value."""
        return "".join(
            part if isinstance(part, str) else names.get(part.field, _heading(part.field)) for part in self.parts
        )

    def _evaluate(self, action: Action, record: Mapping[str, Value]) -> str:
        values = [_look_up(record, o, self.aliases) if isinstance(o, tuple) else o for o in action.operands]
        return _CALLS[action.function](*values)


def parse_template(text: str, aliases: Mapping[str, str] | None = None) -> Template:
    """Parse a format; ``\\t`` and ``\\n`` outside of braces are a tab and a newline."""
    if len(text) > MAX_LENGTH:
        raise InvalidValue(f"format: longer than {MAX_LENGTH} characters")
    parts: list[str | Action] = []
    position, trim = 0, False
    for match in _ACTION.finditer(text):
        literal = text[position : match.start()]
        _add_literal(parts, literal, trim, bool(match[1]))
        parts.append(_parse_action(match[2]))
        position, trim = match.end(), bool(match[3])
    rest = text[position:]
    if "{{" in rest:
        raise InvalidValue(f"format {text[:100]!r}: a {{{{ is never closed")
    _add_literal(parts, rest, trim, False)
    return Template(tuple(parts), aliases or {})


def _add_literal(parts: list[str | Action], literal: str, trim_left: bool, trim_right: bool) -> None:
    literal = re.sub(r"\\[tnr\\]", lambda match: _ESCAPES[match[0]], literal)
    literal = literal.lstrip() if trim_left else literal
    literal = literal.rstrip() if trim_right else literal
    if literal:
        parts.append(literal)


def _parse_action(text: str) -> Action:
    operands: list[Operand] = []
    function = ""
    position = 0
    body = text.strip()
    while position < len(body):
        match = _TOKEN.match(body, position)
        if match is None:
            break
        position = match.end()
        quoted, number, word, other = match.groups()
        if other is not None:
            raise _unsupported(text, f"{other!r} is not supported")
        if quoted is not None:
            operands.append(_unquote(quoted))
        elif number is not None:
            operands.append(int(number))
        elif _FIELD.fullmatch(word):
            operands.append(tuple(word[1:].split(".")) if word != "." else ())
        elif not function and not operands and word in _FUNCTIONS:
            function = word
        else:
            raise _unsupported(text, f"{word[:40]!r} is not {'supported' if word in _STATEMENTS else 'known'}")
    least, most = _FUNCTIONS.get(function, (1, 1))
    if not least <= len(operands) <= most:
        raise _unsupported(text, f"{function or 'a field'}: {len(operands)} arguments")
    return Action(function, tuple(operands))


def _unsupported(text: str, reason: str) -> InvalidValue:
    return InvalidValue(
        f"format {{{{{text[:60]}}}}}: {reason}: expected {{{{.Field}}}} or a function of {', '.join(_FUNCTIONS)}; "
        "--format json has everything"
    )


def _unquote(text: str) -> str:
    if text[0] == "`":
        return text[1:-1]
    return re.sub(r"\\.", lambda match: _ESCAPES.get(match[0], match[0][1:]), text[1:-1], flags=re.DOTALL)


def _look_up(value: Value, path: tuple[str, ...], aliases: Mapping[str, str]) -> Value:
    for number, name in enumerate(path):
        dotted = ".".join(path[: number + 1])
        if not isinstance(value, Mapping):
            raise InvalidValue(f"format: .{dotted}: what is before {name} has no fields")
        for key in (aliases.get(dotted, name), name):
            if key in value:
                value = value[key]
                break
        else:
            raise InvalidValue(f"format: no field .{dotted}: there are {', '.join(map(str, value)) or 'none'}")
    return value


def show(value: Value) -> str:
    """A value as Go prints it: ``true``, ``[a b]``, ``map[key:value]``, ``<nil>``."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{show(value[key])}' for key in sorted(value))}]"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{' '.join(map(show, value))}]"
    return str(value)


def _json(value: Value) -> str:
    from pyengine.cli.output import to_json

    return to_json(value)


def _len(value: Value) -> str:
    if value is None:
        return "0"
    if not isinstance(value, (Mapping, Sequence)):
        raise InvalidValue(f"format: len of {show(value)[:40]!r}: expected a text, a list or a map")
    return str(len(value))


def _index(value: Value, *keys: Value) -> str:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key, "")  # a key that is not there has the zero value, as in Go
        elif isinstance(value, Sequence) and isinstance(key, int) and 0 <= key < len(value):
            value = value[key]
        else:
            raise InvalidValue(f"format: index {key!r} is not in {show(value)[:60]!r}")
    return show(value)


def _join(value: Value, separator: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InvalidValue(f"format: join of {show(value)[:40]!r}: expected a list")
    return show(separator).join(map(show, value))


def _heading(field: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", field).upper()


_CALLS: dict[str, Callable[..., str]] = {
    "": show,
    "json": _json,
    "len": _len,
    "index": _index,
    "join": _join,
    "upper": lambda value: show(value).upper(),
    "lower": lambda value: show(value).lower(),
}
