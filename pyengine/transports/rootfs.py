"""Importing a bare root file system: one tar becomes an image of one layer."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from pyengine.errors import KernelError
from pyengine.oci.digest import Digest
from pyengine.oci.image import (
    OCI_CONFIG,
    OCI_MANIFEST,
    ContainerConfig,
    Descriptor,
    History,
    ImageConfig,
    Manifest,
    RootFS,
    encode,
)
from pyengine.oci.reference import Reference
from pyengine.oci.time import rfc3339
from pyengine.store.images import NewImage, NewLayer
from pyengine.store.pipeline import CHUNK, Expected, sniff, uncompressed
from pyengine.store.store import Store
from pyengine.transports.changes import apply_changes
from pyengine.transports.load import COMPRESSIONS, LoadedImage
from pyengine.transports.oci_layout import host_architecture
from pyengine.transports.progress import Committing, LayerDone, LayerProgress, Progress


def import_rootfs(
    store: Store,
    source: str | os.PathLike[str] | BinaryIO,
    reference: str | Reference | None = None,
    *,
    changes: Sequence[str] = (),
    message: str = "imported from tarball",
    legacy_changes: bool = False,
    progress: Progress | None = None,
) -> LoadedImage:
    """Make an image of a tar of a root file system: plain, or compressed with gzip, zstd, xz or bzip2.

    ``reference`` is its name, completed the Docker way if it has no registry; without it the image is nameless.
    ``changes`` alter its configuration (:mod:`pyengine.transports.changes`), ``message`` is the comment in its history.
    The time of creation is that of the file.

    :raises ArchiveError: (or a subclass) it is corrupt, truncated or hostile
    :raises InvalidValue: the reference or a change is malformed
    """
    config = apply_changes(ContainerConfig(), changes, legacy=legacy_changes)
    names = (str(Reference.parse(reference) if isinstance(reference, str) else reference),) if reference else ()
    file: BinaryIO
    if isinstance(source, (str, os.PathLike)):
        try:
            file = open(source, "rb", buffering=0)  # noqa: SIM115 - closed below, where a failure is not of the open
        except OSError as error:
            raise KernelError(error.errno or 0, f"open {os.fspath(source)}", path=os.fspath(source)) from error
        with file:
            status = os.fstat(file.fileno())
            created_ns = status.st_mtime_ns if stat.S_ISREG(status.st_mode) else time.time_ns()
            return _import(store, file, names, _Settings(config, message, created_ns), progress)
    return _import(store, source, names, _Settings(config, message, time.time_ns()), progress)


@dataclass(frozen=True, slots=True)
class _Settings:
    """What goes into the new image's configuration."""

    container: ContainerConfig
    message: str
    created_ns: int


def _import(
    store: Store,
    file: BinaryIO,
    names: tuple[str, ...],
    settings: _Settings,
    progress: Progress | None,
) -> LoadedImage:
    compression, chunks = sniff(_reads(file))
    if compression not in COMPRESSIONS:
        # Layers may be compressed with gzip and zstd only; the stream is kept uncompressed then.
        chunks = uncompressed(chunks)
    with store.work() as work:
        told = 0.0

        def moved(done: int) -> None:
            nonlocal told
            if progress and time.monotonic() - told > 0.1:
                told = time.monotonic()
                progress(LayerProgress("", done))

        unpacked = store.layers.unpack(
            work, chunks, Expected("root file system"), store.unpack_options, moved if progress else None
        )
        blob = unpacked.blob
        created = rfc3339(settings.created_ns)
        config = encode(
            ImageConfig(
                architecture=host_architecture(),
                os="linux",
                created=created,
                config=settings.container,
                rootfs=RootFS(type="layers", diff_ids=[str(blob.diff_id)]),
                history=[
                    History(
                        created=created,
                        created_by=f"/bin/sh -c #(nop) ADD file:{blob.diff_id.hex} in /",
                        comment=settings.message,
                    )
                ],
            )
        )
        manifest = encode(
            Manifest(
                schema_version=2,
                media_type=OCI_MANIFEST,
                config=Descriptor(media_type=OCI_CONFIG, digest=str(Digest.of(config)), size=len(config)),
                layers=[Descriptor(media_type=COMPRESSIONS[blob.compression], digest=str(blob.digest), size=blob.size)],
            )
        )
        files = {blob.digest: blob.path}
        for document in (config, manifest):
            files[Digest.of(document)] = store.blobs.write(work, document).path
        if progress:
            progress(LayerDone(str(blob.diff_id), blob.diff_size, tuple(unpacked.report.lines())))
            progress(Committing(1))
        image = NewImage(
            digest=Digest.of(manifest),
            media_type=OCI_MANIFEST,
            manifest=manifest,
            config=config,
            created_ns=settings.created_ns,
            layers=[NewLayer(blob.diff_id, blob.diff_id, blob.diff_size, unpacked.directory)],
            blobs=list(files),
            layer_blobs=[blob.digest],
            names=names,
        )
        (stored,) = store.images.commit(work, [image], files)
    return LoadedImage(stored.id, names)


def _reads(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk
