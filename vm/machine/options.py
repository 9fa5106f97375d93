"""The command line of vm/run."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass

from machine.host import parse_size

DESCRIPTION = """\
Run a command in a disposable virtual machine whose root is this machine's own.

The host's files are shared read-only with a tmpfs overlay on top: the command sees this checkout and everything
installed, and nothing that it does is left behind. The guest has pure cgroups v2 with all controllers that its
kernel has. Output is streamed; the exit status is the command's, 124 when it took longer than --timeout,
125 when the machine failed."""

EPILOG = """\
In the guest: the current directory is the same; /tmp, /var/tmp and /scratch are an empty ext4 disk; the
environment is PATH (Debian's), HOME, USER, LOGNAME, SHELL, LANG=C.UTF-8, TERM, TMPDIR=/tmp, PYENGINE_VM (the
engine: kvm, tcg or uml), PYENGINE_TEST_HOST (root or user: tests/system take the guest as it is),
PYTHONDONTWRITEBYTECODE=1, for the user XDG_RUNTIME_DIR, with --out VM_OUT, and what --env adds. The user is
"tester", 4242, with 65536 subordinate ids from 100000, and owns the cgroup above its own.

engines: kvm and tcg are QEMU with Debian's cloud kernel (tcg emulates: user code is 16 times slower); uml is User
Mode Linux (native user code, slow system calls; one CPU, no cpuset, hugetlb, NAT, time namespaces, CRIU).
auto takes kvm where a trial boot works, else tcg, and for an ordinary user uml."""


@dataclass(frozen=True)
class Options:
    """What one run of a machine is to do. ``memory`` and ``scratch`` are bytes, times are seconds."""

    command: tuple[str, ...]
    engine: str = "auto"
    user: bool = False
    tty: bool = False
    probe: bool = False
    verbose: bool = False
    keep: bool = False
    timeout: float | None = None
    boot_timeout: float = 90
    memory: int = 2 << 30
    scratch: int = 8 << 30
    cpus: int = 2
    directory: str = "/"
    out: str | None = None
    environment: tuple[tuple[str, str], ...] = ()


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"not a time in seconds: {text!r}")
    return seconds


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name.isidentifier() or not name.isascii():
        raise argparse.ArgumentTypeError(f"not the name of a variable: {name!r}")
    if not equals and name not in os.environ:
        raise argparse.ArgumentTypeError(f"{name} is not set here: give {name}=VALUE")
    return name, value if equals else os.environ[name]


def parse(arguments: list[str]) -> Options:
    """The options of a command line; exits with status 2 and a message as argparse does."""
    default = Options(())
    parser = argparse.ArgumentParser(
        prog="vm/run",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--engine", choices=("auto", "kvm", "tcg", "uml"), default=default.engine)
    add("--user", action="store_true", help="run as an unprivileged user with subordinate ids and a cgroup")
    add("--timeout", type=_seconds, metavar="S", help="end the command after S seconds with status 124")
    add("--boot-timeout", type=_seconds, metavar="S", default=default.boot_timeout)
    add("--memory", type=_size, metavar="SIZE", default=default.memory, help="2G unless told")
    add("--scratch", type=_size, metavar="SIZE", default=default.scratch, help="of the ext4 disk; 8G, sparse")
    add("--cpus", type=int, default=default.cpus, help="2 unless told; uml has one")
    add("--env", type=_variable, action="append", default=[], metavar="NAME[=VALUE]")
    add("--out", metavar="DIRECTORY", help="what the command leaves in $VM_OUT is copied there")
    add("-t", "--tty", action="store_true", help="a terminal; without a command a shell")
    add("--probe", action="store_true", help="only say which engine would be used and why, as JSON")
    add("--keep", action="store_true", help="keep the run directory with the console's log")
    add("-v", "--verbose", action="store_true", help="say what is started")
    add("command", nargs="*", metavar="COMMAND", help="after --")
    found = parser.parse_args(arguments)
    if not (found.command or found.tty or found.probe):
        parser.error("no command")
    if found.cpus < 1:
        parser.error("--cpus must be at least 1")
    return Options(
        command=tuple(found.command) or ("/bin/bash", "-l"),
        engine=found.engine,
        user=found.user,
        tty=found.tty,
        probe=found.probe,
        verbose=found.verbose,
        keep=found.keep,
        timeout=found.timeout,
        boot_timeout=found.boot_timeout,
        memory=found.memory,
        scratch=found.scratch,
        cpus=found.cpus,
        directory=os.getcwd(),
        out=found.out and os.path.abspath(found.out),
        environment=tuple(found.env),
    )
