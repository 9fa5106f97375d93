"""What a method of io.podman takes and gives, and how JSON becomes typed values and back.

The rules are those of a Podman 1.6 service towards its clients: a field that is missing or ``null`` has its zero value
(``""``, 0, false, an empty list, map or struct; None where it is nullable), a field that nobody declared is ignored, a
value of the wrong type is refused; a reply carries every field, and ``null`` only where the type is nullable.
"""

from __future__ import annotations

import functools
import os
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from pyengine.errors import InvalidValue, PyengineError
from pyengine.typing import override

NAME = "io.podman"


@dataclass(frozen=True)
class Field:
    """A field of an input or output. ``type`` is the varlink type as text, ``annotation`` the Python type."""

    name: str
    type: str
    annotation: Any


@dataclass(frozen=True)
class Method:
    """A method. ``streams``: it may send several replies to a caller that sets ``more``. ``upgrades``: it needs
    ``upgrade``, and the connection carries raw bytes after the reply. ``implemented``: False for the two methods that
    answer MethodNotImplemented. ``since``: "1.6" or "1.9", the interface that declared it first."""

    name: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    streams: bool
    upgrades: bool
    implemented: bool
    since: str
    doc: str

    @property
    def python_name(self) -> str:
        """The name in snake case: ``GetContainersByContext`` is ``get_containers_by_context``."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", self.name).lower()

    def decode(self, parameters: object) -> dict[str, Any]:
        """The typed inputs, all of them, from the ``parameters`` of a call (as parsed JSON; None where the key was
        absent or null). Raises InvalidValue when they have the wrong type; absent parameters are wrong for a method
        that has inputs and do not matter for one that has none."""
        if not self.inputs:
            return {}
        if not isinstance(parameters, Mapping):
            raise InvalidValue(f"{NAME}.{self.name}: parameters: expected an object, got {type(parameters).__name__}")
        given = {field: fill(parameters.get(field.name), field.annotation) for field in self.inputs}
        return {field.name: self._convert(field, value) for field, value in given.items()}

    def encode(self, outputs: Mapping[str, object]) -> dict[str, Any]:
        """The ``parameters`` of a reply, ready for JSON, from typed outputs. Raises InvalidValue when a value has the
        wrong type, and when an output is missing or not declared, so that no client ever sees such a reply."""
        names = {field.name for field in self.outputs}
        if outputs.keys() != names:
            raise InvalidValue(f"{NAME}.{self.name}: the reply must have {sorted(names)}, got {sorted(outputs)}")
        reply = {}
        for field in self.outputs:
            try:
                # Bytes are let through so that the check below refuses them: msgspec would make base64 of them.
                value = msgspec.to_builtins(outputs[field.name], builtin_types=(bytes, bytearray, memoryview))
            except TypeError as error:
                raise InvalidValue(f"{NAME}.{self.name}: {field.name}: {error}") from None
            self._convert(field, value)  # structs do not check their values when they are made
            reply[field.name] = value
        return reply

    def _convert(self, field: Field, value: object) -> Any:
        try:
            return msgspec.convert(value, field.annotation)
        except msgspec.ValidationError as error:
            raise InvalidValue(f"{NAME}.{self.name}: {field.name}: {error}") from None


class IoPodmanError(PyengineError):
    """Base class of the errors that io.podman declares. ``error_name`` is the name on the wire, ``fields`` names the
    parameters, which are attributes."""

    error_name: ClassVar[str]
    fields: ClassVar[tuple[str, ...]] = ()

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters, ready for JSON."""
        return {name: msgspec.to_builtins(getattr(self, name)) for name in self.fields}

    @override
    def __str__(self) -> str:
        reason = getattr(self, "reason", "")
        if reason:
            return str(reason)
        summary = " ".join((type(self).__doc__ or "").split(".")[0].split())
        return ": ".join([summary, *filter(None, map(_text, self.args))])


def description() -> str:
    """The interface definition that a service gives to its clients (``GetInterfaceDescription``)."""
    with open(os.path.join(os.path.dirname(__file__), "io.podman.varlink"), encoding="utf-8") as file:
        return file.read()


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, msgspec.Struct):
        return ": ".join(map(_text, msgspec.structs.astuple(value)))
    return str(value)


def fill(value: Any, annotation: Any) -> Any:
    """``value`` (parsed JSON) with every null that is not allowed replaced by the zero value of its type."""
    kind, arguments = _shape(annotation)
    if kind is types.UnionType:
        if value is None:
            return None
        structured = [argument for argument in arguments if not _is_plain(argument)]
        return fill(value, structured[0]) if structured else value
    if kind is list:
        if value is None:
            return []
        return [fill(item, arguments[0]) for item in value] if isinstance(value, list) else value
    if kind is dict:
        if value is None:
            return {}
        return {key: fill(item, arguments[1]) for key, item in value.items()} if isinstance(value, dict) else value
    if issubclass(kind, msgspec.Struct):
        if value is None:
            return {}
        if not isinstance(value, dict):
            return value
        return {name: fill(value[name], hint) for name, hint in _hints(kind).items() if name in value}
    return kind() if value is None else value


def _is_plain(annotation: Any) -> bool:
    kind, arguments = _shape(annotation)
    return not arguments and not issubclass(kind, msgspec.Struct)


@functools.cache
def _shape(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """``(class or UnionType, type arguments)``; bounds on an integer do not matter here."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _shape(typing.get_args(annotation)[0])
    if origin is typing.Union:  # what `Annotated[…] | None` makes
        return types.UnionType, typing.get_args(annotation)
    return (origin, typing.get_args(annotation)) if origin else (annotation, ())


@functools.cache
def _hints(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return typing.get_type_hints(struct)
