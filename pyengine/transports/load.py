"""Loading images into a store: all of a source, or nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO

from pyengine.errors import ArchiveError, StoreError
from pyengine.linux.faults import declare, fault
from pyengine.oci.digest import Digest
from pyengine.oci.image import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    decode_config,
    decode_manifest,
    encode,
)
from pyengine.oci.time import nanoseconds
from pyengine.store.images import Image, NewImage, NewLayer, Vanished
from pyengine.store.layers import chain_ids
from pyengine.store.pipeline import Expected
from pyengine.store.store import Store
from pyengine.store.work import WorkDirectory
from pyengine.transports.progress import Committing, Event, ImageFound, LayerDone, LayerPresent, LayerProgress, Progress
from pyengine.transports.source import SourceImage, SourceLayer, open_source

FAULTS = declare("load-opened", "load-layer-unpacked", "load-blob-kept", "load-before-commit")

_REUSE = (True, True, False)  # whether an attempt relies on what the store has
_EVENT_SECONDS = 0.1
COMPRESSIONS = {"": OCI_LAYER, "gzip": OCI_LAYER + "+gzip", "zstd": OCI_LAYER + "+zstd"}


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image that is in the store now: its ID and the names that it was given."""

    id: str
    names: tuple[str, ...]


def load(
    store: Store,
    source: str | os.PathLike[str] | BinaryIO,
    name: str | None = None,
    progress: Progress | None = None,
) -> list[LoadedImage]:
    """Load the images of a docker-archive, oci-archive, OCI layout or ``dir`` directory, compressed or not.

    ``name`` chooses one image: by a RepoTags entry of a docker-archive, by the reference name in an OCI layout; what
    a ``dir`` has is given that name. Without it all images are loaded. Either all of them are in the store
    afterwards, or, with an exception, none.

    :raises ArchiveError: (or a subclass) the source is corrupt, truncated, hostile or not an image
    :raises KernelError: the disk is full, a file cannot be read …
    """

    with store.work() as work, open_source(source, work, store.unpack_options.limits) as opened:
        fault("load-opened")
        images = opened.images(name)
        stored = commit_images(store, work, images, progress)
    return [LoadedImage(image.id, found.names) for image, found in zip(stored, images, strict=True)]


def commit_images(
    store: Store, work: WorkDirectory, images: Sequence[SourceImage], progress: Progress | None = None
) -> list[Image]:
    """Unpack what is new of some images, and commit them together.

    What they share with images that another process removes meanwhile is read again; at last everything is, so that
    nothing can be missing.
    """
    for reuse in _REUSE:
        staging = _Staging(store, work, progress, reuse)
        new = [staging.image(image) for image in images]
        fault("load-before-commit")
        if progress:
            progress(Committing(len(new)))
        try:
            return store.images.commit(work, new, staging.files)
        except Vanished:
            continue
    raise StoreError(f"the work directory {work.path} lost files while images were loaded")


class _Staging:
    """What is new: layers by chain id, blobs by digest, as they are put into the work directory."""

    def __init__(self, store: Store, work: WorkDirectory, progress: Progress | None, reuse: bool) -> None:
        self._reuse = reuse
        self._store = store
        self._work = work
        self._progress = progress
        self._layers: dict[Digest, NewLayer] = {}
        self._blobs: dict[Digest, Descriptor] = {}  # by chain id
        self.files: dict[Digest, str] = {}

    def _tell(self, event: Event) -> None:
        if self._progress:
            self._progress(event)

    def image(self, source: SourceImage) -> NewImage:
        """Stage one image."""
        config = decode_config(source.config)
        diff_ids = config.diff_ids
        if len(diff_ids) != len(source.layers):
            raise ArchiveError(f"the image has {len(source.layers)} layers, its configuration has {len(diff_ids)}")
        created_ns = nanoseconds(config.created)
        id = Digest.of(source.config)
        self._tell(ImageFound(id.hex, source.names, len(diff_ids)))
        chain = chain_ids(diff_ids)
        blobs: list[Digest] = []
        layers = [self._layer(*parts) for parts in zip(source.layers, diff_ids, chain, strict=True)]
        if source.manifest is None:
            manifest, media_type = self._manifest(source.config, chain), OCI_MANIFEST
            layer_blobs = [Digest.parse(self._blobs[chain_id].digest) for chain_id in chain]
        else:
            manifest, media_type = source.manifest, source.media_type
            layer_blobs = [layer.digest for layer in source.layers if layer.digest is not None]
            config_digest = Digest.parse(decode_manifest(manifest, media_type).config.digest)
            if config_digest.algorithm != "sha256":
                self._keep(source.config, config_digest.algorithm)
                blobs.append(config_digest)
        blobs += [*layer_blobs, self._keep(source.config), self._keep(manifest)]
        return NewImage(
            digest=blobs[-1],
            media_type=media_type,
            manifest=manifest,
            config=source.config,
            created_ns=created_ns,
            layers=layers,
            blobs=blobs,
            layer_blobs=layer_blobs,
            names=source.names,
        )

    def _keep(self, document: bytes, algorithm: str = "sha256") -> Digest:
        digest = Digest.of(document, algorithm)
        if digest not in self.files and not (self._reuse and self._store.blobs.exists(digest)):
            self.files[digest] = self._store.blobs.write(self._work, document, algorithm).path
            fault("load-blob-kept")
        return digest

    def _manifest(self, config: bytes, chain: list[Digest]) -> bytes:
        """A docker-archive has no manifest: one is made, always the same for the same content."""
        return encode(
            Manifest(
                schema_version=2,
                media_type=OCI_MANIFEST,
                config=Descriptor(media_type=OCI_CONFIG, digest=str(Digest.of(config)), size=len(config)),
                layers=[self._blobs[chain_id] for chain_id in chain],
            )
        )

    def _layer(self, source: SourceLayer, diff_id: Digest, chain_id: Digest) -> NewLayer:
        known = self._layers.get(chain_id)
        blob = source.digest or diff_id  # an uncompressed blob has the diff id for its digest
        if known is not None and chain_id in self._blobs and source.digest in (None, self._blob_of(chain_id)):
            return known
        if not self._reuse:
            return self._unpack(source, diff_id, chain_id)
        present = self._store.layers.find(chain_id)
        if known is None and present is not None:
            known = NewLayer(chain_id, diff_id, present.size, None)
        paired = blob == diff_id or self._store.images.is_blob_of(blob, diff_id)
        if known is not None and paired and self._store.blobs.exists(blob):
            self._tell(LayerPresent(str(diff_id)))
            self._blobs[chain_id] = Descriptor(
                media_type=OCI_LAYER, digest=str(blob), size=self._store.blobs.size(blob)
            )
            self._layers[chain_id] = known
            return known
        return self._unpack(source, diff_id, chain_id)

    def _blob_of(self, chain_id: Digest) -> Digest:
        return Digest.parse(self._blobs[chain_id].digest)

    def _unpack(self, source: SourceLayer, diff_id: Digest, chain_id: Digest) -> NewLayer:
        last = 0.0

        def moved(done: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _EVENT_SECONDS:
                last = now
                self._tell(LayerProgress(str(diff_id), done))

        with closing(source.open()) as chunks:
            unpacked = self._store.layers.unpack(
                self._work,
                chunks,
                Expected(source.what, diff_id, source.digest, source.size),
                self._store.unpack_options,
                moved if self._progress else None,
            )
        blob = unpacked.blob
        media_type = COMPRESSIONS.get(blob.compression)
        if media_type is None:
            raise ArchiveError(f"{source.what} is compressed with {blob.compression}: layers may be with gzip or zstd")
        fault("load-layer-unpacked")
        self.files.setdefault(blob.digest, blob.path)
        self._blobs[chain_id] = Descriptor(media_type=media_type, digest=str(blob.digest), size=blob.size)
        layer = NewLayer(chain_id, diff_id, blob.diff_size, unpacked.directory)
        self._layers[chain_id] = layer
        self._tell(LayerDone(str(diff_id), blob.diff_size, tuple(unpacked.report.lines())))
        return layer
