"""The monitor's facts about a container: the files ``state`` and ``error`` of its run directory.

They are read as they are, and what cannot be true any more is corrected: a process is named by its pid and its start
time, so that neither a reboot nor the reuse of a pid can make a dead container look alive.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from pyengine.errors import InvalidValue
from pyengine.linux.process import ProcessId

#: the values of `State.phase`; "" where nothing was ever started
PHASES = ("", "created", "running", "restarting", "exited", "failed")

MONITOR_KILLED = "the monitor was killed"

_KEYS = ("phase", "monitor", "pid", "created", "started", "finished", "code", "oom", "restarts")
_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class State:
    """What the monitor knows. Times are nanoseconds since 1970, 0 for never.

    `pid` is the container's first process, None when there is none; `monitor` is its monitor, which may have ended.
    `exit_code` is that of the last run: 0…255, -1 when nobody could learn it. `error` says why a start failed, or why
    the exit code is not known.
    """

    phase: str = ""
    monitor: ProcessId | None = None
    pid: ProcessId | None = None
    created_ns: int = 0
    started_ns: int = 0
    finished_ns: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    restarts: int = 0
    error: str = ""

    @property
    def monitor_alive(self) -> bool:
        """The monitor runs."""
        return self.monitor is not None and self.monitor.running()

    @property
    def process_alive(self) -> bool:
        """The container's first process runs (or is held before its command)."""
        return self.pid is not None and self.pid.running()


def _integer(text: str) -> int:
    # not int(): that takes signs, underscores and digits of other scripts
    digits = text[1:] if text[:1] == "-" else text
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 19:
        raise InvalidValue(f"not an integer: {text[:40]!r}")
    return int(text)


def _process(text: str) -> ProcessId | None:
    pid, colon, start = text.partition(":")
    if not colon:
        raise InvalidValue(f"not a process: {text[:40]!r}")
    return ProcessId(_integer(pid), _integer(start)) if pid != "0" else None


def parse_state(text: str) -> State:
    """Parse a line ``phase=… monitor=PID:START pid=PID:START created=NS …``. Raises `InvalidValue`."""
    pairs = dict(pair.partition("=")[::2] for pair in text.removesuffix("\n").split(" "))
    if tuple(pairs) != _KEYS:
        raise InvalidValue(f"not the state of a container: {text[:80]!r}")
    if pairs["phase"] not in PHASES[1:] or pairs["oom"] not in ("0", "1"):
        raise InvalidValue(f"not the state of a container: {text[:80]!r}")
    return State(
        phase=pairs["phase"],
        monitor=_process(pairs["monitor"]),
        pid=_process(pairs["pid"]),
        created_ns=_integer(pairs["created"]),
        started_ns=_integer(pairs["started"]),
        finished_ns=_integer(pairs["finished"]),
        exit_code=_integer(pairs["code"]),
        oom_killed=pairs["oom"] == "1",
        restarts=_integer(pairs["restarts"]),
    )


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a start failed. `step` counts from 1 of `total`, 0: around the steps; `kind` is the step's `KIND` or 0;
    `detail` and `subject` may be empty."""

    step: int
    total: int
    kind: int
    errno: int
    detail: str
    subject: str

    def describe(self) -> str:
        """One line for people who do not have the plan."""
        from pyengine.runtime.plan import Chdir, Exec, LookupUser

        what = {
            Exec.KIND: f"execute {self.subject}",
            Chdir.KIND: f"change into {self.subject}",
            LookupUser.KIND: f"look up user {self.subject or 'root'}",
        }.get(self.kind, "set the container up")
        why = f"{what}: {os.strerror(self.errno)}" + (f" ({self.detail})" if self.detail else "")
        return f"{why} (step {self.step} of {self.total})" if self.step else why


def parse_error(text: str) -> Failure:
    """Parse the file ``error``. Raises `InvalidValue`."""
    head, _, subject = text.removesuffix("\n").partition("\n")
    fields = head.split(" ", 4)
    if len(fields) != 5:
        raise InvalidValue(f"not the error of a container: {text[:80]!r}")
    step, total, kind, number = map(_integer, fields[:4])
    return Failure(step, total, kind, number, fields[4], subject)


def _read(directory: str, name: str) -> str | None:
    """The content, or None where there is none."""
    try:
        fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.read(fd, _LIMIT).decode("utf-8", "replace")
    finally:
        os.close(fd)


def read_state(run_directory: str) -> State:
    """The facts of the container whose run directory this is; `State()` where there is none.

    A file that is damaged counts as a monitor that was killed.
    """
    text = _read(run_directory, "state")
    if text is None:
        return State()
    try:
        state = parse_state(text)
    except InvalidValue as error:
        return State(phase="exited", exit_code=-1, error=str(error))
    if state.phase == "failed":
        return replace(state, error=_read_error(run_directory))
    if state.phase == "exited" or state.monitor_alive:
        return state
    # Between reading the file and looking at the process the monitor may have ended in good order.
    again = _read(run_directory, "state")
    if again is not None and again != text:
        return read_state(run_directory)
    if state.process_alive:
        return state
    return replace(state, phase="exited", pid=None, exit_code=-1, error=MONITOR_KILLED)


def monitored(run_directory: str) -> bool:
    """Whether a monitor works in this directory, or is just being started in it: also one that has not written its
    facts yet, or has written the last of them and is still clearing up. It holds the directory's lock."""
    import fcntl

    try:
        fd = os.open(run_directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def await_unmonitored(run_directory: str, timeout: float) -> bool:
    """Wait for the monitor to end; False when it has not after `timeout` seconds."""
    import time

    deadline = time.monotonic() + timeout
    while monitored(run_directory):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.0005)
    return True


def _read_error(run_directory: str) -> str:
    text = _read(run_directory, "error")
    if text is None:
        return "the start failed"
    try:
        return parse_error(text).describe()
    except InvalidValue as error:
        return str(error)
