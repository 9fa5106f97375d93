"""Messages between an engine and its worker: JSON lines over a socket pair, descriptors beside them.

Exceptions travel by the name of their class, which must be one of ``pyengine.errors`` or a built-in, with their
attributes; so an error of the worker is raised by the engine as what it is.
"""

from __future__ import annotations

import array
import builtins
import json
import os
import socket
from typing import Any

from pyengine import errors
from pyengine.errors import KernelError, PyengineError

_MAX_MESSAGE = 64 << 20
_MAX_DESCRIPTORS = 16


class Channel:
    """One end of a conversation. Messages are JSON objects; at most 16 descriptors ride along."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._rest = b""

    def send(self, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
        """Raises `BrokenPipeError` when the other side is gone."""
        data = json.dumps(message).encode() + b"\n"
        sent = 0
        if descriptors:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())]
            sent = self._socket.sendmsg([data], ancillary)
        self._socket.sendall(data[sent:])

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next message and the descriptors that came with it (the caller owns them), or None at the end."""
        descriptors: list[int] = []
        while b"\n" not in self._rest:
            data, ancillary, _, _ = self._socket.recvmsg(
                1 << 16, socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
            )
            for level, kind, content in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    descriptors += memoryview(content).cast("i").tolist()
            if not data or len(self._rest) > _MAX_MESSAGE:
                for fd in descriptors:
                    os.close(fd)
                return None
            self._rest += data
        line, self._rest = self._rest.split(b"\n", 1)
        return json.loads(line), descriptors

    def close(self) -> None:
        self._socket.close()


def error_to_json(error: BaseException) -> dict[str, Any]:
    """An exception as a JSON object."""
    if isinstance(error, OSError) and not isinstance(error, PyengineError):
        error = KernelError(error.errno or 0, str(error.filename or error), path=error.filename)
    kind = type(error)
    name = kind.__name__ if getattr(errors, kind.__name__, None) is kind else "PyengineError"
    if issubclass(kind, Exception) and getattr(builtins, kind.__name__, None) is kind:
        name = kind.__name__
    if name == "PyengineError" and kind is not PyengineError:
        return {"class": name, "args": [f"{kind.__name__}: {error}"], "attributes": {}}
    attributes = {key: value for key, value in vars(error).items() if isinstance(value, (str, int, type(None)))}
    return {
        "class": name,
        "args": [arg if isinstance(arg, (str, int)) else str(arg) for arg in error.args],
        "attributes": attributes,
        "errno": getattr(error, "errno", None),
    }


def error_from_json(message: dict[str, Any]) -> Exception:
    """The exception that `error_to_json` wrote down."""
    kind = getattr(errors, message["class"], None) or getattr(builtins, message["class"])
    if issubclass(kind, KernelError):
        error = kind.__new__(kind, message["errno"], os.strerror(message["errno"]))
        OSError.__init__(error, message["errno"], os.strerror(message["errno"]))
    else:
        error = kind.__new__(kind)
        error.args = tuple(message["args"])
    vars(error).update(message["attributes"])
    assert isinstance(error, Exception)
    return error
