"""Writing images to archives that podman, skopeo, umoci and docker read, with the digests that the images have."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from pyengine.errors import InvalidValue, KernelError, StoreError
from pyengine.oci.digest import Digest
from pyengine.oci.image import OCI_INDEX, Descriptor, Index, Platform, encode
from pyengine.oci.reference import Reference
from pyengine.store import tar
from pyengine.store.blobs import LAYOUT, REF_NAME
from pyengine.store.images import Image
from pyengine.store.pipeline import file_chunks
from pyengine.store.store import Store
from pyengine.store.tar_write import END, header, new_entry, padding
from pyengine.transports.progress import Progress, Saving

FORMATS = ("docker-archive", "oci-archive")


class ArchiveWriter:
    """Members with the epoch as their time and root as their owner, so that the same images give the same bytes."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._names: set[str] = set()

    def file(self, name: str, content: bytes, mode: int = 0o444) -> None:
        """A small file. A name that was written before is passed over."""
        self.stream(name, len(content), iter([content]), mode)

    def stream(self, name: str, size: int, chunks: Iterator[bytes], mode: int = 0o444) -> None:
        """A file of ``size`` bytes; :class:`StoreError` if ``chunks`` has another number of them."""
        if not self._new(name):
            return
        self._out.write(header(new_entry(name.encode(), tar.REGULAR, mode=mode, size=size)))
        written = 0
        for chunk in chunks:
            written += len(chunk)
            self._out.write(chunk)
        if written != size:
            raise StoreError(f"{name}: {size} bytes were announced, {written} came")
        self._out.write(padding(size))

    def directory(self, name: str) -> None:
        """A directory."""
        if self._new(name):
            self._out.write(header(new_entry(name.encode() + b"/", tar.DIRECTORY, mode=0o755)))

    def symlink(self, name: str, target: str) -> None:
        """A symbolic link."""
        if self._new(name):
            entry = new_entry(name.encode(), tar.SYMLINK, mode=0o777)
            entry.link = target.encode()
            self._out.write(header(entry))

    def _new(self, name: str) -> bool:
        if name in self._names:
            return False
        self._names.add(name)
        return True

    def end(self) -> None:
        """The end mark."""
        self._out.write(END)


def save(
    store: Store,
    images: Sequence[tuple[Image, Sequence[Reference | str]]],
    out: str | os.PathLike[str] | BinaryIO,
    format: str = "docker-archive",
    progress: Progress | None = None,
) -> None:
    """Write images, each with the names that it shall have in the archive (none is possible), as one archive.

    ``out`` is a path, at which the whole archive appears at the end or nothing does, or a file that is written to
    as it goes. A ``docker-archive`` has uncompressed layers and one entry for each image; an ``oci-archive`` has the
    manifest and the blobs as they came.

    :raises InvalidValue: ``format`` is neither, or there is no image
    """
    if format not in FORMATS:
        raise InvalidValue(f"unknown format {format!r}: {' and '.join(FORMATS)} can be written")
    if not images:
        raise InvalidValue("nothing to save: no image was named")
    named = [(image, [_full(name) for name in names]) for image, names in images]
    if not isinstance(out, (str, os.PathLike)):
        _write(store, named, out, format, progress)
        return
    path = os.path.abspath(out)
    if os.path.exists(path) and not os.path.isfile(path):  # /dev/stdout, a pipe: nothing to be put in place
        with open(path, "wb") as file:
            _write(store, named, file, format, progress)
        return
    temporary = f"{path}.{os.urandom(4).hex()}.partial"
    try:
        try:
            with open(temporary, "xb", buffering=1 << 20) as file:
                _write(store, named, file, format, progress)
            os.rename(temporary, path)
        except BaseException:
            if os.path.lexists(temporary):
                os.unlink(temporary)
            raise
    except KernelError:
        raise
    except OSError as error:
        raise KernelError(error.errno or 0, f"write {path}", path=path) from error


def _full(name: Reference | str) -> str:
    return str(name if isinstance(name, Reference) else Reference.parse(name))


def _write(
    store: Store, images: list[tuple[Image, list[str]]], out: BinaryIO, format: str, progress: Progress | None
) -> None:
    writer = ArchiveWriter(out)
    if format == "docker-archive":
        from pyengine.transports.docker_archive_write import write_images

        write_images(store, images, writer, progress)
    else:
        _write_layout(store, images, writer, progress)
    writer.end()
    out.flush()


def _write_layout(
    store: Store, images: list[tuple[Image, list[str]]], writer: ArchiveWriter, progress: Progress | None
) -> None:
    descriptors = []
    for image, names in images:
        manifest = image.decode_manifest()
        for layer in manifest.layers:
            digest = Digest.parse(layer.digest)
            size = store.blobs.size(digest)
            if progress:
                progress(Saving(str(digest), size))
            writer.stream(_blob(digest), size, file_chunks(store.blobs.path(digest)))
        writer.file(_blob(Digest.parse(manifest.config.digest)), image.config)
        writer.file(_blob(image.digest), image.manifest)
        config = image.decode_config()
        for name in names or [""]:
            descriptors.append(
                Descriptor(
                    media_type=image.media_type,
                    digest=str(image.digest),
                    size=len(image.manifest),
                    annotations={REF_NAME: name} if name else None,
                    platform=Platform(architecture=config.architecture, os=config.os) if config.architecture else None,
                )
            )
    writer.file("oci-layout", LAYOUT)
    writer.file("index.json", encode(Index(schema_version=2, media_type=OCI_INDEX, manifests=descriptors)))


def _blob(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"
