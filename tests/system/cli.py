"""The command line as a process of its own, over the store of an engine, piped or on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from pyengine import Engine

PATIENCE = 20.0


class Cli:
    """Runs ``pyengine ARGS`` on an engine's store."""

    def __init__(self, engine: Engine) -> None:
        self.prefix = [sys.executable, "-m", "pyengine.cli", "--root", engine.root, "--runroot", engine.run_root]

    def __call__(self, *args: str, input: bytes = b"", **options: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self.prefix, *args], input=input, capture_output=True, timeout=60, check=False, **options
        )

    def out(self, *args: str, input: bytes = b"") -> str:
        """What it printed; it has to succeed without complaint."""
        done = self(*args, input=input)
        assert (done.returncode, done.stderr) == (0, b""), done
        return done.stdout.decode().removesuffix("\n")

    def start(self, *args: str, **options: Any) -> subprocess.Popen[bytes]:
        """The process, with pipes."""
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*self.prefix, *args], **{**streams, **options})

    def terminal(self, *args: str, rows: int = 24, columns: int = 80) -> Terminal:
        """The process, on a terminal of its own."""
        return Terminal([*self.prefix, *args], rows, columns)


class Terminal:
    """A process on a pseudo terminal, driven like a person would. Use as a context manager."""

    def __init__(self, command: Sequence[str], rows: int, columns: int) -> None:
        self._master, self._slave = pty.openpty()  # ours stays open, so that the modes can be looked at afterwards
        self._set_size(rows, columns)
        self.before = termios.tcgetattr(self._slave)
        self.seen = b""
        slave = self._slave
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - one thread
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)

    def _set_size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, rows: int, columns: int) -> None:
        """The user drags the window: the kernel sends SIGWINCH to the foreground."""
        self._set_size(rows, columns)

    def type(self, text: bytes) -> None:
        os.write(self._master, text)

    def expect(self, pattern: bytes) -> re.Match[bytes]:
        """Read until the pattern comes, and forget all up to its end."""
        deadline = time.monotonic() + PATIENCE
        while True:
            match = re.search(pattern, self.seen)
            if match:
                self.seen = self.seen[match.end() :]
                return match
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([self._master], [], [], left)[0]
            assert ready, f"{pattern!r} did not come: {self.seen!r}"
            self.seen += os.read(self._master, 65536)

    def wait(self) -> int:
        """The exit code; reads what is still written, so that nothing waits for a reader."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end: {self.seen!r}"
            if select.select([self._master], [], [], 0.01)[0]:
                self.seen += os.read(self._master, 65536)
        while select.select([self._master], [], [], 0)[0]:
            self.seen += os.read(self._master, 65536)
        return self.process.returncode

    @property
    def modes_are_restored(self) -> bool:
        return termios.tcgetattr(self._slave) == self.before

    @property
    def is_raw(self) -> bool:
        return not termios.tcgetattr(self._slave)[3] & (termios.ICANON | termios.ECHO)
