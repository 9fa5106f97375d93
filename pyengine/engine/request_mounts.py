"""Mounts as people ask for them: ``SRC:DST:opts``, ``type=bind,…``, ``/path:size=1m``."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

from pyengine.engine.values import parse_size
from pyengine.errors import InvalidValue

PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")

_SWITCHES = {
    "ro": ("ro", True),
    "rw": ("ro", False),
    "exec": ("noexec", False),
    "noexec": ("noexec", True),
    "dev": ("nodev", False),
    "nodev": ("nodev", True),
    "suid": ("nosuid", False),
    "nosuid": ("nosuid", True),
}
_READ_ONLY_KEYS = {"ro": True, "readonly": True, "rw": False}


@dataclass(frozen=True, kw_only=True, slots=True)
class BindMount:
    """A directory or file of the host at ``target``. None: as the mount that it comes from."""

    source: str
    target: str
    ro: bool = False
    noexec: bool | None = None
    nodev: bool | None = None
    nosuid: bool | None = None
    recursive: bool = True
    propagation: str = "rprivate"

    def __post_init__(self) -> None:
        _absolute(self.source, "source")
        check_target(self.target)
        if self.propagation not in PROPAGATIONS:
            raise InvalidValue(f"propagation {self.propagation[:40]!r}: expected one of {', '.join(PROPAGATIONS)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TmpfsMount:
    """A file system in memory at ``target``. ``size`` in bytes, or percent of memory (``50%``) in ``size_text``;
    both empty: half of the memory. ``mode`` None: that of the directory that it covers, as ``copy_up`` has it."""

    target: str
    ro: bool = False
    noexec: bool = True
    nodev: bool = True
    nosuid: bool = True
    size: int = 0
    size_text: str = ""
    mode: int | None = None
    copy_up: bool = True
    uid: int | None = None
    gid: int | None = None
    inodes: int = 0

    def __post_init__(self) -> None:
        check_target(self.target)
        if self.size < 0 or self.inodes < 0:
            raise InvalidValue(f"tmpfs {self.target[:100]!r}: size and inodes have to be positive")
        if self.mode is not None and not 0 <= self.mode <= 0o7777:
            raise InvalidValue(f"tmpfs {self.target[:100]!r}: mode {self.mode:o}: expected 0 to 7777")


MountRequest = BindMount | TmpfsMount


def check_target(target: str) -> None:
    """A place in a container: absolute, not the root itself, in its shortest form."""
    _absolute(target, "destination")
    if normal(target) == "/":
        raise InvalidValue("mount destination '/' is the root itself")


def normal(path: str) -> str:
    """The path without ``.``, ``..`` and doubled slashes; POSIX's two leading slashes are one here."""
    return posixpath.normpath("/" + path.lstrip("/"))


def _absolute(path: str, what: str) -> None:
    if not path.startswith("/") or "\0" in path or len(path) > 4095:
        raise InvalidValue(f"mount {what} {path[:100]!r} has to be an absolute path")


def check_destinations(mounts: Iterable[MountRequest]) -> None:
    """Raise `InvalidValue` for two mounts of the same destination."""
    seen = set()
    for mount in mounts:
        if (target := normal(mount.target)) in seen:
            raise InvalidValue(f"mount destination {target!r} is given twice")
        seen.add(target)


def parse_volume(text: str) -> BindMount:
    """``SOURCE:DESTINATION[:OPTIONS]``, or one path for both. Options, comma separated: rw, ro, [r]shared, [r]slave,
    [r]private, [no]exec, [no]dev, [no]suid, [r]bind; cached and delegated (hints of another system) mean nothing.

    :raises InvalidValue: also for a source that is a name: named volumes cannot be made yet
    """
    parts = text.split(":")
    if len(parts) > 3 or not all(parts[:2]):
        raise InvalidValue(f"volume {text[:200]!r}: expected SOURCE:DESTINATION[:OPTIONS]")
    source, target = parts[0], parts[-1] if len(parts) == 1 else parts[1]
    if not source.startswith(("/", ".")):
        raise InvalidValue(
            f"volume {text[:200]!r}: named volumes need the volume store, which this version does not "
            "have yet: give a path that begins with / or ."
        )
    if source.startswith("."):
        raise InvalidValue(f"volume {text[:200]!r}: the source has to be an absolute path")
    options: dict[str, object] = {}
    for word in parts[2].split(",") if len(parts) == 3 else ():
        if word in ("cached", "delegated"):
            continue
        key, value = _bind_option(word, text)
        if key in options and options[key] != value:
            raise InvalidValue(f"volume {text[:200]!r}: option {word!r} contradicts another")
        options[key] = value
    return BindMount(source=source, target=normal(target) if target.startswith("/") else target, **options)  # type: ignore[arg-type]


def _bind_option(word: str, text: str) -> tuple[str, object]:
    if word in _SWITCHES:
        return _SWITCHES[word]
    if word in PROPAGATIONS:
        return "propagation", word
    if word in ("bind", "rbind"):
        return "recursive", word == "rbind"
    if word in ("z", "Z"):
        raise InvalidValue(f"mount {text[:200]!r}: option {word} relabels for SELinux, which pyengine does not support")
    raise InvalidValue(f"mount {text[:200]!r}: option {word[:40]!r} is not known")


def parse_mount(text: str) -> MountRequest:
    """``type=bind|tmpfs,KEY=VALUE,…``, the type first.

    bind: src|source, dst|target|destination, ro|rw[=BOOL], bind-propagation, bind-nonrecursive, and the switches of
    `parse_volume`. tmpfs: the destination, tmpfs-size, tmpfs-mode (octal), switches, notmpcopyup.
    """
    kind, *words = text.split(",")
    if kind == "type=volume":
        raise InvalidValue(f"mount {text[:200]!r}: named volumes need the volume store, which this version lacks yet")
    if kind not in ("type=bind", "type=tmpfs"):
        raise InvalidValue(f"mount {text[:200]!r}: expected type=bind or type=tmpfs first")
    bind = kind == "type=bind"
    options: dict[str, object] = {}
    for word in words:
        key, value = _mount_option(word, bind, text)
        if key in options:
            raise InvalidValue(f"mount {text[:200]!r}: {word[:40]!r} repeats or contradicts another option")
        options[key] = value
    if "target" not in options:
        raise InvalidValue(f"mount {text[:200]!r}: the destination is missing")
    if bind and "source" not in options:
        raise InvalidValue(f"mount {text[:200]!r}: the source is missing")
    return BindMount(**options) if bind else TmpfsMount(**options)  # type: ignore[arg-type]


def _mount_option(word: str, bind: bool, text: str) -> tuple[str, object]:
    key, equals, value = word.partition("=")
    if key in ("target", "dst", "destination") and value:
        return "target", normal(value) if value.startswith("/") else value
    if key in _READ_ONLY_KEYS:
        return "ro", _READ_ONLY_KEYS[key] == (_boolean(value, text) if equals else True)
    if not equals and key in _SWITCHES:
        return _SWITCHES[key]
    if bind:
        if key in ("src", "source") and value:
            return "source", value
        if key == "bind-propagation":
            return "propagation", value
        if key == "bind-nonrecursive":
            return "recursive", not (_boolean(value, text) if equals else True)
        if not equals:
            return _bind_option(key, text)
        if key == "relabel":
            return _bind_option("Z" if value == "private" else "z", text)
    else:
        if key == "tmpfs-size" and value:
            return "size", parse_size(value)
        if key == "tmpfs-mode" and value:
            return "mode", parse_mode(value)
        if word in ("tmpcopyup", "notmpcopyup"):
            return "copy_up", word == "tmpcopyup"
    raise InvalidValue(f"mount {text[:200]!r}: {word[:40]!r} is not known for this type")


def _boolean(value: str, text: str) -> bool:
    if value.lower() in ("true", "t", "1"):
        return True
    if value.lower() in ("false", "f", "0"):
        return False
    raise InvalidValue(f"mount {text[:200]!r}: {value[:40]!r}: expected true or false")


def parse_mode(text: str) -> int:
    """Octal permissions such as ``1777``."""
    if not 1 <= len(text) <= 5 or set(text) - set("01234567") or int(text, 8) > 0o7777:
        raise InvalidValue(f"mode {text[:40]!r}: expected octal digits, at most 7777")
    return int(text, 8)


def parse_tmpfs(text: str) -> TmpfsMount:
    """``/path[:OPTION,…]``: the kernel's size=, mode=, uid=, gid=, nr_inodes=, and switches, [no]tmpcopyup."""
    target, colon, rest = text.partition(":")
    options: dict[str, object] = {}
    for word in rest.split(",") if colon and rest else ():
        key, _, value = word.partition("=")
        if word in _SWITCHES:
            name, setting = _SWITCHES[word]
            options[name] = setting
        elif word in ("tmpcopyup", "notmpcopyup"):
            options["copy_up"] = word == "tmpcopyup"
        elif key == "size" and value.endswith("%") and value[:-1].isdecimal():
            options["size_text"] = value
        elif key == "size":
            options["size"] = parse_size(value)
        elif key == "mode":
            options["mode"] = parse_mode(value)
        elif key in ("uid", "gid", "nr_inodes") and value.isascii() and value.isdecimal() and len(value) < 10:
            options["inodes" if key == "nr_inodes" else key] = int(value)
        else:
            raise InvalidValue(f"tmpfs {text[:200]!r}: option {word[:40]!r} is not known")
    return TmpfsMount(target=normal(target) if target.startswith("/") else target, **options)  # type: ignore[arg-type]
