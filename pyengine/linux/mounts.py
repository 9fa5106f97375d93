"""Mount options as words, as bits, and what the kernel can do about mounts.

Attached mounts are the monitor's business, inside of the container. Here are only detached ones (open_tree(2),
fsmount(2)), which nobody sees and which go with their descriptor.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pyengine.errors import InvalidValue, KernelError
from pyengine.linux import calls
from pyengine.linux.fd import Fd

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_SYNCHRONOUS: Final = 16
MS_REMOUNT: Final = 32
MS_MANDLOCK: Final = 64
MS_DIRSYNC: Final = 128
MS_NOSYMFOLLOW: Final = 256
MS_NOATIME: Final = 1024
MS_NODIRATIME: Final = 2048
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_SILENT: Final = 32768
MS_POSIXACL: Final = 1 << 16
MS_UNBINDABLE: Final = 1 << 17
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MS_SHARED: Final = 1 << 20
MS_RELATIME: Final = 1 << 21
MS_I_VERSION: Final = 1 << 23
MS_STRICTATIME: Final = 1 << 24
MS_LAZYTIME: Final = 1 << 25

MOUNT_ATTR_RDONLY: Final = 0x1
MOUNT_ATTR_NOSUID: Final = 0x2
MOUNT_ATTR_NODEV: Final = 0x4
MOUNT_ATTR_NOEXEC: Final = 0x8
MOUNT_ATTR_ATIME: Final = 0x70  # a field, not a bit: relatime is 0
MOUNT_ATTR_NOATIME: Final = 0x10
MOUNT_ATTR_STRICTATIME: Final = 0x20
MOUNT_ATTR_NODIRATIME: Final = 0x80
MOUNT_ATTR_IDMAP: Final = 0x100000
MOUNT_ATTR_NOSYMFOLLOW: Final = 0x200000

_FLAGS: Final = {  # word that sets, word that clears
    ("ro", "rw"): MS_RDONLY,
    ("nosuid", "suid"): MS_NOSUID,
    ("nodev", "dev"): MS_NODEV,
    ("noexec", "exec"): MS_NOEXEC,
    ("sync", "async"): MS_SYNCHRONOUS,
    ("remount", ""): MS_REMOUNT,
    ("mand", "nomand"): MS_MANDLOCK,
    ("dirsync", ""): MS_DIRSYNC,
    ("nosymfollow", "symfollow"): MS_NOSYMFOLLOW,
    ("noatime", "atime"): MS_NOATIME,
    ("nodiratime", "diratime"): MS_NODIRATIME,
    ("bind", ""): MS_BIND,
    ("rbind", ""): MS_BIND | MS_REC,
    ("silent", "loud"): MS_SILENT,
    ("acl", "noacl"): MS_POSIXACL,
    ("relatime", "norelatime"): MS_RELATIME,
    ("iversion", "noiversion"): MS_I_VERSION,
    ("strictatime", "nostrictatime"): MS_STRICTATIME,
    ("lazytime", "nolazytime"): MS_LAZYTIME,
}
_SET: Final = {on: bits for (on, _), bits in _FLAGS.items()}
_CLEAR: Final = {off: bits for (_, off), bits in _FLAGS.items() if off}

_PROPAGATION: Final = {
    prefix + word: bits | recursive
    for word, bits in {
        "private": MS_PRIVATE, "shared": MS_SHARED, "slave": MS_SLAVE, "unbindable": MS_UNBINDABLE,
    }.items()
    for prefix, recursive in {"": 0, "r": MS_REC}.items()
}  # fmt: skip

# Recursive attributes of an OCI runtime spec: (set, cleared) for mount_setattr(2).
_RECURSIVE: Final = {
    "rro": (MOUNT_ATTR_RDONLY, 0),
    "rrw": (0, MOUNT_ATTR_RDONLY),
    "rnosuid": (MOUNT_ATTR_NOSUID, 0),
    "rsuid": (0, MOUNT_ATTR_NOSUID),
    "rnodev": (MOUNT_ATTR_NODEV, 0),
    "rdev": (0, MOUNT_ATTR_NODEV),
    "rnoexec": (MOUNT_ATTR_NOEXEC, 0),
    "rexec": (0, MOUNT_ATTR_NOEXEC),
    "rnodiratime": (MOUNT_ATTR_NODIRATIME, 0),
    "rdiratime": (0, MOUNT_ATTR_NODIRATIME),
    "rrelatime": (0, MOUNT_ATTR_ATIME),
    "rnorelatime": (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME),
    "rnoatime": (MOUNT_ATTR_NOATIME, MOUNT_ATTR_ATIME),
    "ratime": (0, MOUNT_ATTR_ATIME),
    "rstrictatime": (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME),
    "rnostrictatime": (0, MOUNT_ATTR_ATIME),
    "rnosymfollow": (MOUNT_ATTR_NOSYMFOLLOW, 0),
    "rsymfollow": (0, MOUNT_ATTR_NOSYMFOLLOW),
}
_ATIME_WORDS: Final = ("noatime", "relatime", "strictatime")


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What a list of option words means.

    ``flags``: ``MS_`` bits; ``cleared``: those that were cleared by word (a bind mount keeps the rest of its source's).
    ``propagation``: 0, or one of ``MS_PRIVATE`` … with ``MS_REC``. ``recursive_set``, ``recursive_clear``:
    ``MOUNT_ATTR_`` bits for the whole tree. ``idmap``: ``idmap``, ``ridmap`` or empty. ``copy_up``: a tmpfs begins with
    what was in the directory. ``data``: the words that belong to the file system, as given."""

    flags: int = 0
    cleared: int = 0
    propagation: int = 0
    recursive_set: int = 0
    recursive_clear: int = 0
    idmap: str = ""
    copy_up: bool = False
    data: str = ""

    @property
    def is_bind(self) -> bool:
        return bool(self.flags & MS_BIND)


def parse_options(words: Iterable[str]) -> MountOptions:
    """Options of an OCI mount, or of a comma-separated fstab string that was split. Words that are not the kernel's own
    go to ``data``. ``InvalidValue`` for words that contradict each other."""
    flags = cleared = propagation = rset = rclear = 0
    propagation_word = idmap = ""
    copy_up = False
    data = []
    seen: list[str] = []
    for word in words:
        if "\0" in word or "," in word:
            raise InvalidValue(f"not a mount option: {word!r}")
        if word in ("", "defaults"):
            continue
        if word in _SET:
            _conflict(word, cleared & _SET[word] & ~MS_REC, seen)
            flags |= _SET[word]
        elif word in _CLEAR:
            _conflict(word, flags & _CLEAR[word], seen)
            cleared |= _CLEAR[word]
        elif word in _PROPAGATION:
            if propagation_word not in ("", word):
                raise InvalidValue(f"mount options contradict each other: {propagation_word}, {word}")
            propagation, propagation_word = _PROPAGATION[word], word
        elif word in _RECURSIVE:
            on, off = _RECURSIVE[word]
            atime = off & MOUNT_ATTR_ATIME and rclear & MOUNT_ATTR_ATIME and on != rset & MOUNT_ATTR_ATIME
            _conflict(word, (on & rclear & ~MOUNT_ATTR_ATIME) | (off & rset & ~MOUNT_ATTR_ATIME) | atime, seen)
            rset, rclear = rset | on, rclear | off
        elif word in ("idmap", "ridmap"):
            _conflict(word, int(idmap not in ("", word)), seen)
            idmap = word
        elif word == "tmpcopyup":
            copy_up = True
        else:
            data.append(word)
        seen.append(word)
    if "bind" in seen and "rbind" in seen:
        raise InvalidValue("mount options contradict each other: bind, rbind")
    atimes = [word for word in _ATIME_WORDS if word in seen]
    if len(atimes) > 1:
        raise InvalidValue(f"mount options contradict each other: {', '.join(atimes)}")
    return MountOptions(flags, cleared, propagation, rset, rclear, idmap, copy_up, ",".join(data))


def _conflict(word: str, contradiction: int, seen: list[str]) -> None:
    if contradiction:
        raise InvalidValue(f"mount options contradict each other: {word} with one of {', '.join(seen)}")


def clone_tree(path: calls.Path, *, recursive: bool = True) -> Fd:
    """A detached copy of the mount at ``path``, with those below it if ``recursive``."""
    return calls.open_tree(path, calls.OPEN_TREE_CLONE | (calls.AT_RECURSIVE if recursive else 0))


def detached_overlay(lower: Iterable[str], upper: str = "", work: str = "", *, userxattr: bool = False) -> Fd:
    """An overlay of directories (the uppermost first) as a detached mount; read-only without ``upper``."""
    layers = list(lower)
    for directory in [*layers, upper, work]:
        if any(character in directory for character in ":,\\"):
            raise InvalidValue(f"the path of an overlay layer cannot hold a colon, comma or backslash: {directory!r}")
    with calls.fsopen("overlay") as context:
        calls.fsconfig(context, calls.FSCONFIG_SET_STRING, "lowerdir", ":".join(layers))
        if upper:
            calls.fsconfig(context, calls.FSCONFIG_SET_STRING, "upperdir", upper)
            calls.fsconfig(context, calls.FSCONFIG_SET_STRING, "workdir", work)
        if userxattr:
            calls.fsconfig(context, calls.FSCONFIG_SET_FLAG, "userxattr")
        calls.fsconfig(context, calls.FSCONFIG_CMD_CREATE, None)
        return calls.fsmount(context)


def probe_overlay(directory: str, *, userxattr: bool = False) -> str:
    """Whether an overlay can have its upper directory in ``directory``: empty if so, else the kernel's reason. Made and
    thrown away below a temporary directory there; needs CAP_SYS_ADMIN."""
    import tempfile

    with tempfile.TemporaryDirectory(dir=directory, prefix=".probe-") as place:
        for name in ("lower", "upper", "work"):
            os.mkdir(os.path.join(place, name), 0o700)
        try:
            lower, upper, work = (os.path.join(place, name) for name in ("lower", "upper", "work"))
            detached_overlay([lower], upper, work, userxattr=userxattr).close()
        except KernelError as error:
            return str(error)
    return ""


def probe_idmap(path: calls.Path, user_namespace: Fd | int) -> bool:
    """Whether the file system at ``path`` can be mounted with its ids mapped by ``user_namespace``."""
    with clone_tree(path, recursive=False) as tree:
        try:
            calls.mount_setattr(tree, set=MOUNT_ATTR_IDMAP, user_namespace=user_namespace)
        except KernelError as error:
            if error.errno in (errno.EINVAL, errno.EPERM, errno.ENOSYS):
                return False
            raise
    return True
