"""Trees of files that containers wrote."""

from __future__ import annotations

from pyengine._syscalls import lib
from pyengine.linux import calls
from pyengine.linux.fd import Fd, number


def remove_tree(path: calls.Path, *, directory: Fd | int = calls.AT_FDCWD) -> None:
    """Remove ``path`` with everything below it, however deep and whatever the modes; links are not followed, and what
    is not there is fine.

    ``KernelError``: ``EACCES`` or ``EPERM`` for files of other users, ``EBUSY`` where something is mounted.
    """
    result = lib.pe_remove_tree(number(directory), calls.encode(path))
    if result < 0:
        calls.fail(-result, "remove", calls.show(path))
