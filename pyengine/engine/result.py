"""What a command left behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

#: bytes of stdout and stderr together that `run` and `exec` collect unless told otherwise
DEFAULT_OUTPUT_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True)
class Result:
    """`exit_code` is 128 + n for a command that signal n ended. With a terminal all output is in `stdout`."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    container_id: str


def seconds_left(timeout: float | None) -> Callable[[], float | None]:
    """Tells how many of `timeout` seconds are left, counted from now; None where there is no limit."""
    deadline = None if timeout is None else time.monotonic() + timeout

    def left() -> float | None:
        return None if deadline is None else deadline - time.monotonic()

    return left
