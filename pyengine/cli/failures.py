"""Errors on the command line: their text, their exit codes, and going on after one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from pyengine.errors import PyengineError, StartFailed

_Item = TypeVar("_Item")

ENGINE_ERROR = 125
"""podman's exit code for what went wrong in the engine, not in a container."""

INTERRUPTED = 128 + 2
BROKEN_PIPE = 128 + 13


class Terminated(BaseException):
    """A signal asked this process to end; raised so that everything is put back first. ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def exit_code(error: BaseException) -> int:
    """What the process returns for an error: 126 or 127 for a command that could not be started, else 125."""
    return error.exit_code if isinstance(error, StartFailed) else ENGINE_ERROR


def describe(error: BaseException) -> str:
    """One line for people. An error that nobody foresaw is named by its class, so that it can be looked for."""
    text = " ".join(str(error).split("\n")).strip()
    if isinstance(error, (PyengineError, OSError)):
        return text or type(error).__name__
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def for_each(
    items: Iterable[_Item],
    operation: Callable[[_Item], str | None],
    code: Callable[[BaseException], int] = exit_code,
) -> int:
    """Do one thing to each item: print what it returns; report an error and go on. Returns the first failure's code,
    or 0."""
    from pyengine.cli import output

    result = 0
    for item in items:
        try:
            text = operation(item)
        except PyengineError as error:
            output.report(describe(error))
            result = result or code(error)
        else:
            if text is not None:
                output.line(text)
    return result
