"""Mounts of an OCI spec as steps: the options of mount(8) in the kernel's terms."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pyengine.errors import InvalidValue, UnsupportedField
from pyengine.oci import runtime as oci
from pyengine.runtime.plan import Bind, Mount, Step

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR_ATIME = 0x70
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

MS_REC = 0x4000
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

PROPAGATIONS = {
    name: flag | recursive
    for word, flag in (
        ("private", MS_PRIVATE),
        ("slave", MS_SLAVE),
        ("shared", MS_SHARED),
        ("unbindable", MS_UNBINDABLE),
    )
    for name, recursive in ((word, 0), (f"r{word}", MS_REC))
}

# option: (attributes to set, attributes to clear); with an "r" in front for the whole tree of a bind
_ATTRIBUTES = {
    "ro": (MOUNT_ATTR_RDONLY, 0),
    "rw": (0, MOUNT_ATTR_RDONLY),
    "nosuid": (MOUNT_ATTR_NOSUID, 0),
    "suid": (0, MOUNT_ATTR_NOSUID),
    "nodev": (MOUNT_ATTR_NODEV, 0),
    "dev": (0, MOUNT_ATTR_NODEV),
    "noexec": (MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, MOUNT_ATTR_NOEXEC),
    "noatime": (MOUNT_ATTR_NOATIME, MOUNT_ATTR_ATIME),
    "atime": (0, MOUNT_ATTR_ATIME),
    "strictatime": (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME),
    "nostrictatime": (0, MOUNT_ATTR_ATIME),
    "relatime": (0, MOUNT_ATTR_ATIME),
    "norelatime": (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME),
    "nodiratime": (MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, MOUNT_ATTR_NOSYMFOLLOW),
}
_RECURSIVE = {f"r{name}": value for name, value in _ATTRIBUTES.items() if name not in ("norelatime", "nostrictatime")}

_MEANINGLESS = ("defaults", "async", "nomand", "loud", "bind")
_MOST_OPTIONS = 64


@dataclass
class _Options:
    """What the options of one mount come to."""

    set: int = 0
    clear: int = 0
    set_recursive: int = 0
    clear_recursive: int = 0
    bind: bool = False
    recursive: bool = False
    propagation: int = 0
    copy_up: bool = False
    idmap: str = ""
    data: tuple[str, ...] = ()


def _parse(options: Iterable[str]) -> _Options:
    result = _Options()
    for option in options:
        if option in _ATTRIBUTES:
            on, off = _ATTRIBUTES[option]
            result.set, result.clear = result.set & ~off | on, result.clear & ~on | off
        elif option in _RECURSIVE:
            on, off = _RECURSIVE[option]
            result.set_recursive = result.set_recursive & ~off | on
            result.clear_recursive = result.clear_recursive & ~on | off
        elif option in PROPAGATIONS:
            result.propagation = PROPAGATIONS[option]
        elif option in ("bind", "rbind"):
            result.bind, result.recursive = True, option == "rbind"
        elif option == "tmpcopyup":
            result.copy_up = True
        elif option in ("idmap", "ridmap"):
            result.idmap = option
        elif option and option not in _MEANINGLESS:
            result.data += (option,)
    return result


def normal(path: str) -> str:
    """A path of the container, absolute and without ``.`` and ``..``, which mean nothing before its links are known."""
    return posixpath.normpath("/" + path.lstrip("/"))


def mount_steps(mounts: tuple[oci.Mount, ...], bundle: str) -> Iterator[Step]:
    """A step for each mount, in the order of the document. ``bundle``: where relative sources begin.

    :raises UnsupportedField: an option that cannot be done
    :raises InvalidValue: a destination or source that is none
    """
    for number, mount in enumerate(mounts):
        field = f"mounts[{number}]"
        target = normal(mount.destination)
        if not mount.destination or target == "/":
            raise InvalidValue(f"{field}.destination: {mount.destination[:100]!r} is not a place below the root")
        if len(mount.options) > _MOST_OPTIONS:
            raise InvalidValue(f"{field}.options: more than {_MOST_OPTIONS}")
        options = _parse(mount.options)
        if options.bind or mount.type == "bind":
            yield _bind(mount, target, options, number, bundle)
        else:
            yield _new(mount, target, options, field)


def _bind(mount: oci.Mount, target: str, options: _Options, number: int, bundle: str) -> Bind:
    field = f"mounts[{number}]"
    if options.data:
        raise UnsupportedField(f"{field}.options", f"a bind has no option {options.data[0][:60]!r}")
    if options.copy_up:
        raise UnsupportedField(f"{field}.options", "tmpcopyup is for tmpfs only")
    if options.propagation & MS_SHARED:
        raise UnsupportedField(
            f"{field}.options", "what a container mounts cannot appear on the host: use slave for the other direction"
        )
    if not mount.source:
        raise InvalidValue(f"{field}.source: a bind needs one")
    if not mount.source.startswith("/") and not bundle:
        raise InvalidValue(f"{field}.source: {mount.source[:100]!r} is relative, and there is no bundle")
    return Bind(
        source=posixpath.join(bundle, mount.source),
        target=target,
        recursive=options.recursive,
        set=options.set,
        clear=options.clear,
        set_recursive=options.set_recursive,
        clear_recursive=options.clear_recursive,
        propagation=options.propagation & ~MS_REC,
        propagation_recursive=bool(options.propagation & MS_REC),
        idmap=idmap_descriptor(number) if is_idmapped(mount) else "",
    )


def _new(mount: oci.Mount, target: str, options: _Options, field: str) -> Mount:
    if not mount.type:
        raise InvalidValue(f"{field}.type: neither a file system nor a bind")
    if is_idmapped(mount):
        raise UnsupportedField(f"{field}.uidMappings", "only binds can be id-mapped")
    if options.copy_up and mount.type != "tmpfs":
        raise UnsupportedField(f"{field}.options", "tmpcopyup is for tmpfs only")
    if target == "/dev" and mount.type == "tmpfs" and options.set & MOUNT_ATTR_RDONLY:
        raise UnsupportedField(f"{field}.options", "devices have to be made in /dev, which is read-only")
    return Mount(
        # There is one hierarchy, that of version 2: documents keep the name that the first had.
        fstype="cgroup2" if mount.type == "cgroup" else mount.type,
        source=mount.source or mount.type,
        target=target,
        attributes=options.set | options.set_recursive,
        data=options.data,
        propagation=options.propagation & ~MS_REC,
        copy_up=options.copy_up,
    )


def is_idmapped(mount: oci.Mount) -> bool:
    """Whether the mount shows its files with other owners."""
    return bool(mount.uid_mappings or mount.gid_mappings or {"idmap", "ridmap"} & set(mount.options))


def idmap_descriptor(number: int) -> str:
    """The name of the descriptor of the user namespace whose map the n-th mount of the spec has."""
    return f"idmap-{number}"
