"""Work under way: directories below ``tmp/`` that go away with whoever made them.

The owner holds a lock (flock) on its directory, which the kernel gives up when the process ends, whatever ended it.
A pid with a start time would say the same only within one pid namespace, and not of the moment between looking
and removing. The name, ``<boot>-<pid>-<n>``, is for people.
"""

from __future__ import annotations

import fcntl
import itertools
import os
from collections.abc import Callable
from types import TracebackType

from pyengine.errors import KernelError
from pyengine.linux.faults import declare, fault
from pyengine.linux.trees import remove_tree

FAULTS = declare("work-made", "work-sweep")

_numbers = itertools.count(1)


class WorkDirectory:
    """A new directory below ``parent``, removed with all its content, by ``remove``, when it is closed. A context
    manager."""

    def __init__(self, parent: str, remove: Callable[[str], None] = remove_tree) -> None:
        self._remove = remove
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read(8)
        while True:
            self.path = f"{parent}/{boot}-{os.getpid()}-{next(_numbers)}"
            try:
                os.mkdir(self.path, 0o700)
            except FileExistsError:
                continue
            except OSError as error:
                raise KernelError(error.errno or 0, f"make the work directory {self.path}") from error
            fd = _lock(self.path)
            if fd is not None:
                break  # else a sweep was quicker than our lock
        self._fd: int | None = fd
        self._names = itertools.count(1)
        fault("work-made")

    def new_path(self, kind: str) -> str:
        """A path in here that does not exist yet."""
        return f"{self.path}/{kind}-{next(self._names)}"

    def close(self) -> None:
        """Remove the directory. Calling it again does nothing."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        try:
            self._remove(self.path)
        finally:
            os.close(fd)

    def __enter__(self) -> WorkDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _lock(path: str) -> int | None:
    """A descriptor that holds the lock of the directory, or None if it is another's or gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        same = os.path.samestat(os.fstat(fd), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        same = False
    if not same:
        os.close(fd)
        return None
    return fd


def abandoned(parent: str) -> list[tuple[str, int]]:
    """The work directories whose owners are gone, each with a descriptor that holds its lock and that the caller
    closes."""
    found = []
    for name in sorted(os.listdir(parent)):
        path = f"{parent}/{name}"
        fd = _lock(path)
        if fd is not None:
            found.append((path, fd))
    return found
