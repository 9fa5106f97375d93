"""Namespaces: their kinds, and which ones a process is in (namespaces(7))."""

from __future__ import annotations

import enum
import os
from typing import Final

from pyengine.errors import InvalidValue, KernelError
from pyengine.linux import calls
from pyengine.linux.fd import Fd

_WHOLE: Final = (0, 0, (1 << 32) - 1)


class Namespace(enum.Enum):
    """A kind of namespace; the value is the name of its file in /proc/PID/ns."""

    USER = "user"
    MOUNT = "mnt"
    PID = "pid"
    NETWORK = "net"
    IPC = "ipc"
    UTS = "uts"
    CGROUP = "cgroup"
    TIME = "time"

    @property
    def flag(self) -> int:
        """Its ``CLONE_NEW…``."""
        return _FLAGS[self]

    @property
    def oci(self) -> str:
        """Its name in an OCI runtime spec."""
        return {"mnt": "mount", "net": "network"}.get(self.value, self.value)

    @classmethod
    def from_oci(cls, name: str) -> Namespace:
        """The kind that an OCI runtime spec calls ``name``."""
        for kind in cls:
            if kind.oci == name:
                return kind
        raise InvalidValue(f"not a kind of namespace: {name!r}: {', '.join(kind.oci for kind in cls)} are")


_FLAGS: Final = {
    Namespace.TIME: 0x00000080,
    Namespace.MOUNT: 0x00020000,
    Namespace.CGROUP: 0x02000000,
    Namespace.UTS: 0x04000000,
    Namespace.IPC: 0x08000000,
    Namespace.USER: 0x10000000,
    Namespace.PID: 0x20000000,
    Namespace.NETWORK: 0x40000000,
}


def open_namespace(pid: int | str, kind: Namespace) -> Fd:
    """A descriptor of the namespace of ``kind`` that process ``pid`` (or ``self``) is in; it keeps it alive."""
    return calls.open(f"/proc/{pid}/ns/{kind.value}", os.O_RDONLY)


def inode(pid: int | str, kind: Namespace) -> int:
    """The inode number that identifies the namespace, as ``readlink /proc/PID/ns/…`` shows it."""
    path = f"/proc/{pid}/ns/{kind.value}"
    return calls.run("stat", path, os.stat, path).st_ino


def inodes(pid: int | str = "self") -> dict[Namespace, int]:
    """All namespaces of a process; kinds that the kernel lacks are left out."""
    found = {}
    for kind in Namespace:
        try:
            found[kind] = inode(pid, kind)
        except KernelError:
            if not os.path.exists(f"/proc/{pid}/ns"):
                raise
            if os.path.exists(f"/proc/self/ns/{kind.value}"):
                raise  # not a kernel without it: a process that we may not look at
    return found


def is_same(first: Fd | int, second: Fd | int) -> bool:
    """Whether two descriptors are of the same namespace."""
    stats = [os.fstat(fd if isinstance(fd, int) else fd.fileno()) for fd in (first, second)]
    return (stats[0].st_dev, stats[0].st_ino) == (stats[1].st_dev, stats[1].st_ino)


def is_namespace(fd: Fd | int, kind: Namespace) -> bool:
    """Whether the descriptor is of a namespace of ``kind``: a path from a user may be any file. (``NS_GET_NSTYPE``)"""
    import fcntl

    try:
        return fcntl.ioctl(fd if isinstance(fd, int) else fd.fileno(), 0xB703) == kind.flag
    except OSError:  # ENOTTY: another kind of file
        return False


def in_user_namespace(pid: int | str = "self") -> bool:
    """Whether the process is in a user namespace other than the first, as its uid map tells."""
    path = f"/proc/{pid}/uid_map"
    with calls.open(path, os.O_RDONLY) as fd:
        content = calls.run("read", path, os.read, fd.fileno(), 65536)
    fields = tuple(map(int, content.split()))
    return fields != _WHOLE


def new_network_namespace(user_namespace: Fd | int | None = None) -> Fd:
    """A new network namespace with its loopback up, owned by ``user_namespace`` or else the caller's. It lives as long
    as the descriptor, or a mount of it, or a process in it."""
    joined = () if user_namespace is None else (user_namespace,)
    return calls.new_namespace(Namespace.NETWORK.flag, Namespace.NETWORK.value, joined)
