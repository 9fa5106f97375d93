"""Containers for the tests in here, and the cgroup of a container read where the kernel has it, without the engine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

sys.path.append(os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "system"))

from cgroup import ROOT, own_parent, read, until
from engines import IMAGE, import_image, left_over, sh

from pyengine import Engine
from pyengine.engine.container import Container

__all__ = ["IMAGE", "Box", "import_image", "left_over", "scratch_disk", "sh"]


def scratch_disk() -> tuple[str, str]:
    """The block device of /scratch: its path and MAJOR:MINOR. On a host the tests are only collected."""
    if not os.path.isdir("/scratch"):
        return "/dev/none", "0:0"
    number = os.stat("/scratch").st_dev
    with open("/proc/self/mounts") as table:
        path = next(line.split()[0] for line in table if line.split()[1] == "/scratch")
    return path, f"{os.major(number)}:{os.minor(number)}"


def engines_group() -> str:
    """The directory below which the engine makes groups."""
    return f"{own_parent()}/pyengine"


def groups() -> list[str]:
    """What is below it."""
    found = []
    for place, names, _ in os.walk(engines_group()):
        found += [f"{place}/{name}" for name in names]
    return found


class Box:
    """A container that runs, and its cgroup."""

    def __init__(self, engine: Engine, *command: str, **options: Any) -> None:
        self.container: Container = engine.containers.create(IMAGE, command or ("sleep", "1000"), **options)
        self.container.start()
        self.pid = self.container.state().pid
        self.group = ROOT + read(f"/proc/{self.pid}/cgroup").removeprefix("0::")

    def get(self, name: str) -> str:
        return read(f"{self.group}/{name}")

    def facts(self, name: str) -> dict[str, int]:
        return {key: int(value) for key, value in (line.split() for line in self.get(name).splitlines())}

    def pids(self) -> list[int]:
        """Every process in it and below."""
        return [int(pid) for place, _, _ in os.walk(self.group) for pid in read(f"{place}/cgroup.procs").split()]

    def run(self, script: str, **options: Any) -> tuple[int, str]:
        """A shell script as an exec session: exit code, and stdout before stderr."""
        result = self.container.exec(["sh", "-c", script], **options)
        return result.exit_code, (result.stdout + result.stderr).decode()

    def until(self, true: Callable[[], bool], what: str) -> None:
        until(true, what)
