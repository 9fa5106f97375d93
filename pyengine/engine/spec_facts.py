"""What the engine has found out about the machine before it makes a spec: facts, not decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pyengine.engine.values import IdRange
from pyengine.oci.seccomp import SeccompProfile

ALL_IDS = (IdRange(0, 0, (1 << 32) - 1),)
"""The id map of the host's own user namespace."""


@dataclass(frozen=True, slots=True)
class HostDevice:
    """A device node of the host. ``type`` is ``c`` or ``b``, ``mode`` the permissions."""

    path: str
    type: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, kw_only=True)
class EnvironmentFacts:
    """The machine and the caller, as far as a spec depends on them.

    rootless: containers live in a user namespace of the caller's, into which the monitor goes first.
    capabilities: those that a container can be given here, by name in the kernel's order (the bounding set).
    rlimits: the limits of this process, ``nofile`` → (soft, hard), -1 unlimited; ``raise_limits``: it has
    CAP_SYS_RESOURCE on the host. max_files: fs.nr_open. oom_score_adj: of this process.
    uid_map, gid_map: of the user namespace that containers start from.
    uid, gid: of the caller, on the host. hostname: the host's. machine: as ``uname -m`` has it.
    devices: what is at the paths that the request names; a directory gives all nodes below it.
    host_devices: all nodes, for privileged containers. block_devices: path → (major, minor), for limits.
    mqueue: the host has message queues mounted on /dev/mqueue, to be shared with who asks for its IPC namespace.
    seccomp_profile: the content of the file that the request names.
    """

    capabilities: tuple[str, ...]
    rootless: bool = False
    rlimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    raise_limits: bool = True
    max_files: int = 1048576
    oom_score_adj: int = 0
    uid_map: tuple[IdRange, ...] = ALL_IDS
    gid_map: tuple[IdRange, ...] = ALL_IDS
    uid: int = 0
    gid: int = 0
    hostname: str = ""
    machine: str = "x86_64"
    devices: Mapping[str, tuple[HostDevice, ...]] = field(default_factory=dict)
    host_devices: tuple[HostDevice, ...] = ()
    block_devices: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    mqueue: bool = False
    seccomp_profile: SeccompProfile | None = None
