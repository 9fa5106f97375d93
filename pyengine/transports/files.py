"""The members of an archive, or the files of a directory, by name: what image formats are made of.

An archive is indexed once and then read in any order. It has to be a plain tar in a file for that: anything else
(compressed, a pipe) is first written to a work directory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from pyengine.errors import ArchiveError, ArchiveTooLarge, KernelError, UnsafeEntry
from pyengine.store import tar
from pyengine.store.limits import DEFAULT_LIMITS, Limits
from pyengine.store.pipeline import CHUNK, Kept, keep, sniff
from pyengine.store.tree import printable
from pyengine.store.unpack import clean
from pyengine.store.work import WorkDirectory
from pyengine.typing import override

_LINKS_FOLLOWED = 10


class Files(Protocol):
    """Read-only files by name; names have no leading slash."""

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""

    def size(self, name: str) -> int:
        """Its bytes; :class:`ArchiveError` if it is missing."""

    def chunks(self, name: str) -> Generator[bytes, None, None]:
        """Its content; :class:`ArchiveError` if it is missing or ends early."""

    def close(self) -> None:
        """Close what is open. Calling it again does nothing."""


def read(files: Files, name: str, limit: int) -> bytes:
    """A small file whole; :class:`ArchiveTooLarge` if it has more than ``limit`` bytes."""
    size = files.size(name)
    if size > limit:
        raise ArchiveTooLarge(f"{name[:200]} has {size} bytes: at most {limit} are accepted")
    return b"".join(files.chunks(name))


@dataclass(frozen=True, slots=True)
class _Member:
    offset: int
    size: int
    link: bytes | None


class _FileStream(tar.Stream):
    """A tar in a file, where passing over a member costs nothing."""

    __slots__ = ("_fd", "_size")

    def __init__(self, fd: int) -> None:
        super().__init__(())
        self._fd = fd
        self._size = os.fstat(fd).st_size

    @override
    def take(self, count: int) -> bytes:
        data = os.pread(self._fd, count, self.consumed)
        self.consumed += len(data)
        return data

    @override
    def pieces(self, count: int, *, whole: bool = True) -> Iterator[bytes | memoryview]:
        data = self.take(count)
        if whole and len(data) < count:
            raise ArchiveError("tar archive is truncated: it ends inside of a file")
        yield data

    @override
    def skip(self, count: int) -> None:
        if self.consumed + count > self._size:
            raise ArchiveError("tar archive is truncated: it ends inside of a file")
        self.consumed += count


class ArchiveFiles:
    """The members of a tar archive. ``source`` is a path or an open file, read from where it stands."""

    def __init__(
        self, source: str | os.PathLike[str] | BinaryIO, work: WorkDirectory, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self._members: dict[bytes, _Member] = {}
        self._fd = _open_plain(source, work, limits)
        try:
            self._index(limits)
        except BaseException:
            self.close()
            raise

    def _index(self, limits: Limits) -> None:
        stream = _FileStream(self._fd)
        for entry in tar.entries(stream, limits):
            name = clean(entry.name)
            if entry.type == tar.DIRECTORY or not name:
                continue
            if name in self._members:
                raise ArchiveError(f"archive has the member {printable(name)} twice: which one counts is not defined")
            if entry.type == tar.REGULAR and entry.sparse is None:
                self._members[name] = _Member(stream.consumed, entry.size, None)
            elif entry.type == tar.SYMLINK:
                self._members[name] = _Member(0, 0, b"/".join((*name.split(b"/")[:-1], entry.link)))
            elif entry.type == tar.HARD_LINK:
                self._members[name] = _Member(0, 0, entry.link)
            else:
                raise ArchiveError(f"archive has the member {printable(name)}, which is not a plain file")

    def _find(self, name: str) -> _Member:
        wanted = clean(os.fsencode(name))
        for _ in range(_LINKS_FOLLOWED):
            member = self._members.get(wanted)
            if member is None:
                raise ArchiveError(f"archive has no member {printable(wanted)}, which it needs")
            if member.link is None:
                return member
            wanted = _resolved(member.link)
        raise ArchiveError(f"archive member {name[:200]!r} leads through too many links")

    def has(self, name: str) -> bool:
        """Whether there is a member of this name."""
        return os.fsencode(name) in self._members

    def size(self, name: str) -> int:
        """Its bytes."""
        return self._find(name).size

    def chunks(self, name: str) -> Generator[bytes, None, None]:
        """Its content."""
        member = self._find(name)
        position, end = member.offset, member.offset + member.size
        while position < end:
            data = os.pread(self._fd, min(CHUNK, end - position), position)
            if not data:
                raise ArchiveError(f"archive is truncated: it ends inside of {name[:200]!r}")
            position += len(data)
            yield data

    def close(self) -> None:
        """Close the file. Calling it again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _resolved(path: bytes) -> bytes:
    """The target of a link inside the archive: an old docker-archive has ``<id>/layer.tar -> ../<id>/layer.tar``."""
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            if not parts:
                raise UnsafeEntry(f"archive has a link to {printable(path)}, outside of the archive")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def _open_plain(source: str | os.PathLike[str] | BinaryIO, work: WorkDirectory, limits: Limits) -> int:
    """A descriptor of a plain tar that can be read at any place."""
    if isinstance(source, (str, os.PathLike)):
        try:
            fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise KernelError(error.errno or 0, f"open {os.fspath(source)}", path=os.fspath(source)) from error
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode) and not sniff(iter([os.pread(fd, 16, 0)]))[0]:
                return fd
            with os.fdopen(os.dup(fd), "rb", buffering=0) as file:
                return _spooled(_reads(file), work, limits)
        except BaseException:
            os.close(fd)
            raise
    return _spooled(_reads(source), work, limits)


def _reads(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def _spooled(chunks: Iterator[bytes], work: WorkDirectory, limits: Limits) -> int:
    from pyengine.store.compression import decompress

    taken = 0

    def counted() -> Iterator[bytes]:
        nonlocal taken
        for chunk in chunks:
            taken += len(chunk)
            yield chunk

    compression, whole = sniff(counted())
    kept = Kept(work.new_path("archive"))
    for _ in keep(decompress(whole, compression), kept, None):
        limits.check_stream(taken, kept.size)
    fd = os.open(kept.path, os.O_RDONLY | os.O_CLOEXEC)
    os.unlink(kept.path)
    return fd


class DirectoryFiles:
    """The files of a directory, without following links and without waiting for pipes that pose as files."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)

    def _open(self, name: str) -> int:
        path = os.path.join(self.path, os.fsdecode(clean(os.fsencode(name))))
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ArchiveError(f"{self.path} has no file {name[:200]!r}, which it needs") from None
        except OSError as error:
            raise KernelError(error.errno or 0, f"open {path}", path=path) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise ArchiveError(f"{path} is not a plain file")
        return fd

    def has(self, name: str) -> bool:
        """Whether there is a plain file of this name."""
        path = os.path.join(self.path, name)
        return os.path.isfile(path) and not os.path.islink(path)

    def size(self, name: str) -> int:
        """Its bytes."""
        fd = self._open(name)
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def chunks(self, name: str) -> Generator[bytes, None, None]:
        """Its content."""
        with os.fdopen(self._open(name), "rb", buffering=0) as file:
            yield from _reads(file)

    def close(self) -> None:
        """Nothing is kept open."""
