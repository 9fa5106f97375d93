"""Records: what a plan is made of, and how one is encoded for the monitor.

The encoding is described in `pyengine.runtime.plan`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar

from pyengine.errors import InvalidValue

#: a value of `User` that means: what `LookupUser` found
AS_LOOKED_UP = -1

_INTEGER = struct.Struct("<q")
_HEAD = struct.Struct("<qq")


_PADDING = tuple(b"\0" * (8 - rest) for rest in range(8))


def encode_value(value: object) -> bytes:
    """The encoded form of one field. Raises `InvalidValue` for what the format cannot carry."""
    if isinstance(value, str):
        if "\0" in value:
            raise InvalidValue(f"{value!r} contains a NUL byte, which no path, argument or variable can carry")
        value = value.encode("utf-8", "surrogateescape")
    if isinstance(value, bytes):
        return _INTEGER.pack(len(value)) + value + _PADDING[len(value) % 8]
    if isinstance(value, int):  # bool too
        if not -(1 << 63) <= value < 1 << 63:
            raise InvalidValue(f"{value} does not fit into 64 bits")
        return _INTEGER.pack(value)
    if isinstance(value, tuple):
        return _INTEGER.pack(len(value)) + b"".join(map(encode_value, value))
    raise TypeError(f"a plan cannot carry {type(value).__name__}")


@dataclass(frozen=True)
class Record:
    """Something with a kind number and encodable fields."""

    KIND: ClassVar[int]

    def encode(self) -> bytes:
        """The record in the form that the monitor reads."""
        # A frozen dataclass keeps its fields, and nothing else, in __dict__, in their order.
        body = b"".join(map(encode_value, vars(self).values()))
        return _HEAD.pack(self.KIND, len(body)) + body


@dataclass(frozen=True)
class Step(Record):
    """One step of a plan."""

    def describe(self) -> str:
        """What the step does, in one line, verb first; an error of the step begins with it."""
        raise AssertionError(f"{type(self).__name__} does not describe itself")


_NAMESPACES = (
    (0x00000080, "time"),
    (0x00020000, "mount"),
    (0x02000000, "cgroup"),
    (0x04000000, "uts"),
    (0x08000000, "ipc"),
    (0x10000000, "user"),
    (0x20000000, "pid"),
    (0x40000000, "network"),
)


def namespace_names(flags: int) -> str:
    """``"pid, network"`` for CLONE_NEWPID | CLONE_NEWNET."""
    return ", ".join(name for flag, name in _NAMESPACES if flags & flag)
