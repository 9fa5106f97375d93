"""stop, restart, kill, pause, unpause, wait, rm."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from pyengine.cli.arguments import Command, switch, value, words
from pyengine.cli.containers import act
from pyengine.cli.failures import exit_code
from pyengine.cli.session import Session
from pyengine.errors import ContainerNotFound, InvalidState

if TYPE_CHECKING:
    from pyengine.engine.container import Container

_ENDED = ("stopped", "exited")

REMOVE_UNKNOWN = 1
REMOVE_RUNNING = 2


@click.pass_obj
def stop(session: Session, /, *, names: tuple[str, ...], all: bool, latest: bool, time: int | None) -> int:
    def operation(container: Container) -> str:
        try:
            container.stop(time)
        except InvalidState as error:
            # to stop what has ended is no error, and with --all neither is what was never started
            if error.state not in _ENDED and not all:
                raise
        return container.id

    with session.engine() as engine:
        return act(engine, names, operation, use_all=all, use_latest=latest, statuses=("created", "running"))


@click.pass_obj
def restart(
    session: Session, /, *, names: tuple[str, ...], all: bool, latest: bool, running: bool, time: int | None
) -> int:
    statuses = ("running",) if running else ()
    return _each(
        session, names, lambda container: container.restart(time), all=all or running, latest=latest, statuses=statuses
    )


@click.pass_obj
def kill(session: Session, /, *, names: tuple[str, ...], all: bool, latest: bool, signal: str) -> int:
    from pyengine.linux.signals import parse_signal

    number = parse_signal(signal)
    return _each(
        session, names, lambda container: container.kill(number), all=all, latest=latest, statuses=("running",)
    )


@click.pass_obj
def pause(session: Session, /, *, names: tuple[str, ...], all: bool, latest: bool) -> int:
    return _each(session, names, lambda container: container.pause(), all=all, latest=latest, statuses=("running",))


@click.pass_obj
def unpause(session: Session, /, *, names: tuple[str, ...], all: bool, latest: bool) -> int:
    return _each(session, names, lambda container: container.unpause(), all=all, latest=latest, statuses=("paused",))


@click.pass_obj
def wait(session: Session, /, *, names: tuple[str, ...], latest: bool) -> int:
    with session.engine() as engine:
        return act(engine, names, lambda container: str(container.wait()), use_latest=latest)


@click.pass_obj
def rm(session: Session, /, *, names: tuple[str, ...], all: bool, latest: bool, force: bool) -> int:
    def operation(container: Container) -> str:
        container.remove(force=force)
        return container.id

    def code(error: BaseException) -> int:
        if isinstance(error, ContainerNotFound):
            return REMOVE_UNKNOWN if len(names) == 1 else exit_code(error)
        return REMOVE_RUNNING if isinstance(error, InvalidState) else exit_code(error)

    with session.engine() as engine:
        return act(engine, names, operation, use_all=all, use_latest=latest, code=code)


def _each(
    session: Session,
    names: tuple[str, ...],
    change: Callable[[Container], None],
    *,
    all: bool,
    latest: bool,
    statuses: tuple[str, ...],
) -> int:
    def operation(container: Container) -> str:
        change(container)
        return container.id

    with session.engine() as engine:
        return act(engine, names, operation, use_all=all, use_latest=latest, statuses=statuses)


def _command(callback: Callable[..., Any], help: str, *params: click.Parameter, all: str = "") -> Command:
    selection: list[click.Parameter] = [switch("--latest", "-l", help="The container that was created last")]
    if all:
        selection.append(switch("--all", "-a", help=all))
    return Command(
        callback.__name__,
        callback=callback,
        help=help,
        params=[*selection, *params, words("names", metavar="[CONTAINER...]")],
    )


def _time() -> click.Option:
    return value(
        "--time",
        "--timeout",
        "-t",
        "time",
        type=click.IntRange(min=0),
        metavar="SECONDS",
        help="Time between the stop signal and SIGKILL (default: what the container was created with)",
    )


COMMANDS = {
    "stop": _command(stop, "Stop containers: the stop signal, and SIGKILL later.", _time(), all="All that run"),
    "restart": _command(
        restart,
        "Stop containers and start them again.",
        _time(),
        switch("--running", help="All that run"),
        all="All, also those that do not run",
    ),
    "kill": _command(
        kill,
        "Send a signal to the first process of containers.",
        value("--signal", "-s", metavar="SIGNAL", default="KILL", help="Name or number (default: KILL)"),
        all="All that run",
    ),
    "pause": _command(pause, "Freeze all processes of containers.", all="All that run"),
    "unpause": _command(unpause, "Let paused containers go on.", all="All that are paused"),
    "wait": _command(wait, "Wait for containers to end and print their exit codes."),
    "rm": _command(
        rm,
        "Remove containers with what they wrote. Exit code 1: there is no such container; 2: it runs.",
        switch("--force", "-f", help="Also what runs: it is killed"),
        all="All",
    ),
}
