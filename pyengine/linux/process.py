"""Processes: an identity that survives the reuse of numbers, descriptors, waiting.

A pid alone names different processes over time. Pid and start time (field 22 of /proc/PID/stat, clock ticks since boot)
name one process until the next boot; whoever keeps one across boots keeps ``boot_id()`` beside it.
"""

from __future__ import annotations

import errno
import os
import select
from dataclasses import dataclass

from pyengine.errors import InvalidValue, KernelError
from pyengine.linux import calls
from pyengine.linux.fd import Fd, number
from pyengine.typing import override

PID_MAX = 1 << 22  # PID_MAX_LIMIT of 64-bit kernels


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that are used here (proc(5)). ``start_time`` is in clock ticks since boot, ``utime``
    and ``stime`` are in clock ticks."""

    pid: int
    command: bytes
    state: str
    parent: int
    group: int
    session: int
    utime: int
    stime: int
    start_time: int


def parse_stat(content: bytes) -> Stat:
    """Parses /proc/PID/stat. The command (field 2) is whatever the process called itself: spaces, parentheses and line
    feeds included, so the fields behind it are counted from the last closing parenthesis."""
    opening, closing = content.find(b"("), content.rfind(b")")
    fields = content[closing + 1 :].split()
    if opening < 0 or closing < opening or len(fields) < 20:
        raise InvalidValue(f"not the content of a /proc/PID/stat: {content[:80]!r}")
    try:
        return Stat(
            pid=int(content[:opening]),
            command=content[opening + 1 : closing],
            state=fields[0].decode("ascii"),
            parent=int(fields[1]),
            group=int(fields[2]),
            session=int(fields[3]),
            utime=int(fields[11]),
            stime=int(fields[12]),
            start_time=int(fields[19]),
        )
    except ValueError as error:
        raise InvalidValue(f"not the content of a /proc/PID/stat: {content[:80]!r}") from error


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process, until the next boot."""

    pid: int
    start_time: int

    def __post_init__(self) -> None:
        if not 0 < self.pid <= PID_MAX or self.start_time < 0:
            raise InvalidValue(f"not a process: pid {self.pid}, start time {self.start_time}")

    @override
    def __str__(self) -> str:
        return f"{self.pid} {self.start_time}"

    @classmethod
    def parse(cls, text: str) -> ProcessId:
        """The inverse of ``str()``: ``PID START-TIME``."""
        fields = text.split()
        if len(fields) != 2 or not all(field.isascii() and field.isdigit() for field in fields):
            raise InvalidValue(f"not a process identity (pid and start time): {text[:80]!r}")
        return cls(int(fields[0]), int(fields[1]))

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """The identity of the process that has the number ``pid`` now; ``KernelError`` with ``ESRCH`` if none has."""
        stat = read_stat(pid)
        if stat is None:
            raise KernelError(errno.ESRCH, f"identify process {pid}")
        return cls(pid, stat.start_time)

    @classmethod
    def own(cls) -> ProcessId:
        """The identity of this process."""
        return cls.of(os.getpid())

    def exists(self) -> bool:
        """Whether it runs, or has ended and waits to be reaped."""
        stat = read_stat(self.pid)
        return stat is not None and stat.start_time == self.start_time

    def running(self) -> bool:
        """Whether it runs: a process that waits to be reaped does not."""
        stat = read_stat(self.pid)
        return stat is not None and stat.start_time == self.start_time and stat.state not in "ZX"

    def open(self) -> Fd | None:
        """A pidfd, or None when the process is gone. The start time is read after the pidfd was made: if it is still
        the right one, the pidfd cannot belong to a later process with that number."""
        try:
            pidfd = calls.pidfd_open(self.pid)
        except KernelError as error:
            if error.errno in (errno.ESRCH, errno.EINVAL):  # EINVAL: the number is now a thread's
                return None
            raise
        if self.exists():
            return pidfd
        pidfd.close()
        return None


def read_stat(pid: int) -> Stat | None:
    """/proc/PID/stat parsed, or None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return parse_stat(file.read(4096))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH):
            return None
        calls.fail(error.errno or errno.EIO, "read", f"/proc/{pid}/stat")


def boot_id() -> str:
    """The random name of this boot, as in /proc/sys/kernel/random/boot_id."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def wait_ended(pidfd: Fd | int, timeout: float | None = None) -> bool:
    """Waits until the process behind ``pidfd`` has ended: False when ``timeout`` seconds were not enough. It need not
    be a child, and nothing is reaped."""
    poll = select.poll()
    poll.register(number(pidfd), select.POLLIN)
    return bool(poll.poll(None if timeout is None else max(0.0, timeout) * 1000))


def send_signal(pidfd: Fd | int, signal: int) -> bool:
    """Sends ``signal``; False when the process is gone. One that has ended but was not reaped yet takes signals."""
    try:
        calls.pidfd_send_signal(pidfd, signal)
    except KernelError as error:
        if error.errno == errno.ESRCH:
            return False
        raise
    return True
