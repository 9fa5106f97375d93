"""Seccomp profiles: the default one, and those that users bring.

A profile is written for any container; which of its rules hold depends on the capabilities that the container gets and
on the machine. The form is that of containers-common (``seccomp.json``), a superset of the OCI form: rules have
``includes`` and ``excludes``, error numbers may be names, and ``archMap`` replaces ``architectures``. `resolve` makes
the plain `Seccomp` of the runtime specification out of it.

``seccomp_default.json`` beside this module allows by name. What it does not know answers ENOSYS, so that programs fall
back to what they did before that call existed; what it refuses answers EPERM.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Collection

import msgspec

from pyengine.errors import ArchiveTooLarge, InvalidValue, UnsupportedField
from pyengine.oci.runtime import Seccomp, SeccompArgument, SeccompRule

PROFILE_LIMIT = 1 << 20
"""Bytes that a profile may have."""

_ERRNO = "SCMP_ACT_ERRNO"
_DEFAULT_ERRNO = errno.EPERM

# os.uname().machine: the name in ``includes.arches``, and the one that libseccomp has
_MACHINES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "i686": ("x86", "SCMP_ARCH_X86"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
}


class _Struct(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    pass


class _Condition(_Struct, frozen=True, kw_only=True):
    arches: tuple[str, ...] | None = None
    caps: tuple[str, ...] | None = None
    min_kernel: str | None = None


class _Rule(_Struct, frozen=True, kw_only=True):
    names: tuple[str, ...] | None = None
    name: str = ""
    action: str
    errno_ret: int | None = None
    errno: str = ""
    args: tuple[SeccompArgument, ...] | None = None
    comment: str = ""
    includes: _Condition = msgspec.field(default_factory=_Condition)
    excludes: _Condition = msgspec.field(default_factory=_Condition)


class _Architecture(_Struct, frozen=True, kw_only=True):
    architecture: str
    sub_architectures: tuple[str, ...] | None = None


class SeccompProfile(_Struct, frozen=True, kw_only=True):
    """A profile with its conditions. ``arch_map`` and ``architectures`` exclude each other."""

    default_action: str
    default_errno_ret: int | None = None
    default_errno: str = ""
    arch_map: tuple[_Architecture, ...] | None = None
    architectures: tuple[str, ...] | None = None
    flags: tuple[str, ...] | None = None
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[_Rule, ...] | None = None


def decode_profile(data: bytes, name: str) -> SeccompProfile:
    """The profile in the file ``name``.

    :raises InvalidValue: if it is not one, or has members that nobody here would obey
    """
    if len(data) > PROFILE_LIMIT:
        raise ArchiveTooLarge(f"seccomp profile {name} has {len(data)} bytes: at most {PROFILE_LIMIT} are accepted")
    try:
        profile = msgspec.json.decode(data, type=SeccompProfile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidValue(f"seccomp profile {name} is not valid: {error}") from error
    if profile.arch_map and profile.architectures:
        raise InvalidValue(f"seccomp profile {name} has both archMap and architectures: one of them decides")
    return profile


@functools.cache
def default_profile() -> SeccompProfile:
    """The profile that a container gets if nobody says otherwise."""
    with open(os.path.join(os.path.dirname(__file__), "seccomp_default.json"), "rb") as file:
        data = file.read()
    return decode_profile(data, "of pyengine")


def resolve(profile: SeccompProfile, *, capabilities: Collection[str], machine: str) -> Seccomp:
    """The filter for a container with ``capabilities`` (its bounding set) on ``machine`` (as uname -m has it).

    :raises UnsupportedField: for a condition that cannot be judged, or an errno that has no number
    """
    arch = _MACHINES[machine][0] if machine in _MACHINES else machine
    rules = []
    for number, rule in enumerate(profile.syscalls or ()):
        where = f"syscalls[{number}]"
        if rule.includes.min_kernel or rule.excludes.min_kernel:
            raise UnsupportedField(f"{where}.minKernel", "filters are not made for kernels but for what they have")
        if rule.includes.arches and arch not in rule.includes.arches:
            continue
        if rule.excludes.arches and arch in rule.excludes.arches:
            continue
        if not set(rule.includes.caps or ()) <= set(capabilities):
            continue
        if set(rule.excludes.caps or ()) & set(capabilities):
            continue
        number_returned = _errno(rule.errno_ret, rule.errno, where)
        if rule.action == _ERRNO and number_returned is None:
            number_returned = _DEFAULT_ERRNO
        rules.append(
            SeccompRule(
                names=rule.names or (rule.name,),
                action=rule.action,
                errno_ret=number_returned,
                args=rule.args or (),
            )
        )
    default_errno = _errno(profile.default_errno_ret, profile.default_errno, "default")
    if profile.default_action == _ERRNO and default_errno is None:
        default_errno = _DEFAULT_ERRNO
    return Seccomp(
        default_action=profile.default_action,
        default_errno_ret=default_errno,
        architectures=_architectures(profile, machine),
        flags=profile.flags or (),
        listener_path=profile.listener_path,
        listener_metadata=profile.listener_metadata,
        syscalls=tuple(rules),
    )


def _architectures(profile: SeccompProfile, machine: str) -> tuple[str, ...]:
    """The machine's own architecture first, then those of 32 bits that it also runs."""
    if profile.architectures is not None:
        return profile.architectures
    if machine not in _MACHINES:
        return ()
    native = _MACHINES[machine][1]
    for entry in profile.arch_map or ():
        if entry.architecture == native:
            return (native, *(entry.sub_architectures or ()))
    return (native,)


def _errno(number: int | None, name: str, where: str) -> int | None:
    """The error number; the name rules where a profile has both, as in containers-common."""
    if not name:
        return number
    if name.isdecimal():
        return int(name)
    value = getattr(errno, name, None)
    if not isinstance(value, int):
        raise UnsupportedField(f"{where}.errno", f"{name[:40]!r} is not an error of this kernel")
    return value
