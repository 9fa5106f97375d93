"""Commands in running containers: exec sessions.

A session has a monitor of its own, a run directory below the container's, and, where the container has a cgroup, a
group below that: so that a session can be ended with everything that it started, and nothing else.
"""

from __future__ import annotations

import os
import signal as signals
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyengine.engine import launch, states
from pyengine.engine.attachment import Attachment
from pyengine.engine.config import ContainerConfig
from pyengine.engine.lifecycle import locked
from pyengine.engine.result import Result, seconds_left
from pyengine.errors import ExecTimeout, InvalidState, InvalidValue, OutputTooLarge, PyengineError, WaitTimeout
from pyengine.linux import process
from pyengine.linux.faults import declare, fault
from pyengine.linux.fd import Fd
from pyengine.runtime import monitor
from pyengine.runtime.compile_exec import ExecCommand, compile_exec
from pyengine.runtime.compile_process import UserRequest
from pyengine.runtime.plan import Settings
from pyengine.runtime.state import read_state

if TYPE_CHECKING:
    from pyengine.engine.engine import Engine
    from pyengine.linux.group import Cgroup

FAULTS = declare("exec-directory", "exec-launched")
_PATIENCE = 10.0


@dataclass(frozen=True, kw_only=True)
class ExecRequest:
    """A command for a running container. `user` (``name|uid[:group|gid]``) and `workdir` empty: the container's own;
    `env` are ``K=V`` beside the container's."""

    command: tuple[str, ...]
    user: str = ""
    workdir: str = ""
    env: tuple[str, ...] = ()
    tty: bool = False
    privileged: bool = False
    stdin: bool = True

    def __post_init__(self) -> None:
        from pyengine.engine.request import check_user

        if not self.command:
            raise InvalidValue("there is no command to execute")
        check_user(self.user)
        if self.workdir and not self.workdir.startswith("/"):
            raise InvalidValue(f"working directory {self.workdir[:100]!r} has to be an absolute path")


class ExecSession(Attachment):
    """A command that runs in a container, and its streams. Closing it detaches: the command goes on."""

    def __init__(
        self,
        engine: Engine,
        config: ContainerConfig,
        id: str,
        connection: socket.socket,
        session: monitor.Session,
        group: Cgroup | None,
    ) -> None:
        self.id = id
        self._run = engine.layout.session(config.id, id)
        self._engine = engine
        self._session = session
        self._group = group
        super().__init__(
            connection, wait=self._wait_exit, resize=self._set_size, close=session.close, release=session.release
        )

    @property
    def pid(self) -> int:
        """The process ID of the command, as the host counts."""
        return self._session.pid

    def _wait_exit(self, timeout: float | None) -> int:
        ended = self._session.wait_exit(timeout)
        if ended is None:
            raise WaitTimeout(f"the command did not end within {timeout} seconds")
        return ended.exit_code

    def _set_size(self, rows: int, columns: int) -> None:
        monitor.resize(self._run, rows, columns)

    def kill(self) -> None:
        """End the command and everything that it started. Without a cgroup it is the command alone."""
        if self._group is not None:
            self._group.kill()
            return
        facts = read_state(self._run)
        pidfd = facts.pid.open() if facts.pid else None
        if pidfd is not None:
            with pidfd:
                process.send_signal(pidfd, signals.SIGKILL)

    def abandon(self) -> None:
        """Without a monitor: what it would have seen to."""
        self.kill()
        if self._group is not None:
            self._group.remove()

    def finish(self) -> None:
        """After the end: nothing of the session stays."""
        self._session.release()
        self._engine.remove_tree(self._run)


def start(engine: Engine, config: ContainerConfig, request: ExecRequest) -> ExecSession:
    """Start a command in a running container.

    Raises `InvalidState` when the container does not run, `StartFailed` when the command cannot be executed.
    """
    facts = read_state(engine.layout.run(config.id))
    pidfd = facts.pid.open() if facts.phase == "running" and facts.pid else None
    if pidfd is None:
        status = states.read(engine, config).status
        raise InvalidState(config.id, status, f"cannot execute in container {config.name}: it is {status}")
    if engine.cgroups.is_frozen(config.cgroup):
        pidfd.close()
        raise InvalidState(config.id, "paused", f"cannot execute in container {config.name}: it is paused")
    id = os.urandom(32).hex()
    with ExitStack() as undo, ExitStack() as held:
        held.enter_context(pidfd)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        undo.callback(ours.close)
        held.enter_context(theirs)
        # A directory of a session that nobody works in, with this lock free, was left by a crash.
        with locked(engine, config.id, shared=True):
            run = engine.layout.session(config.id, id)
            os.makedirs(run, 0o700)
            undo.callback(engine.remove_tree, run)
            fault("exec-directory")
            group = engine.cgroups.session(config.cgroup, id)
            if group is not None:
                undo.callback(_end_group, group)
            session = _launch(engine, config, id, request, {"container": pidfd, "client": theirs}, group, held)
        try:
            fault("exec-launched")
            session.await_started()
        except BaseException:
            session.close()
            raise
        undo.pop_all()
    opened = ExecSession(engine, config, id, ours, session, group)
    if not request.stdin:
        opened.close_stdin()
    return opened


def _end_group(group: Cgroup) -> None:
    group.kill()
    group.remove()


def _launch(
    engine: Engine,
    config: ContainerConfig,
    id: str,
    request: ExecRequest,
    given: dict[str, Fd | socket.socket],
    group: Cgroup | None,
    held: ExitStack,
) -> monitor.Session:
    spec = launch.read_spec(engine, config.id)
    opened: dict[str, Fd | socket.socket] = dict(given)
    joins = []
    if group is not None:
        opened["cgroup"] = held.enter_context(group.open())
    if engine.rootless:
        own = spec.linux is not None and any(one.type == "user" for one in spec.linux.namespaces or ())
        # The one that the container was started in: if its holder was killed since, the engine's is another.
        opened["user"] = held.enter_context(engine.open_user_namespace()) if own else given["container"]
        joins.append(launch.join_user_namespace())
    plan = compile_exec(
        spec,
        ExecCommand(
            args=request.command,
            env=request.env,
            workdir=request.workdir,
            terminal=request.tty,
            privileged=engine.facts.capabilities if request.privileged or config.privileged else (),
            cap_add=config.cap_add,
        ),
        launch.compiler_facts(engine),
        Settings(id=id, session=True, stdin=request.stdin, cgroup=group.path if group is not None else ""),
        origin=f"container {config.name}",
        user=UserRequest(request.user or config.user, config.groups),
        seccomp_filter=launch.seccomp_filter(engine, spec),
        joins=joins,
        descriptors=tuple(opened),
    )
    return monitor.launch(
        plan,
        engine.layout.session(config.id, id),
        {name: opened[name].fileno() for name in opened},
        program=engine.monitor_program,
    )


def collect(
    session: ExecSession, container_id: str, input: bytes | None, timeout: float | None, output_limit: int
) -> Result:
    """Everything the command writes, and its exit code; `ExecTimeout` once it is killed for taking too long."""
    left = seconds_left(timeout)
    try:
        stdout, stderr, too_large = session.collect(input, output_limit, left)
        exit_code = session.wait(left())
    except TimeoutError:
        session.kill()
        session.wait(_PATIENCE)
        raise ExecTimeout(f"the command ran longer than {timeout} seconds and was killed") from None
    except PyengineError:
        session.abandon()  # its monitor was killed
        raise
    finally:
        session.finish()
    if too_large:
        raise OutputTooLarge(output_limit, exit_code)
    return Result(exit_code, stdout, stderr, container_id)
