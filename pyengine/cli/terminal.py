"""The terminal and the signals of a command that has a container in the foreground.

This is the one place of pyengine that sets signal handlers: the process is the command line's own. What is changed here
is changed back, whatever happens: a terminal left in raw mode is unusable.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from pyengine.cli.failures import Terminated
from pyengine.errors import PyengineError

if TYPE_CHECKING:
    from pyengine.engine.attachment import Attachment

PROXIED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
)
"""What is sent on to the container. Not what is about this process: SIGPIPE, SIGCHLD, SIGWINCH and job control."""

_ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


Handler = Callable[[int, FrameType | None], None]


@contextmanager
def handlers(wanted: dict[signal.Signals, Handler]) -> Iterator[None]:
    """Signal handlers for the time of a block. A signal that was ignored from the start (nohup) stays ignored."""
    before = {}
    try:
        for number, handler in wanted.items():
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def ending_raises(first: Callable[[], None] | None = None) -> dict[signal.Signals, Handler]:
    """Handlers that turn the signals that end a process into `Terminated`, and with it whatever `first` does."""

    def terminate(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if first is not None:
            first()
        raise Terminated(number)

    return dict.fromkeys(_ENDING, terminate)


@contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """Every key goes through as it is, for the time of a block."""
    import termios
    import tty

    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSADRAIN)
        yield
    finally:
        try:
            termios.tcsetattr(fd, termios.TCSADRAIN, before)
        except termios.error:
            pass  # the terminal was closed: there is nothing left to put back


def stdin_or_none() -> int | None:
    """The descriptor of stdin, None when this process was started without one."""
    try:
        os.fstat(0)
    except OSError:
        return None
    return 0


def foreground(
    attachment: Attachment,
    *,
    stdin: bool,
    tty: bool,
    detach_keys: str,
    kill: Callable[[int], None] | None = None,
) -> int | None:
    """Give the standard streams of this process to what runs, until it ends: its exit code, None if the user detached.

    `stdin`: what is typed or piped in goes there. `tty`: it has a terminal, so ours goes raw and tells it its size;
    the detach keys count only then (the bytes of a pipe are nobody's keys). `kill` gets the signals that come in;
    without it they end this process.
    """
    input = stdin_or_none() if stdin else None
    if stdin and input is None:
        attachment.close_stdin()  # there is nothing to read here, so there is nothing to wait for there
    terminal = tty and input is not None and os.isatty(input)

    def proxy(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        assert kill is not None
        try:
            kill(number)
        except PyengineError:
            pass  # it has just ended: its exit code is on the way

    def resize(number: int = 0, frame: FrameType | None = None) -> None:  # noqa: ARG001
        try:
            size = os.get_terminal_size(0)
            attachment.resize(size.lines, size.columns)
        except (OSError, PyengineError):
            pass  # it has just ended, or the terminal was closed: the copying finds out

    wanted: dict[signal.Signals, Handler] = ending_raises()
    if kill is not None:
        wanted |= dict.fromkeys(PROXIED, proxy)
    if not terminal:
        with handlers(wanted):
            return _copy(attachment, input, "")
    wanted[signal.SIGWINCH] = resize
    with handlers(wanted), raw_mode(0):
        resize()
        return _copy(attachment, input, detach_keys)


def _copy(attachment: Attachment, stdin: int | None, detach_keys: str) -> int | None:
    sys.stdout.flush()
    if not attachment.pump(stdin, 1, 2, detach_keys):
        return None
    return attachment.wait()
