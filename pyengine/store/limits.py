"""What an archive may take at most, so that a small file cannot fill a disk or the memory."""

from __future__ import annotations

from dataclasses import dataclass

from pyengine.errors import ArchiveTooLarge


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds for one layer or archive. The defaults are far above any real image.

    ``entries``: members; ``bytes``: of the uncompressed stream, and of one file's length; ``header``: bytes of one
    extended header; ``sparse_map``: bytes of the map of one sparse file; ``name``: bytes of a path (the
    kernel's PATH_MAX); ``ratio``: of compression, looked at only beyond ``free_bytes`` of output, since short
    streams of zeros compress a thousandfold without doing harm; ``document``: bytes of one JSON document.
    """

    entries: int = 4_000_000
    bytes: int = 256 << 30
    header: int = 1 << 20
    sparse_map: int = 16 << 20
    name: int = 4095
    ratio: int = 200
    free_bytes: int = 4 << 30
    document: int = 4 << 20

    def check_stream(self, compressed: int, uncompressed: int) -> None:
        """:class:`ArchiveTooLarge` if a stream has given more than it may."""
        if uncompressed > self.bytes:
            raise ArchiveTooLarge(f"archive has more than {self.bytes} bytes when uncompressed")
        if uncompressed > self.free_bytes and uncompressed > compressed * self.ratio:
            raise ArchiveTooLarge(
                f"archive gives {uncompressed} bytes for {compressed} compressed ones: more than {self.ratio} to one"
            )


DEFAULT_LIMITS = Limits()
