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
from pyengine.runtime.records import AS_LOOKED_UP, Record, Step, encode_value, namespace_names
from pyengine.runtime.steps_process import (
    AwaitStart,
    Capabilities,
    Chdir,
    Exec,
    LookupUser,
    NewSession,
    NoNewPrivileges,
    OomScore,
    Rlimit,
    Seccomp,
    SetDomainname,
    SetHostname,
    Sysctl,
    Terminal,
    User,
)
from pyengine.runtime.steps_root import (
    Bind,
    BindRoot,
    Device,
    JoinNamespace,
    Loopback,
    MakeDirectory,
    MaskPath,
    Mount,
    OpenSources,
    Overlay,
    PivotRoot,
    Propagation,
    ReadonlyPath,
    ReadonlyRoot,
    Symlink,
    UnshareCgroup,
)

__all__ = [
    "AS_LOOKED_UP",
    "MAGIC",
    "AwaitStart",
    "Bind",
    "BindRoot",
    "Capabilities",
    "Chdir",
    "Device",
    "Exec",
    "JoinNamespace",
    "LookupUser",
    "Loopback",
    "MakeDirectory",
    "MaskPath",
    "Mount",
    "NewSession",
    "NoNewPrivileges",
    "OomScore",
    "OpenSources",
    "Overlay",
    "PivotRoot",
    "Plan",
    "Propagation",
    "ReadonlyPath",
    "ReadonlyRoot",
    "Record",
    "Rlimit",
    "Seccomp",
    "SetDomainname",
    "SetHostname",
    "Settings",
    "Step",
    "Symlink",
    "Sysctl",
    "Terminal",
    "UnshareCgroup",
    "User",
    "encode_value",
    "namespace_names",
    "step_kinds",
]

MAGIC = b"PYPLAN1\0"

_INTEGER = struct.Struct("<q")


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


def step_kinds() -> Sequence[type[Step]]:
    """Every kind of step, by number."""
    return sorted(Step.__subclasses__(), key=lambda kind: kind.KIND)
