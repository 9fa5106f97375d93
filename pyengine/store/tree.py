"""Directories below a root that is filled from an untrusted list of names.

Symbolic links are resolved here, as a process whose root directory this is would see them: what the kernel does
for ``openat2(RESOLVE_IN_ROOT)``, one component at a time, because missing directories are made on the way and
because most names of an archive share the few directories that are kept open.
"""

from __future__ import annotations

import os
import stat
from collections import OrderedDict

from pyengine.errors import ArchiveError, UnsafeEntry

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT_OPEN = 96
_LINKS_FOLLOWED = 40  # the kernel's own limit


def printable(name: bytes) -> str:
    """A name from an archive for a message: quoted, without control characters, not longer than a line."""
    text = ascii(name[:160].decode(errors="surrogateescape"))
    return text if len(name) <= 160 else text + "…"


class Tree:
    """A cache of open directories below ``root``, whose descriptor stays the caller's.

    Paths are bytes relative to the root; a *real* path has no symbolic link in it.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._open: OrderedDict[bytes, int] = OrderedDict()
        self._real: dict[bytes, bytes] = {b"": b""}

    def close(self) -> None:
        """Close the descriptors that are kept."""
        while self._open:
            os.close(self._open.popitem()[1])

    def parent(self, directory: bytes, *, make: bool = True) -> tuple[int, bytes]:
        """A descriptor and the real path of a directory that an archive names, made if it is missing.

        The descriptor is the tree's, and valid until the next call but one.
        """
        if not directory:
            return self._root, b""
        real = self._real.get(directory)
        if real is not None:
            fd = self._open.get(real)
            if fd is not None:
                self._open.move_to_end(real)
                return fd, real
        else:
            real = self._resolve(directory, make)
            self._real[directory] = real
            if not real:
                return self._root, b""
            fd = self._open.get(real)
            if fd is not None:
                return fd, real
        if not real:
            return self._root, b""
        fd = self.open_directory(real)
        self._keep(real, fd)
        return fd, real

    def directory(self, real: bytes) -> int:
        """A descriptor, as :meth:`parent` gives it, of the directory with this real path."""
        self._real[real] = real
        return self.parent(real)[0]

    def _keep(self, real: bytes, fd: int) -> None:
        self._open[real] = fd
        if len(self._open) > _KEPT_OPEN:
            os.close(self._open.popitem(last=False)[1])

    def open_directory(self, real: bytes) -> int:
        """A new descriptor of the directory with this real path; following a link is impossible."""
        fd = os.dup(self._root) if not real else -1
        if not real:
            return fd
        start, rest = self._root, real
        cut = real.rfind(b"/")
        while cut > 0:
            known = self._open.get(real[:cut])
            if known is not None:
                start, rest = known, real[cut + 1 :]
                break
            cut = real.rfind(b"/", 0, cut)
        current = -1
        try:
            for part in rest.split(b"/"):
                following = os.open(part, _OPEN, dir_fd=start)
                if current >= 0:
                    os.close(current)
                current = start = following
        except BaseException:
            if current >= 0:
                os.close(current)
            raise
        return current

    def make_directory(self, parent: int, base: bytes) -> bool:
        """Make a directory, or find it there; False if something else has the name."""
        try:
            os.mkdir(base, 0o700, dir_fd=parent)
        except FileExistsError:
            return self.is_directory(parent, base)
        return True

    @staticmethod
    def is_directory(parent: int, base: bytes) -> bool:
        """Whether ``base`` itself, not what it may point to, is a directory."""
        return stat.S_ISDIR(os.stat(base, dir_fd=parent, follow_symlinks=False).st_mode)

    def remove(self, parent: int, base: bytes, path: bytes) -> bool:
        """Remove a file, or a directory with all that is in it. True if it was a directory."""
        try:
            os.unlink(base, dir_fd=parent)
        except IsADirectoryError:
            pass
        else:
            self._real = {b"": b""}  # a link may have gone that other names led through
            return False
        below = path + b"/"
        for real in [known for known in self._open if known == path or known.startswith(below)]:
            os.close(self._open.pop(real))
        self._real = {b"": b""}
        import shutil

        shutil.rmtree(os.fsdecode(base), dir_fd=parent)
        return True

    def _resolve(self, directory: bytes, make: bool) -> bytes:
        """The real path of ``directory``; missing directories are made with mode 0755."""
        todo = directory.split(b"/")[::-1]
        done: list[bytes] = []
        links = 0
        while todo:
            part = todo.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":  # only links bring these here; the root is its own parent
                if done:
                    done.pop()
                continue
            here = b"/".join(done)
            fd = self._open.get(here) if here else self._root
            temporary = fd is None
            if fd is None:
                fd = self.open_directory(here)
            try:
                mode = self._kind(fd, part, make)
                if stat.S_ISDIR(mode):
                    done.append(part)
                elif stat.S_ISLNK(mode):
                    links += 1
                    if links > _LINKS_FOLLOWED:
                        raise ArchiveError(f"directory {printable(directory)} leads through too many symbolic links")
                    target = os.readlink(part, dir_fd=fd)
                    if target.startswith(b"/"):
                        done.clear()
                    todo.extend(target.split(b"/")[::-1])
                else:
                    raise UnsafeEntry(f"directory {printable(directory)} leads through {printable(part)}, a file")
            finally:
                if temporary:
                    os.close(fd)
        return b"/".join(done)

    @staticmethod
    def _kind(fd: int, part: bytes, make: bool) -> int:
        try:
            return os.stat(part, dir_fd=fd, follow_symlinks=False).st_mode
        except FileNotFoundError:
            if not make:
                raise
        os.mkdir(part, 0o755, dir_fd=fd)
        # The process's umask is not ours to change.
        os.chmod(part, 0o755, dir_fd=fd)
        return stat.S_IFDIR | 0o755
