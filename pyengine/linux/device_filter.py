"""Which devices a group of processes may open and make: OCI device rules as a cgroup-bpf program.

Cgroup v2 has no devices controller; the kernel asks a BPF program of type ``BPF_PROG_TYPE_CGROUP_DEVICE`` instead. Such
a program is loaded with CAP_BPF (or CAP_SYS_ADMIN) in the first user namespace only, so never rootless. There it is not
needed either: device nodes cannot be made in a user namespace, and opening one that was passed in goes by its file
permissions. ``can_filter_devices()`` tells the two apart.

Since Linux 5.11 the memory of programs is charged to the cgroup; before that to RLIMIT_MEMLOCK, which a library may
not raise, so that loading can fail there with EPERM.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pyengine._syscalls import ffi, lib
from pyengine.errors import InvalidValue, KernelError
from pyengine.linux import calls
from pyengine.linux.fd import Fd, number

BLOCK: Final = 1  # BPF_DEVCG_DEV_…
CHARACTER: Final = 2
MKNOD: Final = 1  # BPF_DEVCG_ACC_…
READ: Final = 2
WRITE: Final = 4
_ACCESS: Final = {"m": MKNOD, "r": READ, "w": WRITE}
_ALL: Final = MKNOD | READ | WRITE
_ALLOW_MULTI: Final = 2

# The few instructions that are used (linux/bpf.h, Documentation/bpf/standardization/instruction-set.rst).
LOAD: Final = 0x61  # dst = *(u32 *)(src + offset)
MOVE: Final = 0xB7  # dst = immediate
COPY: Final = 0xBF  # dst = src
AND: Final = 0x57  # dst &= immediate
SHIFT: Final = 0x77  # dst >>= immediate
JUMP: Final = 0x05
JUMP_NOT_EQUAL: Final = 0x55
JUMP_SET: Final = 0x45  # if dst & immediate
EXIT: Final = 0x95
_RESULT, _CONTEXT, _TYPE, _WANTED, _MAJOR, _MINOR = range(6)


@dataclass(frozen=True, slots=True)
class DeviceRule:
    """One rule. ``type``: ``c``, ``b`` or ``a`` (both); ``major`` and ``minor`` None for any; ``access`` of ``r``,
    ``w``, ``m``."""

    allow: bool
    type: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"

    def __post_init__(self) -> None:
        if self.type not in ("a", "b", "c", "u"):
            raise InvalidValue(f"device rule: the type is a, b, c or u, not {self.type!r}")
        if not self.access or set(self.access) - set(_ACCESS):
            raise InvalidValue(f"device rule: the access is made of r, w and m, not {self.access!r}")
        for name in ("major", "minor"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1 << 31:
                raise InvalidValue(f"device rule: {name} is from 0 to {(1 << 31) - 1}, or None for any, not {value}")

    @property
    def bits(self) -> int:
        """The access as bits."""
        return sum(_ACCESS[letter] for letter in set(self.access))


#: What every container may do whatever its rules say: the devices of its own /dev, and making nodes, whose opening is
#: asked for again.
DEFAULT_RULES: Final = (
    DeviceRule(True, "c", access="m"),
    DeviceRule(True, "b", access="m"),
    DeviceRule(True, "c", 1, 3),  # null
    DeviceRule(True, "c", 1, 5),  # zero
    DeviceRule(True, "c", 1, 7),  # full
    DeviceRule(True, "c", 1, 8),  # random
    DeviceRule(True, "c", 1, 9),  # urandom
    DeviceRule(True, "c", 5, 0),  # tty
    DeviceRule(True, "c", 5, 1),  # console
    DeviceRule(True, "c", 5, 2),  # ptmx
    DeviceRule(True, "c", 136),  # pts/*
)


def _instruction(code: int, destination: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("=BBhi", code, destination | source << 4, offset, immediate)


def assemble(rules: Sequence[DeviceRule]) -> bytes:
    """The program: for each kind of access that is asked for, the last rule that matches decides; what no rule matches
    is refused. All kinds of one request must be allowed.

    So the rules are looked at from the last to the first, and what is still to be decided is kept: a rule that allows
    takes its kinds away, one that forbids ends it if a kind is left that it names."""
    program = [
        _instruction(LOAD, _TYPE, _CONTEXT, 0),
        _instruction(COPY, _WANTED, _TYPE),
        _instruction(AND, _TYPE, immediate=0xFFFF),
        _instruction(SHIFT, _WANTED, immediate=16),
        _instruction(LOAD, _MAJOR, _CONTEXT, 4),
        _instruction(LOAD, _MINOR, _CONTEXT, 8),
    ]
    for rule in reversed(rules):
        if rule.allow:
            decision = [
                _instruction(AND, _WANTED, immediate=_ALL & ~rule.bits),
                _instruction(JUMP_NOT_EQUAL, _WANTED, offset=2),
                _instruction(MOVE, _RESULT, immediate=1),
                _instruction(EXIT),
            ]
        else:
            decision = [
                _instruction(JUMP_SET, _WANTED, offset=1, immediate=rule.bits),
                _instruction(JUMP, offset=2),
                _instruction(MOVE, _RESULT, immediate=0),
                _instruction(EXIT),
            ]
        conditions = []
        if rule.type != "a":
            conditions.append((_TYPE, BLOCK if rule.type == "b" else CHARACTER))
        if rule.major is not None:
            conditions.append((_MAJOR, rule.major))
        if rule.minor is not None:
            conditions.append((_MINOR, rule.minor))
        for index, (register, value) in enumerate(conditions):
            over = len(conditions) - index - 1 + len(decision)
            program.append(_instruction(JUMP_NOT_EQUAL, register, offset=over, immediate=value))
        program += decision
    program += [_instruction(MOVE, _RESULT, immediate=0), _instruction(EXIT)]
    return b"".join(program)


def load(program: bytes) -> Fd:
    """Loads a program. If the verifier refuses it, its words are part of the ``KernelError``."""
    count = len(program) // 8
    result = lib.pe_bpf_load_cgroup_device(ffi.from_buffer(program), count, ffi.NULL, 0)
    if result in (-errno.EACCES, -errno.EINVAL):
        log = ffi.new("char[]", 65536)
        lib.pe_bpf_load_cgroup_device(ffi.from_buffer(program), count, log, 65536)
        said = bytes(ffi.string(log)).decode(errors="replace").strip()
        calls.fail(-result, "load bpf program", f"of {count} instructions", remedy=said[-1000:])
    if result < 0:
        calls.fail(-result, "load bpf program", f"of {count} instructions")
    return Fd(result)


def attach(cgroup: Fd | int, rules: Sequence[DeviceRule]) -> None:
    """Filters the devices of the group whose directory ``cgroup`` is. It stays as long as the group; the programs of
    the groups above, and further ones of this group, must all allow an access."""
    with load(assemble(rules)) as program:
        attach_loaded(cgroup, program)


def attach_loaded(cgroup: Fd | int, program: Fd) -> None:
    """As ``attach``, with a program that ``load`` gave: one serves any number of groups."""
    result = lib.pe_bpf_attach_cgroup_device(number(cgroup), program.fileno(), _ALLOW_MULTI)
    if result < 0:
        calls.fail(-result, "attach bpf program", "to a cgroup")


def can_filter_devices() -> bool:
    """Whether this process may load such a program: false rootless, and where the kernel has no cgroup-bpf."""
    try:
        load(assemble(())).close()
    except KernelError as error:
        if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL):
            return False
        raise
    return True
