"""The client of the monitor (``native/monitor``): starts it with a plan, hears what becomes of the container.

One `Session` is one connection. The one that `launch` returns is the *lease*: as long as it is open, this engine
attends the end of the container, and the monitor's cleanup command is not needed. Later engines `connect`.

Messages, both ways, are packets of one SOCK_SEQPACKET connection (native/monitor/monitor.h)::

    u32 kind, u32 step, i32 errno, i32 value, i64 time in ns, i64 extra, text
"""

from __future__ import annotations

import errno as errors
import os
import socket
import struct
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pyengine.errors import KernelError, PyengineError, StartFailed, StepError
from pyengine.linux import calls, faults
from pyengine.linux.fd import Fd
from pyengine.runtime.plan import Chdir, Exec, LookupUser, Plan
from pyengine.runtime.state import Failure

_HEADER = struct.Struct("<IIiiqq")
_PACKET = 4096

CREATED, STARTED, FAILED, EXITED, RESTARTING = 1, 2, 3, 4, 5
START, RELEASE, STOPPING, ALLOW_RESTART = 1, 2, 3, 4

PROGRAM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "_native", "monitor")

#: kinds of steps whose failure is the command's, not the set-up's: 127 where a file was not found, else 126
_COMMAND = (Exec.KIND, Chdir.KIND, LookupUser.KIND)

_MOUNT_ATTR_RDONLY = 1


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container ended. `exit_code` is 0…255, 128 + n for signal n; `time_ns` since 1970."""

    exit_code: int
    oom_killed: bool
    time_ns: int


@dataclass(frozen=True, slots=True)
class Message:
    """One packet of the monitor."""

    kind: int
    step: int
    errno: int
    value: int
    time_ns: int
    extra: int
    text: str

    @classmethod
    def decode(cls, packet: bytes) -> Message:
        """Raises `PyengineError` for a packet that is too short."""
        if len(packet) < _HEADER.size:
            raise PyengineError(f"the monitor sent a packet of {len(packet)} bytes, which is no message")
        kind, step, errno, value, time_ns, extra = _HEADER.unpack_from(packet)
        return cls(kind, step, errno, value, time_ns, extra, packet[_HEADER.size :].decode("utf-8", "replace"))

    def failure(self) -> Failure:
        """What a FAILED message says."""
        detail, _, subject = self.text.partition("\n")
        return Failure(self.step, self.extra, self.value, self.errno, detail, subject)


def start_error(failure: Failure, plan: Plan | None) -> PyengineError:
    """The exception for a failed start. `plan` names the step, where it is at hand."""
    if failure.kind in _COMMAND:
        missing = failure.errno in (errors.ENOENT, errors.ENOTDIR) and failure.kind != LookupUser.KIND
        return StartFailed(failure.describe(), 127 if missing else 126)
    if failure.step == 0:
        return KernelError(failure.errno, "set the container up", remedy=failure.detail)
    what = "set the container up" if plan is None else plan.steps[failure.step - 1].describe()
    return StepError(failure.errno, what, failure.step, failure.total, remedy=failure.detail)


class Session:
    """A connection to a monitor. Close it, or use it as a context manager. Not for use by two threads at once."""

    def __init__(self, connection: socket.socket, plan: Plan | None = None) -> None:
        self._socket = connection
        self._plan = plan
        self._created = False
        self._started = False
        self._failure: PyengineError | None = None
        self._ended: Ended | None = None
        self.pid = 0
        self.start_time = 0  # of `pid`, in clock ticks since boot
        self.restarts = 0

    def fileno(self) -> int:
        """The socket, for poll: readable when there may be news for `receive`."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the connection. Where it is the lease and the container has not been released, the monitor attends its
        end alone from now on."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- what is said

    def _say(self, kind: int) -> None:
        try:
            self._socket.send(_HEADER.pack(kind, 0, 0, 0, 0, 0))
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has ended: what it said last is still to be read

    def start(self) -> None:
        """Let the container go on from `AwaitStart`."""
        self._say(START)

    def release(self) -> None:
        """This engine does what is left to do at the end: the cleanup command is not run."""
        self._say(RELEASE)

    def stopping(self) -> None:
        """No restart from now on."""
        self._say(STOPPING)

    def allow_restart(self) -> None:
        """The restart policy holds again."""
        self._say(ALLOW_RESTART)

    # --- what is heard

    def receive(self, timeout: float | None) -> Message | None:
        """The next message, None when none came within `timeout` seconds (None: for ever).

        Raises `PyengineError` when the monitor has ended without saying what became of the container."""
        import select

        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(None if timeout is None else max(0.0, timeout) * 1000):
            return None
        try:
            packet = self._socket.recv(_PACKET)
        except ConnectionResetError:
            # It closed its end without reading all that was said to it. The kernel tells that first, and once; what
            # the monitor said before is behind it.
            try:
                packet = self._socket.recv(_PACKET)
            except ConnectionResetError:
                packet = b""
        if not packet:
            raise PyengineError("the monitor of the container ended without a word: it was killed")
        message = Message.decode(packet)
        self._note(message)
        return message

    def _note(self, message: Message) -> None:
        if message.kind == CREATED:
            self._created = True
            self.pid, self.start_time = message.value, message.extra
        elif message.kind == STARTED:
            self._started = True
        elif message.kind == FAILED:
            self._failure = start_error(message.failure(), self._plan)
        elif message.kind == EXITED:
            self._ended = Ended(message.value, bool(message.extra & 1), message.time_ns)
        elif message.kind == RESTARTING:
            self.restarts = message.value
            self._started = False

    def await_created(self) -> None:
        """Return when the container waits at `AwaitStart` (or is beyond). Raises what `await_started` raises."""
        while not self._created and self._ended is None:
            self._raise_failure()
            self.receive(None)
        self._raise_failure()

    def await_started(self) -> None:
        """Return when the command runs. Raises `StartFailed` when the command, its directory or its user is not to be
        had, `StepError` when another step failed, `KernelError` for what is around the steps."""
        while not self._started and self._ended is None:
            self._raise_failure()
            self.receive(None)
        self._raise_failure()

    def wait_exit(self, timeout: float | None = None) -> Ended | None:
        """How it ended, None when it did not within `timeout` seconds. A restart is not an end.

        Raises what `await_started` raises when it never started, `PyengineError` when the monitor was killed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._ended is None:
            self._raise_failure()
            left = None if deadline is None else deadline - time.monotonic()
            if self.receive(left) is None:
                return None
        return self._ended

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def open_program() -> Fd:
    """The monitor's program, in a form that nothing inside a container can write to.

    A container can execute /proc/self/exe, or look at a joining process, and so reach the file that the monitor was
    started from (CVE-2019-5736). Therefore it is a file of a read-only mount that is mounted nowhere; without the
    privilege for that, a sealed copy in memory.

    As long as the descriptor of open_tree is open the mount counts as mounted, in an anonymous namespace, and then any
    process that may mount in its own namespace can make it writable again. So that is closed here: what comes back
    only refers to the file."""
    try:
        with calls.open_tree(PROGRAM, calls.OPEN_TREE_CLONE) as tree:
            calls.mount_setattr(tree, set=_MOUNT_ATTR_RDONLY)
            return calls.open(f"/proc/self/fd/{tree.fileno()}", os.O_PATH)
    except KernelError as error:
        if error.errno not in (errors.EPERM, errors.EINVAL):
            raise
    with open(PROGRAM, "rb") as file:
        return calls.sealed_memfd("pyengine-monitor", file.read())


def launch(
    plan: Plan, run_directory: str, descriptors: Mapping[str, int], *, program: Fd | None = None, fault: str = ""
) -> Session:
    """Start a monitor in `run_directory` (which exists, and is nobody else's) that executes `plan`.

    `program` is what `open_program` gave: to make and to drop one costs as much as the rest of a launch, since the
    kernel waits for all processors when a mount goes. `descriptors` has a descriptor for each name of
    ``plan.descriptors``; they stay the caller's. With `fault` the monitor kills itself at that point
    (native/monitor/faults.h). The lock of the run directory (flock, shared) is taken, and is the monitor's as long as
    it lives: see `pyengine.runtime.state.monitored`. Returns at once: `Session.await_created` and
    `Session.await_started` say what became of it. Raises `KernelError`.
    """
    import fcntl

    from pyengine.linux.spawn import spawn

    fault = fault or faults.monitor_fault
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    arguments = ["pyengine-monitor", plan.settings.id[:12], *([f"fault={fault}"] if fault else [])]
    try:
        with (
            theirs,
            calls.sealed_memfd("pyengine-plan", plan.encode()) as encoded,
            calls.open(run_directory, os.O_RDONLY | os.O_DIRECTORY) as directory,
            ExitStack() as held,
        ):
            calls.run("lock", run_directory, fcntl.flock, directory.fileno(), fcntl.LOCK_SH)
            if program is None:
                program = held.enter_context(open_program())
            passed: dict[int, Fd | int] = {3: encoded, 4: theirs.fileno(), 5: directory}
            for index, name in enumerate(plan.descriptors):
                passed[plan.FIRST_DESCRIPTOR + index] = descriptors[name]
            spawn(arguments, executable=program, environment={}, descriptors=passed, directory="/").pidfd.close()
    except BaseException:
        ours.close()
        raise
    return Session(ours, plan)


def _connect(run_directory: str, name: str) -> socket.socket:
    """By way of /proc/self/fd, since the path of a run directory may not fit into sun_path."""
    directory = os.open(run_directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(f"/proc/self/fd/{directory}/{name}")
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(directory)
    return connection


def connect(run_directory: str) -> Session:
    """A connection to the monitor that runs there. The first messages say how things stand.

    Raises `FileNotFoundError` or `ConnectionRefusedError` when there is none (any more)."""
    return Session(_connect(run_directory, "control"))


def connect_streams(run_directory: str) -> socket.socket:
    """A connection to the container's streams, as `attach.pump` takes it: packets with 2 (stdout) or 3 (stderr)
    before the data; what is sent is stdin. Raises as `connect` does."""
    return _connect(run_directory, "attach")


def resize(run_directory: str, rows: int, columns: int) -> None:
    """Set the size of the container's terminal. Nothing happens when it has ended meanwhile."""
    _write_ctl(run_directory, f"1 {rows} {columns}\n")


def reopen_log(run_directory: str) -> None:
    """The log file was moved away: let the monitor open it anew."""
    _write_ctl(run_directory, "2 0 0\n")


def _write_ctl(run_directory: str, line: str) -> None:
    try:
        # not blocking: without a reader (the monitor has ended) the open fails with ENXIO
        fd = os.open(f"{run_directory}/ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in (errors.ENXIO, errors.ENOENT):
            return
        raise
    try:
        os.write(fd, line.encode("ascii"))
    finally:
        os.close(fd)
