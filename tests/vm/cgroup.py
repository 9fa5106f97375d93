"""A cgroup to prove the machine with: plain file operations, so that no test of the machine relies on pyengine."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

ROOT = "/sys/fs/cgroup"
_numbers = itertools.count()


def read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def write(path: str, value: object) -> None:
    with open(path, "w") as file:
        file.write(str(value))


def own_parent() -> str:
    """Where this process may make cgroups with controllers: the root, or the user's delegated service."""
    if os.getuid() == 0:
        return ROOT
    parent = ROOT + os.path.dirname(read("/proc/self/cgroup").removeprefix("0::"))
    write(f"{parent}/cgroup.subtree_control", " ".join(f"+{name}" for name in controllers(parent)))
    return parent


def controllers(path: str) -> list[str]:
    return read(f"{path}/cgroup.controllers").split()


def until(true: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Wait until it is true; fail with ``what`` otherwise."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)


def in_child(function: Callable[[], object]) -> int:
    """Run a function in a forked child; its exit code is 0 when it returned, 1 when it raised, -N for a signal."""
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(BaseException):
            function()
            status = 0
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@dataclass(frozen=True)
class Cgroup:
    path: str

    @classmethod
    def make(cls, parent: str) -> Cgroup:
        path = f"{parent}/test-{os.getpid()}-{next(_numbers)}"
        os.mkdir(path)
        return cls(path)

    def __enter__(self) -> Cgroup:
        return self

    def __exit__(self, *_: object) -> None:
        self.set("cgroup.kill", 1)
        until(lambda: "populated 0" in self.get("cgroup.events"), f"{self.path} is empty")
        os.rmdir(self.path)

    def get(self, name: str) -> str:
        return read(f"{self.path}/{name}")

    def set(self, name: str, value: object) -> None:
        write(f"{self.path}/{name}", value)

    def facts(self, name: str) -> dict[str, int]:
        """A flat keyed file such as memory.events."""
        return {key: int(value) for key, value in (line.split() for line in self.get(name).splitlines())}

    def enter(self) -> None:
        """Move this process (a child that was forked for it) here."""
        self.set("cgroup.procs", os.getpid())

    def run(self, function: Callable[[], object]) -> int:
        """As in_child, in this cgroup."""

        def inside() -> None:
            self.enter()
            function()

        return in_child(inside)
