"""Mounts of an OCI spec as steps: the options of mount(8) in the kernel's terms."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from functools import lru_cache

from pyengine.errors import InvalidValue, UnsupportedField
from pyengine.linux import mounts
from pyengine.oci import runtime as oci
from pyengine.runtime.plan import Bind, Mount, Step

_ATTRIBUTES = {
    mounts.MS_RDONLY: mounts.MOUNT_ATTR_RDONLY,
    mounts.MS_NOSUID: mounts.MOUNT_ATTR_NOSUID,
    mounts.MS_NODEV: mounts.MOUNT_ATTR_NODEV,
    mounts.MS_NOEXEC: mounts.MOUNT_ATTR_NOEXEC,
    mounts.MS_NODIRATIME: mounts.MOUNT_ATTR_NODIRATIME,
    mounts.MS_NOSYMFOLLOW: mounts.MOUNT_ATTR_NOSYMFOLLOW,
}
# Those of the file system and not of the mount: words that fsconfig(2) takes.
_FILE_SYSTEM = {
    mounts.MS_SYNCHRONOUS: "sync",
    mounts.MS_MANDLOCK: "mand",
    mounts.MS_DIRSYNC: "dirsync",
    mounts.MS_LAZYTIME: "lazytime",
    mounts.MS_POSIXACL: "acl",
    mounts.MS_I_VERSION: "iversion",
}
_MOST_OPTIONS = 64


def attributes(options: mounts.MountOptions) -> tuple[int, int]:
    """MOUNT_ATTR_* to set and to clear."""
    on = sum(attribute for flag, attribute in _ATTRIBUTES.items() if options.flags & flag)
    off = sum(attribute for flag, attribute in _ATTRIBUTES.items() if options.cleared & flag)
    atime = mounts.MS_NOATIME | mounts.MS_STRICTATIME | mounts.MS_RELATIME
    if (options.flags | options.cleared) & atime:
        off |= mounts.MOUNT_ATTR_ATIME  # the whole field, before one of its values is set
        if options.flags & mounts.MS_NOATIME:
            on |= mounts.MOUNT_ATTR_NOATIME
        elif options.flags & mounts.MS_STRICTATIME or options.cleared & mounts.MS_RELATIME:
            on |= mounts.MOUNT_ATTR_STRICTATIME
    return on, off


def normal(path: str) -> str:
    """A path of the container, absolute and without ``.`` and ``..``, which mean nothing before its links are known."""
    return posixpath.normpath("/" + path.lstrip("/"))


def mount_steps(documents: tuple[oci.Mount, ...], bundle: str) -> Iterator[Step]:
    """A step for each mount, in the order of the document. ``bundle``: where relative sources begin.

    :raises UnsupportedField: an option that cannot be done
    :raises InvalidValue: a destination or source that is none
    """
    for number, mount in enumerate(documents):
        field = f"mounts[{number}]"
        target = normal(mount.destination)
        if not mount.destination or target == "/":
            raise InvalidValue(f"{field}.destination: {mount.destination[:100]!r} is not a place below the root")
        if len(mount.options) > _MOST_OPTIONS:
            raise InvalidValue(f"{field}.options: more than {_MOST_OPTIONS}")
        options = _parsed(tuple(mount.options))
        if options.flags & (mounts.MS_REMOUNT | mounts.MS_SILENT):
            raise UnsupportedField(f"{field}.options", "remount and silent are ways of calling the kernel")
        if options.is_bind or mount.type == "bind":
            yield _bind(mount, target, options, number, bundle)
        else:
            yield _new(mount, target, options, field)


def _bind(mount: oci.Mount, target: str, options: mounts.MountOptions, number: int, bundle: str) -> Bind:
    field = f"mounts[{number}]"
    if words := _words(options):
        raise UnsupportedField(f"{field}.options", f"a bind has no option {words[0][:60]!r}")
    if options.copy_up:
        raise UnsupportedField(f"{field}.options", "tmpcopyup is for tmpfs only")
    if options.propagation & mounts.MS_SHARED:
        raise UnsupportedField(
            f"{field}.options", "what a container mounts cannot appear on the host: use slave for the other direction"
        )
    if not mount.source:
        raise InvalidValue(f"{field}.source: a bind needs one")
    if not mount.source.startswith("/") and not bundle:
        raise InvalidValue(f"{field}.source: {mount.source[:100]!r} is relative, and there is no bundle")
    on, off = attributes(options)
    return Bind(
        source=posixpath.join(bundle, mount.source),
        target=target,
        recursive=bool(options.flags & mounts.MS_REC),
        set=on,
        clear=off,
        set_recursive=options.recursive_set,
        clear_recursive=options.recursive_clear,
        propagation=options.propagation & ~mounts.MS_REC,
        propagation_recursive=bool(options.propagation & mounts.MS_REC),
        idmap=idmap_descriptor(number) if is_idmapped(mount) else "",
    )


def _new(mount: oci.Mount, target: str, options: mounts.MountOptions, field: str) -> Mount:
    if not mount.type:
        raise InvalidValue(f"{field}.type: neither a file system nor a bind")
    if is_idmapped(mount):
        raise UnsupportedField(f"{field}.uidMappings", "only binds can be id-mapped")
    if options.copy_up and mount.type != "tmpfs":
        raise UnsupportedField(f"{field}.options", "tmpcopyup is for tmpfs only")
    on = attributes(options)[0] | options.recursive_set
    if target == "/dev" and mount.type == "tmpfs" and on & mounts.MOUNT_ATTR_RDONLY:
        raise UnsupportedField(f"{field}.options", "devices have to be made in /dev, which is read-only")
    return Mount(
        # There is one hierarchy, that of version 2: documents keep the name that the first had.
        fstype="cgroup2" if mount.type == "cgroup" else mount.type,
        source=mount.source or mount.type,
        target=target,
        attributes=on,
        data=_words(options),
        propagation=options.propagation & ~mounts.MS_REC,
        copy_up=options.copy_up,
    )


#: the same few sets of options come with every container
_parsed = lru_cache(maxsize=256)(mounts.parse_options)


def _words(options: mounts.MountOptions) -> tuple[str, ...]:
    """What belongs to the file system."""
    flags = tuple(word for flag, word in _FILE_SYSTEM.items() if options.flags & flag)
    return (*flags, *filter(None, options.data.split(",")))


def is_idmapped(mount: oci.Mount) -> bool:
    """Whether the mount shows its files with other owners."""
    return bool(mount.uid_mappings or mount.gid_mappings or {"idmap", "ridmap"} & set(mount.options))


def idmap_descriptor(number: int) -> str:
    """The name of the descriptor of the user namespace whose map the n-th mount of the spec has."""
    return f"idmap-{number}"
