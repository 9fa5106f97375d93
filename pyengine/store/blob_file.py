"""Writing large files past the page cache.

A blob is written once and rarely read soon. Through the page cache it would cost a copy, a page of memory for each of
its pages (dear on a virtual machine that gives free memory back to its host), and all of it would still have to go to
the disk at the end. Written directly (``O_DIRECT``), it is on the disk while the layer is still being unpacked. File
systems that cannot do that get ordinary writes, whose write-back is started early.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os

from pyengine.errors import KernelError
from pyengine.store.durable import start_write_back

_BUFFER = 2 << 20
_ALIGNMENT = 4096
_SMALL = 256 << 10


class BlobFile:
    """A new file at ``path`` with mode 0644 once it is finished. A context manager that closes it.

    :raises KernelError: from every call; ``ENOSPC`` with the remedy
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = 0
        self._started = 0
        self._direct = False
        self._buffer: mmap.mmap | None = None
        self._filled = 0
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._failure(error) from error

    def write(self, data: bytes) -> None:
        """Append ``data``."""
        try:
            if self._buffer is None and not self._direct and self.size == 0 and len(data) >= _SMALL:
                self._direct = self._set_direct(True)
                if self._direct:
                    self._buffer = mmap.mmap(-1, _BUFFER)  # aligned to a page, as O_DIRECT wants it
            self.size += len(data)
            if self._buffer is None:
                self._write_all(data)
                if self.size - self._started >= 4 * _BUFFER:
                    start_write_back(self._fd, self._started, self.size - self._started)
                    self._started = self.size
                return
            view = memoryview(data)
            while view:
                part = view[: _BUFFER - self._filled]
                self._buffer[self._filled : self._filled + len(part)] = part
                self._filled += len(part)
                view = view[len(part) :]
                if self._filled == _BUFFER:
                    self._flush(_BUFFER)
                    self._filled = 0
        except OSError as error:
            raise self._failure(error) from error

    def finish(self) -> None:
        """Write what is left, and let others read the file."""
        try:
            if self._buffer is not None and self._filled:
                whole = self._filled - self._filled % _ALIGNMENT
                self._flush(whole)
                if whole < self._filled:
                    self._leave_direct()
                    self._write_all(self._buffer[whole : self._filled])
            os.fchmod(self._fd, 0o644)
        except OSError as error:
            raise self._failure(error) from error

    def _flush(self, size: int) -> None:
        """Write the first bytes of the buffer, past the cache where the file system really can."""
        if self._buffer is None or not size:
            return
        with memoryview(self._buffer) as view:
            written = 0
            while written < size:
                try:
                    written += os.write(self._fd, view[written:size])
                except OSError as error:
                    if error.errno != errno.EINVAL or not self._direct:
                        raise
                    self._leave_direct()
                if written % _ALIGNMENT:
                    self._leave_direct()

    def _write_all(self, data: bytes | memoryview) -> None:
        while data:
            data = memoryview(data)[os.write(self._fd, data) :]

    def _set_direct(self, wanted: bool) -> bool:
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self._fd, fcntl.F_SETFL, flags | os.O_DIRECT if wanted else flags & ~os.O_DIRECT)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
            return False
        return True

    def _leave_direct(self) -> None:
        if self._direct:
            self._set_direct(False)
            self._direct = False

    def _failure(self, error: OSError) -> KernelError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "the disk of the store is full" if full else ""
        return KernelError(error.errno or errno.EIO, f"write {self.path}", remedy=remedy, path=self.path)

    def close(self) -> None:
        """Close the file. Calling it again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._buffer is not None:
            self._buffer.close()
            self._buffer = None

    def __enter__(self) -> BlobFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
