"""Steps that a container's first process does to itself, up to its command."""

from __future__ import annotations

from dataclasses import dataclass

from pyengine.runtime.records import AS_LOOKED_UP, Step
from pyengine.typing import override


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
