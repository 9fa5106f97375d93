"""The process of an OCI spec as steps: identity, rights, limits, command."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from pyengine.errors import InvalidValue, UnsupportedField
from pyengine.linux import capabilities as caps
from pyengine.linux import rlimits
from pyengine.oci import runtime as oci
from pyengine.runtime.plan import (
    AS_LOOKED_UP,
    Capabilities,
    Chdir,
    Exec,
    LookupUser,
    NoNewPrivileges,
    OomScore,
    Rlimit,
    Seccomp,
    Step,
    User,
)

DEFAULT_UMASK = 0o022
_LARGEST_ID = (1 << 31) - 1  # CVE-2024-40635: what is above has wrapped to 0 elsewhere

_FILTER_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,  # there is one thread
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
}


@dataclass(frozen=True)
class UserRequest:
    """A user to be looked up in the container, in place of the numbers of a spec.

    ``user``: ``name|uid[:group|gid]``, empty for root. ``passwd``: a file of the host where a passwd file with the
    missing line of a numeric user may be made, empty for none. ``workdir``: the home directory in that line.
    """

    user: str
    groups: tuple[str, ...] = ()
    passwd: str = ""
    workdir: str = "/"


def refuse_unsupported(process: oci.Process) -> None:
    """Raise `UnsupportedField` for what no step can do."""
    for value, field, reason in (
        (process.apparmor_profile, "apparmorProfile", "pyengine does not do AppArmor"),
        (process.selinux_label, "selinuxLabel", "pyengine does not do SELinux"),
        (process.scheduler, "scheduler", "no step sets a scheduling policy"),
        (process.io_priority, "ioPriority", "no step sets an i/o priority"),
        (process.exec_cpu_affinity, "execCPUAffinity", "no step sets a processor affinity"),
        (process.user.username, "user.username", "only Windows has it"),
    ):
        if value:
            raise UnsupportedField(f"process.{field}", reason)


def lookup_step(user: UserRequest | None) -> Iterator[Step]:
    """The look-up; it comes before the host's files are out of reach."""
    if user is not None:
        yield LookupUser(user=user.user, groups=user.groups, passwd=user.passwd, workdir=user.workdir)


def user_step(user: oci.User, looked_up: bool) -> User:
    """Whom the process becomes."""
    umask = DEFAULT_UMASK if user.umask is None else user.umask
    if not 0 <= umask <= 0o777:
        raise InvalidValue(f"process.user.umask: {umask} is not from 0 to 0777")
    if looked_up:
        return User(uid=AS_LOOKED_UP, gid=AS_LOOKED_UP, groups=(), umask=umask)
    for id in (user.uid, user.gid, *user.additional_gids):
        if not 0 <= id <= _LARGEST_ID:
            raise InvalidValue(f"process.user: id {id} is not from 0 to {_LARGEST_ID}")
    return User(uid=user.uid, gid=user.gid, groups=user.additional_gids, umask=umask)


def limit_steps(process: oci.Process) -> Iterator[Step]:
    """rlimits and the OOM score: while the process may still raise them."""
    seen = set()
    for number, limit in enumerate(process.rlimits):
        field = f"process.rlimits[{number}]"
        if limit.type not in rlimits.NUMBERS:
            raise UnsupportedField(f"{field}.type", f"{limit.type[:40]!r} is not a limit of this kernel")
        if limit.type in seen:
            raise InvalidValue(f"{field}: {limit.type} is there twice")
        seen.add(limit.type)
        if not 0 <= limit.soft <= limit.hard <= rlimits.INFINITY:
            raise InvalidValue(f"{field}: expected 0 <= soft <= hard < 2**64, got {limit.soft} and {limit.hard}")
        yield Rlimit(rlimits.NUMBERS[limit.type], _signed(limit.soft), _signed(limit.hard), limit.type)
    if process.oom_score_adj is not None:
        if not -1000 <= process.oom_score_adj <= 1000:
            raise InvalidValue(f"process.oomScoreAdj: {process.oom_score_adj} is not from -1000 to 1000")
        yield OomScore(process.oom_score_adj)


def _signed(limit: int) -> int:
    return -1 if limit >= 1 << 63 else limit


@lru_cache(maxsize=256)
def capability_mask(names: tuple[str, ...], field: str, last: int) -> int:
    """The bits of ``names``. ``last``: the highest capability that the kernel knows."""
    for name in names:
        if caps.NUMBERS.get(name, 64) > last:
            raise UnsupportedField(f"process.capabilities.{field}", f"{name[:40]!r} is not a capability of this kernel")
    return caps.mask(names)


def capabilities_step(capabilities: oci.Capabilities | None, last: int) -> Capabilities:
    """A spec without capabilities means none at all."""
    sets = capabilities or oci.Capabilities()
    masks = {
        field: capability_mask(getattr(sets, field), field, last)
        for field in ("bounding", "effective", "permitted", "inheritable", "ambient")
    }
    if masks["effective"] & ~masks["permitted"]:
        raise InvalidValue("process.capabilities.effective: holds what permitted does not")
    # The kernel holds nothing ambient that is not permitted and inheritable. Documents that say otherwise are common
    # (`runc spec` writes one), and mean what the kernel makes of them.
    masks["ambient"] &= masks["permitted"] & masks["inheritable"]
    return Capabilities(**masks)


def seccomp_step(seccomp: oci.Seccomp, filter: bytes) -> Seccomp:
    """``filter`` is the compiled form of ``seccomp``."""
    if seccomp.listener_path or seccomp.listener_metadata:
        raise UnsupportedField("linux.seccomp.listenerPath", "pyengine does not hand filters to other programs")
    flags = 0
    for flag in seccomp.flags:
        if flag not in _FILTER_FLAGS:
            raise UnsupportedField("linux.seccomp.flags", f"{flag[:60]!r} is not supported")
        flags |= _FILTER_FLAGS[flag]
    if not filter:
        raise InvalidValue("the spec has a system call filter, and its compiled form is missing")
    return Seccomp(filter, flags)


def identity_steps(
    process: oci.Process, seccomp: Step | None, *, looked_up: bool, last_capability: int
) -> Iterator[Step]:
    """From the last step that needs all rights to the first that has only those of the container.

    The directory comes first: as in other engines, root may enter what the user cannot, such as a private WORKDIR.
    A filter may be loaded by who has CAP_SYS_ADMIN or has given up new privileges. Without the latter it therefore
    has to come before capabilities are dropped, at the price that the filter must let through what drops them. With it
    the filter comes last, and need not.
    """
    yield Chdir(process.cwd)
    yield user_step(process.user, looked_up)
    if seccomp is not None and not process.no_new_privileges:
        yield seccomp
    yield capabilities_step(process.capabilities, last_capability)
    if process.no_new_privileges:
        yield NoNewPrivileges()
        if seccomp is not None:
            yield seccomp


def exec_step(process: oci.Process, keep: int) -> Exec:
    """The command itself."""
    if not process.args:
        raise InvalidValue("process.args: there is nothing to execute")
    if not process.args[0]:
        raise InvalidValue("process.args: the command is an empty word")
    if not process.cwd.startswith("/"):
        raise InvalidValue(f"process.cwd: {process.cwd[:100]!r} is not absolute")
    for item in process.env:
        if "=" not in item[1:]:
            raise InvalidValue(f"process.env: {item[:100]!r}: expected NAME=VALUE")
    return Exec(process.args, process.env, keep)
