"""What the host has: programs, and a cache for what is made once."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable

SEARCH = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/lib/qemu:/usr/libexec"
KEPT = 4


class VMError(Exception):
    """The machine could not be prepared or did not do its part; the command's own failure is an exit status."""


def program(name: str, package: str) -> str:
    """The path of a program. Raises VMError with the Debian package that has it."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":" + SEARCH)
    if found is None:
        raise VMError(f"{name} is not installed: apt-get install {package}")
    return found


def cache_directory() -> str:
    """Where made files are kept: $PYENGINE_VM_CACHE, or below the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("PYENGINE_VM_CACHE") or os.path.join(base, "pyengine-vm")


def write_atomically(path: str, data: bytes) -> None:
    """Write a file so that another run sees all of it or nothing."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    os.rename(temporary, path)


def cached(kind: str, key: object, make: Callable[[], bytes]) -> str:
    """The path of the file that ``make`` gives for ``key``; of each kind the last few are kept."""
    directory = cache_directory()
    path = os.path.join(directory, f"{kind}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}")
    if os.path.exists(path):
        os.utime(path)
        return path
    write_atomically(path, make())
    same = [entry for entry in os.scandir(directory) if entry.name.startswith(kind + "-")]
    for entry in sorted(same, key=lambda entry: entry.stat().st_mtime, reverse=True)[KEPT:]:
        os.unlink(entry.path)
    return path


def read(path: str) -> bytes:
    """The whole of a file."""
    with open(path, "rb") as file:
        return file.read()


def identity(path: str) -> tuple[str, int, int]:
    """What changes when a file does: its path, size and time of modification."""
    status = os.stat(path)
    return path, status.st_size, status.st_mtime_ns


def parse_size(text: str) -> int:
    """Bytes of ``512M``, ``2G``, ``4096``. Raises ValueError."""
    units = {"K": 10, "M": 20, "G": 30}
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in units else (text, "")
    if not number.isascii() or not number.isdigit():
        raise ValueError(f"not a size: {text!r}")
    return int(number) << units.get(unit, 0)
