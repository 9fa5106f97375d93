"""start, exec, attach: the commands that have a container's streams."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import click

from pyengine.cli import output
from pyengine.cli.arguments import Command, switch, value, words
from pyengine.cli.session import Session
from pyengine.errors import ContainerNotFound, InvalidState, InvalidValue

if TYPE_CHECKING:
    from pyengine.engine.attachment import Attachment
    from pyengine.engine.container import Container
    from pyengine.engine.engine import Engine

DETACH_KEYS = "ctrl-p,ctrl-q"


def detach_keys_option() -> click.Option:
    return value(
        "--detach-keys",
        default=DETACH_KEYS,
        metavar="KEYS",
        help=f"What to type to leave a container running: characters and ctrl-X (default: {DETACH_KEYS})",
    )


def sig_proxy_option() -> click.Option:
    return switch("--sig-proxy", default=True, help="Send the signals that come in on to the container")


def stay(container: Container, attachment: Attachment, stdin: bool, sig_proxy: bool, detach_keys: str) -> int:
    """Be a container's foreground until it ends: its exit code (0 when detached). ``--rm`` is done when it ended."""
    from pyengine.cli.terminal import foreground

    with attachment:
        code = foreground(
            attachment,
            stdin=stdin,
            tty=container.config.tty,
            detach_keys=detach_keys,
            kill=container.kill if sig_proxy else None,
        )
        if code is not None and container.config.auto_remove:
            attachment.release()  # the monitor need not call anybody: it is removed here
    if code is None:
        return 0
    if container.config.auto_remove:
        with suppress(ContainerNotFound):  # whoever came first
            container.remove(force=True)
    return code


@click.pass_obj
def start(
    session: Session,
    /,
    *,
    names: tuple[str, ...],
    all: bool,
    latest: bool,
    attach: bool,
    interactive: bool,
    sig_proxy: bool,
    detach_keys: str,
) -> int:
    from pyengine.cli import containers

    def operation(container: Container) -> str:
        # what runs is started already, as podman has it
        if container.status != "running":
            container.start()
        return container.id

    with session.engine() as engine:
        if not (attach or interactive):
            return containers.act(
                engine,
                names,
                operation,
                use_all=all,
                use_latest=latest,
                statuses=("configured", "created", "stopped", "exited"),
            )
        container = _only(engine, names, latest)
        if all:
            raise InvalidValue("--all and --attach contradict each other: there is one terminal")
        stdin = interactive and container.config.stdin
        running = container.status == "running"
        attachment = container.attach(stdin=stdin) if running else container.start_attached(stdin=stdin)
        return stay(container, attachment, stdin, sig_proxy, detach_keys)


@click.pass_obj
def attach(
    session: Session, /, *, names: tuple[str, ...], latest: bool, no_stdin: bool, sig_proxy: bool, detach_keys: str
) -> int:
    with session.engine() as engine:
        container = _only(engine, names, latest)
        status = container.status
        if status != "running":
            raise InvalidState(
                container.id, status, f"cannot attach to container {container.name}: it is {status}, not running"
            )
        stdin = container.config.stdin and not no_stdin
        return stay(container, container.attach(stdin=stdin), stdin, sig_proxy, detach_keys)


@click.pass_obj
def exec(
    session: Session,
    /,
    *,
    names: tuple[str, ...],
    latest: bool,
    detach: bool,
    detach_keys: str,
    env: tuple[str, ...],
    env_file: tuple[str, ...],
    interactive: bool,
    privileged: bool,
    tty: bool,
    user: str,
    workdir: str,
) -> int:
    import os

    from pyengine.cli.files import read_lines_of
    from pyengine.cli.terminal import foreground
    from pyengine.engine.values import parse_env, parse_env_file

    variables: dict[str, str] = {}
    for path in env_file:
        variables |= parse_env_file(read_lines_of(path, "environment file"), os.environ)
    variables |= parse_env(env, os.environ)
    command = names if latest else names[1:]
    if not command:
        raise InvalidValue("exec needs a container and a command")
    with session.engine() as engine:
        container = _only(engine, () if latest else names[:1], latest)
        running = container.open_exec(
            command,
            user=user,
            workdir=workdir,
            env=[f"{key}={text}" for key, text in variables.items()],
            tty=tty,
            privileged=privileged,
            stdin=interactive and not detach,
        )
        with running:
            if detach:
                output.line(running.id)
                return 0
            code = foreground(running, stdin=interactive, tty=tty, detach_keys=detach_keys)
            if code is None:
                return 0
            running.finish()
    return code


def _only(engine: Engine, names: tuple[str, ...], use_latest: bool) -> Container:
    from pyengine.cli.containers import latest

    if use_latest and names:
        raise InvalidValue("--latest and names contradict each other")
    if use_latest:
        return latest(engine)
    if len(names) != 1:
        raise InvalidValue("exactly one container has to be named: there is one terminal")
    return engine.containers.get(names[0])


_LATEST = "The container that was created last"

COMMANDS = {
    "start": Command(
        "start",
        callback=start,
        help="Start containers that were created, or have ended.",
        params=[
            switch("--all", help="All that do not run"),
            switch("--attach", "-a", help="Stay, with the container's stdout and stderr; return its exit code"),
            detach_keys_option(),
            switch("--interactive", "-i", help="Stay, with its stdin too"),
            switch("--latest", "-l", help=_LATEST),
            sig_proxy_option(),
            words("names", metavar="[CONTAINER...]"),
        ],
    ),
    "attach": Command(
        "attach",
        callback=attach,
        help="Join the streams of a running container until it ends; return its exit code.",
        params=[
            detach_keys_option(),
            switch("--latest", "-l", help=_LATEST),
            switch("--no-stdin", help="Leave its stdin alone"),
            sig_proxy_option(),
            words("names", metavar="[CONTAINER]"),
        ],
    ),
    "exec": Command(
        "exec",
        callback=exec,
        help="Run a command in a running container; return its exit code.",
        interspersed=False,
        params=[
            switch("--detach", "-d", help="Do not wait for its end"),
            detach_keys_option(),
            value("--env", "-e", multiple=True, metavar="K=V", help="A variable; without =V, its value here"),
            value("--env-file", multiple=True, metavar="FILE", help="A file with a variable a line"),
            switch("--interactive", "-i", help="Give it stdin"),
            switch("--latest", "-l", help=_LATEST),
            switch("--privileged", help="Give it all capabilities"),
            switch("--tty", "-t", help="Give it a terminal"),
            value("--user", "-u", default="", metavar="USER[:GROUP]", help="Who it runs as"),
            value("--workdir", "-w", default="", metavar="DIR", help="Where it runs"),
            words("names", metavar="CONTAINER COMMAND [ARG...]"),
        ],
    ),
}
