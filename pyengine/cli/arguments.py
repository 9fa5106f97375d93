"""Flags as podman reads them, on top of click.

podman's parser and click's differ where it hurts: ``--rm=false``, ``-d=true``, ``-n=3``, ``-it``. So the words of a
command line are first brought into one form, every flag long and with its value (``--tty=true``), and that is what
click gets to convert and check.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from typing import Any

import click

from pyengine.typing import override


class Switch(click.Option):
    """A flag that is on or off: ``--rm``, ``--rm=true``, ``--rm=false``."""

    def __init__(self, names: Sequence[str], *, default: bool = False, **settings: Any) -> None:
        super().__init__(names, type=click.BOOL, default=default, **settings)

    @override
    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:  # noqa: ARG002
        names = ", ".join(sorted(self.opts, key=len))
        return None if self.hidden else (names, f"{self.help or ''}{' (default: true)' if self.default else ''}")


class Commas(click.ParamType[list[str]]):
    """A value that is several, with commas between them; one in double quotes may hold commas itself."""

    name = "list"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        if isinstance(value, list):
            return value
        try:
            rows = list(csv.reader([value], strict=True))
        except csv.Error as error:
            self.fail(f"{value!r}: {error}", param, ctx)
        return rows[0] if rows else []


COMMAS = Commas()


class Command(click.Command):
    """A command whose flags are podman's. After the first word that is no flag, ``interspersed`` ones take more flags;
    the others (run, exec) leave the rest alone, because it belongs to another program."""

    def __init__(
        self, *args: Any, interspersed: bool = True, help_names: Sequence[str] = ("-h", "--help"), **rest: Any
    ):
        super().__init__(*args, **rest)
        self.interspersed = interspersed
        self.context_settings = {"help_option_names": list(help_names), "max_content_width": 120}

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, normalize(self, ctx, args, interspersed=self.interspersed))


def normalize(command: click.Command, ctx: click.Context, args: Sequence[str], *, interspersed: bool) -> list[str]:
    """The same words with every flag long and with a value, then ``--``, then what is no flag."""
    if ctx.resilient_parsing:
        return list(args)
    params = [param for param in command.get_params(ctx) if isinstance(param, click.Option)]
    options = {name: option for option in params for name in option.opts}
    flags: list[str] = []
    words: list[str] = []
    rest = list(reversed(args))
    while rest:
        word = rest.pop()
        if word == "--":
            words += reversed(rest)
            break
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            flags.append(_long(_option(options, name, ctx), name, value if equals else None, rest, ctx))
        elif word.startswith("-") and word != "-":
            flags += _cluster(options, word[1:], rest, ctx)
        else:
            words.append(word)
            if not interspersed:
                words += reversed(rest)
                break
    return [*flags, "--", *words] if flags or words else []


def _option(options: Mapping[str, click.Option], name: str, ctx: click.Context) -> click.Option:
    option = options.get(name)
    if option is None:
        import difflib

        raise click.NoSuchOption(name, possibilities=difflib.get_close_matches(name, options), ctx=ctx)
    return option


def _long(option: click.Option, name: str, value: str | None, rest: list[str], ctx: click.Context) -> str:
    full = max(option.opts, key=len)
    if option.is_flag:  # --help and --version: nothing to give them
        if value is not None:
            raise click.BadOptionUsage(name, f"{name} takes no value", ctx)
        return full
    if value is None:
        if isinstance(option, Switch):
            value = "true"
        elif rest:
            value = rest.pop()
        else:
            raise click.BadOptionUsage(name, f"{name} needs a value", ctx)
    return f"{full}={value}"


def _cluster(options: Mapping[str, click.Option], letters: str, rest: list[str], ctx: click.Context) -> list[str]:
    flags = []
    while letters:
        name, letters = f"-{letters[0]}", letters[1:]
        option = _option(options, name, ctx)
        value = None
        if letters and (letters[0] == "=" or not (option.is_flag or isinstance(option, Switch))):
            value, letters = letters.removeprefix("="), ""
        flags.append(_long(option, name, value, rest, ctx))
    return flags


def switch(*names: str, default: bool = False, help: str = "", **settings: Any) -> Switch:
    """`Switch` by its names, for lists of parameters."""
    return Switch(list(names), default=default, help=help, **settings)


def value(*names: str, help: str = "", **settings: Any) -> click.Option:
    """An option that takes a value."""
    return click.Option(list(names), help=help, **settings)


def words(name: str, *, metavar: str, required: bool = False) -> click.Argument:
    """All that is no flag."""
    return click.Argument([name], nargs=-1, metavar=metavar, required=required, type=click.UNPROCESSED)
