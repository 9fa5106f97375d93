"""The mounts of a container: defaults, what is asked for on top, and what a user namespace does not allow.

Source of the defaults: containers.md §7, with these differences: /dev/shm is a tmpfs of the container's own, since
mounts live in the container, also where it joins the IPC namespace of another one, whose queues, semaphores and
segments it then has, but not its /dev/shm; the cgroup namespace is private, so /sys/fs/cgroup shows one group only;
what is mounted on a bound directory of the host is read-only with it.
"""

from __future__ import annotations

from pyengine.engine.request import ContainerRequest
from pyengine.engine.request_mounts import BindMount, MountRequest, TmpfsMount, normal
from pyengine.engine.values import IdRange, maps
from pyengine.oci.runtime import Mount

_TTY_GROUP = 5
_KERNEL = ("nosuid", "noexec", "nodev")
_WRITABLE_WHEN_READ_ONLY = {
    "/run": ("noexec", "size=65536k"),
    "/tmp": ("exec",),
    "/var/tmp": ("exec",),
}

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/fs/selinux",
)
READONLY_PATHS = (
    "/proc/asound",
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)


def make_mounts(
    request: ContainerRequest,
    gid_map: tuple[IdRange, ...],
    *,
    user_namespace: bool,
    mqueue: bool = False,
    devices: tuple[Mount, ...] = (),
) -> tuple[Mount, ...]:
    """All mounts in the order in which they are done: what lies below comes later.

    ``user_namespace``: the container lives in one that is not the host's; ``gid_map`` is that one's. ``mqueue``:
    the host has a /dev/mqueue. ``devices``: those of the host that are bound.
    """
    mounts = [*_defaults(request, gid_map, user_namespace=user_namespace, mqueue=mqueue), *devices]
    asked = {normal(mount.target): user_mount(mount) for mount in request.mounts}
    if request.read_only and request.read_only_tmpfs:
        for target, options in _WRITABLE_WHEN_READ_ONLY.items():
            mounts.append(_mount(target, "tmpfs", "tmpfs", "rw", "rprivate", "nosuid", "nodev", "tmpcopyup", *options))
    if "/dev" in asked:
        mounts = [mount for mount in mounts if not mount.destination.startswith("/dev/")]
    mounts = [mount for mount in mounts if mount.destination not in asked]
    # Stable: defaults keep their order; a mount never covers one that was asked for below it.
    return tuple(sorted((*mounts, *asked.values()), key=lambda mount: len(_parts(mount.destination))))


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _mount(destination: str, kind: str, source: str, *options: str) -> Mount:
    return Mount(destination=destination, type=kind, source=source, options=options)


def _defaults(
    request: ContainerRequest, gid_map: tuple[IdRange, ...], *, user_namespace: bool, mqueue: bool
) -> list[Mount]:
    ro = () if request.privileged else ("ro",)
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    if maps(gid_map, _TTY_GROUP):  # else the kernel refuses the option, or it would mean another group
        pts.append(f"gid={_TTY_GROUP}")
    mounts = [
        _mount("/proc", "proc", "proc", *_KERNEL),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", *pts),
        _mount("/dev/mqueue", "mqueue", "mqueue", *_KERNEL),
        _mount("/sys", "sysfs", "sysfs", *_KERNEL, *ro),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", "rprivate", *_KERNEL, "relatime", *ro),
    ]
    if request.ipc.mode == "host":
        mounts.append(_mount("/dev/shm", "bind", "/dev/shm", "rw", "rprivate", "bind", *_KERNEL))
    elif request.ipc.mode != "none":
        size = f"size={request.shm_size}"
        mounts.append(_mount("/dev/shm", "tmpfs", "shm", *_KERNEL, "mode=1777", size))
    if not user_namespace:
        return mounts
    # A kernel file system can only be mounted by the owner of the namespace that it shows: what shows the host's
    # has to be the host's own mount. What another container has is mounted, or fails: the host's is not asked for.
    foreign = {
        "/proc": request.pid.mode == "host",
        "/dev/mqueue": request.ipc.mode == "host",
        "/sys": request.net.mode == "host",
        "/sys/fs/cgroup": request.cgroup.mode == "host",
    }
    if foreign["/dev/mqueue"] and not mqueue:
        mounts = [mount for mount in mounts if mount.destination != "/dev/mqueue"]
    return [_host_mount(mount) if foreign.get(mount.destination) else mount for mount in mounts]


def _host_mount(mount: Mount) -> Mount:
    options = tuple(option for option in mount.options if option not in ("rprivate", "relatime"))
    return _mount(mount.destination, "bind", mount.destination, "rbind", "rslave", *options)


def user_mount(mount: MountRequest) -> Mount:
    """A mount that was asked for, with the defaults that podman adds."""
    target = normal(mount.target)
    access = "ro" if mount.ro else "rw"
    if isinstance(mount, BindMount):
        switches = (
            name if value else name.removeprefix("no")
            for name, value in (("noexec", mount.noexec), ("nosuid", mount.nosuid), ("nodev", mount.nodev))
            if value is not None
        )
        bind = "rbind" if mount.recursive else "bind"
        # A bind that is read-only only at its top would leave what is mounted below it writable.
        rro = ("rro",) if mount.ro and mount.recursive else ()
        return _mount(target, "bind", mount.source, access, *rro, mount.propagation, *switches, bind)
    return _mount(target, "tmpfs", "tmpfs", access, "rprivate", *_tmpfs_options(mount))


def _tmpfs_options(mount: TmpfsMount) -> list[str]:
    switches = (("noexec", mount.noexec), ("nosuid", mount.nosuid), ("nodev", mount.nodev))
    options = [name if value else name.removeprefix("no") for name, value in switches]
    if mount.copy_up:
        options.append("tmpcopyup")
    if mount.size or mount.size_text:
        options.append(f"size={mount.size_text or mount.size}")
    if mount.mode is not None:
        options.append(f"mode={mount.mode:o}")
    for name, value in (("uid", mount.uid), ("gid", mount.gid), ("nr_inodes", mount.inodes or None)):
        if value is not None:
            options.append(f"{name}={value}")
    return options
