"""The images of a store: rows that name a manifest, a configuration, layers and names, and how they come and go.

An image comes in one transaction, with every layer and blob that is new: they are renamed into place from a work
directory in it, after their content was made durable. It goes the other way round: first the rows, then, under
the database's lock again, what no row names any more is moved into a work directory and removed there. Whatever a
crash leaves between is found by the next store that is opened, because the work directory is still there.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pyengine.errors import ImageNotFound, InUse, KernelError
from pyengine.linux.faults import declare, fault
from pyengine.oci.digest import Digest
from pyengine.oci.image import ImageConfig, Manifest, decode_config, decode_manifest
from pyengine.oci.reference import Reference
from pyengine.store import lookup
from pyengine.store.blobs import Blobs, IndexFile
from pyengine.store.database import Database
from pyengine.store.durable import sync_directory, sync_file_system
from pyengine.store.layers import Layer, Layers
from pyengine.store.work import WorkDirectory

FAULTS = declare(
    "image-synced",
    "image-layer-renamed",
    "image-blob-renamed",
    "image-inserted",
    "image-index-written",
    "image-committed",
    "image-remove-rows",
    "image-remove-committed",
    "image-remove-moved",
)

_SELECT = "SELECT id, digest, media_type, manifest, config, size, created_ns FROM images "


@dataclass(frozen=True, slots=True)
class Image:
    """A stored image. ``id`` is the hex of the configuration's digest; ``manifest`` and ``config`` are the bytes as
    they came; ``size`` counts uncompressed layers, configuration and manifest; ``created_ns`` is in nanoseconds since
    1970, from the configuration; ``names`` are full names, in the order in which they were given; ``layers`` are
    bottom first."""

    id: str
    digest: Digest
    media_type: str
    manifest: bytes
    config: bytes
    size: int
    created_ns: int
    names: tuple[str, ...]
    layers: tuple[Layer, ...]

    @property
    def top_layer(self) -> Layer | None:
        """The uppermost layer; None for an image without any."""
        return self.layers[-1] if self.layers else None

    def decode_config(self) -> ImageConfig:
        """The configuration as a document."""
        return decode_config(self.config)

    def decode_manifest(self) -> Manifest:
        """The manifest as a document."""
        return decode_manifest(self.manifest, self.media_type)


@dataclass(frozen=True, slots=True)
class NewLayer:
    """A layer for :meth:`Images.commit`: ``directory`` holds ``diff``, in a work directory; it is None for a layer that
    was in the store when it was looked for."""

    chain_id: Digest
    diff_id: Digest
    size: int
    directory: str | None


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image for :meth:`Images.commit`. ``layers`` are bottom first; ``blobs`` are the digests of all that belongs to
    it, manifest and configuration included; ``layer_blobs`` are those of the layers, bottom first; ``names`` are
    full names."""

    digest: Digest
    media_type: str
    manifest: bytes
    config: bytes
    created_ns: int
    layers: Sequence[NewLayer]
    blobs: Sequence[Digest]
    layer_blobs: Sequence[Digest]
    names: Sequence[str] = field(default=())

    @property
    def id(self) -> str:
        """The image ID."""
        return Digest.of(self.config).hex


class Vanished(Exception):
    """A layer or blob that was in the store when the work began was removed meanwhile, with the image it was part
    of. Whoever commits starts over; it is never seen by users."""


class Images:
    """The images of the store at ``root``."""

    def __init__(self, root: str, database: Database, layers: Layers, blobs: Blobs) -> None:
        self._root = root
        self._database = database
        self._layers = layers
        self._blobs = blobs

    def all(self) -> list[Image]:
        """Every image, in the order in which they came."""
        with self._database.snapshot() as cursor:
            return self._read(cursor, cursor.execute(_SELECT + "ORDER BY n").fetchall())

    def get(self, id: str) -> Image:
        """The image with exactly this ID (64 hex digits)."""
        with self._database.snapshot() as cursor:
            rows = cursor.execute(_SELECT + "WHERE id = ?", (id,)).fetchall()
            if not rows:
                raise ImageNotFound(id, f"unable to find '{id}' in local storage: no such image")
            return self._read(cursor, rows)[0]

    def find(self, text: str) -> Image:
        """The image that a name, an ID or a part of one means, by podman's rules (:mod:`pyengine.store.lookup`).

        :raises ImageNotFound: none, or several
        """
        with self._database.snapshot() as cursor:
            names = self._names(cursor)
            candidates = [
                lookup.Candidate(id, digest, tuple(names.get(id, ())))
                for id, digest in cursor.execute("SELECT id, digest FROM images ORDER BY n")
            ]
            id = lookup.lookup(text, candidates).id
            rows = cursor.execute(_SELECT + "WHERE id = ?", (id,)).fetchall()
            return self._read(cursor, rows)[0]

    def is_blob_of(self, digest: Digest, diff_id: Digest) -> bool:
        """Whether a stored image has this blob as a layer with this diff id, which was verified when it came."""
        rows = self._database.query(
            "SELECT 1 FROM image_blobs WHERE digest = ? AND diff_id = ? LIMIT 1", (str(digest), str(diff_id))
        )
        return bool(rows)

    def dangling(self) -> list[Image]:
        """The images without a name."""
        return [image for image in self.all() if not image.names]

    def containers_of(self, id: str) -> list[str]:
        """The IDs of the containers that were made from the image."""
        return [str(row[0]) for row in self._database.query("SELECT id FROM containers WHERE image = ?", (id,))]

    def _read(self, cursor: sqlite3.Cursor, rows: Sequence[Any]) -> list[Image]:
        only = rows[0][0] if len(rows) == 1 else None
        names = self._names(cursor, only)
        layers: dict[str, list[Layer]] = {}
        for image, *row in cursor.execute(
            "SELECT image, layers.n, chain_id, diff_id, parent, layers.size FROM image_layers "
            "JOIN layers ON layers.n = image_layers.layer WHERE ?1 IS NULL OR image = ?1 ORDER BY image, position",
            (only,),
        ):
            layers.setdefault(image, []).append(self._layers.from_row(row))
        return [
            Image(
                id,
                Digest.parse(digest),
                media_type,
                manifest,
                config,
                size,
                created_ns,
                tuple(names.get(id, ())),
                tuple(layers.get(id, ())),
            )
            for id, digest, media_type, manifest, config, size, created_ns in rows
        ]

    @staticmethod
    def _names(cursor: sqlite3.Cursor, image: str | None = None) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for id, name in cursor.execute(
            "SELECT image, name FROM names WHERE ?1 IS NULL OR image = ?1 ORDER BY image, position", (image,)
        ):
            names.setdefault(id, []).append(name)
        return names

    def tag(self, id: str, name: Reference | str) -> bool:
        """Give the image a full name, taking it from the image that has it. False if it has the name already."""
        with WorkDirectory(f"{self._root}/tmp") as work, self._changing(work) as (cursor, index):
            self._require(cursor, id)
            added = self._give_name(cursor, id, str(name))
            if added:
                index.write(cursor)
            return added

    def untag(self, id: str, name: str) -> bool:
        """Take a name, exactly as it is stored, from the image; the image stays. False if it does not have it."""
        with WorkDirectory(f"{self._root}/tmp") as work, self._changing(work) as (cursor, index):
            self._require(cursor, id)
            removed = cursor.execute("DELETE FROM names WHERE name = ? AND image = ?", (name, id)).rowcount > 0
            if removed:
                index.write(cursor)
            return removed

    @contextmanager
    def _changing(self, work: WorkDirectory) -> Iterator[tuple[sqlite3.Cursor, IndexFile]]:
        """A durable transaction together with ``index.json``: both change, or neither does."""
        index = self._blobs.index(work)
        try:
            with self._database.transaction(durable=True) as cursor:
                yield cursor, index
        except BaseException:
            index.take_back(self._database)
            raise

    @staticmethod
    def _require(cursor: sqlite3.Cursor, id: str) -> None:
        if not cursor.execute("SELECT 1 FROM images WHERE id = ?", (id,)).fetchone():
            raise ImageNotFound(id, f"unable to find '{id}' in local storage: no such image")

    @staticmethod
    def _give_name(cursor: sqlite3.Cursor, id: str, name: str) -> bool:
        row = cursor.execute("SELECT image FROM names WHERE name = ?", (name,)).fetchone()
        if row and row[0] == id:
            return False
        cursor.execute(
            "INSERT OR REPLACE INTO names (name, image, position) "
            "SELECT ?1, ?2, coalesce(max(position), 0) + 1 FROM names WHERE image = ?2",
            (name, id),
        )
        return True

    def commit(self, work: WorkDirectory, images: Sequence[NewImage], files: dict[Digest, str]) -> list[Image]:
        """Make new images part of the store, all of them or none.

        ``files`` are the new blobs, in ``work``. An image that is there already only gets the names. Afterwards the
        content and the rows are on the disk.

        :raises Vanished: something that ``images`` relies on was removed; start over
        """
        sync_file_system(work.path)
        fault("image-synced")
        try:
            with self._changing(work) as (cursor, index):
                for image in images:
                    self._insert(cursor, work, image, files)
                sync_directory(f"{self._root}/layers")
                sync_directory(f"{self._root}/blobs/sha256")
                index.write(cursor)
                fault("image-index-written")
        except BaseException:
            self.remove_debris(work)
            raise
        fault("image-committed")
        return [self.get(image.id) for image in images]

    def _insert(self, cursor: sqlite3.Cursor, work: WorkDirectory, image: NewImage, files: dict[Digest, str]) -> None:
        numbers: list[int] = []
        total = len(image.config) + len(image.manifest)
        for layer in image.layers:
            n, size = self._place_layer(cursor, work, layer, numbers[-1] if numbers else None)
            numbers.append(n)
            total += size
        for digest in image.blobs:
            path = files.get(digest)
            if path is not None and os.path.exists(path):
                self._blobs.publish(path, digest)
                fault("image-blob-renamed")
            elif not self._blobs.exists(digest):
                raise Vanished(str(digest))
        # The same configuration may come with another manifest: the newest counts, as its blobs are here.
        known = cursor.execute("SELECT n FROM images WHERE id = ?", (image.id,)).fetchone()
        if known:
            cursor.execute(
                "UPDATE images SET digest = ?, media_type = ?, manifest = ? WHERE id = ?",
                (str(image.digest), image.media_type, image.manifest, image.id),
            )
        else:
            cursor.execute(
                "INSERT INTO images (id, digest, media_type, manifest, config, size, created_ns) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (image.id, str(image.digest), image.media_type, image.manifest, image.config, total, image.created_ns),
            )
            cursor.executemany(
                "INSERT INTO image_layers (image, position, layer) VALUES (?, ?, ?)",
                [(image.id, position, n) for position, n in enumerate(numbers)],
            )
        pairs = zip(image.layer_blobs, image.layers, strict=True)
        diff_ids = {digest: str(layer.diff_id) for digest, layer in pairs}
        cursor.executemany(
            "INSERT OR IGNORE INTO image_blobs (image, digest, diff_id) VALUES (?, ?, ?)",
            [(image.id, str(digest), diff_ids.get(digest)) for digest in image.blobs],
        )
        for name in image.names:
            self._give_name(cursor, image.id, name)
        fault("image-inserted")

    def _place_layer(
        self, cursor: sqlite3.Cursor, work: WorkDirectory, layer: NewLayer, parent: int | None
    ) -> tuple[int, int]:
        row = cursor.execute("SELECT n, size FROM layers WHERE chain_id = ?", (str(layer.chain_id),)).fetchone()
        if row:
            return row[0], row[1]  # another process was quicker; ours goes with the work directory
        if layer.directory is None or not os.path.exists(layer.directory):
            raise Vanished(str(layer.chain_id))
        cursor.execute(
            "INSERT INTO layers (chain_id, diff_id, parent, size) VALUES (?, ?, ?, ?)",
            (str(layer.chain_id), str(layer.diff_id), parent, layer.size),
        )
        n = cursor.lastrowid or 0
        target = f"{self._root}/layers/{n}"
        try:
            if os.path.lexists(target):  # left by a crash: no row named it while we hold the lock
                os.rename(target, work.new_path("debris"))
            os.rename(layer.directory, target)
        except OSError as error:
            raise KernelError(error.errno or 0, f"rename {layer.directory} to {target}") from error
        fault("image-layer-renamed")
        return n, layer.size

    def remove(self, id: str) -> None:
        """Remove the image, its names, and the layers and blobs that nothing else needs.

        :raises ImageNotFound: there is none with this ID
        :raises InUse: containers were made from it
        """
        with WorkDirectory(f"{self._root}/tmp") as work:
            with self._changing(work) as (cursor, index):
                self._require(cursor, id)
                users = cursor.execute("SELECT id FROM containers WHERE image = ?", (id,)).fetchall()
                if users:
                    raise InUse(f"could not remove image {id} as it is being used by {len(users)} containers")
                cursor.execute("DELETE FROM images WHERE id = ?", (id,))
                fault("image-remove-rows")
                while cursor.execute(
                    "DELETE FROM layers WHERE n NOT IN (SELECT layer FROM image_layers) "
                    "AND n NOT IN (SELECT layer FROM containers WHERE layer IS NOT NULL) "
                    "AND n NOT IN (SELECT parent FROM layers WHERE parent IS NOT NULL)"
                ).rowcount:
                    pass
                index.write(cursor)
            fault("image-remove-committed")
            self.remove_debris(work)
            fault("image-remove-moved")

    def remove_debris(self, work: WorkDirectory) -> None:
        """Move every layer directory and blob that no row names into ``work``, to go with it."""
        with self._database.transaction() as cursor:
            known = {str(n) for (n,) in cursor.execute("SELECT n FROM layers")}
            for name in os.listdir(f"{self._root}/layers"):
                if name not in known:
                    os.rename(f"{self._root}/layers/{name}", work.new_path("debris"))
            needed = {digest for (digest,) in cursor.execute("SELECT digest FROM image_blobs")}
            for digest in self._blobs.stored():
                if str(digest) not in needed:
                    os.rename(self._blobs.path(digest), work.new_path("debris"))

    def rewrite_index(self, work: WorkDirectory) -> None:
        """Make ``index.json`` say what the rows say: after a crash, and in a new store."""
        with self._changing(work) as (cursor, index):
            index.write(cursor)
