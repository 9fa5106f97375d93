"""What the guest gives to its command: environment, identity, directories; as files for guest/setup."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterable, Mapping

from machine.host import VMError, program
from machine.options import Options

UID = 4242
USER = "tester"
SUBORDINATE_IDS = 100000
HOME = f"/scratch/home/{USER}"
OUT = "/run/vm/out"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# the guest has its own of these; a checkout below them is shown in its place all the same
REPLACED = ("/tmp", "/var/tmp", "/run")
OWN = ("/dev", "/proc", "/sys")


def environment(options: Options, engine: str, terminal: str) -> dict[str, str]:
    """The whole environment of the command: nothing of the host's passes unless --env names it."""
    user = USER if options.user else "root"
    variables = {
        "PATH": PATH,
        "HOME": HOME if options.user else "/root",
        "USER": user,
        "LOGNAME": user,
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
        "TERM": terminal,
        "TMPDIR": "/tmp",
        # the overlay forgets them anyway, and writing them is slow
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYENGINE_VM": engine,
        # the system tests make a host of their own (tests/host) unless they are in one
        "PYENGINE_TEST_HOST": "user" if options.user else "root",
    }
    if options.user:
        variables["XDG_RUNTIME_DIR"] = f"/run/user/{UID}"
    if options.out:
        variables["VM_OUT"] = OUT
    return variables | dict(options.environment)


def interpreters(path: str) -> list[str]:
    """A program, the file that it is, and if that is a script the same of its interpreter."""
    real = os.path.realpath(path)
    found = [path, real]
    try:
        with open(real, "rb") as file:
            line = file.readline(256)
    except OSError:
        return found
    words = line[2:].split() if line.startswith(b"#!") else []
    if words and words[0].startswith(b"/") and os.fsdecode(words[0]) != path:
        found += interpreters(os.fsdecode(words[0]))
    return found


def closed_directories(paths: Iterable[str]) -> list[str]:
    """The directories above the paths that other users may not pass: the guest opens them to its user."""
    closed: list[str] = []
    for path in paths:
        directory = os.path.abspath(path)
        while directory != "/":
            try:
                mode = os.stat(directory).st_mode
            except OSError:
                mode = 0
            if stat.S_ISDIR(mode) and not mode & stat.S_IXOTH and directory not in closed:
                closed.append(directory)
            directory = os.path.dirname(directory)
    return closed


def shown_again(directory: str) -> str:
    """The child of a replaced directory in which ``directory`` is, or ''.

    Raises VMError for a directory that cannot be shown.
    """
    for parent in OWN:
        if f"{directory}/".startswith(parent + "/"):
            raise VMError(f"the guest has {parent} of its own, so it cannot start in {directory}: go elsewhere")
    for parent in REPLACED:
        if directory.startswith(parent + "/"):
            return "/".join(directory.split("/")[: parent.count("/") + 2])
    return ""


def configuration(values: Mapping[str, str | int]) -> bytes:
    """Shell assignments of VM_* variables."""
    return "".join(f"VM_{name}={shlex.quote(str(value))}\n" for name, value in values.items()).encode()


def settings(options: Options, engine: str, seed: str, columns: int, rows: int) -> dict[str, str | int]:
    """What guest/boot and guest/setup read, except for what only an engine knows."""
    paths: list[str] = []
    if options.user:
        first = options.command[0]
        paths = [options.directory]
        for name in (first, os.path.join(options.directory, ".venv/bin/python")):
            if "/" in name:
                paths += interpreters(os.path.join(options.directory, name))
    return {
        "ENGINE": engine,
        "UID": UID if options.user else 0,
        "USER": USER,
        "HOME": HOME,
        "SUBORDINATE_IDS": SUBORDINATE_IDS,
        "OPEN": " ".join(closed_directories(paths)),
        "SHOWN": shown_again(options.directory),
        "OUT": OUT if options.out else "",
        "TTY": "1" if options.tty else "",
        "COLUMNS": columns,
        "ROWS": rows,
        "SEED": seed,
    }


def command(options: Options, variables: Mapping[str, str]) -> bytes:
    """The script that runs as root in the guest, enters the command's cgroup and becomes the command."""
    # by their full paths: Debian's busybox shell prefers its own applet to a program of the same name
    words = [program("env", "coreutils"), "-i"]
    words += [f"{name}={value}" for name, value in sorted(variables.items())]
    if options.user:
        # init has every capability inheritable in some kernels: an ordinary login has none
        words += [program("setpriv", "util-linux"), f"--reuid={UID}", f"--regid={UID}"]
        words += ["--clear-groups", "--inh-caps=-all", "--"]
    words += [*options.command]
    return "\n".join(
        [
            'echo $$ >"$1/cgroup.procs"',
            f"cd {shlex.quote(options.directory)} || exit 125",
            "umask 022",
            "ulimit -Sn 1024; ulimit -Hn 1048576",
            f"exec {shlex.join(words)}",
            "",
        ]
    ).encode()
