"""Programs started so that the host program does not notice: no fork of it, no SIGCHLD, nothing for its ``os.wait()``,
no descriptor that was not named. How: native/syscalls/spawn.c.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyengine._syscalls import ffi, lib
from pyengine.errors import MissingProgram
from pyengine.linux import calls
from pyengine.linux.fd import Fd, number

_CLD_EXITED = 1


@dataclass(frozen=True, slots=True)
class Spawned:
    """A program that was started. ``pidfd`` belongs to the caller; it is no child: wait with
    ``process.wait_ended(pidfd)``, its exit status is not to be had."""

    pid: int
    pidfd: Fd


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that ran to its end. ``exit_code`` is minus the signal if it was killed by one."""

    exit_code: int
    stdout: bytes
    stderr: bytes


def find_program(name: str, package: str, purpose: str) -> str:
    """The path of a program of the system: in ``PATH``, then where administration programs are, which the ``PATH`` of
    ordinary users lacks. ``MissingProgram`` names ``package`` and ``purpose``."""
    for directory in [*os.get_exec_path(), "/usr/local/sbin", "/usr/sbin", "/sbin"]:
        path = os.path.join(directory, name)
        if directory.startswith("/") and os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    raise MissingProgram(name, package, purpose)


def _strings(values: Sequence[bytes]) -> tuple[Any, list[Any]]:
    """A NULL-terminated array of C strings, and what must live as long as it."""
    kept = [ffi.new("char[]", value) for value in values]
    return ffi.new("char *[]", [*kept, ffi.NULL]), kept


def _start(
    arguments: Sequence[calls.Path],
    executable: str | Fd | int,
    environment: Mapping[str, str] | None,
    descriptors: Mapping[int, Fd | int],
    namespaces: Sequence[Fd | int],
    directory: calls.Path | None,
    new_session: bool,
    timeout: float | None,
    wait: bool,
) -> Any:
    if environment is None:
        # By name: another thread of the host may be changing it.
        given = {key: value for key in os.environb if (value := os.environb.get(key)) is not None}
    else:
        given = {os.fsencode(key): os.fsencode(value) for key, value in environment.items()}
    name = executable if isinstance(executable, str) else calls.show(arguments[0])
    encoded = [os.fsencode(argument) for argument in arguments]
    variables = [key + b"=" + value for key, value in given.items()]
    if any(b"\0" in text for text in [*encoded, *variables, os.fsencode(name)]):
        calls.fail(errno.EINVAL, "spawn", name, remedy="arguments and variables cannot hold a NUL byte")
    argv, kept_arguments = _strings(encoded)
    envp, kept_environment = _strings(variables)
    path = ffi.new("char[]", os.fsencode(name))
    cwd = ffi.NULL if directory is None else ffi.new("char[]", os.fsencode(directory))
    targets = ffi.new("int[]", list(descriptors) or [0])
    sources = ffi.new("int[]", [number(source) for source in descriptors.values()] or [0])
    joined = ffi.new("int[]", [number(namespace) for namespace in namespaces] or [0])
    spawn = ffi.new("struct pe_spawn *")
    spawn.path = path
    spawn.executable = -1 if isinstance(executable, str) else number(executable)
    spawn.arguments, spawn.environment, spawn.directory = argv, envp, cwd
    spawn.sources, spawn.targets, spawn.mapped = sources, targets, len(descriptors)
    spawn.namespaces, spawn.joined = joined, len(namespaces)
    spawn.new_session, spawn.wait = new_session, wait
    spawn.timeout = -1 if timeout is None else max(0, min(int(timeout * 1000), 2**31 - 1))
    result = lib.pe_spawn(spawn)
    del kept_arguments, kept_environment
    if result < 0:
        stage = {
            lib.PE_SPAWN_CLONE: "spawn",
            lib.PE_SPAWN_NAMESPACE: "join the namespaces for",
            lib.PE_SPAWN_DIRECTORY: f"change to {calls.show(directory or '')} for",
            lib.PE_SPAWN_DESCRIPTORS: "map the descriptors for",
            lib.PE_SPAWN_EXEC: "execute",
            lib.PE_SPAWN_WAIT: "wait for",
        }[spawn.failed_at]
        calls.fail(-result, stage, name)
    calls.log.debug("spawn %s = %d", name, spawn.pid)
    return spawn


def spawn(
    arguments: Sequence[calls.Path],
    *,
    executable: str | Fd | int,
    environment: Mapping[str, str] | None = None,
    descriptors: Mapping[int, Fd | int] | None = None,
    namespaces: Sequence[Fd | int] = (),
    directory: calls.Path | None = None,
    new_session: bool = False,
) -> Spawned:
    """Starts a program and does not wait for it.

    ``executable`` is a path (no search) or an open file. ``descriptors`` maps numbers in the program to descriptors of
    the caller: all others are closed there, and 0, 1 and 2 are /dev/null unless mapped. ``namespaces`` are joined
    before (a user namespace first). ``environment`` None is a copy of the caller's. Signals are all unblocked and at
    their defaults. The program is adopted by init (or the nearest subreaper). ``KernelError`` if any of it failed, the
    execve included."""
    started = _start(
        arguments, executable, environment, descriptors or {}, namespaces, directory, new_session, None, False
    )
    return Spawned(started.pid, Fd(started.pidfd))


def run(
    arguments: Sequence[calls.Path],
    *,
    executable: str | Fd | int,
    stdin: bytes = b"",
    timeout: float | None,
    environment: Mapping[str, str] | None = None,
    descriptors: Mapping[int, Fd | int] | None = None,
    namespaces: Sequence[Fd | int] = (),
    directory: calls.Path | None = None,
) -> Finished:
    """Runs a short program of the system to its end, with ``stdin`` as its input, its output kept in memory files.

    The calling thread sleeps in the kernel meanwhile, deaf to signals, other threads go on: hence ``timeout`` (seconds,
    then SIGKILL and ``KernelError`` ``ETIMEDOUT``) has no default. The rest is as in ``spawn``."""
    name = calls.show(arguments[0])
    with (
        calls.sealed_memfd("stdin", stdin) as given,
        Fd(calls.run("memfd_create", name, os.memfd_create, "stdout")) as stdout,
        Fd(calls.run("memfd_create", name, os.memfd_create, "stderr")) as stderr,
    ):
        mapped = {0: given, 1: stdout, 2: stderr, **(descriptors or {})}
        ended = _start(arguments, executable, environment, mapped, namespaces, directory, False, timeout, True)
        if ended.timed_out:
            calls.fail(errno.ETIMEDOUT, "run", name, remedy=f"it was killed after {timeout} seconds")
        return Finished(
            exit_code=ended.status if ended.code == _CLD_EXITED else -ended.status,
            stdout=_content(stdout, name),
            stderr=_content(stderr, name),
        )


def _content(fd: Fd, name: str) -> bytes:
    size = os.fstat(fd.fileno()).st_size
    parts = []
    offset = 0
    while offset < size:
        part = calls.run("read output of", name, os.pread, fd.fileno(), size - offset, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
    return b"".join(parts)
