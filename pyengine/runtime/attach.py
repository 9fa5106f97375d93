"""The streams of a container, as a terminal sees them: packets in, bytes out, detach keys.

The cores take and give bytes and know nothing of descriptors; `pump` is the blocking driver.

From the monitor comes a packet with one byte for the stream (2 stdout, 3 stderr; what conmon sends) and data. What is
sent to it is stdin; to shut down the sending side is the end of stdin.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from pyengine.errors import InvalidValue, PyengineError

STDOUT, STDERR = 2, 3

#: the largest packet that the monitor sends, its first byte included
MAX_PACKET = 8193

DETACH_KEYS = "ctrl-p,ctrl-q"

#: bytes of stdin a packet: as much as the monitor takes at once
_SEND = 8192


@dataclass(frozen=True, slots=True)
class Output:
    """What the container wrote. `stream` is `STDOUT` or `STDERR`."""

    stream: int
    data: bytes


def decode_packet(packet: bytes) -> Output | None:
    """One packet of the monitor; None for the empty one that is the end. Raises `PyengineError`."""
    if not packet:
        return None
    if packet[0] not in (STDOUT, STDERR):
        raise PyengineError(f"the monitor sent a packet for stream {packet[0]}, which there is not")
    return Output(packet[0], packet[1:])


def parse_detach_keys(text: str) -> bytes:
    """The bytes of ``ctrl-p,ctrl-q``: keys separated by commas, each one character or ``ctrl-`` and one of
    ``a``-``z @ [ \\ ] ^ _``. Empty: no way to detach. Raises `InvalidValue`."""
    keys = bytearray()
    for key in text.split(",") if text else ():
        name = key.removeprefix("ctrl-")
        if len(key) == 1 and key.isascii():
            keys += key.encode()
        elif name != key and len(name) == 1 and (name.isascii() and (name.isalpha() or name in "@[\\]^_")):
            keys.append(ord(name.upper()) & 0x1F)
        else:
            raise InvalidValue(f"{key!r} is not a key to detach with: one character, or ctrl- and a letter or @[\\]^_")
    return bytes(keys)


class DetachFilter:
    """Looks for the detach keys in what is typed. Keys that begin the sequence are held back until the next key tells
    whether it goes on, so that the program inside sees all of what was not the sequence and nothing of what was."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What is to be sent, and whether the sequence is complete (what follows it is dropped)."""
        if not self._keys:
            return data, False
        out = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    self._matched = 0
                    return bytes(out), True
                continue
            self._miss(byte, out)
        return bytes(out), False

    def _miss(self, byte: int, out: bytearray) -> None:
        """The held keys and this one are not the sequence; an end of them may still be a beginning of it."""
        held = self._keys[: self._matched] + bytes((byte,))
        for skip in range(1, len(held) + 1):
            if self._keys.startswith(held[skip:]):
                out += held[:skip]
                self._matched = len(held) - skip
                return

    def flush(self) -> bytes:
        """What is still held back, when no more is typed."""
        held, self._matched = self._keys[: self._matched], 0
        return held


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _send(connection: socket.socket, data: bytes) -> bytes:
    """What could not be sent yet. What the container does not take any more counts as sent."""
    view = memoryview(data)
    while view:
        try:
            view = view[connection.send(view[:_SEND], socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            return bytes(view)
        except (BrokenPipeError, ConnectionResetError):
            return b""
    return b""


def pump(
    connection: socket.socket, stdin: int | None, stdout: int, stderr: int, detach_keys: str = DETACH_KEYS
) -> bool:
    """Copy between descriptors and a container until its output ends (True) or the detach keys come in (False).

    `stdin` None: nothing is sent, and the container's stdin is left as it is. Descriptors and connection stay the
    caller's, the modes of a terminal too. Raises `OSError` of the descriptors, `InvalidValue` for the keys."""
    import select

    keys = DetachFilter(parse_detach_keys(detach_keys))
    # Neither direction may wait for the other: a container that cannot write does not read.
    pending, ends = b"", False
    poll = select.poll()
    while True:
        poll.register(connection, select.POLLIN | (select.POLLOUT if pending else 0))
        if stdin is not None:
            poll.register(stdin, 0 if pending else select.POLLIN)
        ready = dict(poll.poll())
        if ready.get(connection.fileno(), 0) & ~select.POLLOUT:
            try:
                packet = connection.recv(MAX_PACKET)
            except ConnectionResetError:
                packet = b""
            output = decode_packet(packet)
            if output is None:
                return True
            _write_all(stdout if output.stream == STDOUT else stderr, output.data)
        if stdin is not None and stdin in ready and not pending:
            data = os.read(stdin, 4096)
            pending, detached = keys.feed(data) if data else (keys.flush(), False)
            if detached:
                _send(connection, pending)
                return False
            ends = not data
            if ends:
                poll.unregister(stdin)
                stdin = None
        pending = _send(connection, pending)
        if ends and not pending:
            ends = False
            _end_stdin(connection)


def _end_stdin(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the other side has gone already
