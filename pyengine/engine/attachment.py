"""Streams of a container or of an exec session, in the caller's hands."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Literal, Self

Stream = Literal["stdout", "stderr"]
_STREAMS: dict[int, Stream] = {2: "stdout", 3: "stderr"}
_PACKET = 8192


class Attachment:
    """A connection to the standard streams of something that runs.

    Closing it detaches: what runs goes on. One thread may read while another writes.
    """

    def __init__(
        self,
        connection: socket.socket,
        *,
        wait: Callable[[float | None], int],
        resize: Callable[[int, int], None],
        close: Callable[[], None],
        release: Callable[[], None],
    ) -> None:
        self._socket = connection
        self._wait = wait
        self._resize = resize
        self._close = close
        self._release = release

    def fileno(self) -> int:
        """Readable when `read` would not wait."""
        return self._socket.fileno()

    def read(self) -> tuple[Stream, bytes] | None:
        """What was written next, and to which stream (all of it is stdout with a terminal); None at the end."""
        try:
            packet = self._socket.recv(_PACKET + 1)
        except ConnectionResetError:
            # The other end was closed with input unread: told first, and once; the output is behind it.
            try:
                packet = self._socket.recv(_PACKET + 1)
            except ConnectionResetError:
                return None
        return (_STREAMS[packet[0]], packet[1:]) if packet else None

    def write(self, data: bytes) -> None:
        """Write to stdin; waits while the other side does not read. `BrokenPipeError` when it is gone."""
        view = memoryview(data)
        while view:
            self._socket.send(view[:_PACKET])
            view = view[_PACKET:]

    def close_stdin(self) -> None:
        """End of file for what reads stdin."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it ended by itself meanwhile

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the terminal, in characters."""
        self._resize(rows, columns)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. `WaitTimeout` after `timeout` seconds."""
        return self._wait(timeout)

    def release(self) -> None:
        """After the end: the caller has seen it and does what is left to do, such as removing the container."""
        self._release()

    def close(self) -> None:
        """Detach. Calling it again does nothing."""
        self._socket.close()
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def collect(
        self, input: bytes | None, limit: int, deadline: Callable[[], float | None]
    ) -> tuple[bytes, bytes, bool]:
        """Feed `input`, read both streams to their end: (stdout, stderr, whether `limit` bytes were exceeded).

        `deadline` gives the seconds that are left, or None; `TimeoutError` when there are none.
        """
        output: dict[Stream, list[bytes]] = {"stdout": [], "stderr": []}
        size = 0
        pending = memoryview(input or b"")
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if pending else 0))
        if not pending:
            self.close_stdin()
        while True:
            left = deadline()
            events = poll.poll(None if left is None else max(0.0, left) * 1000)
            if not events:
                raise TimeoutError
            if events[0][1] & select.POLLOUT and pending:
                pending = self._feed(pending)
                if not pending:
                    self.close_stdin()
                    poll.modify(self._socket, select.POLLIN)
            if events[0][1] & ~select.POLLOUT:
                packet = self.read()
                if packet is None:
                    return b"".join(output["stdout"]), b"".join(output["stderr"]), size > limit
                size += len(packet[1])
                if size <= limit:
                    output[packet[0]].append(packet[1])

    def _feed(self, pending: memoryview) -> memoryview:
        try:
            return pending[self._socket.send(pending[:_PACKET], socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            return pending
        except (BrokenPipeError, ConnectionResetError):
            return pending[len(pending) :]  # it does not read any more; what it wrote is still to come

    def pump(self, stdin: int | None, stdout: int, stderr: int, detach_keys: str = "ctrl-p,ctrl-q") -> bool:
        """Copy between descriptors until the end (True) or until the detach keys come in on `stdin` (False)."""
        from pyengine.runtime.attach import pump

        return pump(self._socket, stdin, stdout, stderr, detach_keys)
