"""Every system call of the engine: the one place where a kernel's refusal becomes a ``KernelError``.

A call is logged at DEBUG level under ``pyengine.linux.calls`` with what came of it. What glibc and Python lack is in
``pyengine._syscalls`` (native/syscalls). Descriptors that a call makes are close-on-exec and come back as ``Fd``.

Functions take paths as str or bytes, and directories as ``Fd``, int or ``AT_FDCWD``. All raise ``KernelError``.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

from pyengine._syscalls import ffi, lib
from pyengine.errors import KernelError
from pyengine.linux.fd import Fd, number

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
Path = str | bytes

AT_FDCWD: Final = -100
AT_EMPTY_PATH: Final = 0x1000
AT_RECURSIVE: Final = 0x8000
AT_SYMLINK_NOFOLLOW: Final = 0x100

RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10

RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2

OPEN_TREE_CLONE: Final = 1

MOVE_MOUNT_F_SYMLINKS: Final = 0x01
MOVE_MOUNT_F_EMPTY_PATH: Final = 0x04
MOVE_MOUNT_T_SYMLINKS: Final = 0x10
MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40

FSCONFIG_SET_FLAG: Final = 0
FSCONFIG_SET_STRING: Final = 1
FSCONFIG_SET_BINARY: Final = 2
FSCONFIG_SET_PATH: Final = 3
FSCONFIG_SET_PATH_EMPTY: Final = 4
FSCONFIG_SET_FD: Final = 5
FSCONFIG_CMD_CREATE: Final = 6
FSCONFIG_CMD_RECONFIGURE: Final = 7

MNT_FORCE: Final = 1
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8

# errno values that mislead: what they mean here, by the first word of the call.
_REMEDIES: Final = {
    ("openat2", errno.ELOOP): "the path leads through a magic link of /proc, or through too many symbolic links",
    ("mount", errno.ENOSPC): "too many mounts in this mount namespace: see /proc/sys/fs/mount-max",
    ("move_mount", errno.ENOSPC): "too many mounts in this mount namespace: see /proc/sys/fs/mount-max",
    ("open_tree", errno.ENOSPC): "too many mounts in this mount namespace: see /proc/sys/fs/mount-max",
    ("mkdir", errno.ENOSPC): "no space, no inodes, or for a cgroup: cgroup.max.descendants is reached",
    ("new namespace", errno.ENOSPC): "too many namespaces: see /proc/sys/user/max_*_namespaces",
    ("new namespace", errno.EPERM): "making this namespace needs CAP_SYS_ADMIN in the user namespace",
    ("mount_setattr", errno.EINVAL): "the file system or this kernel may not support what was asked of the mount",
    ("load bpf program", errno.EPERM): "this needs CAP_BPF or CAP_SYS_ADMIN on the host, and on kernels before 5.11 "
    "a higher RLIMIT_MEMLOCK",
    ("spawn", errno.EAGAIN): "too many processes: see ulimit -u and pids.max of the cgroup",
}


def show(path: Path) -> str:
    """A path as it is shown in errors and logs."""
    return path if isinstance(path, str) else os.fsdecode(path)


def fail(error: int, verb: str, what: str, *, remedy: str = "") -> NoReturn:
    """Raises the ``KernelError`` of a call. ``verb`` is the call, ``what`` its objects."""
    if not remedy:
        remedy = _REMEDIES.get((verb, error), "")
        if not remedy and error == errno.ENOSYS:
            remedy = "this kernel is too old, or a seccomp filter around this program hides the call"
    if log.isEnabledFor(logging.DEBUG):
        log.debug("%s %s: %s", verb, what, errno.errorcode.get(error, error))
    raise KernelError(error, f"{verb} {what}", remedy=remedy)


def _done(result: int, verb: str, what: str) -> int:
    """The result of a native call, or its error raised."""
    if result < 0:
        fail(-result, verb, what)
    if log.isEnabledFor(logging.DEBUG):
        log.debug("%s %s = %d", verb, what, result)
    return result


def run(verb: str, what: Path, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Calls a function of ``os`` (or alike) and turns its ``OSError`` into ``KernelError`` of ``verb what``.

    >>> run("mkdir", path, os.mkdir, path, 0o755)
    """
    try:
        result = function(*args, **kwargs)
    except OSError as error:
        if isinstance(error, KernelError) or error.errno is None:
            raise
        caught = error.errno
    else:
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s %s = %r", verb, show(what), result)
        return result
    fail(caught, verb, show(what))


def encode(path: Path) -> bytes:
    """A path as the kernel wants it; ``KernelError`` ``EINVAL`` for one with a NUL byte."""
    encoded = path if isinstance(path, bytes) else os.fsencode(path)
    if b"\0" in encoded:
        fail(errno.EINVAL, "resolve", repr(path), remedy="a path cannot hold a NUL byte")
    return encoded


def _at(directory: Fd | int) -> int:
    return directory if isinstance(directory, int) else directory.fileno()


# Files


def open(path: Path, flags: int, mode: int = 0o600, *, directory: Fd | int | None = None) -> Fd:
    """``openat``, close-on-exec. Never for a path below a container's root: that is ``linux.paths``."""
    at = None if directory is None else number(directory)
    return Fd(run("open", path, os.open, path, flags | os.O_CLOEXEC, mode, dir_fd=at))


def openat2(directory: Fd | int, path: Path, flags: int, mode: int = 0, *, resolve: int = 0) -> Fd:
    """``openat2``: ``mode`` counts only with ``O_CREAT`` or ``O_TMPFILE``, ``resolve`` are ``RESOLVE_`` flags."""
    if not flags & (os.O_CREAT | os.O_TMPFILE & ~os.O_DIRECTORY):
        mode = 0  # the kernel refuses a mode that would not be used
    result = lib.pe_openat2(_at(directory), encode(path), flags | os.O_CLOEXEC, mode, resolve)
    return Fd(_done(result, "openat2", show(path)))


def renameat2(old_directory: Fd | int, old: Path, new_directory: Fd | int, new: Path, flags: int = 0) -> None:
    """``renameat2`` with ``RENAME_NOREPLACE`` or ``RENAME_EXCHANGE``."""
    result = lib.pe_renameat2(_at(old_directory), encode(old), _at(new_directory), encode(new), flags)
    _done(result, "rename", f"{show(old)} to {show(new)}")


def close_range(first: int, last: int, flags: int = 0) -> None:
    """``close_range``. For programs that pyengine itself starts, never in a host program."""
    _done(lib.pe_close_range(first, last, flags), "close_range", f"{first} to {last}")


def sealed_memfd(name: str, data: bytes | bytearray | memoryview) -> Fd:
    """A memory file with ``data``, positioned at its start, that nobody can change any more."""
    import fcntl

    with Fd(run("memfd_create", name, os.memfd_create, name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)) as fd:
        view = memoryview(data)
        while view:
            view = view[run("write", name, os.write, fd.fileno(), view) :]
        run("lseek", name, os.lseek, fd.fileno(), 0, os.SEEK_SET)
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        run("seal", name, fcntl.fcntl, fd.fileno(), fcntl.F_ADD_SEALS, seals)
        return Fd(fd.take())


# Processes


def pidfd_open(pid: int, flags: int = 0) -> Fd:
    """``pidfd_open``. ``linux.process`` has the form that knows whether the number was reused."""
    return Fd(_done(lib.pe_pidfd_open(pid, flags), "pidfd_open", str(pid)))


def pidfd_send_signal(pidfd: Fd | int, signal: int) -> None:
    """Sends ``signal`` to the process behind ``pidfd``; ``ESRCH`` when it is gone."""
    _done(lib.pe_pidfd_send_signal(_at(pidfd), signal, 0), "send signal", f"{signal} to a process")


def pidfd_getfd(pidfd: Fd | int, target: int) -> Fd:
    """A copy of descriptor ``target`` of the process behind ``pidfd``."""
    return Fd(_done(lib.pe_pidfd_getfd(_at(pidfd), target), "pidfd_getfd", str(target)))


def waitid(idtype: int, id: int, options: int = os.WEXITED) -> tuple[int, int, int] | None:
    """``waitid`` that sees children of every kind (``__WALL``): (pid, ``CLD_`` code, status), or None when ``WNOHANG``
    was given and nothing has ended. ``idtype`` is ``os.P_PID`` or ``os.P_PIDFD``."""
    code, status = ffi.new("int *"), ffi.new("int *")
    pid = _done(lib.pe_waitid(idtype, id, options, code, status), "waitid", str(id))
    return (pid, int(code[0]), int(status[0])) if pid else None


# Mounts


def open_tree(path: Path, flags: int = 0, *, directory: Fd | int = AT_FDCWD) -> Fd:
    """``open_tree``: with ``OPEN_TREE_CLONE`` (and ``AT_RECURSIVE``) a detached copy of the mount at ``path``."""
    return Fd(_done(lib.pe_open_tree(_at(directory), encode(path), flags), "open_tree", show(path)))


def move_mount(tree: Fd | int, path: Path, *, directory: Fd | int = AT_FDCWD, flags: int = 0) -> None:
    """Attaches the detached mount ``tree`` at ``path`` (empty: at ``directory`` itself)."""
    flags |= MOVE_MOUNT_F_EMPTY_PATH | (0 if path else MOVE_MOUNT_T_EMPTY_PATH)
    result = lib.pe_move_mount(_at(tree), b"", _at(directory), encode(path), flags)
    _done(result, "move_mount", f"to {show(path) or 'a directory'}")


def mount_setattr(
    tree: Fd | int,
    path: Path = "",
    *,
    set: int = 0,
    clear: int = 0,
    propagation: int = 0,
    user_namespace: Fd | int | None = None,
    recursive: bool = False,
) -> None:
    """``mount_setattr`` on the mount ``tree`` or ``path`` below it. ``set`` and ``clear`` are ``MOUNT_ATTR_`` bits."""
    flags = (AT_RECURSIVE if recursive else 0) | (0 if path else AT_EMPTY_PATH)
    namespace = -1 if user_namespace is None else _at(user_namespace)
    result = lib.pe_mount_setattr(_at(tree), encode(path), flags, set, clear, propagation, namespace)
    _done(result, "mount_setattr", f"of {show(path) or 'a mount'}, set {set:#x}, clear {clear:#x}")


def fsopen(type: str) -> Fd:
    """``fsopen``: a context in which a file system of ``type`` is configured."""
    return Fd(_done(lib.pe_fsopen(encode(type), 0), "fsopen", type))


def fsconfig(context: Fd | int, command: int, key: str | None, value: Path | None = None, auxiliary: int = 0) -> None:
    """``fsconfig``. ``key`` and ``value`` as ``command`` (``FSCONFIG_``) wants them. On failure the kernel's own words
    from the context's log are part of the error."""
    encoded_key = ffi.NULL if key is None else ffi.from_buffer(encode(key) + b"\0")
    encoded_value = ffi.NULL if value is None else ffi.from_buffer(encode(value) + b"\0")
    result = lib.pe_fsconfig(_at(context), command, encoded_key, encoded_value, auxiliary)
    if result < 0:
        said = _context_log(_at(context))
        fail(-result, "fsconfig", f"{key or command}={show(value) if value is not None else ''}", remedy=said)
    _done(result, "fsconfig", key or str(command))


def _context_log(context: int) -> str:
    """What the kernel wrote about the last failure of a file system context (fs_context's message log)."""
    said: list[str] = []
    while len(said) < 8:
        try:
            said.append(os.read(context, 1024).decode(errors="replace").strip()[2:])
        except OSError:  # ENODATA: the log is at its end
            break
    return "; ".join(said)


def fsmount(context: Fd | int, attributes: int = 0) -> Fd:
    """``fsmount``: the configured file system as a detached mount with ``MOUNT_ATTR_`` ``attributes``."""
    return Fd(_done(lib.pe_fsmount(_at(context), 0, attributes), "fsmount", "a file system"))


def mount(source: Path | None, target: Path, type: str | None, flags: int = 0, data: Path | None = None) -> None:
    """``mount``, for programs that pyengine starts in namespaces of their own and for tests."""
    strings: list[Any] = [
        ffi.NULL if text is None else ffi.from_buffer(encode(text) + b"\0") for text in (source, type, data)
    ]
    result = lib.pe_mount(strings[0], encode(target), strings[1], flags, strings[2])
    _done(result, "mount", f"{show(source) if source else type or 'nothing'} on {show(target)}")


def umount(target: Path, flags: int = MNT_DETACH | UMOUNT_NOFOLLOW) -> None:
    """``umount2``, detached and without following a symbolic link unless told otherwise."""
    _done(lib.pe_umount2(encode(target), flags), "umount", show(target))


# Other namespaces: done by a process that lives only inside the call (native/syscalls/child.c)


def _namespaces(namespaces: Sequence[Fd | int]) -> tuple[Any, int]:
    return ffi.new("int[]", [_at(fd) for fd in namespaces] or [0]), len(namespaces)


def open_inside(namespaces: Sequence[Fd | int], path: Path, flags: int, mode: int = 0o600) -> Fd:
    """Opens ``path`` as it is inside ``namespaces`` (descriptors of /proc/PID/ns files or pidfds are joined in the
    order given; a user namespace comes first). The caller stays where it is."""
    result = lib.pe_open_inside(*_namespaces(namespaces), encode(path), flags, mode)
    return Fd(_done(result, "open in another namespace", show(path)))


def open_tree_inside(namespaces: Sequence[Fd | int], path: Path, flags: int = OPEN_TREE_CLONE | AT_RECURSIVE) -> Fd:
    """``open_tree`` inside other namespaces: a detached copy of a mount that this namespace does not have."""
    result = lib.pe_open_tree_inside(*_namespaces(namespaces), encode(path), flags)
    return Fd(_done(result, "open_tree in another namespace", show(path)))


def move_mount_inside(namespaces: Sequence[Fd | int], tree: Fd | int, path: Path) -> None:
    """Attaches the detached mount ``tree`` at ``path`` inside other namespaces."""
    result = lib.pe_move_mount_inside(*_namespaces(namespaces), _at(tree), encode(path))
    _done(result, "move_mount in another namespace", f"to {show(path)}")


def socket_inside(namespaces: Sequence[Fd | int], family: int, type: int, protocol: int = 0) -> Fd:
    """``socket`` inside other namespaces: it keeps belonging to that network namespace."""
    result = lib.pe_socket_inside(*_namespaces(namespaces), family, type, protocol)
    return Fd(_done(result, "socket in another namespace", f"family {family} protocol {protocol}"))


def new_namespace(flag: int, name: str, namespaces: Sequence[Fd | int] = ()) -> Fd:
    """A new namespace (``flag`` is its ``CLONE_NEW…``, ``name`` its file in /proc/self/ns), owned by the user namespace
    that is joined first, if any. It lives as long as the descriptor. A network namespace has its loopback up."""
    result = lib.pe_new_namespace_inside(*_namespaces(namespaces), flag, encode(name))
    return Fd(_done(result, "new namespace", name))
