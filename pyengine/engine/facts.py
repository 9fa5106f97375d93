"""The machine and the caller, found out once an engine and as far as a request needs it."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pyengine.engine.spec_facts import ALL_IDS, EnvironmentFacts, HostDevice
from pyengine.engine.values import IdRange
from pyengine.errors import InvalidValue

if TYPE_CHECKING:
    from pyengine.engine.request import ContainerRequest
    from pyengine.linux.idmap import IdMap
    from pyengine.oci.seccomp import SeccompProfile

_PROFILE_LIMIT = 4 << 20
_RLIMITS = {
    name[len("RLIMIT_") :].lower(): getattr(resource, name)
    for name in dir(resource)
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
}


def ranges(maps: Sequence[IdMap]) -> tuple[IdRange, ...]:
    """The id maps of a user namespace, as the spec's maker wants them."""
    return tuple(IdRange(item.container, item.host, item.size) for item in maps)


def gather(
    *, rootless: bool, uid_map: tuple[IdRange, ...] = ALL_IDS, gid_map: tuple[IdRange, ...] = ALL_IDS
) -> EnvironmentFacts:
    """What does not depend on a request."""
    from pyengine.linux import capabilities

    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        sets = capabilities.CapabilitySets.parse_status(file.read())
    machine = os.uname()
    limits = {}
    for name, number in _RLIMITS.items():
        limits[name] = resource.getrlimit(number)
    with open("/proc/sys/fs/nr_open", encoding="ascii") as file:
        max_files = int(file.read())
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:
        oom_score_adj = int(file.read())
    # In a user namespace of its own a container has what the kernel knows; on the host, what this process may pass on.
    granted = (1 << (capabilities.last_cap() + 1)) - 1 if rootless else sets.bounding
    return EnvironmentFacts(
        capabilities=capabilities.names(granted),
        rootless=rootless,
        mqueue=os.path.ismount("/dev/mqueue"),
        rlimits=limits,
        raise_limits=not rootless and "CAP_SYS_RESOURCE" in capabilities.names(sets.effective),
        max_files=max_files,
        oom_score_adj=oom_score_adj,
        uid_map=uid_map,
        gid_map=gid_map,
        uid=os.geteuid(),
        gid=os.getegid(),
        hostname=machine.nodename,
        machine=machine.machine,
    )


def for_request(facts: EnvironmentFacts, request: ContainerRequest) -> EnvironmentFacts:
    """The same with what this request names: its devices and its seccomp profile."""
    from dataclasses import replace

    if request.devices:
        facts = replace(facts, devices={device.source: tuple(_devices(device.source)) for device in request.devices})
    if request.privileged:
        facts = replace(facts, host_devices=tuple(_devices("/dev")))
    limits = request.resources
    throttled = {limit.path for limit in limits.device_limits()}
    if throttled:
        facts = replace(facts, block_devices={path: _block_device(path) for path in throttled})
    if request.seccomp not in ("", "unconfined"):
        facts = replace(facts, seccomp_profile=_profile(request.seccomp))
    return facts


def _devices(path: str) -> Iterable[HostDevice]:
    """The device nodes at or below a path of the host; mounts below /dev (pts, shm) are not devices of it."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode):
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_symlink():
                    continue
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode) and found.st_dev == status.st_dev:
                    yield from _devices(entry.path)
                elif stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
                    yield _device(entry.path, found)
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        yield _device(path, status)


def _device(path: str, status: os.stat_result) -> HostDevice:
    return HostDevice(
        path=path,
        type="c" if stat.S_ISCHR(status.st_mode) else "b",
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
    )


def _block_device(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise InvalidValue(f"device {path}: {error.strerror}") from error
    if not stat.S_ISBLK(status.st_mode):
        raise InvalidValue(f"device {path}: not a block device, so its input and output cannot be limited")
    return os.major(status.st_rdev), os.minor(status.st_rdev)


def _profile(path: str) -> SeccompProfile:
    from pyengine.oci.seccomp import decode_profile

    try:
        with open(path, "rb") as file:
            content = file.read(_PROFILE_LIMIT + 1)
    except OSError as error:
        raise InvalidValue(f"seccomp profile {path}: {error.strerror}") from error
    if len(content) > _PROFILE_LIMIT:
        raise InvalidValue(f"seccomp profile {path}: larger than {_PROFILE_LIMIT} bytes")
    return decode_profile(content, path)
