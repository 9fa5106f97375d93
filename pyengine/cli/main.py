"""``pyengine``: the entry point, and the table of commands.

Start-up time is a budget (``pyengine ps``: 120 ms with Python itself). A command's module is imported when that command
runs, and what the command needs when it needs it; ``--help`` reads this table alone.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

import pyengine
from pyengine.cli import failures, output
from pyengine.cli.arguments import normalize
from pyengine.cli.session import Session
from pyengine.errors import InvalidValue, PyengineError
from pyengine.typing import override

COMMANDS = {
    # name: (module, what it does)
    "attach": ("streams", "Attach to a running container"),
    "create": ("run", "Create but do not start a container"),
    "exec": ("streams", "Run a process in a running container"),
    "explain": ("system", "Show what a container is made of: spec, plan, layers, namespaces, cgroup"),
    "images": ("images", "List images"),
    "import": ("archives", "Make an image of a tarball of a root file system"),
    "info": ("system", "Show what this machine gives the engine"),
    "inspect": ("inspect", "Show containers and images in full"),
    "kill": ("lifecycle", "Send a signal to containers"),
    "load": ("archives", "Load images from an archive"),
    "logs": ("logs", "Show what containers wrote"),
    "pause": ("lifecycle", "Freeze all processes of containers"),
    "ps": ("ps", "List containers"),
    "restart": ("lifecycle", "Restart containers"),
    "rm": ("lifecycle", "Remove containers"),
    "rmi": ("images", "Remove images"),
    "run": ("run", "Run a command in a new container"),
    "save": ("archives", "Save images to an archive"),
    "start": ("streams", "Start containers"),
    "stop": ("lifecycle", "Stop containers"),
    "tag": ("images", "Give an image more names"),
    "unpause": ("lifecycle", "Let paused containers go on"),
    "version": ("system", "Show the version"),
    "wait": ("lifecycle", "Wait for containers to end"),
}
LOG_LEVELS = {"debug": 10, "info": 20, "warn": 30, "warning": 30, "error": 40, "fatal": 50, "panic": 50}
"""podman's words, and the levels of Python's logging that they mean."""

_SILENT = 30  # what logging does without being set up, which costs 5 ms


class Root(click.Group):
    """The group of all commands, which knows them without importing them."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        import importlib

        module = importlib.import_module(f"pyengine.cli.commands.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.COMMANDS[cmd_name]
        return command

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not ctx.resilient_parsing:
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS)
            ctx.fail(f"unknown command {args[0]!r}{f': did you mean {close[0]}?' if close else ''}")
        return super().resolve_command(ctx, args)

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, normalize(self, ctx, args, interspersed=False))

    @override
    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,  # noqa: ARG002
        standalone_mode: bool = True,  # noqa: ARG002
        windows_expand_args: bool = True,  # noqa: ARG002
        **extra: Any,
    ) -> NoReturn:
        """Run a command line and exit. ``obj`` is the `Session` to use."""
        sys.exit(self.run(sys.argv[1:] if args is None else list(args), prog_name or "pyengine", **extra))

    def run(self, args: list[str], name: str = "pyengine", obj: Session | None = None) -> int:
        """Run a command line; returns the exit code."""
        session = obj or Session()
        try:
            _check_text(args)
            with self.make_context(name, args, obj=session) as ctx:
                code = self.invoke(ctx)
            sys.stdout.flush()
        except click.exceptions.Exit as done:
            return done.exit_code
        except click.exceptions.NoArgsIsHelpError as help:
            output.line(help.format_message())
            return 0
        except click.UsageError as error:
            _report_usage(error)
        except click.ClickException as error:
            output.report(error.format_message())
        except BrokenPipeError:
            _forget_stdout()
            return failures.BROKEN_PIPE
        except KeyboardInterrupt:
            return failures.INTERRUPTED
        except failures.Terminated as signal:
            return 128 + signal.number
        except PyengineError as error:
            _report(error, session)
            return failures.exit_code(error)
        except Exception as error:  # noqa: BLE001 - the outermost frame: a person gets one line, not a traceback
            _report(error, session)
        else:
            return code if isinstance(code, int) else 0
        return failures.ENGINE_ERROR


def _check_text(args: Sequence[str]) -> None:
    """Raise `InvalidValue` for arguments that are not UTF-8: the documents of OCI are JSON, which cannot hold them."""
    for arg in args:
        try:
            arg.encode()
        except UnicodeEncodeError:
            raise InvalidValue(f"the argument {os.fsencode(arg)[:100]!r} is not UTF-8") from None


def _report_usage(error: click.UsageError) -> None:
    output.report(error.format_message())
    if error.ctx is not None:
        print(f"See '{error.ctx.command_path} --help'", file=sys.stderr)


def _report(error: Exception, session: Session) -> None:
    if session.debug:
        import traceback

        traceback.print_exception(error)
    output.report(failures.describe(error))
    if not session.debug and not isinstance(error, (PyengineError, OSError)):
        print("This is a defect of pyengine: --log-level=debug shows where.", file=sys.stderr)


def _forget_stdout() -> None:
    """Nobody reads any more: what is still buffered goes nowhere, also when Python flushes at exit."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass  # stdout is no file (a test's), and has nothing to flush


def _root_command(ctx: click.Context, root: str | None, runroot: str | None, log_level: str) -> None:
    session = ctx.obj
    session.root, session.run_root = root, runroot
    session.debug = log_level == "debug"
    if LOG_LEVELS[log_level] != _SILENT:
        import logging

        logging.basicConfig(level=LOG_LEVELS[log_level], format="%(levelname)s %(name)s: %(message)s")


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        output.line(f"pyengine version {pyengine.__version__}")
        ctx.exit()


cli = Root(
    "pyengine",
    callback=click.pass_context(_root_command),
    help="A container engine that is a Python library.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    params=[
        click.Option(["--root"], metavar="DIR", help="Directory of containers and images"),
        click.Option(["--runroot"], metavar="DIR", help="Directory of what does not survive a reboot"),
        click.Option(
            ["--log-level"],
            type=click.Choice(list(LOG_LEVELS)),
            default="warn",
            metavar="LEVEL",
            help="debug, info, warn (default) or error; debug shows where an error came from",
        ),
        click.Option(
            ["-v", "--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Show the version and exit",
        ),
    ],
)


def main() -> NoReturn:
    """What the ``pyengine`` script calls."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a label may hold what this terminal's encoding cannot
    cli.main()
