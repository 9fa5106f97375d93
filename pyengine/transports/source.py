"""Where images are loaded from: one form for all formats, and finding out which format a path is in."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import BinaryIO

from pyengine.errors import ArchiveError
from pyengine.oci.digest import Digest
from pyengine.store.limits import DEFAULT_LIMITS, Limits
from pyengine.store.work import WorkDirectory
from pyengine.transports.files import ArchiveFiles, DirectoryFiles, Files


@dataclass(frozen=True, slots=True)
class SourceLayer:
    """A layer as a source has it: ``digest`` and ``size`` of the blob where the format states them, and a function that
    reads it from the start."""

    what: str
    open: Callable[[], Generator[bytes, None, None]]
    digest: Digest | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class SourceImage:
    """An image as a source has it. ``manifest`` is None for a format without one (docker-archive); ``names`` are full
    names. The bytes are verified against the digests that named them."""

    config: bytes
    layers: tuple[SourceLayer, ...]
    names: tuple[str, ...]
    manifest: bytes | None = None
    media_type: str = ""


class Source:
    """An opened source: ``format`` is docker-archive, oci-archive, oci or dir. A context manager."""

    def __init__(self, format: str, files: Files, path: str | None, limits: Limits) -> None:
        self.format = format
        self.files = files
        self.path = path
        self.limits = limits

    def images(self, name: str | None = None) -> list[SourceImage]:
        """The images in it, or the one that ``name`` means there.

        :raises ArchiveError: the source is not valid, or has no image of that name
        """
        if self.format == "docker-archive":
            from pyengine.transports.docker_archive import read_images

            return read_images(self.files, name, self.limits)
        if self.format == "dir":
            from pyengine.transports.directory import read_image

            return [read_image(self.files, self.path or "", name, self.limits)]
        from pyengine.transports.oci_layout import read_images as read_layout

        return read_layout(self.files, self.path if self.format == "oci" else None, name, self.limits)

    def close(self) -> None:
        """Close the files."""
        self.files.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def open_source(
    source: str | os.PathLike[str] | BinaryIO, work: WorkDirectory, limits: Limits = DEFAULT_LIMITS
) -> Source:
    """Find out the format of a file, a directory or a stream, and open it. ``work`` takes what must be spooled.

    :raises ArchiveError: it is in none of the formats
    """
    if isinstance(source, (str, os.PathLike)) and os.path.isdir(source):
        path = os.path.abspath(source)
        directory = DirectoryFiles(path)
        if directory.has("index.json"):
            return Source("oci", directory, path, limits)
        if directory.has("manifest.json"):
            return Source("dir", directory, path, limits)
        raise ArchiveError(f"{path} holds no image: it has neither index.json (oci) nor manifest.json (dir)")
    files = ArchiveFiles(source, work, limits)
    try:
        # docker 25 and later writes archives that are both; podman, too, looks for Docker's form first.
        if files.has("manifest.json"):
            return Source("docker-archive", files, None, limits)
        if files.has("index.json"):
            return Source("oci-archive", files, None, limits)
        raise ArchiveError(
            "the archive holds no image: it has neither manifest.json (docker-archive) nor index.json (oci-archive); "
            "a bare root file system can be imported"
        )
    except BaseException:
        files.close()
        raise
