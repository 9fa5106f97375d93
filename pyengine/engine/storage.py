"""Storage work: what unpacks or removes layers, and therefore has to act as root of the container's ids.

For root it happens in this process (`InProcess`), for an ordinary user in a worker inside the user namespace
(`InWorker`, ``engine.worker``), through the same functions: `perform` is what the worker calls.
"""

from __future__ import annotations

import dataclasses
import io
import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from pyengine.linux.trees import remove_tree
from pyengine.store.store import Store
from pyengine.transports import progress as events
from pyengine.transports.progress import Event, Progress

if TYPE_CHECKING:
    from pyengine.engine.engine import Engine
    from pyengine.engine.worker import Worker

Source = str | os.PathLike[str] | BinaryIO
_COPY = 1 << 20


class Storage(Protocol):
    """The operations. Sources are paths or binary files; IDs are those of images."""

    def load(self, source: Source, name: str | None, progress: Progress | None) -> list[str]: ...

    def import_rootfs(
        self, source: Source, reference: str | None, changes: Sequence[str], message: str, progress: Progress | None
    ) -> str: ...

    def remove_image(self, id: str) -> None: ...

    def remove_tree(self, path: str) -> None: ...

    def close(self) -> None: ...


class InProcess:
    """Storage work of an engine that runs as root."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def load(self, source: Source, name: str | None, progress: Progress | None) -> list[str]:
        from pyengine.transports.load import load

        return [image.id for image in load(self._store, source, name, progress)]

    def import_rootfs(
        self, source: Source, reference: str | None, changes: Sequence[str], message: str, progress: Progress | None
    ) -> str:
        from pyengine.transports.rootfs import import_rootfs

        return import_rootfs(self._store, source, reference, changes=changes, message=message, progress=progress).id

    def remove_image(self, id: str) -> None:
        self._store.images.remove(id)

    def remove_tree(self, path: str) -> None:
        remove_tree(path)

    def close(self) -> None:
        """Nothing is held."""


class InWorker:
    """Storage work of a rootless engine. The worker starts at the first need; a directory as a source is given by its
    path, a file by its descriptor, so that the worker reads what the caller may read."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._worker: Worker | None = None

    def _call(
        self,
        operation: str,
        arguments: dict[str, Any],
        descriptors: Sequence[int] = (),
        progress: Progress | None = None,
    ) -> Any:
        from pyengine.engine.worker import Worker

        with self._lock:
            if self._worker is not None and self._worker.ended:
                self._worker.close()
                self._worker = None
            if self._worker is None:
                with self._engine.open_user_namespace() as namespace:
                    self._worker = Worker(self._engine.root, self._engine.run_root, namespace)
            worker = self._worker
        return worker.call(operation, arguments, list(descriptors), progress)

    def _with_source(self, operation: str, source: Source, arguments: dict[str, Any], progress: Progress | None) -> Any:
        if isinstance(source, (str, os.PathLike)):
            path = os.path.abspath(source)
            if os.path.isdir(path):
                return self._call(operation, {**arguments, "path": path}, (), progress)
            with open(path, "rb", buffering=0) as file:
                return self._call(operation, arguments, [file.fileno()], progress)
        try:
            number = source.fileno()
        except (OSError, AttributeError, io.UnsupportedOperation):
            return self._with_stream(operation, source, arguments, progress)
        return self._call(operation, arguments, [number], progress)

    def _with_stream(
        self, operation: str, source: BinaryIO, arguments: dict[str, Any], progress: Progress | None
    ) -> Any:
        """A source without a descriptor goes through a pipe, fed by a thread that lives as long as the call."""
        reading, writing = os.pipe()
        failed: list[BaseException] = []

        def feed() -> None:
            try:
                with os.fdopen(writing, "wb", buffering=0) as pipe:
                    while chunk := source.read(_COPY):
                        pipe.write(chunk)
            except BrokenPipeError:
                pass  # the worker has seen enough; what it found is its answer
            except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
                failed.append(error)

        feeder = threading.Thread(target=feed, name="pyengine-source", daemon=True)
        feeder.start()
        try:
            result = self._call(operation, arguments, [reading], progress)
        finally:
            os.close(reading)
            feeder.join()
        if failed:
            raise failed[0]
        return result

    def load(self, source: Source, name: str | None, progress: Progress | None) -> list[str]:
        result: list[str] = self._with_source("load", source, {"name": name}, progress)
        return result

    def import_rootfs(
        self, source: Source, reference: str | None, changes: Sequence[str], message: str, progress: Progress | None
    ) -> str:
        arguments = {"reference": reference, "changes": list(changes), "message": message}
        result: str = self._with_source("import_rootfs", source, arguments, progress)
        return result

    def remove_image(self, id: str) -> None:
        self._call("remove_image", {"id": id})

    def remove_tree(self, path: str) -> None:
        self._call("remove_tree", {"path": path})

    def close(self) -> None:
        with self._lock:
            if self._worker is not None:
                self._worker.close()
                self._worker = None


def perform(
    store: Store, operation: str, arguments: dict[str, Any], descriptors: list[int], progress: Callable[[Event], None]
) -> Any:
    """One operation, in the worker."""
    work = InProcess(store)
    if operation == "remove_image":
        return work.remove_image(arguments["id"])
    if operation == "remove_tree":
        return work.remove_tree(arguments["path"])
    source: Source = arguments.pop("path") if "path" in arguments else os.fdopen(os.dup(descriptors[0]), "rb")
    try:
        if operation == "load":
            return work.load(source, arguments["name"], progress)
        return work.import_rootfs(source, **arguments, progress=progress)
    finally:
        if not isinstance(source, (str, os.PathLike)):
            source.close()


def progress_to_json(event: Event) -> dict[str, Any]:
    """A progress event as a JSON object."""
    return {"event": type(event).__name__, **dataclasses.asdict(event)}


def progress_from_json(message: dict[str, Any]) -> Event:
    """The inverse of `progress_to_json`."""
    kind = getattr(events, message.pop("event"))
    event: Event = kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in message.items()})
    return event
