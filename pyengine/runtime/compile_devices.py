"""Devices and links in /dev: those that every container has, and those of the spec."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from pyengine.errors import InvalidValue, UnsupportedField
from pyengine.oci import runtime as oci
from pyengine.runtime.compile_mounts import normal
from pyengine.runtime.plan import Bind, Device, Step, Symlink

DEFAULT_DEVICES = (
    oci.Device(path="/dev/null", type="c", major=1, minor=3),
    oci.Device(path="/dev/zero", type="c", major=1, minor=5),
    oci.Device(path="/dev/full", type="c", major=1, minor=7),
    oci.Device(path="/dev/random", type="c", major=1, minor=8),
    oci.Device(path="/dev/urandom", type="c", major=1, minor=9),
    oci.Device(path="/dev/tty", type="c", major=5, minor=0),
)
"""runtime-spec, config-linux.md: "Default Devices"."""

DEFAULT_LINKS = (
    ("pts/ptmx", "/dev/ptmx"),
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
)

_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def device_steps(spec: oci.RuntimeSpec, *, make: bool) -> Iterator[Step]:
    """Nodes and links. Without ``make`` the host's nodes are bound, which a user namespace allows.

    A /dev that is bound from elsewhere belongs to whoever made it: nothing is put there unless asked for.
    """
    mounted = {normal(mount.destination): mount for mount in spec.mounts}
    devices: dict[str, tuple[oci.Device, str]] = {}
    foreign = "/dev" in mounted and (
        mounted["/dev"].type in ("bind", "devtmpfs") or bool({"bind", "rbind"} & set(mounted["/dev"].options))
    )
    if not foreign:
        devices = {device.path: (device, "") for device in DEFAULT_DEVICES if device.path not in mounted}
    for number, device in enumerate(spec.linux.devices if spec.linux else ()):
        field = f"linux.devices[{number}]"
        if not device.path.startswith("/") or (path := normal(device.path)) == "/":
            raise InvalidValue(f"{field}.path: {device.path[:100]!r} is not a place below the root")
        devices[path] = (device, field)
    for path, (device, field) in devices.items():
        yield _make(device, path, field) if make else _bind(device, path, field)
    if not foreign:
        for target, path in DEFAULT_LINKS:
            if path not in mounted and path not in devices:
                yield Symlink(target, path)


def _make(device: oci.Device, path: str, field: str) -> Device:
    if device.type not in _TYPES:
        raise UnsupportedField(f"{field}.type", f"{device.type[:40]!r} is none of c, u, b and p")
    if not (0 <= device.major <= 0xFFF and 0 <= device.minor <= 0xFFFFF):
        raise InvalidValue(f"{field}: {device.major}:{device.minor} is not a device number")
    mode = 0o666 if device.file_mode is None else device.file_mode
    uid, gid = device.uid or 0, device.gid or 0
    if mode not in range(0o10000) and mode & ~0o7777 != _TYPES[device.type]:  # some write the type into it
        raise InvalidValue(f"{field}.fileMode: {mode:o} is not a mode")
    if not (0 <= uid < 1 << 31 and 0 <= gid < 1 << 31):
        raise InvalidValue(f"{field}: owner {uid}:{gid} is out of range")
    return Device(path, _TYPES[device.type] | stat.S_IMODE(mode), device.major, device.minor, uid, gid)


def _bind(device: oci.Device, path: str, field: str) -> Bind:
    if device.type not in ("c", "u", "b"):
        raise UnsupportedField(f"{field}.type", f"{device.type[:40]!r} cannot be bound from the host")
    # The spec names a number, and only the host's own node of that path can stand in for it.
    return Bind(path, path, False, 0, 0, 0, 0, 0, False, "")
