"""The few system calls that Python lacks, for tests of the machine itself (they do not rely on pyengine)."""

from __future__ import annotations

import ctypes
import os
import signal
import struct

CLONE3, BPF, OPEN_TREE, MOUNT_SETATTR = 435, 321, 428, 442
CLONE_PIDFD, CLONE_INTO_CGROUP = 0x1000, 0x200000000
CLONE_NEWTIME, CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x80, 0x20000, 0x2000000, 0x4000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x8000000, 0x10000000, 0x20000000, 0x40000000
BPF_PROG_LOAD, BPF_PROG_ATTACH, BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE = 5, 8, 15, 6
MS_PRIVATE, MS_REC = 1 << 18, 1 << 14
AT_FDCWD, AT_EMPTY_PATH, OPEN_TREE_CLONE, MOUNT_ATTR_IDMAP = -100, 0x1000, 1, 0x100000
libc = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def clone_into(cgroup: int) -> tuple[int, int]:
    """clone3 with CLONE_INTO_CGROUP and CLONE_PIDFD: (0, -1) in the child, (pid, pidfd) in the parent."""
    pidfd = ctypes.c_int(-1)
    flags = CLONE_INTO_CGROUP | CLONE_PIDFD
    arguments = struct.pack("<11Q", flags, ctypes.addressof(pidfd), 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, cgroup)
    pid = check(libc.syscall(CLONE3, ctypes.create_string_buffer(arguments), len(arguments)))
    return pid, pidfd.value


def _bpf(command: int, attributes: bytes) -> int:
    return check(libc.syscall(BPF, command, ctypes.create_string_buffer(attributes, 144), 144))


def deny_devices(cgroup: int) -> None:
    """Attach a cgroup device program that refuses everything (r0 = 0; exit)."""
    instructions = ctypes.create_string_buffer(struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0))
    licence = ctypes.create_string_buffer(b"GPL")
    addresses = ctypes.addressof(instructions), ctypes.addressof(licence)
    program = _bpf(BPF_PROG_LOAD, struct.pack("<IIQQ", BPF_PROG_TYPE_CGROUP_DEVICE, 2, *addresses))
    try:
        _bpf(BPF_PROG_ATTACH, struct.pack("<IIII", cgroup, program, BPF_CGROUP_DEVICE, 0))
    finally:
        os.close(program)


def unshare(flags: int) -> None:
    check(libc.unshare(flags))


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    check(libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()))


def own_namespaces(flags: int) -> None:
    """Unshare; an ordinary user gets a user namespace too, in which they are root."""
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        unshare(flags)
    else:
        unshare(flags | CLONE_NEWUSER)
        for name, value in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(value)
    if flags & CLONE_NEWNS:
        mount("none", "/", "none", MS_PRIVATE | MS_REC)


def id_mapped(path: str, user_namespace: int) -> int:
    """A detached mount of a directory whose ids are those of the user namespace, as a descriptor."""
    tree = check(libc.syscall(OPEN_TREE, AT_FDCWD, path.encode(), OPEN_TREE_CLONE | os.O_CLOEXEC))
    attributes = ctypes.create_string_buffer(struct.pack("<QQQQ", MOUNT_ATTR_IDMAP, 0, 0, user_namespace), 32)
    check(libc.syscall(MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, attributes, 32))
    return tree
