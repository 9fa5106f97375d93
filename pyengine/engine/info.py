"""What this machine gives to containers, where the store is and what it holds, and the versions of all parts.

The kernel's own texts are parsed by pure functions. Nothing is made: a rootless engine's user namespace is described
by what /etc/subuid would give when it is not there yet.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pyengine import __version__
from pyengine.errors import ContainerNotFound

if TYPE_CHECKING:
    from pyengine.engine.engine import Engine
    from pyengine.linux.idmap import IdMap
    from pyengine.linux.mountinfo import MountPoint

INTERFACE = "io.podman 1.6.1"
_STATES = ("configured", "created", "running", "paused", "stopped", "exited")
# Go's names of machines, which container images use
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def version() -> dict[str, str]:
    """Versions of pyengine, of the interface it speaks, of Python and the kernel, and the platform. Needs no store."""
    machine = os.uname()
    return {
        "Version": __version__,
        "Interface": INTERFACE,
        "Python": platform.python_version(),
        "Kernel": machine.release,
        "OsArch": f"linux/{architecture(machine.machine)}",
    }


def info(engine: Engine) -> dict[str, Any]:
    """Host, store and versions, as JSON has them. Sizes are in bytes."""
    return {"host": _host(engine), "store": _store(engine), "version": version()}


def _host(engine: Engine) -> dict[str, Any]:
    machine = os.uname()
    memory = parse_meminfo(_read("/proc/meminfo"))
    return {
        "os": "linux",
        "distribution": parse_os_release(_read("/etc/os-release", "/usr/lib/os-release")),
        "kernel": machine.release,
        "arch": architecture(machine.machine),
        "hostname": machine.nodename,
        "cpus": os.cpu_count() or 1,
        "mem_total": memory.get("MemTotal", 0),
        "mem_free": memory.get("MemFree", 0),
        "swap_total": memory.get("SwapTotal", 0),
        "swap_free": memory.get("SwapFree", 0),
        "uptime": describe_uptime(float(_read("/proc/uptime").split()[0])),
        "rootless": engine.rootless,
        "cgroups": _cgroups(engine),
        "security": {
            "seccomp": _seccomp(),
            "apparmor": "not used",
            "selinux": "not used",
            "missing_capabilities": _missing_capabilities(),
        },
        "id_mappings": _id_mappings(engine),
    }


def _store(engine: Engine) -> dict[str, Any]:
    from pyengine.linux import mountinfo

    states = dict.fromkeys(_STATES, 0)
    for container in engine.containers.list(all=True):
        try:
            states[container.status] += 1
        except ContainerNotFound:
            continue  # removed meanwhile
    return {
        "root": engine.root,
        "run_root": engine.run_root,
        "driver": "overlay",
        "backing_file_system": file_system_of(os.path.realpath(engine.root), mountinfo.read()),
        "containers": {"total": sum(states.values()), **states},
        "images": len(engine.store.images.all()),
        "layers": len(engine.store.layers.all()),
    }


def _cgroups(engine: Engine) -> dict[str, Any]:
    """Where containers get their groups, or why they get none."""
    if not engine.cgroups.available:
        return {"version": 2, "available": False, "reason": str(engine.cgroups.refuse("make a cgroup"))}
    group = engine.cgroups.group("x")
    assert group is not None
    return {
        "version": 2,
        "available": True,
        "path": os.path.dirname(group.path),
        "controllers": engine.cgroups.controllers(),
    }


def _id_mappings(engine: Engine) -> dict[str, Any]:
    """The ids that containers have by default."""
    if not engine.rootless:
        return {"uids": _own_map("uid"), "gids": _own_map("gid"), "single_id": False}
    from pyengine.linux import userns
    from pyengine.linux.idmap import rootless_maps

    namespace = userns.find(engine.run_root)
    if namespace is not None:
        return _mappings(namespace.uid_map, namespace.gid_map, single_id=namespace.single_id)
    maps = rootless_maps(os.geteuid(), os.getegid())
    return _mappings(maps.uids, maps.gids, single_id=maps.single_id)


def _mappings(uids: Iterable[IdMap], gids: Iterable[IdMap], *, single_id: bool) -> dict[str, Any]:
    return {"uids": _ranges(uids), "gids": _ranges(gids), "single_id": single_id}


def _own_map(kind: str) -> list[dict[str, int]]:
    from pyengine.linux.idmap import parse_proc_map

    return _ranges(parse_proc_map(_read(f"/proc/self/{kind}_map")))


def _ranges(maps: Iterable[IdMap]) -> list[dict[str, int]]:
    return [{"container_id": item.container, "host_id": item.host, "size": item.size} for item in maps]


def _missing_capabilities() -> list[str]:
    """Those that the kernel has and this process cannot pass on: no container gets them."""
    from pyengine.linux import capabilities

    bounding = capabilities.CapabilitySets.parse_status(_read("/proc/self/status")).bounding
    return list(capabilities.names(~bounding & ((1 << capabilities.last_cap() + 1) - 1)))


def _seccomp() -> bool:
    return os.path.exists("/proc/sys/kernel/seccomp/actions_avail")


def _read(*paths: str) -> str:
    """The content of the first of the files that is there; nothing if none is."""
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read(1 << 20)
        except FileNotFoundError:
            continue
    return ""


def architecture(machine: str) -> str:
    """Go's name of a machine that ``uname -m`` names."""
    return _MACHINES.get(machine, machine)


def parse_meminfo(text: str) -> dict[str, int]:
    """/proc/meminfo in bytes (proc(5): what it calls kB are 1024 bytes). Lines of another form are left out."""
    found = {}
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB" and words[0].isascii() and words[0].isdecimal():
            found[key] = int(words[0]) * 1024
    return found


def parse_os_release(text: str) -> dict[str, str]:
    """``ID`` and ``VERSION_ID`` of os-release(5), ``unknown`` where they are missing."""
    found = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and key in ("ID", "VERSION_ID"):
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
            found[key] = value[1:-1] if quoted else value
    return {"distribution": found.get("ID") or "unknown", "version": found.get("VERSION_ID") or "unknown"}


def describe_uptime(seconds: float) -> str:
    """``5h 3m 2.1s (Approximately 0.21 days)``, the form of podman's info."""
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    text = f"{rest:.2f}".rstrip("0").rstrip(".") + "s"
    if hours or minutes:
        text = f"{minutes:.0f}m {text}"
    if hours:
        text = f"{hours:.0f}h {text} (Approximately {hours / 24:.2f} days)"
    return text


def file_system_of(path: str, mounts: Sequence[MountPoint]) -> str:
    """The type of the file system that a real path is on: that of the last mount at or above it."""
    found = ""
    longest = -1
    for mount in mounts:
        above = mount.target.rstrip("/")
        if (path == above or path.startswith(f"{above}/")) and len(above) >= longest:
            found, longest = mount.type, len(above)
    return found or "unknown"
