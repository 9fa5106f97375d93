"""run and create."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import click

from pyengine.cli import output
from pyengine.cli.arguments import Command, switch, value, words
from pyengine.cli.commands.streams import detach_keys_option, sig_proxy_option, stay
from pyengine.cli.container_options import container_options, engine_options
from pyengine.cli.files import id_file, write_pid_file
from pyengine.cli.session import Session
from pyengine.errors import ContainerNotFound, InvalidValue, NameInUse

if TYPE_CHECKING:
    from pyengine.engine.container import Container
    from pyengine.engine.engine import Engine


def split(names: tuple[str, ...], options: dict[str, Any]) -> dict[str, Any]:
    """The engine's options, with the image (or the root file system) and the command that follow the flags."""
    if not names:
        raise InvalidValue("an image has to be named")
    if options.pop("rootfs", False):
        options["rootfs"] = os.path.abspath(names[0])
    else:
        options["image"] = names[0]
    if len(names) > 1:
        options["command"] = names[1:]
    return options


@click.pass_obj
def create(session: Session, /, *, names: tuple[str, ...], cidfile: str, replace: bool, **values: Any) -> int:
    options = split(names, engine_options(values))
    with session.engine() as engine:
        output.line(_create(engine, options, cidfile, replace).id)
    return 0


@click.pass_obj
def run(
    session: Session,
    /,
    *,
    names: tuple[str, ...],
    cidfile: str,
    replace: bool,
    pidfile: str,
    detach: bool,
    detach_keys: str,
    sig_proxy: bool,
    **values: Any,
) -> int:
    from pyengine.cli.terminal import ending_raises, handlers

    options = split(names, engine_options(values))
    interactive = bool(options.get("interactive"))
    with session.engine() as engine, handlers(ending_raises()):
        container = _create(engine, options, cidfile, replace)
        with ExitStack() as stack:
            try:
                if detach:
                    container.start()
                    attachment = None
                else:
                    attachment = stack.enter_context(container.start_attached(stdin=interactive))
            except BaseException:
                # also for a Ctrl-C in between: whoever asked for --rm has no ID by which to remove it
                if container.config.auto_remove:
                    with suppress(ContainerNotFound):
                        container.remove(force=True)
                raise
            if pidfile:
                write_pid_file(pidfile, container.state().pid)
            if attachment is None:
                output.line(container.id)
                return 0
            return stay(container, attachment, interactive, sig_proxy, detach_keys)


def _create(engine: Engine, options: dict[str, Any], cidfile: str, replace: bool) -> Container:
    if not cidfile:
        return _create_or_replace(engine, options, replace)
    with id_file(cidfile) as file:
        container = _create_or_replace(engine, options, replace)
        file.write(container.id)
    return container


def _create_or_replace(engine: Engine, options: dict[str, Any], replace: bool) -> Container:
    if not replace:
        return engine.containers.create(**options)
    if "name" not in options:
        raise InvalidValue("--replace needs --name: it says which container is to be replaced")
    try:
        return engine.containers.create(**options)
    except NameInUse as error:
        with suppress(ContainerNotFound):
            engine.containers.get(error.owner).remove(force=True)
        return engine.containers.create(**options)


_WORDS = "IMAGE [COMMAND [ARG...]]"


def _creation_options() -> list[click.Option]:
    return [
        *container_options(),
        value("--cidfile", default="", metavar="FILE", help="Write the container's ID to this new file"),
        switch("--replace", help="Remove a container of the same name first"),
    ]


def _sorted(options: list[click.Option]) -> list[click.Option]:
    return sorted(options, key=lambda option: max(option.opts, key=len))


COMMANDS = {
    "run": Command(
        "run",
        callback=run,
        help="Run a command in a new container, and stay with it: its exit code is returned.",
        interspersed=False,
        help_names=("--help",),
        params=[
            *_sorted(
                [
                    *_creation_options(),
                    switch("--detach", "-d", help="Leave it running and print its ID"),
                    detach_keys_option(),
                    value("--pidfile", default="", metavar="FILE", help="Write the process ID of its command to this"),
                    sig_proxy_option(),
                ]
            ),
            words("names", metavar=_WORDS),
        ],
    ),
    "create": Command(
        "create",
        callback=create,
        help="Create a container, to be started later, and print its ID.",
        interspersed=False,
        help_names=("--help",),
        params=[*_sorted(_creation_options()), words("names", metavar=_WORDS)],
    ),
}
