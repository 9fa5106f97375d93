"""Command lines of User Mode Linux: a kernel that is an ordinary process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from machine.host import VMError, cache_directory, cached, identity, program, read
from machine.kernel import Kernel

MODULES = ("overlay",)
PACKAGE = "user-mode-linux"
SHIM = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "guest", "uml-xstate.c")


def find_kernel() -> Kernel:
    """User Mode Linux with the directory of its modules. Raises VMError."""
    image = program("linux.uml", PACKAGE)
    release = subprocess.run([image, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    for directory in (f"/usr/lib/uml/modules/{release}", f"/lib/modules/{release}"):
        if release and os.path.isdir(directory):
            return Kernel(image, directory)
    raise VMError(f"{image} {release} has no modules: apt-get install {PACKAGE}")


@dataclass(frozen=True)
class Machine:
    """What a User Mode Linux is made of; ``channels`` are descriptors by name, for ttyS1 and up."""

    kernel: str
    initramfs: str
    memory: int
    scratch: str
    run_directory: str
    channels: Mapping[str, int]
    tty: bool

    def argv(self) -> list[str]:
        """The command line of linux.uml."""
        words = [self.kernel, f"mem={self.memory}", f"initrd={self.initramfs}", "rdinit=/init"]
        words += ["quiet", "panic=-1", "noreboot", f"uml_dir={self.run_directory}/", "umid=uml"]
        words += ["xterm=/bin/false", "con=null", "con0=fd:0,fd:1" if self.tty else "con0=null,fd:1", "ssl=null"]
        words += [f"ssl{port}=fd:{number},fd:{number}" for port, number in enumerate(self.channels.values(), 1)]
        return [*words, f"ubda={self.scratch}"]


@contextlib.contextmanager
def own_cpu() -> Iterator[int]:
    """A CPU for one User Mode Linux, which no other one on this machine has while there are enough.

    Kernel and processes of the guest take turns at each system call and page fault: on one CPU that is eight times
    faster than across two.
    """
    directory = cache_directory()
    os.makedirs(directory, exist_ok=True)
    cpus = sorted(os.sched_getaffinity(0))
    for cpu in cpus:
        with open(os.path.join(directory, f"cpu-{cpu}.lock"), "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield cpu
            return
    yield cpus[os.getpid() % len(cpus)]


def needs_shim(cpuinfo: str) -> bool:
    """Whether the CPU's state is larger than UML before Linux 6.14 saves: that is so with AMX."""
    flags = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "")
    return "amx_tile" in flags.split()


def environment(memory: int) -> dict[str, str]:
    """What UML needs in its own environment: where its memory is, and uml-xstate.c where the CPU asks for it."""
    variables = {"PATH": os.environ.get("PATH", ""), "HOME": "/"}
    # the guest's memory is a file, and on a disk each write to it would be written back
    room = os.statvfs("/dev/shm")
    variables["TMPDIR"] = "/dev/shm" if room.f_bavail * room.f_frsize > memory else "/tmp"
    if needs_shim(read("/proc/cpuinfo").decode()):
        variables["LD_PRELOAD"] = cached("uml-xstate", identity(SHIM), _build_shim)
    return variables


def _build_shim() -> bytes:
    with tempfile.TemporaryDirectory(prefix="vm-shim-") as directory:
        target = os.path.join(directory, "shim.so")
        words = [program("gcc", "gcc libc6-dev"), "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        built = subprocess.run([*words, "-o", target, SHIM], capture_output=True, check=False)
        if built.returncode != 0:
            raise VMError(f"cannot build {SHIM}: {built.stderr.decode(errors='replace').strip()}")
        return read(target)
