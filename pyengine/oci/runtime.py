"""The OCI runtime specification's ``config.json`` as typed structs: what a container is to be.

Source: opencontainers/runtime-spec 1.2 (``config.md``, ``config-linux.md``). The members come in the order in which
they are written; empty ones are left out. What the structs do not know is never dropped: `decode` names it in an
`UnsupportedField`. Sizes are in bytes, times in the unit that the specification gives them.
"""

from __future__ import annotations

import functools
import types
import typing
from typing import Any

import msgspec

from pyengine.errors import ArchiveTooLarge, InvalidValue, UnsupportedField

DOCUMENT_LIMIT = 4 << 20
"""Bytes that a config.json may have. Orchestrators with hundreds of mounts stay below 200 KiB."""

VERSION = "1.0.2"
"""What documents made here claim: they use nothing that a 1.0 runtime does not understand."""


class _Struct(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", forbid_unknown_fields=True
):
    """The common ground of all parts: immutable, camel case, without what is empty."""


class ConsoleSize(_Struct, frozen=True, kw_only=True):
    """The first size of the terminal, in characters."""

    height: int
    width: int


class User(_Struct, frozen=True, kw_only=True):
    """Numeric ids inside the container."""

    uid: int
    gid: int
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()
    username: str = ""


class Capabilities(_Struct, frozen=True, kw_only=True):
    """The five sets by name (``CAP_CHOWN``)."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


class ResourceLimit(_Struct, frozen=True, kw_only=True):
    """setrlimit(2). ``type`` is ``RLIMIT_NOFILE``; 2**64-1 is no limit."""

    type: str
    hard: int
    soft: int


class Scheduler(_Struct, frozen=True, kw_only=True):
    policy: str
    nice: int = 0
    priority: int = 0
    flags: tuple[str, ...] = ()
    runtime: int = 0
    deadline: int = 0
    period: int = 0


class IoPriority(_Struct, frozen=True, kw_only=True):
    class_: str = msgspec.field(name="class")
    priority: int = 0


class CpuAffinity(_Struct, frozen=True, kw_only=True):
    initial: str = ""
    final: str = ""


class Process(_Struct, frozen=True, kw_only=True):
    terminal: bool = False
    console_size: ConsoleSize | None = None
    user: User = msgspec.field(default_factory=lambda: User(uid=0, gid=0))
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: str
    capabilities: Capabilities | None = None
    rlimits: tuple[ResourceLimit, ...] = ()
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    oom_score_adj: int | None = None
    scheduler: Scheduler | None = None
    selinux_label: str = ""
    io_priority: IoPriority | None = None
    exec_cpu_affinity: CpuAffinity | None = msgspec.field(default=None, name="execCPUAffinity")


class Root(_Struct, frozen=True, kw_only=True):
    path: str
    readonly: bool = False


class IdMapping(_Struct, frozen=True, kw_only=True):
    container_id: int = msgspec.field(name="containerID")
    host_id: int = msgspec.field(name="hostID")
    size: int


class Mount(_Struct, frozen=True, kw_only=True):
    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()


class Hook(_Struct, frozen=True, kw_only=True):
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


class Hooks(_Struct, frozen=True, kw_only=True):
    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


class Namespace(_Struct, frozen=True, kw_only=True):
    """A namespace that the container does not share with the host: a new one, or the one at ``path``."""

    type: str
    path: str = ""


class Device(_Struct, frozen=True, kw_only=True):
    """A device node to be there. ``file_mode`` is the permissions only."""

    path: str
    type: str
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class DeviceRule(_Struct, frozen=True, kw_only=True):
    """Allows or forbids device access; absent numbers mean any. The last rule that matches decides."""

    allow: bool
    type: str = ""
    major: int | None = None
    minor: int | None = None
    access: str = ""


class Memory(_Struct, frozen=True, kw_only=True):
    """``swap`` is memory and swap together; -1 is no limit."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    kernel: int | None = None
    kernel_tcp: int | None = msgspec.field(default=None, name="kernelTCP")
    swappiness: int | None = None
    disable_oom_killer: bool | None = msgspec.field(default=None, name="disableOOMKiller")
    use_hierarchy: bool | None = None
    check_before_update: bool | None = None


class Cpu(_Struct, frozen=True, kw_only=True):
    """Times in microseconds."""

    shares: int | None = None
    quota: int | None = None
    burst: int | None = None
    period: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    cpus: str = ""
    mems: str = ""
    idle: int | None = None


class Pids(_Struct, frozen=True, kw_only=True):
    limit: int


class WeightDevice(_Struct, frozen=True, kw_only=True):
    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


class ThrottleDevice(_Struct, frozen=True, kw_only=True):
    """``rate`` is in bytes or operations a second."""

    major: int
    minor: int
    rate: int


class BlockIo(_Struct, frozen=True, kw_only=True):
    weight: int | None = None
    leaf_weight: int | None = None
    weight_device: tuple[WeightDevice, ...] = ()
    throttle_read_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_write_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_read_iops_device: tuple[ThrottleDevice, ...] = msgspec.field(default=(), name="throttleReadIOPSDevice")
    throttle_write_iops_device: tuple[ThrottleDevice, ...] = msgspec.field(default=(), name="throttleWriteIOPSDevice")


class HugepageLimit(_Struct, frozen=True, kw_only=True):
    """``page_size`` is ``2MB``, ``limit`` in bytes."""

    page_size: str
    limit: int


class InterfacePriority(_Struct, frozen=True, kw_only=True):
    name: str
    priority: int


class Network(_Struct, frozen=True, kw_only=True):
    class_id: int | None = msgspec.field(default=None, name="classID")
    priorities: tuple[InterfacePriority, ...] = ()


class Rdma(_Struct, frozen=True, kw_only=True):
    hca_handles: int | None = None
    hca_objects: int | None = None


class Resources(_Struct, frozen=True, kw_only=True):
    devices: tuple[DeviceRule, ...] = ()
    memory: Memory | None = None
    cpu: Cpu | None = None
    pids: Pids | None = None
    block_io: BlockIo | None = msgspec.field(default=None, name="blockIO")
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    network: Network | None = None
    rdma: dict[str, Rdma] = msgspec.field(default_factory=dict)
    unified: dict[str, str] = msgspec.field(default_factory=dict)


class SeccompArgument(_Struct, frozen=True, kw_only=True):
    """A comparison of one argument of a system call."""

    index: int
    value: int
    value_two: int = 0
    op: str


class SeccompRule(_Struct, frozen=True, kw_only=True):
    names: tuple[str, ...]
    action: str
    errno_ret: int | None = None
    args: tuple[SeccompArgument, ...] = ()


class Seccomp(_Struct, frozen=True, kw_only=True):
    """A system call filter: what happens to a call that no rule names, and the rules."""

    default_action: str
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[SeccompRule, ...] = ()


class TimeOffset(_Struct, frozen=True, kw_only=True):
    secs: int = 0
    nanosecs: int = 0


class IntelRdt(_Struct, frozen=True, kw_only=True):
    clos_id: str = msgspec.field(default="", name="closID")
    l3_cache_schema: str = ""
    mem_bw_schema: str = ""
    enable_cmt: bool = msgspec.field(default=False, name="enableCMT")
    enable_mbm: bool = msgspec.field(default=False, name="enableMBM")


class Personality(_Struct, frozen=True, kw_only=True):
    domain: str
    flags: tuple[str, ...] = ()


class Linux(_Struct, frozen=True, kw_only=True):
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    sysctl: dict[str, str] = msgspec.field(default_factory=dict)
    resources: Resources | None = None
    cgroups_path: str = ""
    namespaces: tuple[Namespace, ...] = ()
    devices: tuple[Device, ...] = ()
    seccomp: Seccomp | None = None
    rootfs_propagation: str = ""
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    mount_label: str = ""
    time_offsets: dict[str, TimeOffset] = msgspec.field(default_factory=dict)
    intel_rdt: IntelRdt | None = None
    personality: Personality | None = None


class RuntimeSpec(_Struct, frozen=True, kw_only=True):
    """A whole config.json."""

    oci_version: str
    process: Process | None = None
    root: Root | None = None
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    hooks: Hooks | None = None
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    linux: Linux | None = None


@functools.cache
def _members(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The type of each member, by its name in the document."""
    return {field.encode_name: field.type for field in msgspec.structs.fields(struct)}


def _refuse_unknown(value: object, kind: Any, path: str) -> None:
    """Raise `UnsupportedField` for the first member of ``value`` that ``kind`` has no place for."""
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        kind = next(option for option in typing.get_args(kind) if option is not type(None))
        origin = typing.get_origin(kind)
    if isinstance(value, list) and origin is tuple:
        for number, element in enumerate(value):
            _refuse_unknown(element, typing.get_args(kind)[0], f"{path}[{number}]")
    elif isinstance(value, dict) and origin is dict:
        for key, element in value.items():
            _refuse_unknown(element, typing.get_args(kind)[1], f"{path}.{key}")
    elif isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        members = _members(kind)
        for key, element in value.items():
            name = f"{path}.{key}" if path else key
            if key not in members:
                raise UnsupportedField(name[:200], "pyengine does not know this field and will not ignore it")
            _refuse_unknown(element, members[key], name)


def _explain(data: bytes) -> None:
    """Raise `UnsupportedField` if an unknown member is why ``data`` is refused: msgspec names it, but only in words."""
    try:
        document = msgspec.json.decode(data)
        _refuse_unknown(document, RuntimeSpec, "")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return  # then it is no JSON at all


def decode(data: bytes) -> RuntimeSpec:
    """A config.json. The content is checked for form only: the plan compiler says what cannot be done.

    :raises UnsupportedField: a member that is not known, by its dotted path (``linux.memoryPolicy``)
    :raises InvalidValue: not JSON, a wrong type, or a member missing that has to be there
    :raises ArchiveTooLarge: more than `DOCUMENT_LIMIT` bytes
    """
    if len(data) > DOCUMENT_LIMIT:
        raise ArchiveTooLarge(f"config.json has {len(data)} bytes: at most {DOCUMENT_LIMIT} are accepted")
    try:
        spec = msgspec.json.decode(data, type=RuntimeSpec)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        _explain(data)
        raise InvalidValue(f"config.json is not valid: {error}") from error
    if not spec.oci_version.startswith("1."):
        raise UnsupportedField("ociVersion", f"{spec.oci_version[:40]!r} is not a version 1 of the specification")
    return spec


def decode_own(data: bytes) -> RuntimeSpec:
    """A document that `encode` wrote: it holds nothing unknown, so it is not searched for that.

    :raises InvalidValue: it is damaged
    """
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidValue(f"config.json is not valid: {error}") from error


def encode(spec: RuntimeSpec) -> bytes:
    """The document, members in their fixed order and without what is empty."""
    return msgspec.json.encode(spec)


_DECODER = msgspec.json.Decoder(RuntimeSpec)
