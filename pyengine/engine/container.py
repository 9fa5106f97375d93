"""One container, as its users handle it.

What a method needs beyond the state is imported by the method: listing containers has to be quick.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from pyengine.engine import states
from pyengine.engine.config import ContainerConfig
from pyengine.engine.result import DEFAULT_OUTPUT_LIMIT, Result
from pyengine.engine.states import ContainerState
from pyengine.errors import InvalidValue
from pyengine.typing import override

if TYPE_CHECKING:
    from pyengine.engine.attachment import Attachment
    from pyengine.engine.engine import Engine
    from pyengine.engine.execution import ExecSession
    from pyengine.engine.explain import Explanation
    from pyengine.runtime.logs import LogLine


class Container:
    """A container of an engine's store.

    What was asked for is in `config` and does not change; what is (`state`, `status`) is read anew each time, from
    where the kernel and the container's monitor keep it. As a context manager it is removed at the end, running or not.

    Any method raises `ContainerNotFound` when the container was removed meanwhile.
    """

    def __init__(self, engine: Engine, config: ContainerConfig) -> None:
        self.engine = engine
        self.config = config

    @override
    def __repr__(self) -> str:
        return f"<Container {self.short_id} {self.name}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        from pyengine.errors import ContainerNotFound

        try:
            self.remove(force=True)
        except ContainerNotFound:
            pass  # removed inside the block

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self.config.id

    @property
    def short_id(self) -> str:
        return self.config.id[:12]

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def image_name(self) -> str:
        """The name by which the image was asked for, or its ID; empty for a root file system without an image."""
        return self.config.image_name

    @property
    def image_id(self) -> str:
        return self.config.image_id

    @property
    def command(self) -> tuple[str, ...]:
        """What follows the entrypoint: the user's words, else the image's CMD."""
        return self.config.command

    @property
    def created_ns(self) -> int:
        """When it was created, in nanoseconds since 1970."""
        return self.config.created_ns

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.config.labels)

    @property
    def log_path(self) -> str:
        """The log file; empty with the log driver none."""
        return self.config.log_path

    # --- what is

    def state(self) -> ContainerState:
        """What the container is doing now."""
        return states.read(self.engine, self.config)

    @property
    def status(self) -> str:
        """``configured``, ``created``, ``running``, ``paused``, ``stopped`` or ``exited``."""
        return self.state().status

    # --- its life

    def init(self) -> None:
        """Set everything up and hold the container just before its command (state ``created``)."""
        from pyengine.engine import lifecycle

        lifecycle.init(self.engine, self.config)

    def start(self) -> None:
        """Start the command; returns when it runs.

        Raises `InvalidState` when it runs already, `StartFailed` when the command cannot be executed (its
        ``exit_code`` is 126 or 127), `StepError` when the container could not be set up.
        """
        from pyengine.engine import lifecycle

        lifecycle.start(self.engine, self.config).close()

    def start_attached(self, stdin: bool = True) -> Attachment:
        """Start the command with its streams in the caller's hands, from the first byte on. Without `stdin`, the
        command's standard input ends at once."""
        from pyengine.engine import lifecycle

        return lifecycle.start_attached(self.engine, self.config, stdin)

    def stop(self, timeout: float | None = None) -> None:
        """Send the stop signal, wait `timeout` seconds (None: what the container was created with), then kill.

        Raises `InvalidState` when it does not run.
        """
        from pyengine.engine import lifecycle

        lifecycle.stop(self.engine, self.config, self.config.stop_timeout if timeout is None else timeout)

    def kill(self, signal: int | str = "KILL") -> None:
        """Send a signal, by number or name, to the first process. Returns once it is sent."""
        from pyengine.engine import lifecycle

        lifecycle.kill(self.engine, self.config, signal)

    def restart(self, timeout: float | None = None) -> None:
        """Stop, if it runs, and start."""
        if self.state().status in ("running", "created"):
            self.stop(timeout)
        self.start()

    def pause(self) -> None:
        """Freeze every process of the container (cgroup.freeze)."""
        from pyengine.engine import lifecycle

        lifecycle.pause(self.engine, self.config)

    def unpause(self) -> None:
        """Let a paused container go on."""
        from pyengine.engine import lifecycle

        lifecycle.unpause(self.engine, self.config)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; returns the exit code (128 + n for signal n, 0 if it was never started).

        Raises `WaitTimeout` after `timeout` seconds.
        """
        from pyengine.engine import lifecycle

        return lifecycle.wait(self.engine, self.config, timeout)

    def remove(self, force: bool = False) -> None:
        """Remove the container with everything it wrote. `force` kills it first if it runs."""
        from pyengine.engine import lifecycle

        lifecycle.remove(self.engine, self.config, force=force)

    def rename(self, name: str) -> None:
        """Give it another name. Raises `NameInUse`, and `InvalidValue` for what no container can be called."""
        from pyengine.engine import lifecycle

        self.config = lifecycle.rename(self.engine, self.config, name)

    # --- its streams

    def attach(self, stdin: bool = True) -> Attachment:
        """Join the streams of the running container. What it wrote before is in `logs`."""
        from pyengine.engine import lifecycle

        return lifecycle.attach(self.engine, self.config, stdin)

    def logs(
        self,
        follow: bool = False,
        since: int | None = None,
        tail: int | None = None,
        stdout: bool = True,
        stderr: bool = True,
    ) -> Iterator[LogLine]:
        """The lines it wrote, oldest first: those after `since` (nanoseconds since 1970), of these the last `tail`.

        With `follow` the iterator goes on with what comes, until the container ends.
        """
        from pyengine.engine.logs import lines

        wanted = {name for name, on in (("stdout", stdout), ("stderr", stderr)) if on}
        return (line for line in lines(self.engine, self.config, follow, since, tail) if line.stream in wanted)

    def exec(
        self,
        command: Sequence[str],
        *,
        user: str = "",
        workdir: str = "",
        env: Sequence[str] = (),
        tty: bool = False,
        privileged: bool = False,
        input: bytes | None = None,
        timeout: float | None = None,
        output_limit: int = DEFAULT_OUTPUT_LIMIT,
    ) -> Result:
        """Run a command in the running container and collect what it writes.

        `user` is ``name|uid[:group|gid]`` (empty: the container's), `env` are ``K=V`` beside the container's own.
        After `timeout` seconds the command is killed with all that it started: `ExecTimeout`.
        """
        from pyengine.engine import execution

        with self.open_exec(
            command, user=user, workdir=workdir, env=env, tty=tty, privileged=privileged, stdin=input is not None
        ) as session:
            return execution.collect(session, self.id, input, timeout, output_limit)

    def open_exec(
        self,
        command: Sequence[str],
        *,
        user: str = "",
        workdir: str = "",
        env: Sequence[str] = (),
        tty: bool = False,
        privileged: bool = False,
        stdin: bool = True,
    ) -> ExecSession:
        """Run a command in the running container, its streams in the caller's hands."""
        from pyengine.engine import execution

        if isinstance(command, str):
            raise InvalidValue(f"command {command[:60]!r}: expected a sequence of words, such as {command.split()[:4]}")
        request = execution.ExecRequest(
            command=tuple(command),
            user=user,
            workdir=workdir,
            env=tuple(env),
            tty=tty,
            privileged=privileged,
            stdin=stdin,
        )
        return execution.start(self.engine, self.config, request)

    # --- what it is made of

    def inspect(self, size: bool = False) -> dict[str, Any]:
        """The document that ``podman inspect`` prints for a container."""
        from pyengine.engine.inspect import inspect_container

        return inspect_container(self.engine, self.config, size)

    def explain(self) -> Explanation:
        """Spec, plan, layers, namespaces and cgroup, as a start would make them."""
        from pyengine.engine.explain import explain

        return explain(self.engine, self.config)

    def spec(self) -> bytes:
        """The OCI runtime spec, as JSON."""
        with open(os.path.join(self.engine.layout.container(self.id), "config.json"), "rb") as file:
            return file.read()
