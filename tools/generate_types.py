"""Generate what pyengine knows of io.podman from ``idl/io.podman.varlink``.

::

    python tools/generate_types.py            write the generated files
    python tools/generate_types.py --check    exit 1 when one of them is out of date, and say which
    python tools/generate_types.py --format   rewrite the IDL itself in canonical layout first

Generated, all in ``pyengine/iopodman/``: ``types.py`` (a struct a type, and the table of methods), ``errors.py`` (a
class an error) and a copy of the IDL, which is what an installed service hands to its clients.

The grammar is varlink's without inline structs and enumerations, which io.podman does not use.
https://varlink.org/Interface-Definition
"""

from __future__ import annotations

import argparse
import keyword
import re
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IDL = ROOT / "idl" / "io.podman.varlink"
PACKAGE = ROOT / "pyengine" / "iopodman"

WIDTH = 110
BASIC = {"bool": "bool", "int": "Int", "float": "float", "string": "str"}
ZERO = {"bool": "False", "int": "0", "float": "0.0", "string": '""'}

# Fields whose type changed between 1.6 and 1.9 in a way that a decoder can tell apart: the IDL says what 1.6 does,
# the struct takes both.
ALSO_ACCEPTED = {("Create", "systemd"): "str"}


class IdlError(Exception):
    """The text does not follow the grammar, or says something that cannot be generated."""


@dataclass(frozen=True)
class Type:
    """``name`` is a basic type, a type of the interface, or one of ``[]``, ``[string]``, ``?`` around ``element``."""

    name: str
    element: Type | None = None

    @property
    def text(self) -> str:
        return self.name + (self.element.text if self.element else "")


@dataclass(frozen=True)
class Field:
    name: str
    type: Type
    comment: tuple[str, ...] = ()


@dataclass(frozen=True)
class Member:
    """``kind`` is ``type``, ``method`` or ``error``; only a method has ``out``."""

    kind: str
    name: str
    fields: tuple[Field, ...]
    out: tuple[Field, ...] = ()
    comment: tuple[str, ...] = ()


@dataclass(frozen=True)
class Interface:
    name: str
    members: tuple[Member, ...]
    comment: tuple[str, ...] = ()

    def of(self, kind: str) -> tuple[Member, ...]:
        return tuple(member for member in self.members if member.kind == kind)


# --- text to tree --------------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]+)|#(?P<comment>[^\n]*)|(?P<word>[A-Za-z][A-Za-z0-9_.-]*)|(?P<mark>->|\[string\]|\[\]|[?:,()])"
)
_IDENTIFIER = re.compile(r"[A-Za-z](_?[A-Za-z0-9])*")
_MEMBER = re.compile(r"[A-Z][A-Za-z0-9]*")
_INTERFACE = re.compile(r"[A-Za-z](-*[A-Za-z0-9])*(\.[A-Za-z0-9](-*[A-Za-z0-9])*)+")


class Parser:
    """Reads one interface. A comment belongs to the interface, member or field that follows it; one that stands
    anywhere else is an error, because it would be lost."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.comment: list[str] = []
        self.current = ""
        self.start = 0
        self.advance()

    def advance(self) -> None:
        while self.position < len(self.text):
            self.start = self.position
            match = _TOKEN.match(self.text, self.position)
            if match is None:
                raise self.error(f"unexpected {self.text[self.position]!r}")
            self.position = match.end()
            if match.lastgroup == "comment":
                self.comment.append(match["comment"].strip())
            elif match.lastgroup != "space":
                self.current = match[0]
                return
        self.start = len(self.text)
        self.current = ""

    def error(self, reason: str) -> IdlError:
        line = self.text.count("\n", 0, self.start) + 1
        column = self.start - (self.text.rfind("\n", 0, self.start) + 1) + 1
        return IdlError(f"line {line}, column {column}: {reason}")

    def take(self, expected: str | re.Pattern[str], what: str = "") -> str:
        word = self.current
        found = expected.fullmatch(word) if isinstance(expected, re.Pattern) else word == expected
        if not found:
            raise self.error(f"expected {what or repr(expected)}, found {repr(word) if word else 'the end'}")
        if self.comment:
            raise self.error("a comment must stand before the interface, a member or a field")
        self.advance()
        return word

    def take_comment(self) -> tuple[str, ...]:
        comment, self.comment = tuple(self.comment), []
        return comment

    def interface(self) -> Interface:
        comment = self.take_comment()
        self.take("interface")
        name = self.take(_INTERFACE, "the name of the interface")
        members: list[Member] = []
        while self.current:
            members.append(self.member({member.name for member in members}))
        if self.comment:
            raise self.error("a comment must stand before the interface, a member or a field")
        return Interface(name, tuple(members), comment)

    def member(self, taken: set[str]) -> Member:
        comment = self.take_comment()
        kind = self.take(re.compile("type|method|error"), "type, method or error")
        if self.current in taken:
            raise self.error(f"{self.current} is declared twice")
        name = self.take(_MEMBER, "a name that begins with a capital")
        fields = self.struct()
        out: tuple[Field, ...] = ()
        if kind == "method":
            self.take("->")
            out = self.struct()
        return Member(kind, name, fields, out, comment)

    def struct(self) -> tuple[Field, ...]:
        fields: list[Field] = []
        self.take("(")
        while self.current != ")":
            comment = self.take_comment()
            if any(self.current == other.name for other in fields):
                raise self.error(f"the field {self.current} is declared twice")
            name = self.take(_IDENTIFIER, "the name of a field")
            self.take(":")
            fields.append(Field(name, self.type(), comment))
            if self.current != ",":
                break
            self.take(",")
            if self.current == ")":
                raise self.error("expected the name of a field after ','")
        self.take(")")
        return tuple(fields)

    def type(self, nullable: bool = False) -> Type:
        if self.current == "?":
            if nullable:
                raise self.error("a type cannot be nullable twice")
            return Type(self.take("?"), self.type(nullable=True))
        if self.current in ("[]", "[string]"):
            return Type(self.take(self.current), self.type())
        if self.current in BASIC:
            return Type(self.take(self.current))
        return Type(self.take(_MEMBER, "a type"))


def parse(text: str) -> Interface:
    """The interface that ``text`` declares. Raises `IdlError` with line and column."""
    interface = Parser(text).interface()
    known = {member.name for member in interface.of("type")}
    for member in interface.members:
        for field in member.fields + member.out:
            name = _innermost(field.type)
            if name not in BASIC and name not in known:
                raise IdlError(f"{member.name}.{field.name}: there is no type {name}")
    return interface


def _innermost(type: Type) -> str:
    return _innermost(type.element) if type.element else type.name


# --- tree to canonical text ----------------------------------------------------------------------------------------


def _comment(lines: tuple[str, ...], indent: str = "") -> str:
    return "".join(f"{indent}# {line}".rstrip() + "\n" for line in lines)


def _inline(fields: tuple[Field, ...]) -> str:
    return "(" + ", ".join(f"{field.name}: {field.type.text}" for field in fields) + ")"


def _struct(fields: tuple[Field, ...], room: int) -> str:
    if len(_inline(fields)) <= room and not any(field.comment for field in fields):
        return _inline(fields)
    return "(\n" + ",\n".join(_comment(f.comment, "  ") + f"  {f.name}: {f.type.text}" for f in fields) + "\n)"


def format_interface(interface: Interface) -> str:
    """Canonical IDL text; `parse` gives the same tree back."""
    parts = [_comment(interface.comment) + ("\n" if interface.comment else "") + f"interface {interface.name}\n"]
    for member in interface.members:
        text = f"{member.kind} {member.name}"
        if member.kind == "method":
            # Where a method does not fit a line, its inputs are broken before its outputs.
            text += _struct(member.fields, WIDTH - len(f"{text} -> {_inline(member.out)}") if member.fields else WIDTH)
            text += " -> " + _struct(member.out, WIDTH - len(text.rsplit("\n", 1)[-1]) - 4)
        else:
            text += " " + _struct(member.fields, WIDTH // 2 - len(text))
        parts.append(_comment(member.comment) + text + "\n")
    return "\n".join(parts)


# --- tree to Python ------------------------------------------------------------------------------------------------


def annotation(type: Type) -> str:
    if type.element is None:
        return BASIC.get(type.name, type.name)
    inner = annotation(type.element)
    return {"?": f"{inner} | None", "[]": f"list[{inner}]", "[string]": f"dict[str, {inner}]"}[type.name]


def default(type: Type) -> str:
    plain = {"?": "None", "[]": "[]", "[string]": "{}"} | ZERO
    # A lambda, because the struct may be declared further down.
    return plain.get(type.name) or f"msgspec.field(default_factory=lambda: {type.name}())"


def _docstring(lines: tuple[str, ...], indent: str) -> str:
    text = "\n".join(lines).replace("\\", "\\\\").replace('"""', '\\"""')
    if text.endswith('"'):
        text += " "
    return textwrap.indent(f'"""{text}"""', indent, lambda line: bool(line.strip())) + "\n"


def _generated(what: str) -> str:
    how = "Generated by tools/generate_types.py from idl/io.podman.varlink: edit that, then run the tool."
    return f'"""{what}\n\n{how}\n"""\n\n'


def _tagged(member: Member, tag: str) -> bool:
    return any(line.startswith(tag) for line in member.comment)


def generate_types(interface: Interface) -> str:
    """The text of ``types.py``."""
    types = interface.of("type")
    reserved = {"bool", "int", "float", "str", "list", "dict", "msgspec", "Int"}
    out = [
        _generated(
            "The types and methods of io.podman.\n\nField names are those of the wire. A field that is not given"
            " has its zero value."
        ),
        "from __future__ import annotations\n\nfrom typing import Annotated\n\nimport msgspec\n\n"
        "from pyengine.iopodman.interface import Field, Method\n\n"
        "Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]\n",
    ]
    for member in types:
        if member.name in reserved:
            raise IdlError(f"{member.name} means something else in the generated module")
        text = f"\n\nclass {member.name}(msgspec.Struct, frozen=True, kw_only=True):\n"
        text += _docstring(member.comment, "    ") + "\n"
        for field in member.fields:
            if keyword.iskeyword(field.name) or field.name in reserved or field.name.startswith("__"):
                raise IdlError(f"{member.name}.{field.name}: not usable as an attribute in Python")
            extra = ALSO_ACCEPTED.get((member.name, field.name))
            hint = annotation(field.type) + (f" | {extra}" if extra else "")
            text += _comment(field.comment, "    ") + f"    {field.name}: {hint} = {default(field.type)}\n"
        out.append(text)
    out.append("\n\n_METHODS = (\n")
    for member in interface.of("method"):
        out.append(f"    Method(\n        {_quote(member.name)},\n")
        for which, fields in (("inputs", member.fields), ("outputs", member.out)):
            rows = "".join(
                f"            Field({_quote(f.name)}, {_quote(f.type.text)}, {annotation(f.type)}),\n" for f in fields
            )
            out.append(f"        {which}=(\n{rows}        ),\n" if rows else f"        {which}=(),\n")
        for name, tag in (("streams", "Streams:"), ("upgrades", "Upgrades:")):
            out.append(f"        {name}={_tagged(member, tag)},\n")
        out.append(f"        implemented={not _tagged(member, 'Not implemented')},\n")
        out.append(f"        since={_quote('1.9' if _tagged(member, 'Since 1.9') else '1.6')},\n")
        doc = "\n".join(f"            {_quote(line + chr(10))}" for line in member.comment)
        out.append(f"        doc=(\n{doc}\n        ),\n    ),\n" if doc else '        doc="",\n    ),\n')
    out.append(
        ")\n\nMETHODS: dict[str, Method] = {method.name: method for method in _METHODS}\n"
        '"""Every method by its name on the wire, in the order of the IDL."""\n'
    )
    return "".join(out)


def generate_errors(interface: Interface) -> str:
    """The text of ``errors.py``."""
    errors = interface.of("error")
    used = sorted({_innermost(field.type) for member in errors for field in member.fields} - BASIC.keys())
    imports = ["from pyengine.iopodman.interface import IoPodmanError\n"]
    if used:
        imports.append(f"from pyengine.iopodman.types import {', '.join(used)}\n")
    out = [
        _generated(
            "The errors of io.podman, a class each.\n\n"
            "Parameters are attributes; `ERRORS` finds a class by its name on the wire."
        ),
        "from __future__ import annotations\n\nfrom typing import ClassVar\n\n" + "".join(imports),
    ]
    for member in errors:
        # `Int` is a detail of decoding; to a caller an integer is an int.
        signature = "".join(f", {f.name}: {annotation(f.type).replace('Int', 'int')}" for f in member.fields)
        names = [f.name for f in member.fields]
        for name in names:
            if keyword.iskeyword(name) or name in ("args", "error_name", "fields", "parameters"):
                raise IdlError(f"{member.name}.{name}: not usable as an attribute of an exception")
        listed = f"({', '.join(map(_quote, names))}{',' if len(names) == 1 else ''})"
        out.append(
            f"\n\nclass {member.name}(IoPodmanError):\n{_docstring(member.comment, '    ')}\n"
            f"    error_name: ClassVar[str] = {_quote(f'{interface.name}.{member.name}')}\n"
            f"    fields: ClassVar[tuple[str, ...]] = {listed}\n"
        )
        if names:
            out.append(f"\n    def __init__(self{signature}) -> None:\n        super().__init__({', '.join(names)})\n")
            out.extend(f"        self.{name} = {name}\n" for name in names)
    table = "".join(f"        {member.name},\n" for member in errors)
    out.append(
        "\n\nERRORS: dict[str, type[IoPodmanError]] = {\n    error.error_name: error\n    for error in (\n"
        f"{table}    )\n}}\n"
    )
    return "".join(out)


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


OUTPUTS: dict[Path, Callable[[Interface], str]] = {
    PACKAGE / "types.py": generate_types,
    PACKAGE / "errors.py": generate_errors,
    PACKAGE / "io.podman.varlink": format_interface,
}


def main(arguments: list[str]) -> int:
    options = argparse.ArgumentParser(description="Generate pyengine/iopodman from the IDL.")
    options.add_argument("--check", action="store_true", help="write nothing, exit 1 when something is out of date")
    options.add_argument("--format", action="store_true", help="rewrite the IDL in canonical layout first")
    chosen = options.parse_args(arguments)
    try:
        interface = parse(IDL.read_text())
        outputs = {path: generate(interface) for path, generate in OUTPUTS.items()}
    except IdlError as error:
        print(f"{IDL.relative_to(ROOT)}: {error}", file=sys.stderr)
        return 1
    # The IDL in its place is an output of itself, so that the copy that is served is the file that people read.
    if chosen.format or chosen.check:
        outputs[IDL] = format_interface(interface)
    elif IDL.read_text() != format_interface(interface):
        print(f"{IDL.relative_to(ROOT)}: not in canonical layout: run with --format", file=sys.stderr)
        return 1
    stale = [path for path, text in outputs.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if chosen.check:
            print(f"{path.relative_to(ROOT)} is out of date: run python tools/generate_types.py", file=sys.stderr)
        else:
            path.write_text(outputs[path])
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if chosen.check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
