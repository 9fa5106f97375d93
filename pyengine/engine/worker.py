"""The storage worker of a rootless engine: a process inside the user's user namespace.

Unpacking and removing layers needs ids that only the user namespace maps, and a program with threads cannot enter
one. So the operations of ``engine.storage`` run here, one at a time, in a Python process that joined the namespace
before it became Python. It is started at the first need, serves the engine that started it, and ends with it.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from pyengine.engine.wire import Channel, error_from_json, error_to_json
from pyengine.errors import PyengineError
from pyengine.linux.fd import Fd

_SOCKET = 3


class Worker:
    """The engine's side. Calls from several threads wait for each other."""

    def __init__(self, root: str, run_root: str, user_namespace: Fd) -> None:
        from pyengine.linux.spawn import spawn

        ours, theirs = socket.socketpair()
        with theirs:
            started = spawn(
                [
                    sys.executable,
                    "-c",
                    "import sys; sys.path[:] = sys.argv[3:]; from pyengine.engine.worker import main; "
                    "main(*sys.argv[1:3])",
                    root,
                    run_root,
                    *sys.path,
                ],
                executable=sys.executable,
                descriptors={_SOCKET: theirs.fileno(), 2: 2} if _is_open(2) else {_SOCKET: theirs.fileno()},
                namespaces=[user_namespace],
                directory="/",
            )
        self._pidfd = started.pidfd
        self._channel = Channel(ours)
        self._lock = threading.Lock()
        #: it was killed, or ended by itself: of no more use
        self.ended = False

    def call(
        self,
        operation: str,
        arguments: dict[str, Any],
        descriptors: list[int] | None = None,
        progress: Callable[[Any], None] | None = None,
    ) -> Any:
        """Runs an operation of ``engine.storage`` in the worker; its errors are raised here."""
        from pyengine.engine.storage import progress_from_json

        with self._lock:
            answered = self.ended
            try:
                if not self.ended:
                    self._channel.send({"operation": operation, "arguments": arguments}, descriptors)
                while not self.ended and (received := self._channel.receive()):
                    message, _ = received
                    if "progress" in message:
                        if progress is not None:
                            progress(progress_from_json(message["progress"]))
                    elif "error" in message:
                        answered = True
                        raise error_from_json(message["error"])
                    else:
                        answered = True
                        return message["result"]
            except (BrokenPipeError, ConnectionResetError):
                pass
            finally:
                if not answered:  # it is gone, or what it still says would be taken for the answer to the next call
                    self.ended = True
                    self._channel.close()
        raise PyengineError(
            f"the storage worker ended in the middle of {operation}: see its stderr; the store is as before"
        )

    def close(self) -> None:
        """End it; it is gone then. Calling it again does nothing."""
        from pyengine.linux.process import wait_ended

        self._channel.close()
        if not self._pidfd.closed:
            with self._pidfd:
                wait_ended(self._pidfd, None)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def main(root: str, run_root: str) -> None:
    """The worker's side: serves operations until the engine closes its end."""
    from pyengine.engine import storage
    from pyengine.store.store import Store

    channel = Channel(socket.socket(fileno=_SOCKET))
    store = Store(root, run_root)
    while received := channel.receive():
        message, descriptors = received
        try:
            result = storage.perform(
                store,
                message["operation"],
                message["arguments"],
                descriptors,
                lambda event: channel.send({"progress": storage.progress_to_json(event)}),
            )
        except BrokenPipeError:
            break
        except Exception as error:  # noqa: BLE001 - it is raised again, in the engine
            channel.send({"error": error_to_json(error)})
        else:
            channel.send({"result": result})
        finally:
            for fd in descriptors:
                os.close(fd)
    store.close()
