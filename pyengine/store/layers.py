"""Layers: unpacked file systems, one below the other, each known by its chain id.

``layers/<n>/diff`` is what one layer adds, in the form that overlayfs mounts. The chain id (OCI image-spec,
config.md, "Layer ChainID") names a layer together with all below it, so that it is unpacked once for all images.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pyengine.errors import KernelError, StoreError
from pyengine.oci.digest import Digest
from pyengine.store import tar
from pyengine.store.database import Database
from pyengine.store.durable import EarlySync
from pyengine.store.pipeline import Expected, Streamed, stream_layer
from pyengine.store.unpack import Unpacker, UnpackOptions, UnpackReport
from pyengine.store.work import WorkDirectory

_EARLY_SYNC = 32 << 20  # bytes: what a disk writes in tens of milliseconds, and most layers have less


def chain_ids(diff_ids: Sequence[Digest]) -> list[Digest]:
    """The chain id of each layer, bottom first."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(Digest.of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of the store: ``size`` is that of its tar in bytes, ``parent`` the number of the layer below or None,
    ``diff`` the directory with its files."""

    n: int
    chain_id: Digest
    diff_id: Digest
    parent: int | None
    size: int
    diff: str


@dataclass(frozen=True, slots=True)
class UnpackedLayer:
    """A layer in a work directory, ready to be committed: ``directory`` holds ``diff``."""

    directory: str
    blob: Streamed
    report: UnpackReport


class Layers:
    """The layers of the store at ``root``."""

    def __init__(self, root: str, database: Database) -> None:
        self.root = root
        self._database = database

    def from_row(self, row: Any) -> Layer:
        """A row (n, chain id, diff id, parent, size) as a value."""
        n, chain_id, diff_id, parent, size = row
        return Layer(n, Digest.parse(chain_id), Digest.parse(diff_id), parent, size, f"{self.root}/layers/{n}/diff")

    def find(self, chain_id: Digest) -> Layer | None:
        """The layer with this chain id, if it is there."""
        rows = self._database.query(
            "SELECT n, chain_id, diff_id, parent, size FROM layers WHERE chain_id = ?", (str(chain_id),)
        )
        return self.from_row(rows[0]) if rows else None

    def get(self, n: int) -> Layer:
        """The layer with this number; :class:`StoreError` if there is none."""
        rows = self._database.query("SELECT n, chain_id, diff_id, parent, size FROM layers WHERE n = ?", (n,))
        if not rows:
            raise StoreError(f"layer {n} is not in the store {self.root}")
        return self.from_row(rows[0])

    def all(self) -> list[Layer]:
        """Every layer, in the order in which they came."""
        rows = self._database.query("SELECT n, chain_id, diff_id, parent, size FROM layers ORDER BY n")
        return [self.from_row(row) for row in rows]

    def chain(self, top: int | None) -> list[Layer]:
        """The layer ``top`` and all below it, bottom first; empty for None."""
        rows = self._database.query(
            "WITH RECURSIVE chain (n, depth) AS (SELECT ?, 0 UNION ALL "
            "SELECT layers.parent, depth + 1 FROM chain JOIN layers ON layers.n = chain.n WHERE parent IS NOT NULL) "
            "SELECT layers.n, chain_id, diff_id, parent, size FROM chain JOIN layers ON layers.n = chain.n "
            "ORDER BY depth DESC",
            (top,),
        )
        if top is not None and not rows:
            raise StoreError(f"layer {top} is not in the store {self.root}")
        return [self.from_row(row) for row in rows]

    def unpack(
        self,
        work: WorkDirectory,
        chunks: Iterable[bytes],
        expected: Expected,
        options: UnpackOptions,
        progress: Callable[[int], None] | None = None,
    ) -> UnpackedLayer:
        """Unpack a layer's stream, compressed or not, into the work directory, and keep the blob beside it.

        :raises ArchiveError: (or a subclass) if it is corrupt, hostile, too large, or not what is ``expected``
        """
        directory = work.new_path("layer")
        try:
            os.mkdir(directory, 0o700)
            os.mkdir(f"{directory}/diff", 0o755)
            os.chmod(f"{directory}/diff", 0o755)  # whatever the umask is; an entry for the root may change it
            root = os.open(f"{directory}/diff", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise KernelError(error.errno or 0, f"make the layer directory {directory}") from error
        unpacker = Unpacker(root, options)

        def consume(stream: Iterator[bytes]) -> None:
            with EarlySync(root, _EARLY_SYNC) as early:
                unpacker.unpack(tar.Stream(early.watch(stream)))

        try:
            blob = stream_layer(chunks, work.new_path("blob"), expected, options.limits, consume, progress=progress)
        finally:
            os.close(root)
        return UnpackedLayer(directory, blob, unpacker.report)


def lower_dirs(chain: Sequence[Layer]) -> list[str]:
    """The directories of a chain (bottom first) in the order that overlayfs wants them: top first."""
    return [layer.diff for layer in reversed(chain)]
