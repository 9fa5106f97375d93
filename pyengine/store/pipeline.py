"""A layer's way from its source into the store: read, keep, inflate, hash and unpack at the same time.

Each stage is an iterator of chunks; two of them run in threads of their own, which is worth it because hashing,
inflating and writing all let go of the interpreter's lock. The threads end before the call that started them does.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from types import TracebackType

from pyengine.errors import ArchiveError, DigestMismatch
from pyengine.oci.digest import Digest
from pyengine.store.blob_file import BlobFile
from pyengine.store.compression import DETECT_BYTES, decompress, detect
from pyengine.store.limits import Limits

CHUNK = 1 << 20
_DEPTH = 8


class Relay:
    """Runs an iterator of chunks in a thread, some chunks ahead of whoever iterates. A context manager that ends
    the thread, wherever it is."""

    _END = object()

    def __init__(self, source: Iterable[bytes]) -> None:
        self._queue: queue.Queue[object] = queue.Queue(_DEPTH)
        self._source = source
        self._stop = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="pyengine-relay", daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def _run(self) -> None:
        last: object = self._END
        try:
            for chunk in self._source:
                self._queue.put(chunk)
                if self._stop.is_set():
                    break
        except BaseException as error:  # noqa: BLE001 - it is raised again in the thread that iterates
            last = error
        close = getattr(self._source, "close", None)
        if close is not None:
            close()
        self._queue.put(last)

    def __iter__(self) -> Iterator[bytes]:
        while not self._ended:
            item = self._queue.get()
            if isinstance(item, bytes):
                yield item
                continue
            self._ended = True
            if isinstance(item, BaseException):
                raise item

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._queue.get_nowait()  # a full queue would hold the thread
            except queue.Empty:
                self._thread.join(0.001)


@dataclass(slots=True)
class Kept:
    """What was written on the way: the file, its digest and size, once the stream is at its end."""

    path: str
    digest: Digest | None = None
    size: int = 0


def keep(chunks: Iterable[bytes], kept: Kept, algorithm: str | None) -> Generator[bytes, None, None]:
    """Write every chunk to the file ``kept.path`` before handing it on; hash it, unless ``algorithm`` is None."""
    hasher = Digest.of(b"", algorithm).hasher() if algorithm else None
    with BlobFile(kept.path) as file:
        for chunk in chunks:
            file.write(chunk)
            kept.size = file.size
            if hasher is not None:
                hasher.update(chunk)
            yield chunk
        file.finish()
    if hasher is not None and algorithm:
        kept.digest = Digest(algorithm, hasher.hexdigest())


@dataclass(slots=True)
class Measured:
    """What :func:`measure` has seen so far."""

    size: int = 0
    digest: Digest | None = None


def measure(
    chunks: Iterable[bytes], seen: Measured, algorithm: str, bounds: Callable[[int], None] | None = None
) -> Iterator[bytes]:
    """Hash and count chunks on their way. ``bounds`` gets the bytes so far and raises if they are too many."""
    hasher = Digest.of(b"", algorithm).hasher()
    for chunk in chunks:
        seen.size += len(chunk)
        if bounds is not None:
            bounds(seen.size)
        hasher.update(chunk)
        yield chunk
    seen.digest = Digest(algorithm, hasher.hexdigest())


def sniff(chunks: Iterable[bytes]) -> tuple[str, Iterator[bytes]]:
    """The compression that a stream really has, whatever it is named, and the stream from its start."""
    iterator = iter(chunks)
    head = b""
    while len(head) < DETECT_BYTES:
        chunk = next(iterator, None)
        if chunk is None:
            break
        head += chunk

    def whole() -> Iterator[bytes]:
        if head:
            yield head
        yield from iterator

    return detect(head), whole()


def uncompressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """A stream with its compression, if any, taken off."""
    compression, whole = sniff(chunks)
    return decompress(whole, compression)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a layer must be; None where nothing is known. ``size`` and ``digest`` are those of the blob as it
    comes, ``diff_id`` is that of the tar inside."""

    what: str
    diff_id: Digest | None = None
    digest: Digest | None = None
    size: int | None = None

    def check(self, blob: Kept, digest: Digest, diff_id: Digest) -> None:
        """:class:`DigestMismatch` if what came is not it."""
        if self.size is not None and blob.size != self.size:
            raise DigestMismatch(f"{self.what}: size", str(self.size), str(blob.size))
        if self.digest is not None and digest != self.digest:
            raise DigestMismatch(f"{self.what}: digest", str(self.digest), str(digest))
        if self.diff_id is not None and diff_id != self.diff_id:
            raise DigestMismatch(f"{self.what}: diff id", str(self.diff_id), str(diff_id))


@dataclass(frozen=True, slots=True)
class Streamed:
    """A layer that went through: its blob (``path``, ``digest``, ``size`` as it came, ``compression`` that it really
    has) and the tar inside (``diff_id``, ``diff_size``)."""

    path: str
    digest: Digest
    size: int
    compression: str
    diff_id: Digest
    diff_size: int


def stream_layer(
    chunks: Iterable[bytes],
    path: str,
    expected: Expected,
    limits: Limits,
    consume: Callable[[Iterator[bytes]], None],
    *,
    progress: Callable[[int], None] | None = None,
) -> Streamed:
    """Keep a layer's blob in the file ``path``, inflate it, and let ``consume`` have the tar, all at the same time.

    ``progress`` is called in this thread with the bytes of the tar so far.

    :raises ArchiveError: (or a subclass) if the stream is corrupt, too large or not what is ``expected``
    """
    compression, whole = sniff(_bounded(chunks, expected))
    blob = Kept(path)
    tar = Measured()
    diff_algorithm = expected.diff_id.algorithm if expected.diff_id else "sha256"
    blob_algorithm = expected.digest.algorithm if expected.digest else "sha256"
    # The digest of what is not compressed is its diff id: hashed once.
    separate = compression != "" or blob_algorithm != diff_algorithm

    taken = 0

    def bounds(size: int) -> None:
        limits.check_stream(taken, size)

    def counted(chunks: Iterable[bytes]) -> Iterator[bytes]:
        nonlocal taken
        for chunk in chunks:
            taken += len(chunk)
            yield chunk

    # Closed here and not when it is collected: an error's traceback would keep its file open.
    kept = keep(whole, blob, blob_algorithm if separate else None)
    with ExitStack() as stack:
        stack.enter_context(closing(kept))
        # Inflating takes as long as everything else together: it does not wait for the disk.
        blob_chunks = stack.enter_context(Relay(kept)) if compression else kept
        inflated = stack.enter_context(Relay(decompress(counted(blob_chunks), compression)))
        measured = stack.enter_context(Relay(measure(inflated, tar, diff_algorithm, bounds)))
        consume(_watched(measured, progress) if progress else iter(measured))
        for _ in measured:  # what is behind the end of the tar belongs to the digest as well
            pass
    if tar.digest is None:
        raise ArchiveError(f"{expected.what}: the stream was not read to its end")
    digest = blob.digest if blob.digest is not None else tar.digest
    expected.check(blob, digest, tar.digest)
    return Streamed(path, digest, blob.size, compression, tar.digest, tar.size)


def _bounded(chunks: Iterable[bytes], expected: Expected) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if expected.size is not None and size > expected.size:
            raise DigestMismatch(f"{expected.what}: size", str(expected.size), f"more than {expected.size}")
        yield chunk


def _watched(chunks: Iterable[bytes], progress: Callable[[int], None]) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        progress(size)
        yield chunk


def file_chunks(path: str) -> Generator[bytes, None, None]:
    """The content of a file."""
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            yield chunk
