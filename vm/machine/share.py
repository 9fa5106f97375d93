"""The host's root as the guest gets it: read-only, without /proc, /sys, /dev and /run."""

from __future__ import annotations

import os
import re
import shlex

# file systems that hold files to share; the rest is the kernel's own or another machine's
SHARED_TYPES = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs"}
SHARED_TYPES |= {"overlay", "erofs", "squashfs", "virtiofs", "9p", "fuseblk"}
LEFT_OUT = ("/proc", "/sys", "/dev", "/run", "/var/lib/docker", "/var/lib/containers", "/var/lib/pyengine")


def _below(path: str, parent: str) -> bool:
    return path == parent or path.startswith(parent.rstrip("/") + "/")


def mounts_to_share(mounts: str, directory: str) -> list[str]:
    """The mount points of a /proc/self/mounts to bind below the shared root, outermost first.

    The mount that holds ``directory`` is among them whatever its type (a checkout in a tmpfs).
    """
    points: dict[str, str] = {}
    for line in mounts.splitlines():
        _, point, kind, *_ = line.split(" ")
        points[re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point)] = kind
    holding = max((point for point in points if _below(directory, point)), key=len, default="/")
    shared = {
        point
        for point, kind in points.items()
        if kind in SHARED_TYPES and not any(_below(point, parent) for parent in LEFT_OUT)
    }
    return sorted((shared | {holding}) - {"/"})


def private_root(target: str, directory: str) -> tuple[list[str], str]:
    """Words to put before a command so that it finds the root to share at a path, and that path.

    It is made in a mount namespace of the command's own, so the host's mount table stays as it is. An ordinary
    user cannot make one and shares / as it is.
    """
    if os.geteuid() != 0:
        return [], "/"
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
        points = mounts_to_share(file.read(), directory)
    lines = ["set -e"]
    for point in ["/", *points]:
        place = shlex.quote(target + point.rstrip("/"))
        bind = f"mount --bind {shlex.quote(point)} {place}; mount -o remount,bind,ro {place}"
        lines.append(bind if point == "/" else f"if [ -d {place} ] && [ -d {shlex.quote(point)} ]; then {bind}; fi")
    lines.append('exec "$@"')
    script = "\n".join(lines)
    # a process namespace too: User Mode Linux has helpers that outlive it when it is killed
    words = ["unshare", "--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return [*words, "sh", "-c", script, "sh"], target
