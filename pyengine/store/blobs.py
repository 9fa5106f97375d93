"""Content by digest, as an OCI image layout: ``blobs/<algorithm>/<hex>``, ``oci-layout`` and ``index.json``.

Blobs are kept as they came, so that an image can be written again with the digests that it had; layers that came
uncompressed (docker-archive) are kept uncompressed. skopeo and umoci can read the directory.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from typing import Any

from pyengine.errors import DigestMismatch, KernelError, StoreError
from pyengine.oci.digest import Digest
from pyengine.oci.image import OCI_INDEX, Descriptor, Index, encode
from pyengine.store.database import Database
from pyengine.store.durable import replace_file
from pyengine.store.pipeline import Kept, keep
from pyengine.store.work import WorkDirectory

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
REF_NAME = "org.opencontainers.image.ref.name"


class Blobs:
    """The blobs below the store's directory ``root``."""

    def __init__(self, root: str) -> None:
        self.root = root

    def prepare(self) -> None:
        """Make the directories and the files of an empty layout where they are missing."""
        for algorithm in ("sha256", "sha512"):
            os.makedirs(f"{self.root}/blobs/{algorithm}", mode=0o700, exist_ok=True)

    def path(self, digest: Digest) -> str:
        """Where the blob is, or would be."""
        return f"{self.root}/blobs/{digest.algorithm}/{digest.hex}"

    def exists(self, digest: Digest) -> bool:
        """Whether the blob is there. It may go at any time, unless an image holds it."""
        return os.path.exists(self.path(digest))

    def size(self, digest: Digest) -> int:
        """Its bytes; :class:`StoreError` if it is not there."""
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            raise StoreError(f"blob {digest} is missing from the store {self.root}") from None

    def read(self, digest: Digest) -> bytes:
        """A small blob whole, verified; :class:`StoreError` if it is damaged or not there."""
        try:
            with open(self.path(digest), "rb") as file:
                data = file.read()
        except FileNotFoundError:
            raise StoreError(f"blob {digest} is missing from the store {self.root}") from None
        if Digest.of(data, digest.algorithm) != digest:
            raise StoreError(f"blob {digest} in the store {self.root} is damaged")
        return data

    def write(self, work: WorkDirectory, data: bytes, algorithm: str = "sha256") -> Kept:
        """Put a small blob into the work directory, to be published with the image that it belongs to."""
        return self.ingest(work, [data], Digest.of(data, algorithm), len(data))

    def ingest(
        self, work: WorkDirectory, chunks: Iterable[bytes], expected: Digest | None = None, size: int | None = None
    ) -> Kept:
        """Stream a blob into the work directory.

        :raises DigestMismatch: if its digest or its size is not the expected one; it stops as soon as it is too long
        """
        kept = Kept(work.new_path("blob"))
        algorithm = expected.algorithm if expected else "sha256"
        for _ in keep(chunks, kept, algorithm):
            if size is not None and kept.size > size:
                raise DigestMismatch(f"blob {expected or ''}: size", str(size), f"more than {size}")
        if size is not None and kept.size != size:
            raise DigestMismatch(f"blob {expected or ''}: size", str(size), str(kept.size))
        if expected is not None and kept.digest is not None and kept.digest != expected:
            raise DigestMismatch("blob: digest", str(expected), str(kept.digest))
        return kept

    def publish(self, path: str, digest: Digest) -> None:
        """Move a finished blob to its place; nothing happens if it is there already."""
        target = self.path(digest)
        if os.path.exists(target):
            return
        try:
            os.rename(path, target)
        except OSError as error:
            raise KernelError(error.errno or 0, f"rename {path} to {target}") from error

    def stored(self) -> list[Digest]:
        """All blobs that are there."""
        found = []
        for algorithm in ("sha256", "sha512"):
            found += [Digest(algorithm, name) for name in os.listdir(f"{self.root}/blobs/{algorithm}")]
        return found

    def index(self, work: WorkDirectory) -> IndexFile:
        """``index.json``, to be written in a transaction."""
        return IndexFile(f"{self.root}/index.json", work)


class IndexFile:
    """The change of an ``index.json`` that goes with a transaction. The transaction keeps others from changing it.

    It is in place before the transaction commits, because a full disk must be found out while all can be taken back;
    and since the commit may fail for the same reason, the old file is kept aside under another name, which
    needs no space to be put back.
    """

    def __init__(self, path: str, work: WorkDirectory) -> None:
        self._path = path
        self._work = work
        self._before = ""
        self._written: os.stat_result | None = None

    def write(self, cursor: sqlite3.Cursor) -> None:
        """Write what the rows of images say."""
        rows: list[Any] = cursor.execute(
            "SELECT images.digest, media_type, length(manifest), names.name FROM images "
            "LEFT JOIN names ON names.image = images.id ORDER BY images.n, names.position"
        ).fetchall()
        manifests = [
            Descriptor(
                media_type=media_type,
                digest=digest,
                size=size,
                annotations={REF_NAME: name} if name is not None else None,
            )
            for digest, media_type, size, name in rows
        ]
        content = encode(Index(schema_version=2, media_type=OCI_INDEX, manifests=manifests))
        if os.path.exists(self._path):
            self._before = self._work.new_path("index-before")
            os.link(self._path, self._before)
        replace_file(self._path, content, self._work.new_path("index"))
        self._written = os.stat(self._path)

    def take_back(self, database: Database) -> None:
        """Put the old file back after the transaction failed, unless another process has written a newer one."""
        if self._written is None or not self._before:
            return
        with database.transaction():
            if os.path.samestat(os.stat(self._path), self._written):
                os.rename(self._before, self._path)
