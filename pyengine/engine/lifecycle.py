"""The life of a container: started, stopped, killed, paused, waited for, removed.

Each change holds the lock of the container's directory (flock: it goes with the process that holds it), so that two
engines cannot start one container twice. Nothing is noted down about the state: that is the monitor's.
"""

from __future__ import annotations

import os
import signal as signals
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from pyengine.engine import launch, states
from pyengine.engine.attachment import Attachment
from pyengine.engine.config import ContainerConfig
from pyengine.errors import (
    ContainerNotFound,
    InvalidState,
    KernelError,
    PyengineError,
    StartFailed,
    WaitTimeout,
)
from pyengine.linux import process
from pyengine.linux.faults import declare, fault
from pyengine.linux.fd import Fd
from pyengine.runtime import monitor
from pyengine.runtime.state import State, await_unmonitored, monitored, read_state

if TYPE_CHECKING:
    from pyengine.engine.engine import Engine

FAULTS = declare("container-remove-begun", "container-remove-forgotten", "container-remove-moved")
_SETTLING = 10.0
_STARTABLE = ("configured", "created", "stopped", "exited")


@contextmanager
def locked(engine: Engine, id: str, *, shared: bool = False) -> Iterator[None]:
    """Hold the container's lock, alone or with others that share it. Raises `ContainerNotFound` when it is gone."""
    import fcntl

    path = engine.layout.container(id)
    try:
        directory = Fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except FileNotFoundError:
        raise ContainerNotFound(id, f"no container with ID {id} found: no such container") from None
    with directory:
        fcntl.flock(directory.fileno(), fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        if os.fstat(directory.fileno()).st_nlink == 0:
            raise ContainerNotFound(id, f"no container with ID {id} found: no such container")
        yield


def _require(engine: Engine, config: ContainerConfig, allowed: tuple[str, ...], verb: str) -> states.ContainerState:
    state = states.read(engine, config)
    if state.status not in allowed:
        raise InvalidState(
            config.id,
            state.status,
            f"cannot {verb} container {config.name}: it is {state.status}, and has to be {' or '.join(allowed)}",
        )
    return state


# --- to start


def _settle(engine: Engine, config: ContainerConfig) -> None:
    """Wait for a monitor of an earlier start: one that has not come to its facts, because the engine was killed that
    started it, or one that has told the end and still clears up; end what a monitor held that was killed. The caller
    holds the lock."""
    run = engine.layout.run(config.id)
    facts = read_state(run)
    if facts.phase == "created" and not monitored(run):
        _end_without_monitor(engine, config)
    deadline = time.monotonic() + _SETTLING
    while read_state(run).phase in ("", "exited", "failed") and monitored(run):
        if time.monotonic() > deadline:
            raise PyengineError(
                f"the monitor of the last run of container {config.name} has not ended: it has output that its log "
                f"{config.log_path} cannot take"
            )
        time.sleep(0.0005)


def init(engine: Engine, config: ContainerConfig) -> None:
    """configured, stopped, exited → created."""
    with locked(engine, config.id):
        _settle(engine, config)
        _require(engine, config, ("configured", "stopped", "exited"), "initialise")
        launch.launch(engine, config, hold=True).close()


def start(engine: Engine, config: ContainerConfig, client: socket.socket | None = None) -> monitor.Session:
    """Start, and give the session that attends the container; closing it leaves the container to itself."""
    try:
        with locked(engine, config.id):
            _settle(engine, config)
            state = _require(engine, config, _STARTABLE, "start")
            if state.status != "created":
                return launch.launch(engine, config, client=client)
            session = monitor.connect(engine.layout.run(config.id))
            try:
                session.start()
                session.await_started()
            except BaseException:
                session.close()
                raise
            return session
    except (StartFailed, KernelError):
        if config.auto_remove:
            remove(engine, config, force=True)
        raise


def start_attached(engine: Engine, config: ContainerConfig, stdin: bool) -> Attachment:
    """Start with the streams in the caller's hands."""
    if states.read(engine, config).status == "created":
        with locked(engine, config.id):
            _settle(engine, config)
    if states.read(engine, config).status == "created":
        attachment = attach(engine, config, stdin, allowed=("created",))
        try:
            start(engine, config).close()
        except BaseException:
            attachment.close()
            raise
        return attachment
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with theirs:
            session = start(engine, config, theirs)
    except BaseException:
        ours.close()
        raise
    return _attachment(engine, config, ours, session, stdin)


def attach(engine: Engine, config: ContainerConfig, stdin: bool, allowed: tuple[str, ...] = ("running",)) -> Attachment:
    """Join the streams of a container that runs."""
    _require(engine, config, allowed, "attach to")
    try:
        connection = monitor.connect_streams(engine.layout.run(config.id))
        try:
            session = monitor.connect(engine.layout.run(config.id))
        except BaseException:
            connection.close()
            raise
    except (FileNotFoundError, ConnectionRefusedError):
        raise InvalidState(
            config.id,
            "exited",
            f"cannot attach to container {config.name}: it has just ended, or its monitor was killed",
        ) from None
    return _attachment(engine, config, connection, session, stdin)


def _attachment(
    engine: Engine, config: ContainerConfig, connection: socket.socket, session: monitor.Session, stdin: bool
) -> Attachment:
    def wait(timeout: float | None) -> int:
        ended = session.wait_exit(timeout)
        if ended is None:
            raise WaitTimeout(f"container {config.name} did not end within {timeout} seconds")
        return ended.exit_code

    attachment = Attachment(
        connection,
        wait=wait,
        resize=lambda rows, columns: monitor.resize(engine.layout.run(config.id), rows, columns),
        close=session.close,
        release=session.release,
    )
    if not stdin:
        attachment.close_stdin()
    return attachment


# --- to stop


def stop(engine: Engine, config: ContainerConfig, timeout: float) -> None:
    """The stop signal, `timeout` seconds of patience, SIGKILL."""
    state = _require(engine, config, ("created", "running"), "stop")
    # What is held before its command cannot listen, and has nothing to lose.
    patient = timeout > 0 and state.status == "running"
    _end(engine, config, config.stop_signal if patient else signals.SIGKILL, timeout)


def _end(engine: Engine, config: ContainerConfig, number: int, timeout: float) -> None:
    """Signals the first process and waits for the end; SIGKILL after `timeout` seconds."""
    try:
        session = monitor.connect(engine.layout.run(config.id))
    except (FileNotFoundError, ConnectionRefusedError):
        _end_without_monitor(engine, config)
        return
    with session:
        try:
            ended = _end_by_monitor(engine, config, session, number, timeout)
        except PyengineError:
            if not await_unmonitored(engine.layout.run(config.id), _PATIENCE):
                raise
            _end_without_monitor(engine, config)  # it was killed meanwhile, or had told the end and was clearing up
            return
        if not ended:
            raise PyengineError(
                f"container {config.name} did not end within {_PATIENCE} seconds of SIGKILL: a process of it is "
                "stuck in the kernel (state D in ps)"
            )


def _end_by_monitor(
    engine: Engine, config: ContainerConfig, session: monitor.Session, number: int, timeout: float
) -> bool:
    _end_restarts(session)
    _signal(engine, config, number)
    if number != signals.SIGKILL and not _has_ended(session, timeout):
        _signal(engine, config, signals.SIGKILL)
    return _has_ended(session, _PATIENCE)


def _end_restarts(session: monitor.Session) -> None:
    """A restart policy is for what ends by itself. Once the monitor has greeted us it reads this before it looks at the
    restart policy, even if the container has ended meanwhile."""
    session.receive(_PATIENCE)
    session.stopping()


def _has_ended(session: monitor.Session, timeout: float) -> bool:
    try:
        return session.wait_exit(timeout) is not None
    except (KernelError, StartFailed):
        return True  # it was held before its command: that is a start that failed


#: seconds that the kernel gets to end a killed process
_PATIENCE = 60.0


def _signal(engine: Engine, config: ContainerConfig, number: int) -> bool:
    """Send a signal to the first process; False when there is none any more."""
    facts = read_state(engine.layout.run(config.id))
    pidfd = facts.pid.open() if facts.pid else None
    if pidfd is None:
        return False
    with pidfd:
        return process.send_signal(pidfd, number)


def _end_without_monitor(engine: Engine, config: ContainerConfig) -> None:
    """The monitor was killed: end what it left by the cgroup, or the process itself."""
    facts = read_state(engine.layout.run(config.id))
    engine.cgroups.kill(config.cgroup)
    for one in (facts.pid, facts.monitor):  # which has let go of everything, and may not quite have ended yet
        pidfd = one.open() if one else None
        if pidfd is not None:
            with pidfd:
                process.send_signal(pidfd, signals.SIGKILL)
                process.wait_ended(pidfd, _PATIENCE)
    engine.cgroups.remove(config.cgroup)


def kill(engine: Engine, config: ContainerConfig, signal: int | str) -> None:
    """Send a signal to the first process."""
    from pyengine.linux.signals import parse_signal

    number = parse_signal(str(signal))
    _require(engine, config, ("running",), "send a signal to")
    with ExitStack() as connected:
        if config.restart != "no":
            try:
                session = connected.enter_context(monitor.connect(engine.layout.run(config.id)))
            except (FileNotFoundError, ConnectionRefusedError):
                pass  # its monitor was killed: nothing restarts it
            else:
                _end_restarts(session)
        if not _signal(engine, config, number):
            raise InvalidState(
                config.id, "exited", f"cannot send a signal to container {config.name}: it has just ended"
            )


def pause(engine: Engine, config: ContainerConfig) -> None:
    """running → paused."""
    _require(engine, config, ("running",), "pause")
    engine.cgroups.freeze(config.cgroup)


def unpause(engine: Engine, config: ContainerConfig) -> None:
    """paused → running."""
    _require(engine, config, ("paused",), "unpause")
    engine.cgroups.thaw(config.cgroup)


# --- to wait


def wait(engine: Engine, config: ContainerConfig, timeout: float | None) -> int:
    """The exit code, once it has ended."""
    deadline = None if timeout is None else time.monotonic() + timeout
    run = engine.layout.run(config.id)
    while True:
        facts = read_state(run)
        if facts.phase not in ("created", "running", "restarting"):
            return states.read(engine, config).exit_code
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ended = _wait_once(engine, config, facts, left)
        if ended is not None:
            return ended
        if deadline is not None and time.monotonic() >= deadline:
            raise WaitTimeout(f"container {config.name} did not end within {timeout} seconds")


def _wait_once(engine: Engine, config: ContainerConfig, facts: State, left: float | None) -> int | None:
    try:
        session = monitor.connect(engine.layout.run(config.id))
    except (FileNotFoundError, ConnectionRefusedError):
        pidfd = facts.pid.open() if facts.pid else None  # its monitor was killed, or is just ending
        if pidfd is not None:
            with pidfd:
                process.wait_ended(pidfd, left)
        return None
    with session:
        try:
            ended = session.wait_exit(left)
        except PyengineError:
            return None  # the monitor ended in between: its facts are looked at again
        return None if ended is None else ended.exit_code


# --- to remove


def remove(engine: Engine, config: ContainerConfig, *, force: bool) -> None:
    """Forget the container and delete what it wrote."""
    with locked(engine, config.id):
        state = states.read(engine, config)
        if state.running:
            if not force:
                raise InvalidState(
                    config.id,
                    state.status,
                    f"cannot remove container {config.name}: it is {state.status}; stop it first, or use force",
                )
            if state.status == "paused":
                engine.cgroups.thaw(config.cgroup)
            _end(engine, config, signals.SIGKILL, 0)
        delete(engine, config)


def delete(engine: Engine, config: ContainerConfig) -> None:
    """Delete a container that does not run: its row first, then its files, by way of a directory of work under way,
    so that a crash leaves nothing that the next engine does not sweep."""
    moved = engine.work.new_path("container")
    fault("container-remove-begun")
    engine.cgroups.remove(config.cgroup)  # while it can be found by what the row says
    engine.store.containers.remove(config.id)
    fault("container-remove-forgotten")
    try:
        os.rename(engine.layout.container(config.id), moved)
    except FileNotFoundError:
        pass  # an engine that was just opened took it for what a crash had left, and removes it
    fault("container-remove-moved")
    _dismiss(engine.layout.run(config.id))
    engine.remove_tree(engine.layout.run(config.id))
    engine.remove_tree(moved)


def _dismiss(run: str) -> None:
    """The monitor may still hold output that a full disk does not take: it need not any more."""
    if not monitored(run):
        return
    try:
        with monitor.connect(run) as session:
            session.release()
    except (FileNotFoundError, ConnectionRefusedError):
        pass  # it has just ended


def rename(engine: Engine, config: ContainerConfig, name: str) -> ContainerConfig:
    """Claim another name."""
    import msgspec

    from pyengine.engine.names import check_name

    check_name(name)
    renamed = msgspec.structs.replace(config, name=name)
    engine.store.containers.rename(config.id, name)
    engine.store.containers.update_config(config.id, renamed.encode())
    return renamed
