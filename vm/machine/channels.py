"""Carries the guest's channels: control lines, output, result files; and keeps the time."""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from machine.host import VMError, program
from machine.options import Options

TIMED_OUT = 124
BLOCK = 1 << 18
TICK = 0.5


@dataclass
class Outcome:
    """How a run ended: the command's status, or None and what failed; ``started`` when the command was reached."""

    status: int | None = None
    started: bool = False
    failure: str = "the machine ended without a result"


class ControlLines:
    """What the guest says of itself, line by line: ``start``, ``exit STATUS``, ``fail REASON``."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take some bytes as they come. Raises VMError for a line that guest/setup does not write."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            word, _, argument = line.strip().decode(errors="replace").partition(" ")
            if word == "start" and not argument:
                self._outcome.started = True
            elif word == "exit" and argument.isascii() and argument.isdigit():
                self._outcome.status = int(argument)
            elif word == "fail":
                self._outcome.failure = f"in the guest: {argument}"
            else:
                raise VMError(f"the guest said {line!r}")


class Conversation:
    """The host's side of a running machine."""

    def __init__(
        self, options: Options, channels: Mapping[str, socket.socket], machine: subprocess.Popen[bytes]
    ) -> None:
        self._options = options
        self._channels = channels
        self._machine = machine
        self._outcome = Outcome()
        self._control = ControlLines(self._outcome)
        self._selector = selectors.DefaultSelector()

    def carry(self) -> Outcome:
        """Until the machine has ended and all its output is passed on, or its time is up."""
        out = self._options.out
        if out is None:
            return self._carry(None)
        os.makedirs(out, exist_ok=True)
        words = [program("tar", "tar"), "-x", "-C", out, "--no-same-owner", "--no-overwrite-dir", "-f", "-"]
        with subprocess.Popen(words, stdin=subprocess.PIPE) as unpack:
            assert unpack.stdin is not None
            outcome = self._carry(unpack.stdin.fileno())
        if outcome.status is not None and outcome.status != TIMED_OUT and unpack.returncode != 0:
            raise VMError(f"the files that the command left could not be unpacked to {out}")
        return outcome

    def _carry(self, files: int | None) -> Outcome:
        outcome = self._outcome
        targets = {"out": 1, "err": 2, "files": files}
        with self._selector as selector:
            for name in ("control", *targets):
                selector.register(self._channels[name], selectors.EVENT_READ, name)
            limit = time.monotonic() + self._options.boot_timeout
            open_channels = 1 + len(targets)
            while open_channels:
                now = time.monotonic()
                if now > limit:
                    return self._late()
                for key, _ in selector.select(min(TICK, limit - now)):
                    data = self._channels[key.data].recv(BLOCK)
                    if not data:
                        selector.unregister(key.fileobj)
                        open_channels -= 1
                    elif key.data != "control":
                        write_all(targets[key.data], data)
                    elif self._says_start(data):
                        limit = time.monotonic() + (self._options.timeout or float("inf"))
                if self._machine.poll() is not None:
                    # what the machine sent before it ended is still in the sockets, and no more will come
                    limit = min(limit, time.monotonic() + 4 * TICK)
        return outcome

    def _says_start(self, data: bytes) -> bool:
        before = self._outcome.started
        self._control.feed(data)
        return self._outcome.started and not before

    def _late(self) -> Outcome:
        outcome = self._outcome
        if outcome.status is not None or self._machine.poll() is not None:
            return outcome
        if outcome.started:
            print(f"vm/run: timed out after {self._options.timeout:g} s", file=sys.stderr)
            outcome.status = TIMED_OUT
        else:
            outcome.failure = f"the command was not reached in {self._options.boot_timeout:g} s"
        return outcome


def write_all(descriptor: int | None, data: bytes) -> None:
    """Write all of it; nowhere when there is no descriptor."""
    if descriptor is None:
        return
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
