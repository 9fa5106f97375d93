"""Files that options name, read whole and within bounds or written so that none is overwritten; and stdin."""

from __future__ import annotations

import errno
import io
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pyengine.errors import InvalidValue, KernelError
from pyengine.typing import override

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_SIZE = 16 << 20
"""Bytes: nobody writes more variables or labels than this into a file."""


def read_lines_of(path: str, what: str) -> str:
    """The text of an environment or label file; ``what`` names it in errors."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise KernelError(error.errno or 0, f"open {what} {path}") from None
    if len(data) > MAX_SIZE:
        raise InvalidValue(f"{what} {path}: larger than {MAX_SIZE >> 20} MiB")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidValue(f"{what} {path}: not UTF-8 at byte {error.start}") from None


@contextmanager
def id_file(path: str) -> Iterator[_IdFile]:
    """A file that will hold a container's ID. It is made at once, so that two commands cannot write the same one; it is
    deleted again if the block fails before the ID is in it. Raises `InvalidValue` if it is there already."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise InvalidValue(
            f"container ID file {path} exists: remove it, once you know that its container is not needed"
        ) from None
    except OSError as error:
        raise KernelError(error.errno or 0, f"create container ID file {path}") from None
    file = _IdFile(fd)
    try:
        yield file
    except BaseException:
        if not file.written:
            os.unlink(path)
        raise
    finally:
        os.close(fd)


class _IdFile:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.written = False

    def write(self, id: str) -> None:
        os.write(self._fd, id.encode())
        self.written = True


def write_pid_file(path: str, pid: int) -> None:
    """The process ID in decimal, in place of what the file held."""
    try:
        with open(path, "w") as file:
            file.write(f"{pid}\n")
    except OSError as error:
        raise KernelError(error.errno or 0, f"write PID file {path}") from None


class Input(io.RawIOBase):
    """A descriptor to read from, by any thread, until `cancel`.

    An archive may be read by a thread while the main thread gets the Ctrl-C. A read of a pipe that has a pause would
    keep that thread, and so the whole command, until somebody writes.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    @override
    def fileno(self) -> int:
        return self._fd

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: WriteableBuffer, /) -> int:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        if any(fd == self._woken for fd, _ in poll.poll()):
            raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
        return os.readv(self._fd, [buffer])

    def cancel(self) -> None:
        """Every read from now on, and one that is waiting, fails with ECANCELED."""
        if not self.closed:
            os.write(self._wake, b"x")

    @override
    def close(self) -> None:
        """The descriptor itself stays open: it is the process's."""
        if not self.closed:
            os.close(self._woken)
            os.close(self._wake)
        super().close()
