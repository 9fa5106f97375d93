"""Groups of processes: cgroup v2 (Documentation/admin-guide/cgroup-v2.rst of the kernel).

``find()`` says where our groups live: in the ``cgroup2`` mount that the host has (``/sys/fs/cgroup``, or
``…/unified`` where cgroup v1 has the controllers), in a group ``pyengine``: at the top for root, for an ordinary user
below the highest group that was delegated to him. Nothing is mounted here, and the host program is never moved.

A group with processes of its own cannot give controllers to its children, except the very top: ours keeps to leaves.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pyengine.errors import CannotEnforce, InvalidValue, KernelError, RequiresCgroupsV2
from pyengine.linux import calls, mountinfo
from pyengine.linux.group import Cgroup

GROUP: Final = "pyengine"

_NAME = re.compile(r"[A-Za-z0-9_.:@-][A-Za-z0-9_.:@\\-]*")


def own_group(content: bytes) -> str:
    """The path of the ``0::`` line of /proc/PID/cgroup: the place in cgroup v2. ``InvalidValue`` if it has none."""
    for line in content.split(b"\n"):
        if line.startswith(b"0::/"):
            return os.fsdecode(line[3:].removesuffix(b" (deleted)"))
    raise InvalidValue("no line 0:: in /proc/self/cgroup: the kernel has no cgroup v2")


def choose_mount(mounts: Iterable[mountinfo.MountPoint]) -> mountinfo.MountPoint | None:
    """The ``cgroup2`` mount to use: one that shows the whole hierarchy and can be written; of these the shortest path,
    so that a bind mount somewhere else does not win; of mounts on the same directory the last, which covers others."""
    candidates = {mount.target: mount for mount in mounts if mount.type == "cgroup2"}
    if not candidates:
        return None
    return min(
        candidates.values(),
        key=lambda mount: (mount.root != "/", "ro" in mount.options, len(mount.target), mount.target),
    )


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where groups of the engine live. ``top``: directory of the mount. ``base``: directory below which the user may
    make groups. ``rootless``: refusals are ``RequiresCgroupsV2``."""

    top: str
    base: str
    rootless: bool

    @property
    def group(self) -> Cgroup:
        """The engine's own group, which has no processes. It need not exist yet."""
        return Cgroup(os.path.join(self.base, GROUP), self.top, self.rootless)

    def locate(self, path: str) -> Cgroup:
        """The group that ``path`` names, not made: below the engine's own; below the top of the hierarchy if the path
        begins with ``/`` (``linux.cgroupsPath``)."""
        names = [name for name in path.split("/") if name]
        for name in names:
            # cgroup.* and CONTROLLER.* are the kernel's files.
            if not _NAME.fullmatch(name) or name in (".", "..") or name.startswith("cgroup.") or len(name) > 255:
                raise InvalidValue(f"not the name of a cgroup: {name!r} in {path!r}")
        if not names:
            raise InvalidValue(f"not the name of a cgroup: {path!r}")
        base = self.top if path.startswith("/") else self.group.path
        return Cgroup(os.path.join(base, *names), self.top, self.rootless)

    def create(self, path: str, controllers: Iterable[str] = ()) -> Cgroup:
        """Makes the group that ``path`` names (see ``locate``) and its parents. ``controllers`` are enabled down to it:
        ``CannotEnforce`` or ``RequiresCgroupsV2`` if one cannot be. A group that exists is taken as it is."""
        group = self.locate(path)
        group.create(self.top, controllers)
        return group

    def available_controllers(self) -> frozenset[str]:
        """The controllers that groups of the engine can have, as far as that can be told without trying."""
        path = self.base
        if path != self.top and not os.access(os.path.join(path, "cgroup.subtree_control"), os.W_OK):
            return frozenset(_words(os.path.join(path, "cgroup.subtree_control")))
        return frozenset(_words(os.path.join(path, "cgroup.controllers")))


def _words(path: str) -> list[str]:
    with calls.open(path, os.O_RDONLY) as fd:
        return calls.run("read", path, os.read, fd.fileno(), 4096).decode().split()


def find(*, rootless: bool | None = None) -> Hierarchy:
    """Finds the place of the engine's groups. ``rootless`` None: whether the effective user is not root.

    ``CannotEnforce`` (``RequiresCgroupsV2`` for an ordinary user) when there is no cgroup2 mount or nothing is
    delegated: then there are no limits, no freezing, and no killing of whole groups."""
    if rootless is None:
        rootless = os.geteuid() != 0
    refuse = RequiresCgroupsV2 if rootless else CannotEnforce
    mount = choose_mount(mountinfo.read())
    if mount is None:
        raise refuse(
            "no cgroup2 file system is mounted: mount one with: mount -t cgroup2 none /sys/fs/cgroup"
            " (or boot with systemd.unified_cgroup_hierarchy=1)"
        )
    with calls.open("/proc/self/cgroup", os.O_RDONLY) as fd:
        own = own_group(calls.run("read", "/proc/self/cgroup", os.read, fd.fileno(), 65536))
    if mount.root != "/":  # a part of the hierarchy is mounted
        own = "/" + os.path.relpath(own, mount.root)
    if own.startswith("/.."):
        raise refuse(f"the cgroup of this process lies outside of what is mounted on {mount.target}: {own}")
    place = os.path.normpath(mount.target + own)
    base = _delegated(mount.target, place) if rootless else _base_for_root(mount.target, place)
    if base is None:
        raise refuse(
            f"the cgroup {own} of this process is not delegated to uid {os.geteuid()}: start the program with "
            "systemd-run --user --scope -p Delegate=yes, or let the administrator give the user a group of his own"
        )
    return Hierarchy(mount.target, base, rootless)


def _ours(directory: str) -> bool:
    """Whether the user may make groups here and move processes below: both belong to a delegation (cgroup-v2.rst)."""
    return os.access(directory, os.W_OK) and os.access(os.path.join(directory, "cgroup.procs"), os.W_OK)


def _delegated(top: str, place: str) -> str | None:
    """The highest group above ``place``, itself included, that is the user's without a gap: a process can only move
    between groups whose common parent is his."""
    found = None
    while _ours(place):
        found = place
        if place == top:
            break
        place = os.path.dirname(place)
    return found


def _base_for_root(top: str, place: str) -> str:
    """The top, unless the service manager gave us, or a group above us, a part of its own (``Delegate=``)."""
    while place != top:
        for attribute in ("trusted.delegate", "user.delegate"):
            try:
                if os.getxattr(place, attribute) == b"1":
                    return place
            except OSError as error:
                if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP, errno.ENOENT, errno.EPERM):
                    raise KernelError(error.errno or errno.EIO, f"getxattr {attribute} of {place}") from error
        place = os.path.dirname(place)
    return top
