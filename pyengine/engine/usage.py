"""How much of the disk a directory takes. What is in it may be a container's, and change while it is counted."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys

from pyengine.errors import KernelError, PyengineError
from pyengine.linux import calls
from pyengine.linux.calls import Path
from pyengine.linux.fd import Fd

_BLOCK = 512  # st_blocks counts these, whatever the file system's own are
_PATIENCE = 600.0  # seconds for the count in another process
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def allocated_bytes(path: Path) -> int:
    """The bytes that are allocated for ``path`` and all below it on its file system, each file once.

    No symbolic link is followed and no other file system entered. One descriptor is open at a time: a container may
    nest directories deeper than descriptors last.

    :raises KernelError: a directory cannot be read, or was moved while it was counted (``EAGAIN``)
    """
    current = calls.open(path, _DIRECTORY)
    try:
        status = os.fstat(current.fileno())
        device = status.st_dev
        total = status.st_blocks * _BLOCK
        linked: set[int] = set()  # inodes with several names
        above: list[tuple[os.stat_result, list[str]]] = []  # directories on the way down, and what they still hold
        size, names = _read(current, device, linked, path)
        total += size
        while True:
            if names:
                below = _enter(current, names.pop())
                if below is None:
                    continue  # removed meanwhile
                above.append((status, names))
                current.close()
                current = below
                status = os.fstat(current.fileno())
                size, names = _read(current, device, linked, path)
                total += size
            elif above:
                status, names = above.pop()
                parent = calls.open("..", _DIRECTORY, directory=current)
                current.close()
                current = parent
                if not os.path.samestat(os.fstat(current.fileno()), status):
                    # It was moved: where we are now is none of our business.
                    raise KernelError(errno.EAGAIN, f"measure {calls.show(path)}", remedy="it changed meanwhile")
            else:
                return total
    finally:
        current.close()


def _enter(directory: Fd, name: str) -> Fd | None:
    try:
        return calls.open(name, _DIRECTORY, directory=directory)
    except KernelError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise


def _read(directory: Fd, device: int, linked: set[int], path: Path) -> tuple[int, list[str]]:
    """The bytes of the entries of a directory, those of directories included, and the names of the latter."""
    total, names = 0, []
    with calls.run("list", path, os.scandir, directory.fileno()) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # removed meanwhile
            if status.st_dev != device:
                continue
            if stat.S_ISDIR(status.st_mode):
                names.append(entry.name)
            elif status.st_nlink > 1:
                if status.st_ino in linked:
                    continue
                linked.add(status.st_ino)
            total += status.st_blocks * _BLOCK
    return total, names


def allocated_bytes_inside(path: str, user_namespace: Fd) -> int:
    """The same as root of a user namespace, who may look into directories that its other ids have closed.

    A process with threads cannot enter one, so a Python process of its own counts. Raises what `allocated_bytes` does.
    """
    from pyengine.engine.wire import error_from_json
    from pyengine.linux.spawn import run

    code = "import sys; sys.path[:] = sys.argv[2:]; from pyengine.engine.usage import main; main(sys.argv[1])"
    ended = run(
        [sys.executable, "-c", code, path, *sys.path],
        executable=sys.executable,
        timeout=_PATIENCE,
        namespaces=[user_namespace],
        directory="/",
    )
    if ended.exit_code != 0:
        raise PyengineError(f"measure {path}: {ended.stderr.decode(errors='replace').strip()[-500:]}")
    answer = json.loads(ended.stdout)
    if "error" in answer:
        raise error_from_json(answer["error"])
    return int(answer["bytes"])


def main(path: str) -> None:
    """The other process of `allocated_bytes_inside`: writes a JSON object to stdout."""
    from pyengine.engine.wire import error_to_json

    answer: dict[str, object]
    try:
        answer = {"bytes": allocated_bytes(path)}
    except PyengineError as error:
        answer = {"error": error_to_json(error)}
    sys.stdout.write(json.dumps(answer))
