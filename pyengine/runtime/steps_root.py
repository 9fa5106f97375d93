"""Steps that make namespaces and the root file system of a container."""

from __future__ import annotations

from dataclasses import dataclass

from pyengine.runtime.records import Step, namespace_names
from pyengine.typing import override

# --- namespaces, before anything else -----------------------------------------------------------------------


@dataclass(frozen=True)
class JoinNamespace(Step):
    """setns(2) into the namespace that `descriptor` (a name of `Plan.descriptors`) refers to; it may be a pidfd.

    `namespaces` are CLONE_NEW* flags. All joins come first, in the order given (user before all others when the
    caller is not privileged): they are executed before the clone.
    """

    KIND = 1
    namespaces: int
    descriptor: str
    origin: str  # for people: "container 4f0c…", "/run/netns/x", "the user's user namespace"

    @override
    def describe(self) -> str:
        return f"join the {namespace_names(self.namespaces)} namespace of {self.origin}"


@dataclass(frozen=True)
class UnshareCgroup(Step):
    """A cgroup namespace whose root is the container's cgroup (clone would root it at the monitor's)."""

    KIND = 2

    @override
    def describe(self) -> str:
        return "unshare the cgroup namespace"


@dataclass(frozen=True)
class Loopback(Step):
    """Set the interface `lo` of a new network namespace up."""

    KIND = 3

    @override
    def describe(self) -> str:
        return "set lo up"


@dataclass(frozen=True)
class Propagation(Step):
    """Propagation of the whole inherited mount table, before the first mount: MS_SLAVE or MS_PRIVATE (mount(2)),
    recursive, so that nothing mounted here shows on the host."""

    KIND = 4
    flags: int
    name: str

    @override
    def describe(self) -> str:
        return f"make all mounts {self.name}"


@dataclass(frozen=True)
class OpenSources(Step):
    """Do with the host's rights what the root of a user namespace that is joined or made later has none for: mount the
    overlay, and open the root, the sources of binds and the passwd file of `LookupUser`. Where those steps stand they
    only attach what was opened.

    It comes before all joins and happens with them, in a mount namespace that nobody else sees. `store` is the
    directory with everything that the overlay is made of; there it has the ids of the user namespace that the
    descriptor `idmap` refers to, so that id 0 of the files is root of the container. Both empty: no overlay.
    """

    KIND = 5
    idmap: str
    store: str

    @override
    def describe(self) -> str:
        mapped = f", files of {self.store} with its ids" if self.store else ""
        return f"open the sources of mounts outside of the user namespace{mapped}"


# --- the root file system -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Overlay(Step):
    """Mount an overlay as the new root at `target` (an empty directory of the host).

    `lower` (topmost first), are directories relative to `base`, so that a hundred fit into one page of options.
    `options` are further overlay options (``userxattr``), comma separated. Empty `upper` and `work`: read-only.
    """

    KIND = 10
    base: str
    lower: tuple[str, ...]
    upper: str
    work: str
    options: str
    target: str

    @override
    def describe(self) -> str:
        return f"mount overlay of {len(self.lower)} layer(s) as the root"


@dataclass(frozen=True)
class BindRoot(Step):
    """Bind the directory `source` of the host to itself at `target`, as the new root."""

    KIND = 11
    source: str
    target: str
    recursive: bool

    @override
    def describe(self) -> str:
        return f"bind {self.source} as the root"


@dataclass(frozen=True)
class Mount(Step):
    """Mount a new instance of a file system on `target` below the root.

    `attributes` are MOUNT_ATTR_* flags (mount_setattr(2)), `data` the file system's own options as
    ``key=value`` or ``key``. A missing target directory is made. `propagation`: MS_* flag or 0. `copy_up`: what
    the root has at the target is copied into the new file system.
    """

    KIND = 12
    fstype: str
    source: str
    target: str
    attributes: int
    data: tuple[str, ...]
    propagation: int
    copy_up: bool

    @override
    def describe(self) -> str:
        return f"mount {self.fstype} on {self.target}"


@dataclass(frozen=True)
class Bind(Step):
    """Bind `source` of the host on `target` below the root; a missing target is made (file or directory, as the
    source is).

    `set` and `clear` are MOUNT_ATTR_* for the mount itself, `set_recursive` and `clear_recursive` for the whole
    tree. `propagation` is an MS_* flag or 0, recursive with `propagation_recursive`. `idmap` names a descriptor of
    a user namespace for an id-mapped mount, or is empty.
    """

    KIND = 13
    source: str
    target: str
    recursive: bool
    set: int
    clear: int
    set_recursive: int
    clear_recursive: int
    propagation: int
    propagation_recursive: bool
    idmap: str

    @override
    def describe(self) -> str:
        return f"bind {self.source} on {self.target}"


@dataclass(frozen=True)
class MakeDirectory(Step):
    """Make a directory and its missing parents below the root, owned by root; existing ones stay as they are."""

    KIND = 14
    path: str
    mode: int

    @override
    def describe(self) -> str:
        return f"make directory {self.path}"


@dataclass(frozen=True)
class Symlink(Step):
    """Make a symbolic link; one that is there already with the same target is fine."""

    KIND = 15
    target: str
    path: str

    @override
    def describe(self) -> str:
        return f"link {self.path} to {self.target}"


@dataclass(frozen=True)
class Device(Step):
    """Make a device node below the root. `mode` has the type (S_IFCHR, S_IFBLK, S_IFIFO) and the permissions."""

    KIND = 16
    path: str
    mode: int
    major: int
    minor: int
    uid: int
    gid: int

    @override
    def describe(self) -> str:
        return f"make device {self.path} ({self.major}:{self.minor})"


@dataclass(frozen=True)
class MaskPath(Step):
    """Hide a path: a directory below an empty read-only tmpfs, anything else below /dev/null. Absent is fine."""

    KIND = 17
    path: str

    @override
    def describe(self) -> str:
        return f"mask {self.path}"


@dataclass(frozen=True)
class ReadonlyPath(Step):
    """Make a path read-only, with all below it. Absent is fine."""

    KIND = 18
    path: str

    @override
    def describe(self) -> str:
        return f"make {self.path} read-only"


@dataclass(frozen=True)
class ReadonlyRoot(Step):
    """Make the root mount itself read-only (not what is mounted below it)."""

    KIND = 19

    @override
    def describe(self) -> str:
        return "make the root read-only"


@dataclass(frozen=True)
class PivotRoot(Step):
    """pivot_root(2) into the new root, and detach the old one. `propagation`: MS_* flag for the new root, or 0."""

    KIND = 20
    propagation: int

    @override
    def describe(self) -> str:
        return "pivot into the root"
