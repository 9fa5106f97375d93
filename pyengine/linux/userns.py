"""The user namespace of an ordinary user's store: one for all engines of it, held open by a small program.

The holder (native/holder/holder.c) is in a user namespace with the user's ids mapped and in a mount namespace inside of
it. It has nothing else of its maker: no descriptors, no session, no working directory. It stays when engines end, since
containers and the ownership of files in layers depend on nothing but the id maps, and a new holder costs three
programs; ``stop()`` ends it. ``RUN_ROOT/userns`` names it by boot, pid and start time.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pyengine.errors import InvalidValue, KernelError, MissingProgram
from pyengine.linux import calls, process
from pyengine.linux.fd import Fd
from pyengine.linux.idmap import IdMap, RootlessMaps, parse_proc_map, rootless_maps, write_maps
from pyengine.linux.namespaces import Namespace, open_namespace
from pyengine.linux.process import ProcessId
from pyengine.linux.spawn import spawn

_RECORD: Final = "userns"
_TIMEOUT: Final = 30.0
_STEPS: Final = {
    "d": "change the directory of the holder of the user namespace to /",
    "u": "make a user namespace",
    "m": "make a mount namespace inside of the user namespace",
    "p": "make the mounts of the user namespace its own",
}


def holder_program() -> str:
    """The path of the holder that was built with the package."""
    path = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "_native", "holder")
    if not os.access(path, os.X_OK):
        raise MissingProgram(
            "a C compiler", "gcc", "building the holder of the user namespace (pip install pyengine again then)"
        )
    return path


@dataclass(frozen=True, slots=True)
class UserNamespace:
    """A user namespace that is held open. ``KernelError`` ``ESRCH`` from its methods once the holder has ended."""

    holder: ProcessId
    uid_map: tuple[IdMap, ...]
    gid_map: tuple[IdMap, ...]

    @property
    def pid(self) -> int:
        """The holder's pid: ``/proc/PID/ns`` and ``/proc/PID/root`` are the namespace's."""
        return self.holder.pid

    @property
    def single_id(self) -> bool:
        """Whether nothing but the user's own id is mapped: other owners of files cannot be kept, nor other users be."""
        return len(self.uid_map) == 1 and len(self.gid_map) == 1 and self.uid_map[0].size == 1

    def user_fd(self) -> Fd:
        """A descriptor of the user namespace."""
        return self._open(Namespace.USER)

    def mount_fd(self) -> Fd:
        """A descriptor of the mount namespace in it."""
        return self._open(Namespace.MOUNT)

    def _open(self, kind: Namespace) -> Fd:
        fd = open_namespace(self.holder.pid, kind)
        if not self.holder.running():  # asked after opening: else it could be the namespace of a later process
            fd.close()
            calls.fail(errno.ESRCH, "open the user namespace", f"of {self.holder.pid}", remedy="its holder has ended")
        return fd


def ensure(run_root: str, *, program: str | None = None, maps: RootlessMaps | None = None) -> UserNamespace:
    """The user namespace of ``run_root``, made if it is not there. Many processes may call this at once: one makes it.

    ``maps`` are by default what /etc/subuid and /etc/subgid allow; a namespace that is there keeps its own. ``program``
    is the holder. Raises what ``write_maps`` does, and ``KernelError`` where user namespaces are not allowed."""
    with _locked(run_root):
        found = _recorded(run_root)
        if found is None:
            made = maps or rootless_maps(os.getuid(), os.getgid())
            found = _start(run_root, program or holder_program(), made)
        return _describe(found)


def find(run_root: str) -> UserNamespace | None:
    """The user namespace of ``run_root`` if there is one."""
    found = _recorded(run_root)
    return None if found is None else _describe(found)


def stop(run_root: str) -> bool:
    """Ends the holder and waits for that; false if there was none. Processes in the namespace keep it alive."""
    with _locked(run_root):
        found = _recorded(run_root)
        if found is None:
            return False
        pidfd = found.open()
        if pidfd is not None:
            with pidfd:
                process.send_signal(pidfd, signal.SIGKILL)
                process.wait_ended(pidfd, _TIMEOUT)
        path = os.path.join(run_root, _RECORD)
        calls.run("unlink", path, os.unlink, path)
        return True


def _describe(holder: ProcessId) -> UserNamespace:
    maps = []
    for name in ("uid_map", "gid_map"):
        path = f"/proc/{holder.pid}/{name}"
        with calls.open(path, os.O_RDONLY) as fd:
            maps.append(parse_proc_map(calls.run("read", path, os.read, fd.fileno(), 65536).decode("ascii")))
    return UserNamespace(holder, maps[0], maps[1])


class _locked:
    """Holds the lock of ``run_root``: an flock, which goes with its process."""

    def __init__(self, run_root: str) -> None:
        self._path = os.path.join(run_root, f"{_RECORD}.lock")

    def __enter__(self) -> None:
        import fcntl

        self._fd = calls.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            calls.run("lock", self._path, fcntl.flock, self._fd.fileno(), fcntl.LOCK_EX)
        except BaseException:
            self._fd.close()
            raise

    def __exit__(self, *exc: object) -> None:
        self._fd.close()


def _recorded(run_root: str) -> ProcessId | None:
    """The holder that the record names, if it runs and is in a user namespace that is not ours."""
    path = os.path.join(run_root, _RECORD)
    try:
        with calls.open(path, os.O_RDONLY | os.O_NOFOLLOW) as fd:
            if os.fstat(fd.fileno()).st_uid != os.geteuid():
                calls.fail(errno.EPERM, "trust", path, remedy="it belongs to another user")
            content = calls.run("read", path, os.read, fd.fileno(), 200)
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    boot, _, identity = content.decode(errors="replace").partition(" ")
    if boot != process.boot_id():
        return None
    try:
        holder = ProcessId.parse(identity)
    except InvalidValue:
        return None  # a record of a full disk
    return holder if holder.running() else None


def _start(run_root: str, program: str, maps: RootlessMaps) -> ProcessId:
    from_holder, to_engine = (Fd(fd) for fd in os.pipe2(os.O_CLOEXEC))
    from_engine, to_holder = (Fd(fd) for fd in os.pipe2(os.O_CLOEXEC))
    with from_holder, to_engine, from_engine, to_holder:
        started = spawn(
            ["pyengine-userns"],
            executable=program,
            environment={},
            descriptors={3: from_engine, 4: to_engine},
            new_session=True,
        )
        to_engine.close()  # or the end of the holder would not end the pipe
        from_engine.close()
        with started.pidfd:
            try:
                return _converse(run_root, started.pid, from_holder, to_holder, lambda: write_maps(started.pid, maps))
            except BaseException:
                process.send_signal(started.pidfd, signal.SIGKILL)
                raise


def _converse(run_root: str, pid: int, from_holder: Fd, to_holder: Fd, give_maps: Callable[[], None]) -> ProcessId:
    """Goes through the steps of holder.c, then records it."""
    _expect(from_holder, "u")
    give_maps()
    calls.run("tell", "the holder of the user namespace", os.write, to_holder.fileno(), b"m")
    _expect(from_holder, "m")
    _expect(from_holder, "")  # closed: from here on it has nothing of ours
    holder = ProcessId.of(pid)
    path = os.path.join(run_root, _RECORD)
    temporary = f"{path}.new"
    with calls.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600) as fd:
        content = f"{process.boot_id()} {holder}\n".encode()
        if calls.run("write", temporary, os.write, fd.fileno(), content) != len(content):
            calls.fail(errno.ENOSPC, "write", temporary)
    calls.run("rename", temporary, os.replace, temporary, path)
    return holder


def _expect(from_holder: Fd, word: str) -> None:
    poll = select.poll()
    poll.register(from_holder.fileno(), select.POLLIN)
    deadline = time.monotonic() + _TIMEOUT
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        calls.fail(errno.ETIMEDOUT, "wait for", "the holder of the user namespace")
    answer = calls.run("hear", "the holder of the user namespace", os.read, from_holder.fileno(), 3)
    if answer[:1] == word.encode():
        return
    if answer[:1] == b"e" and len(answer) == 3:
        error = answer[2]
        remedy = {
            errno.EPERM: "user namespaces are not allowed: see /proc/sys/kernel/unprivileged_userns_clone and "
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            errno.ENOSPC: "too many user namespaces: see /proc/sys/user/max_user_namespaces",
            errno.EUSERS: "user namespaces are nested too deeply",
        }.get(error, "")
        raise KernelError(error, _STEPS.get(chr(answer[1]), "hold a user namespace"), remedy=remedy)
    raise KernelError(errno.EPIPE, "hear the holder of the user namespace", remedy="it ended before it was ready")
