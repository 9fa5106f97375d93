"""The kernel's list of mounts, /proc/PID/mountinfo (proc(5))."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from pyengine.errors import InvalidValue

_ESCAPE = re.compile(rb"\\([0-3][0-7]{2})")


@dataclass(frozen=True, slots=True)
class MountPoint:
    """One line. ``root`` is the directory of the file system that is mounted, ``target`` where; ``options`` are the
    mount's, ``super_options`` the file system's; ``propagation`` are the optional fields (``shared:1`` …). Names that
    are no UTF-8 hold surrogates (``os.fsencode`` gives the bytes back)."""

    id: int
    parent: int
    device: tuple[int, int]
    root: str
    target: str
    options: tuple[str, ...]
    propagation: tuple[str, ...]
    type: str
    source: str
    super_options: tuple[str, ...]


def unescape(text: bytes) -> str:
    """Undoes the kernel's escapes for space, tab, line feed, backslash and ``#``."""
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), text))


def parse_line(line: bytes) -> MountPoint:
    """Parses one line without its line feed. ``InvalidValue`` if it is none."""
    fields = line.split(b" ")  # the source may be an empty string, so runs of spaces count
    try:
        separator = fields.index(b"-", 6)
        type, source, *rest = fields[separator + 1 :]
        major, minor = fields[2].split(b":")
        return MountPoint(
            id=int(fields[0]),
            parent=int(fields[1]),
            device=(int(major), int(minor)),
            root=unescape(fields[3]),
            target=unescape(fields[4]),
            options=_options(fields[5]),
            propagation=tuple(unescape(field) for field in fields[6:separator]),
            type=unescape(type),
            source=unescape(source),
            super_options=_options(b" ".join(rest)),
        )
    except (ValueError, IndexError) as error:
        raise InvalidValue(f"not a line of mountinfo: {line[:120]!r}") from error


def _options(text: bytes) -> tuple[str, ...]:
    return tuple(unescape(option) for option in text.split(b",") if option)


def parse(content: bytes) -> list[MountPoint]:
    """All mounts, in the order in which they were made."""
    return [parse_line(line) for line in content.split(b"\n") if line]


def read(pid: int | str = "self") -> list[MountPoint]:
    """The mounts that process ``pid`` sees."""
    with open(f"/proc/{pid}/mountinfo", "rb", buffering=0) as file:
        return parse(file.readall())
