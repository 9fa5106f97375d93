"""Waiting for files to change: inotify(7), which Python lacks.

Only what follows a log or waits for events imports this module, so that its cost (ctypes) is nobody else's.
"""

from __future__ import annotations

import ctypes
import os
import select

from pyengine.errors import KernelError
from pyengine.linux.fd import Fd

IN_MODIFY = 0x002
IN_MOVED_TO = 0x080
IN_CREATE = 0x100
IN_DELETE_SELF = 0x400

_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Tells when something in the directory `path` changes. A context manager; one thread at a time."""

    def __init__(self, path: str, mask: int = IN_MODIFY | IN_MOVED_TO | IN_CREATE | IN_DELETE_SELF) -> None:
        fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if fd < 0:
            raise KernelError(ctypes.get_errno(), "inotify_init", remedy="see /proc/sys/fs/inotify/max_user_instances")
        self._fd = Fd(fd)
        if _libc.inotify_add_watch(fd, os.fsencode(path), mask) < 0:
            error = ctypes.get_errno()
            self._fd.close()
            raise KernelError(error, f"watch {path}", remedy="see /proc/sys/fs/inotify/max_user_watches")

    def wait(self, *others: int, timeout: float | None = None) -> bool:
        """Sleeps until the directory changes, one of the descriptors `others` is readable, or `timeout` seconds
        are over. True if it was one of the others."""
        poll = select.poll()
        poll.register(self._fd.fileno(), select.POLLIN)
        for other in others:
            poll.register(other, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(None if timeout is None else timeout * 1000)}
        if self._fd.fileno() in ready:
            try:
                while os.read(self._fd.fileno(), 65536):
                    pass
            except BlockingIOError:
                pass
        return bool(ready - {self._fd.fileno()})

    def close(self) -> None:
        self._fd.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
