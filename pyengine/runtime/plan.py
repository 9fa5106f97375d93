"""The plan: what happens inside a new container, step by step, as data.

Python writes a plan, the monitor (``native/monitor``) executes it. A plan is a value: it can be printed
(`pyengine explain`), compared in a test without root, and encoded for the monitor. Nothing here touches the kernel.

A step says *what*, never *how*: the executor in C is one ``switch`` over the kinds, and every path below the new
root is resolved there with ``openat2(RESOLVE_IN_ROOT)``, since the files of a container are not to be trusted.

The steps run in the order of the plan, in the container's first process. Three groups follow each other, and
`Plan` checks it: what needs the host's files (overlay, binds), then `PivotRoot`, then what the process does to
itself, ending in `Exec`.

Encoding (little-endian; every integer takes 8 bytes, so that everything is aligned)::

    integer   i64
    blob      i64 length, the bytes, one NUL, padding to 8        (str is UTF-8, no NUL inside)
    list      i64 count, the elements
    record    i64 kind, i64 length of what follows, the fields in the order of the dataclass
    plan      magic "PYPLAN1\\0", i64 length of what follows, settings record, list of descriptor
              names, i64 number of steps, step records

The numbers of the kinds are part of the format; ``tools/generate_plan_header.py`` writes them into
``native/monitor/plan_kinds.h``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

from pyengine.errors import InvalidValue
from pyengine.typing import override

MAGIC = b"PYPLAN1\0"

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


# --- the process itself -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SetHostname(Step):
    KIND = 30
    name: str

    @override
    def describe(self) -> str:
        return f"set the host name {self.name}"


@dataclass(frozen=True)
class SetDomainname(Step):
    KIND = 31
    name: str

    @override
    def describe(self) -> str:
        return f"set the domain name {self.name}"


@dataclass(frozen=True)
class Sysctl(Step):
    """Write `value` into /proc/sys/`path`, through a private procfs that the container's files cannot replace."""

    KIND = 32
    path: str  # net/ipv4/ip_forward
    value: str

    @override
    def describe(self) -> str:
        return f"set {self.path.replace('/', '.')} to {self.value}"


@dataclass(frozen=True)
class Rlimit(Step):
    """setrlimit(2). `resource` is RLIMIT_*; a limit of -1 is RLIM_INFINITY."""

    KIND = 33
    resource: int
    soft: int
    hard: int
    name: str

    @override
    def describe(self) -> str:
        return f"set limit {self.name} to {self.soft}:{self.hard}"


@dataclass(frozen=True)
class OomScore(Step):
    KIND = 34
    value: int

    @override
    def describe(self) -> str:
        return f"set oom_score_adj to {self.value}"


@dataclass(frozen=True)
class NewSession(Step):
    """setsid(2)."""

    KIND = 35

    @override
    def describe(self) -> str:
        return "start a session"


@dataclass(frozen=True)
class Terminal(Step):
    """Open a pseudo terminal of the container's own /dev/pts (exec: of the joined one), hand its master to the
    monitor, make its slave stdin, stdout, stderr and the controlling terminal. `console`: bind it on /dev/console.
    `rows` and `columns` 0: left alone."""

    KIND = 36
    rows: int
    columns: int
    console: bool

    @override
    def describe(self) -> str:
        return "open a terminal"


@dataclass(frozen=True)
class LookupUser(Step):
    """Look `user` (``name|uid[:group|gid]``, empty: root) up in the root's /etc/passwd and /etc/group, and
    `groups` (names or numbers; unknown names are passed over). The result is what `User` with `AS_LOOKED_UP` sets;
    HOME is added to the environment unless `Exec` has one. With `passwd` (a file of the host, empty: none) a
    numeric user that the passwd file does not have gets a copy with a line of its own, bound on /etc/passwd;
    `workdir` is the home directory in it.

    The files are the attacker's: regular files only, at most 1 MiB is read, lines at most 4 KiB.
    """

    KIND = 37
    user: str
    groups: tuple[str, ...]
    passwd: str
    workdir: str

    @override
    def describe(self) -> str:
        return f"look up user {self.user or 'root'}"


@dataclass(frozen=True)
class AwaitStart(Step):
    """Wait here until the monitor is told to start the container."""

    KIND = 38

    @override
    def describe(self) -> str:
        return "await the start"


@dataclass(frozen=True)
class User(Step):
    """setgroups, setresgid, setresuid; permitted capabilities are kept for `Capabilities` to cut down, which belongs
    behind it (and `Chdir` behind that, so that the directory is entered with the rights of the user). `groups` are
    added to those that `LookupUser` found."""

    KIND = 39
    uid: int
    gid: int
    groups: tuple[int, ...]
    umask: int  # -1: 022

    @override
    def describe(self) -> str:
        return "become the looked-up user" if self.uid == AS_LOOKED_UP else f"become user {self.uid}:{self.gid}"


@dataclass(frozen=True)
class Capabilities(Step):
    """The five sets, each a bit mask (capabilities(7))."""

    KIND = 40
    bounding: int
    effective: int
    permitted: int
    inheritable: int
    ambient: int

    @override
    def describe(self) -> str:
        return f"keep capabilities {self.effective:x} (at most {self.bounding:x})"


@dataclass(frozen=True)
class NoNewPrivileges(Step):
    KIND = 41

    @override
    def describe(self) -> str:
        return "give up gaining privileges"


@dataclass(frozen=True)
class Seccomp(Step):
    """Load a filter: an array of struct sock_filter. `flags` are SECCOMP_FILTER_FLAG_*."""

    KIND = 42
    filter: bytes
    flags: int

    @override
    def describe(self) -> str:
        return f"load the system call filter ({len(self.filter) // 8} instructions)"


@dataclass(frozen=True)
class Chdir(Step):
    """Change into a directory of the container, and check afterwards that it lies below the root."""

    KIND = 43
    path: str

    @override
    def describe(self) -> str:
        return f"change into {self.path}"


@dataclass(frozen=True)
class Exec(Step):
    """execve(2). `argv[0]` without a slash is searched in the PATH of `env`. Every descriptor but stdin, stdout,
    stderr and those that `keep` counts from 3 on is closed; these are the plan's descriptors of the names ``3``,
    ``4`` … (at most 6)."""

    KIND = 44
    argv: tuple[str, ...]
    env: tuple[str, ...]
    keep: int

    @override
    def describe(self) -> str:
        return f"execute {self.argv[0]}"


# --- what the monitor does ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings(Record):
    """What the monitor does besides executing steps. The run directory is its working directory: there it keeps
    ``state``, and listens on ``attach``, ``control`` and the FIFO ``ctl``."""

    KIND = 100
    id: str  # for ps and messages
    namespaces: int = 0  # CLONE_NEW* that are made by clone
    uid_map: tuple[int, ...] = ()  # of a new user namespace: container, host, size, …
    gid_map: tuple[int, ...] = ()
    deny_setgroups: bool = False
    terminal: bool = False
    stdin: bool = False  # stdin is a pipe (kept open for attach); else /dev/null
    stdin_once: bool = False  # stdin ends when its first attached client leaves
    die_with_parent: bool = False  # kill the container when the process of descriptor "engine" ends
    session: bool = False  # an exec session: no restart, and the cgroup is not emptied at the end
    cgroup: str = ""  # path of the container's cgroup, removed by the monitor at the end; "" : not ours
    log_path: str = ""  # "" : no log
    log_max_size: int = 0  # bytes after which the log is rotated; 0: never
    log_max_files: int = 1  # rotated files kept: ctr.log.1 …
    restart: int = 0  # 0 no, 1 on-failure, 2 always
    restart_retries: int = 0  # on-failure: at most; 0: no limit
    cleanup: tuple[str, ...] = ()  # argv run at the end unless an engine released the container
    cleanup_env: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A whole plan. `descriptors` are the names of the descriptors that the engine passes along: the n-th is
    number ``FIRST_DESCRIPTOR + n`` in the monitor. Known names: ``cgroup`` (directory, for CLONE_INTO_CGROUP, and
    to kill and to read memory.events), ``engine`` (pidfd), ``client`` (an attach connection that is there from the
    start, and loses nothing), ``3`` to ``8`` (see `Exec`); others are those that steps name."""

    settings: Settings
    steps: tuple[Step, ...]
    descriptors: tuple[str, ...] = field(default=())

    FIRST_DESCRIPTOR: ClassVar[int] = 16

    def __post_init__(self) -> None:
        last = self.steps[-1] if self.steps else None
        if not isinstance(last, Exec):
            raise InvalidValue("a plan ends with Exec")
        if any(isinstance(step, Exec) for step in self.steps[:-1]):
            raise InvalidValue("a plan has one Exec")
        ranks = [_FIRST.get(type(step), len(_FIRST)) for step in self.steps]
        if ranks != sorted(ranks) or ranks.count(0) > 1:
            raise InvalidValue("namespaces are joined before anything else")
        for step in self.steps:
            name = getattr(step, "descriptor", "") or getattr(step, "idmap", "")
            if name and name not in self.descriptors:
                raise InvalidValue(f"{step.describe()}: the plan has no descriptor {name!r}")
        for number in range(3, 3 + last.keep):
            if str(number) not in self.descriptors:
                raise InvalidValue(f"{last.describe()}: the plan has no descriptor '{number}'")

    def encode(self) -> bytes:
        """The plan as the monitor reads it."""
        body = b"".join(
            (
                self.settings.encode(),
                encode_value(self.descriptors),
                _INTEGER.pack(len(self.steps)),
                *map(_encode_step, self.steps),
            )
        )
        return MAGIC + _INTEGER.pack(len(body)) + body

    def describe(self) -> Iterator[str]:
        """A line a step, numbered from 1 as errors count them."""
        for number, step in enumerate(self.steps, 1):
            yield f"{number:3} {step.describe()}"


#: what is done before there is a process of the container, in this order
_FIRST: dict[type[Step], int] = {OpenSources: 0, JoinNamespace: 1}


@lru_cache(maxsize=1024)
def _encode_known(step: Step) -> bytes:
    return step.encode()


def _encode_step(step: Step) -> bytes:
    """Most steps are the same in every plan, and encoding is what takes the time. Commands and their environments are
    not kept: they may hold secrets."""
    return step.encode() if isinstance(step, Exec) else _encode_known(step)


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


def step_kinds() -> Sequence[type[Step]]:
    """Every kind of step, by number."""
    return sorted(Step.__subclasses__(), key=lambda kind: kind.KIND)
