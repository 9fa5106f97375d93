"""Paths below a root file system that somebody else controls: the only functions that touch one.

Every name is resolved by ``openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)``: symbolic links and ``..`` stay below the
root whatever the content of the file system is and however it changes meanwhile. What cannot be done through a path
(make, remove, rename) is done on the last name in a directory that was resolved to a descriptor.

``root`` is a descriptor of the root directory (``O_PATH`` suffices). Paths may begin with ``/``.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack

from pyengine.errors import InvalidValue, KernelError
from pyengine.linux import calls
from pyengine.linux.calls import Path
from pyengine.linux.fd import Fd

_RESOLVE = calls.RESOLVE_IN_ROOT | calls.RESOLVE_NO_MAGICLINKS
_ATTEMPTS = 128  # openat2 says EAGAIN when a rename anywhere raced a ".."


def open_root(path: Path) -> Fd:
    """A descriptor of a root directory, by its path on the host."""
    return calls.open(path, os.O_PATH | os.O_DIRECTORY)


def open_in_root(root: Fd | int, path: Path, flags: int, mode: int = 0o600, *, resolve: int = 0) -> Fd:
    """Opens ``path`` below ``root``. ``resolve`` adds further ``RESOLVE_`` restrictions."""
    for attempt in range(_ATTEMPTS):
        try:
            return calls.openat2(root, path or ".", flags, mode, resolve=_RESOLVE | resolve)
        except KernelError as error:
            if error.errno != errno.EAGAIN or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def split(path: Path) -> list[bytes]:
    """The components of a path, without empty ones and ``.``. ``InvalidValue`` for a NUL byte."""
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise InvalidValue(f"a path cannot hold a NUL byte: {path!r}")
    return [name for name in encoded.split(b"/") if name not in (b"", b".")]


def parent_in_root(root: Fd | int, path: Path) -> tuple[Fd, bytes]:
    """The directory that holds ``path``, resolved, and the last name: for what works on a name (mkdirat, symlinkat,
    unlinkat, renameat). The last name is not resolved. ``InvalidValue`` if the path has none (``/``, ``a/..``)."""
    names = split(path)
    if not names or names[-1] == b"..":
        raise InvalidValue(f"the path does not end in a name: {calls.show(path)!r}")
    return open_in_root(root, b"/".join(names[:-1]), os.O_PATH | os.O_DIRECTORY), names[-1]


def stat_in_root(root: Fd | int, path: Path, *, follow: bool = True) -> os.stat_result | None:
    """``stat`` of ``path`` below ``root``, or None when it does not exist."""
    try:
        with open_in_root(root, path, os.O_PATH | (0 if follow else os.O_NOFOLLOW)) as fd:
            return os.fstat(fd.fileno())
    except KernelError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise


def open_file_in_root(root: Fd | int, path: Path) -> Fd:
    """Opens a regular file for reading. A fifo does not block (``O_NONBLOCK``), a device is not opened (its type is
    looked at first): both, and all else, are ``KernelError`` with ``EINVAL``."""
    # Opening a device can have effects by itself (a tape rewinds), so the type is taken from an O_PATH descriptor,
    # and that is what is opened then: through its own link in /proc, no name is resolved twice.
    with open_in_root(root, path, os.O_PATH) as found:
        _check_regular(found, path)
        link = f"/proc/self/fd/{found.fileno()}"
        return Fd(calls.run("open", path, os.open, link, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))


def _check_regular(fd: Fd, path: Path) -> None:
    mode = os.fstat(fd.fileno()).st_mode
    if not stat.S_ISREG(mode):
        calls.fail(errno.EINVAL, "read", calls.show(path), remedy="it is not a regular file")


def read_in_root(root: Fd | int, path: Path, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes; ``KernelError`` with ``EFBIG`` if it has more,
    ``EINVAL`` if it is a fifo, a device or a directory, ``ENOENT`` if it does not exist."""
    with open_file_in_root(root, path) as fd:
        parts: list[bytes] = []
        left = limit + 1
        while True:
            part = calls.run("read", path, os.read, fd.fileno(), min(left, 1 << 20))
            if not part:
                return b"".join(parts)
            parts.append(part)
            left -= len(part)
            if left <= 0:
                calls.fail(errno.EFBIG, "read", calls.show(path), remedy=f"at most {limit} bytes are read")


def readlink_in_root(root: Fd | int, path: Path) -> bytes:
    """The target of a symbolic link below ``root``; ``KernelError`` with ``EINVAL`` if it is none."""
    with open_in_root(root, path, os.O_PATH | os.O_NOFOLLOW) as fd:
        if not stat.S_ISLNK(os.fstat(fd.fileno()).st_mode):
            calls.fail(errno.EINVAL, "readlink", calls.show(path), remedy="it is not a symbolic link")
        return calls.run("readlink", path, os.readlink, b"", dir_fd=fd.fileno())


def list_in_root(root: Fd | int, path: Path) -> list[str]:
    """The names in a directory below ``root``."""
    with open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY) as fd:
        return calls.run("list", path, os.listdir, fd.fileno())


def make_directories_in_root(
    root: Fd | int, path: Path, mode: int = 0o755, *, uid: int | None = None, gid: int | None = None
) -> Fd:
    """Makes ``path`` and its missing parents below ``root`` and returns its descriptor (``O_PATH``). Those that are
    made get exactly ``mode``, and ``uid`` and ``gid`` if given; those that exist stay as they are. A symbolic link on
    the way is followed below the root; one that leads nowhere is ``KernelError`` with ``EEXIST``."""
    flags = os.O_PATH | os.O_DIRECTORY
    current = calls.open(".", flags, directory=root)
    done: list[bytes] = []
    try:
        for name in split(path):
            done.append(name)
            prefix = b"/".join(done)
            try:
                following = open_in_root(root, prefix, flags)
            except KernelError as error:
                if error.errno != errno.ENOENT:
                    raise
                following = _make_directory(current, name, prefix, mode, uid, gid)
            current.close()
            current = following
    except BaseException:
        current.close()
        raise
    return current


def _make_directory(parent: Fd, name: bytes, path: bytes, mode: int, uid: int | None, gid: int | None) -> Fd:
    try:
        calls.run("mkdir", path, os.mkdir, name, 0o700, dir_fd=parent.fileno())
        made = True
    except KernelError as error:
        if error.errno != errno.EEXIST:
            raise
        made = False  # another maker was faster, or it is a symbolic link that leads nowhere
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        fd = calls.open(name, flags if made else os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, directory=parent)
    except KernelError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            calls.fail(errno.EEXIST, "mkdir", calls.show(path), remedy="a symbolic link to nowhere is in the way")
        raise
    with ExitStack() as failed:
        failed.callback(fd.close)
        if made:
            if uid is not None or gid is not None:
                owner = (-1 if uid is None else uid, -1 if gid is None else gid)
                calls.run("chown", path, os.fchown, fd.fileno(), *owner)
            calls.run("chmod", path, os.fchmod, fd.fileno(), mode)  # not by mkdir: the umask is the host program's
        failed.pop_all()
    return fd


def write_in_root(
    root: Fd | int, path: Path, data: bytes, mode: int = 0o644, *, uid: int | None = None, gid: int | None = None
) -> None:
    """Makes ``path`` a new regular file with ``data`` and exactly ``mode``, atomically. What had the name before, a
    symbolic link too, is replaced and never written through. The directory must exist."""
    parent, name = parent_in_root(root, path)
    with parent:
        temporary = b".%s.%s" % (name[:200], os.urandom(6).hex().encode())
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with calls.open(temporary, flags, 0o600, directory=parent) as fd, ExitStack() as failed:
            failed.callback(calls.run, "unlink", temporary, os.unlink, temporary, dir_fd=parent.fileno())
            view = memoryview(data)
            while view:
                view = view[calls.run("write", path, os.write, fd.fileno(), view) :]
            if uid is not None or gid is not None:
                owner = (-1 if uid is None else uid, -1 if gid is None else gid)
                calls.run("chown", path, os.fchown, fd.fileno(), *owner)
            calls.run("chmod", path, os.fchmod, fd.fileno(), mode)
            calls.renameat2(parent, temporary, parent, name)
            failed.pop_all()
