"""Turns what one layer adds (its directory, or a container's upper one) into the tar of an OCI layer.

It is the reverse of :mod:`pyengine.store.unpack`: overlayfs's marks of removed files become OCI's whiteouts. Names
are in byte order, so that equal directories give equal archives. The files belong to a container that may be running:
nothing is opened but plain files and directories, and never through a link.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from pyengine.errors import ArchiveError, KernelError
from pyengine.store import tar
from pyengine.store.tar_write import END, header, new_entry, padding
from pyengine.store.tree import printable
from pyengine.store.unpack import OPAQUE, WHITEOUT

_CHUNK = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OVERLAY = (b"trusted.overlay.", b"user.overlay.")
_REDIRECTS = ("redirect", "metacopy")


def pack(root: int) -> Iterator[bytes]:
    """The tar of the directory that ``root`` is a descriptor of, in chunks.

    Sockets are left out, since no archive can hold them.

    :raises ArchiveError: while iterating, if the directory needs its lower layers to be understood
    :raises KernelError: a file cannot be read
    """
    yield from _Packer().directory(root, b"")
    yield END


class _Packer:
    def __init__(self) -> None:
        self._links: dict[tuple[int, int], bytes] = {}

    def directory(self, fd: int, path: bytes) -> Iterator[bytes]:
        """The members for what is in a directory; ``path`` ends in a slash unless it is the root."""
        if _is_opaque(fd):
            yield header(new_entry(path + OPAQUE, tar.REGULAR, mode=0o600))
        for name in sorted(os.fsencode(name) for name in os.listdir(fd)):
            try:
                yield from self._member(fd, name, path + name)
            except FileNotFoundError:
                continue  # removed by the container meanwhile
            except OSError as error:
                if isinstance(error, KernelError):
                    raise
                raise KernelError(error.errno or errno.EIO, f"read {printable(path + name)}") from error

    def _member(self, parent: int, name: bytes, path: bytes) -> Iterator[bytes]:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        mode = status.st_mode
        if stat.S_ISCHR(mode) and status.st_rdev == 0:
            whiteout = path[: len(path) - len(name)] + WHITEOUT + name
            yield header(new_entry(whiteout, tar.REGULAR, mode=0o600))
            return
        if stat.S_ISSOCK(mode):
            return
        if name.startswith(WHITEOUT):
            raise ArchiveError(f"{printable(path)} cannot be in a layer: names with that prefix mark removed files")
        entry = new_entry(path, tar.REGULAR, mode=mode, uid=status.st_uid, gid=status.st_gid)
        entry.mtime_ns = status.st_mtime_ns
        if stat.S_ISDIR(mode):
            entry.type, entry.name = tar.DIRECTORY, path + b"/"
            fd = os.open(name, _DIRECTORY, dir_fd=parent)
            try:
                entry.xattrs = _xattrs(fd, path)
                yield header(entry)
                yield from self.directory(fd, path + b"/")
            finally:
                os.close(fd)
            return
        if status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                entry.type, entry.link = tar.HARD_LINK, first
                yield header(entry)
                return
        if stat.S_ISREG(mode):
            yield from self._file(parent, name, entry)
            return
        if stat.S_ISLNK(mode):
            entry.type, entry.link = tar.SYMLINK, os.readlink(name, dir_fd=parent)
        elif stat.S_ISFIFO(mode):
            entry.type = tar.FIFO
        else:
            entry.type = tar.CHARACTER_DEVICE if stat.S_ISCHR(mode) else tar.BLOCK_DEVICE
            entry.major, entry.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
        entry.xattrs = _xattrs(b"/proc/self/fd/%d/%s" % (parent, name), path)
        yield header(entry)

    @staticmethod
    def _file(parent: int, name: bytes, entry: tar.Entry) -> Iterator[bytes]:
        fd = os.open(name, _FILE, dir_fd=parent)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return  # swapped for something else meanwhile
            entry.xattrs = _xattrs(fd, entry.name)
            entry.size = entry.stored = status.st_size
            yield header(entry)
            remaining = status.st_size
            while remaining:
                data = os.read(fd, min(_CHUNK, remaining))
                if not data:  # it became shorter after its header was written
                    data = bytes(min(_CHUNK, remaining))
                remaining -= len(data)
                yield data
            yield padding(status.st_size)
        finally:
            os.close(fd)


def _is_opaque(fd: int) -> bool:
    for name in _OVERLAY:
        try:
            if os.getxattr(fd, name + b"opaque") == b"y":
                return True
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
                raise
    return False


def _xattrs(file: int | bytes, path: bytes) -> dict[bytes, bytes] | None:
    follow = isinstance(file, int)
    try:
        names = os.listxattr(file) if follow else os.listxattr(file, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return None
        raise
    found = {}
    for text in names:
        name = os.fsencode(text)
        if name.startswith(_OVERLAY):
            if text.rpartition(".")[2] in _REDIRECTS:
                raise ArchiveError(f"{printable(path)} has {text}: its content is in lower layers")
            continue
        if name.startswith((b"user.", b"security.capability", b"trusted.", b"system.posix_acl_")):
            found[name] = os.getxattr(file, name) if follow else os.getxattr(file, name, follow_symlinks=False)
    return found or None
